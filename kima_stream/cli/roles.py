"""``serve``, ``publish``, ``consume``, ``reconcile``: one role per process, for those who scale.

Each may run as often as you like: the publisher and the sweeps elect who leads, consumers share
their group. KIMA_METRICS_PORT serves /metrics, /livez and /readyz of a role that has no HTTP.
"""

import os
from collections.abc import Sequence
from contextlib import AsyncExitStack

import click
import msgspec

from consumers.reconcilers import deadlines
from consumers.reconcilers.lidarr_watch import Looked
from kima_stream import reconciler
from kima_stream.checkpoints import ConsumerGroup
from kima_stream.cli import outside, parts
from kima_stream.cli.completion import complete_group
from kima_stream.cli.loop import run, settings, stopping, together
from kima_stream.cli.soulseek import soulseek
from kima_stream.database import Pool
from kima_stream.errors import ConfigurationError
from kima_stream.settings import api_keys
from kima_stream.settings.config import Settings

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Say in one line of JSON that it runs, and where.")


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a role says once it runs; ``url`` is where it answers HTTP, None where it does not."""

    role: str
    pid: int
    url: str | None
    groups: Sequence[str] = ()


@click.command()
@_AS_JSON
def serve(*, as_json: bool) -> None:
    """Open the front door: webhooks, requests, queries, the page."""
    run(_serve(_settings(), as_json=as_json))


@click.command()
@_AS_JSON
def publish(*, as_json: bool) -> None:
    """Number, chain and publish the log; the first one leads, the others stand by."""
    run(_publish(_settings(), as_json=as_json))


@click.command()
@click.argument("group", nargs=-1, shell_complete=complete_group)
@click.option(
    "--slot", default=0, show_default=True, help="Number of this process on this host, for its consumer name."
)
@_AS_JSON
def consume(*, group: tuple[str, ...], slot: int, as_json: bool) -> None:
    """Run the consumer groups named, or all of them; ``acquisition`` makes the calls that they want."""
    run(_consume(_settings(), group, slot, as_json=as_json))


@click.command()
@click.option(
    "--once",
    is_flag=True,
    help="Look at Lidarr, sweep every group and the deadlines once and exit; 1 if something is still behind.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def reconcile(*, once: bool, as_json: bool) -> None:
    """Find what was missed and handle it; moves each group's verified position."""
    loaded = _settings()
    if not once:
        run(_reconcile(loaded, as_json=as_json))
    elif run(_reconcile_once(loaded, as_json=as_json)):
        raise SystemExit(1)


def _settings() -> Settings:
    loaded = settings()
    parts.check_root(loaded)
    return loaded


async def _serve(loaded: Settings, *, as_json: bool) -> None:
    dsn = parts.database_url(loaded)
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stopping())
        await parts.migrated(dsn)
        connections = await stack.enter_async_context(parts.pool(dsn, "serve"))
        await parts.when_up(lambda: _require_key(loaded, connections))
        store = await stack.enter_async_context(parts.settings_store(loaded, connections))
        stream = None
        if loaded.redis_url is not None:
            stream = await stack.enter_async_context(parts.event_stream(loaded, loaded.redis_url))
        port = await stack.enter_async_context(parts.door(loaded, connections, stream, port=loaded.port, store=store))
        _say_running("serve", parts.url_of(loaded, port), as_json=as_json)
        await stop.wait()


async def _require_key(loaded: Settings, connections: Pool) -> None:
    """Take the key that was given; without any key, serve this machine only."""
    async with connections.acquire() as conn:
        if loaded.api_key is not None:
            await api_keys.ensure_admin(conn, given=loaded.api_key, data_dir=loaded.data_dir)
        if not parts.is_loopback(loaded.host) and not await api_keys.has_admin(conn):
            raise ConfigurationError(
                [f"KIMA_HOST: {loaded.host} is open to others and there is no admin key; set KIMA_API_KEY first"]
            )


async def _publish(loaded: Settings, *, as_json: bool) -> None:
    dsn, url = parts.database_url(loaded), parts.redis_url(loaded)
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stopping())
        await parts.migrated(dsn)
        stream = await stack.enter_async_context(parts.event_stream(loaded, url))
        connections = await stack.enter_async_context(parts.pool(dsn, "health", max_size=2))
        await stack.enter_async_context(parts.settings_store(loaded, connections))
        publisher = await stack.enter_async_context(parts.publisher(dsn, stream, name=parts.holder()))
        await stack.enter_async_context(together(publisher.run))
        where = await stack.enter_async_context(parts.metrics_door(loaded, connections, stream))
        _say_running("publish", where, as_json=as_json)
        await stop.wait()


