"""``up``: every role in one process, and PostgreSQL and Valkey along with it unless URLs are given."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

import click
import msgspec

from kima_stream.cli import outside, parts
from kima_stream.cli.loop import run, settings, stopping, together
from kima_stream.cli.soulseek import soulseek
from kima_stream.embedded import home as homes
from kima_stream.settings import api_keys
from kima_stream.settings.config import Settings


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What ``up`` says when it is up; ``key_file`` is None when the key was given."""

    page: str
    docs: str
    pid: int
    key_file: Path | None
    data: Path


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Say in one line of JSON where everything is.")
def up(*, as_json: bool) -> None:
    """Start everything and stay; Ctrl-C stops it, the data stays."""
    loaded = settings()
    parts.check_root(loaded)
    with homes.claim(loaded.data_dir) as claim:
        run(_up(loaded, claim, as_json=as_json))


async def _up(loaded: Settings, claim: homes.Claim, *, as_json: bool) -> None:
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stopping())
        dsn, url = await _servers(stack, loaded)
        await parts.migrated(dsn)
        name = parts.holder()
        groups = parts.consumer_groups()
        connections = await stack.enter_async_context(parts.pool(dsn, "serve"))
        size = 4 + 3 * len(groups) + 3 * outside.CONNECTIONS
        workers = await stack.enter_async_context(parts.pool(dsn, "consume", max_size=size))
        stream = await stack.enter_async_context(parts.event_stream(loaded, url))
        publisher = await stack.enter_async_context(parts.publisher(dsn, stream, name=name))
        async with connections.acquire() as conn:
            key_file = await api_keys.ensure_admin(conn, given=loaded.api_key, data_dir=loaded.data_dir)
        store = await stack.enter_async_context(parts.settings_store(loaded, connections))
        wake = publisher.wake.set
        roles = (
            publisher.run,
            *parts.subscriptions(groups, workers, stream, slot=0),
            *parts.reconcilers(groups, workers, stream, name=name),
        )
        await stack.enter_async_context(outside.calls(workers, store, name=name, wake_publisher=wake))
        await stack.enter_async_context(outside.looks(workers, store, name=name))
        account = soulseek(dsn, workers, store, name=name, redis_url=url, wake_publisher=wake)
        await stack.enter_async_context(together(*roles, await stack.enter_async_context(account)))
        door = parts.door(
            loaded, connections, stream, port=loaded.port, redis_url=url, wake_publisher=wake, store=store
        )
        port = await stack.enter_async_context(door)
        page = f"http://{parts.reachable_host(loaded.host)}:{port}{loaded.url_base}/"
        claim.note(homes.Running(pid=os.getpid(), page=page, database_url=dsn, redis_url=url))
        _announce(
            Place(page=page, docs=f"{page}api/docs", pid=os.getpid(), key_file=key_file, data=loaded.data_dir),
            as_json=as_json,
        )
        await stop.wait()
        click.echo("stopping", err=True)


async def _servers(stack: AsyncExitStack, loaded: Settings) -> tuple[str, str]:
    """Return the URLs of Postgres and Redis, starting those that were not given."""
    if loaded.database_url is not None and loaded.redis_url is not None:
        return loaded.database_url, loaded.redis_url
    # Loaded only here: who gives both URLs needs neither wheel.
    from kima_stream.embedded.postgres import Postgres
    from kima_stream.embedded.valkey import Valkey

    home = await asyncio.to_thread(homes.prepare, loaded.data_dir)
    if home.files != loaded.data_dir.resolve():
        click.echo(f"kima-stream: the servers keep their files in {home.files}", err=True)
    postgres = Postgres(home) if loaded.database_url is None else None
    valkey = Valkey(home) if loaded.redis_url is None else None
    servers = [server for server in (postgres, valkey) if server is not None]
    for server in servers:
        await stack.enter_async_context(server.running())
    await stack.enter_async_context(together(*(server.supervise for server in servers)))
    return (
        loaded.database_url or (postgres.url if postgres is not None else ""),
        loaded.redis_url or (valkey.url if valkey is not None else ""),
    )


def _announce(place: Place, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(place, enc_hook=str))
        return
    key = "the one in KIMA_API_KEY"
    if place.key_file is not None:
        # On a terminal for the one who sits there; never into a file that keeps what we print.
        shown = place.key_file.read_text().strip() if sys.stdout.isatty() else "in"
        key = f"{shown} {place.key_file}"
    click.echo(f"kima-stream {version('kima-stream')} is up")
    click.echo(f"  page  {place.page}")
    click.echo(f"  docs  {place.docs}")
    click.echo(f"  key   {key}")
    click.echo(f"  data  {place.data}")
    click.echo("Ctrl-C stops everything, the data stays.")
