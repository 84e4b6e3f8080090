"""``connect``: make another system send its webhooks here, and prove that they arrive."""

from typing import Final

import aiohttp
import click
import msgspec

from kima_stream.cli import parts, surroundings
from kima_stream.cli.database import with_connection
from kima_stream.cli.loop import run, settings
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.integrations import lidarr_connection, lidarr_registration
from kima_stream.integrations.lidarr import Lidarr, session
from kima_stream.integrations.lidarr_connection import Connected
from kima_stream.settings import api_keys, definitions, kinds, store
from kima_stream.settings.config import Settings
from kima_stream.settings.store import Sources

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
_URL = click.option(
    "--url", default=None, metavar="URL", help="Our address as the other system reaches it; else the setting publicUrl."
)
_SLSKD: Final = """\
integrations:
  webhooks:
    kima_stream:
      on: [DownloadFileComplete, DownloadDirectoryComplete]
      call:
        url: {url}/api/webhooks/slskd
        headers:
          - name: X-Webhook-Secret
            value: {key}
      timeout: 5000
      retry:
        attempts: 3
"""


@click.group()
def connect() -> None:
    """Make Lidarr or slskd send its webhooks here."""


@connect.command()
@_URL
@_AS_JSON
def lidarr(*, url: str | None, as_json: bool) -> None:
    """Register the webhook in Lidarr, with a key made for it, and prove that its Test arrives.

    The front door must be open, and Lidarr's address and key be set. Doing it again changes nothing
    but what is wrong; other notifications, and what you changed in ours, stay.
    """
    done = run(_connect_lidarr(settings(), url))
    if as_json:
        click.echo(msgspec.json.encode(done))
        return
    verb = {"registered": "registered", "updated": "set right", "unchanged": "as it should be"}[done.action]
    click.echo(f"{plain(done.instance_name)} {plain(done.version)}: webhook {plain(done.name)} {verb}, to {done.url}")
    click.echo(f"its key was {done.key}; its Test arrived here as event {done.test_event_id}")
    for note in done.notes:
        click.echo(f"note: {plain(note)}", err=True)


async def _connect_lidarr(loaded: Settings, url: str | None) -> Connected:
    dsn, here = parts.database_url(loaded), parts.door_url(loaded)
    await _require_door(here)
    async with parts.pool(dsn, "cli", max_size=2) as pool, session() as connections:
        async with pool.acquire() as conn:
            snapshot = await store.read(conn, Sources.of(loaded))
        client = Lidarr.of(snapshot, connections)
        public = snapshot[definitions.PUBLIC_URL]
        address = lidarr_registration.address(url, public, client.transport.base_url, here)
        return await lidarr_connection.connect(pool, client, address)


def _checked(url: str) -> str:
    try:
        return kinds.http_url(url)
    except ValueError as error:
        raise ConfigurationError([f"--url: {error}"]) from None


async def _require_door(here: str) -> None:
    """See that the door is open: Lidarr posts a Test before it keeps a webhook."""
    async with aiohttp.ClientSession() as connections:
        answer = await surroundings.ask(connections, f"{here}/livez")
    if answer.error:
        remedy = "start kima-stream up, or kima-stream serve, then try again"
        raise IntegrationError(f"nobody answers on {answer.where}; {remedy}", system="front door", retryable=True)


@connect.command()
@_URL
@_AS_JSON
def slskd(*, url: str | None, as_json: bool) -> None:
    """Make a key for slskd and print what to put into its configuration.

    slskd takes no webhook by its API: paste the lines into slskd.yml, which it reads again by itself.
    Each call makes another key; revoke those that are not used with ``keys revoke``.
    """
    loaded = settings()

    async def work(conn: Connection) -> tuple[str, str]:
        snapshot = await store.read(conn, Sources.of(loaded))
        base = _checked(url or snapshot[definitions.PUBLIC_URL] or parts.door_url(loaded))
        key, _ = await api_keys.create(conn, name="slskd", role="webhook")
        return base, key

    base, key = with_connection(work)
    configuration = _SLSKD.format(url=base, key=key)
    click.echo(msgspec.json.encode({"url": base, "key": key, "yaml": configuration}) if as_json else configuration)