async def _consume(loaded: Settings, names: tuple[str, ...], slot: int, *, as_json: bool) -> None:
    dsn, url = parts.database_url(loaded), parts.redis_url(loaded)
    groups = parts.consumer_groups([name for name in names if name != outside.CALLS]) if _groups(names) else []
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stopping())
        await parts.migrated(dsn)
        stream = await stack.enter_async_context(parts.event_stream(loaded, url))
        size = 2 + 2 * len(groups) + 2 * outside.CONNECTIONS
        connections = await stack.enter_async_context(parts.pool(dsn, "consume", max_size=size))
        store = await stack.enter_async_context(parts.settings_store(loaded, connections))
        roles = parts.subscriptions(groups, connections, stream, slot=slot)
        if not names or outside.CALLS in names:
            await stack.enter_async_context(outside.calls(connections, store, name=parts.holder()))
            account = soulseek(dsn, connections, store, name=parts.holder(), redis_url=url)
            roles.append(await stack.enter_async_context(account))
        await stack.enter_async_context(together(*roles))
        where = await stack.enter_async_context(parts.metrics_door(loaded, connections, stream))
        _say_running("consume", where, groups, as_json=as_json)
        await stop.wait()


def _groups(names: tuple[str, ...]) -> bool:
    """Say whether any group is to run: all of them without a name."""
    return set(names) != {outside.CALLS}


async def _reconcile(loaded: Settings, *, as_json: bool) -> None:
    dsn = parts.database_url(loaded)
    groups = parts.consumer_groups()
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stopping())
        await parts.migrated(dsn)
        stream = None
        if loaded.redis_url is not None:
            stream = await stack.enter_async_context(parts.event_stream(loaded, loaded.redis_url))
        size = 2 + 2 * len(groups) + outside.CONNECTIONS
        connections = await stack.enter_async_context(parts.pool(dsn, "reconcile", max_size=size))
        store = await stack.enter_async_context(parts.settings_store(loaded, connections))
        sweeps = parts.reconcilers(groups, connections, stream, name=parts.holder())
        await stack.enter_async_context(outside.looks(connections, store, name=parts.holder()))
        await stack.enter_async_context(together(*sweeps))
        where = await stack.enter_async_context(parts.metrics_door(loaded, connections, stream))
        _say_running("reconcile", where, groups, as_json=as_json)
        await stop.wait()


def _say_running(role: str, url: str | None, groups: Sequence[ConsumerGroup] = (), *, as_json: bool) -> None:
    names = [group.name for group in groups]
    if as_json:
        click.echo(msgspec.json.encode(Running(role=role, pid=os.getpid(), url=url, groups=names)))
        return
    said = f"kima-stream {role} {' '.join(names)}".rstrip()
    click.echo(f"{said} runs" + (f" on {url}" if url else ""))


async def _reconcile_once(loaded: Settings, *, as_json: bool) -> int:
    """Look at Lidarr, sweep every group and the deadlines once; return how much is still behind."""
    dsn = parts.database_url(loaded)
    await parts.migrated(dsn)
    swept = {}
    async with parts.pool(dsn, "reconcile") as connections, parts.settings_store(loaded, connections) as store:
        looked = await outside.look_once(connections, store)
        for group in parts.consumer_groups():
            swept[group.name] = await reconciler.sweep_once(connections, group)
        passed = await deadlines.sweep_once(connections)
    fault = looked if isinstance(looked, str) else None
    if as_json:
        click.echo(msgspec.json.encode({**swept, "deadlines": passed, "lidarr": looked}))
    else:
        for name, result in swept.items():
            figures = f"reconciled {result.reconciled}  behind {result.behind}"
            click.echo(f"{name:<24} verified {result.verified_position:>10}  {figures}")
        click.echo(f"{'deadlines':<24} passed   {passed.passed:>10}  failed {passed.failed}")
        click.echo(f"{'lidarr':<24} " + (fault or f"seen     {_count(looked):>10}"))
    return sum(result.behind for result in swept.values()) + passed.failed + (fault is not None)


def _count(looked: Looked | str) -> int:
    return 0 if isinstance(looked, str) else looked.history + looked.queue + looked.albums
