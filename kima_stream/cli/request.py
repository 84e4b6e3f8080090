"""``request``: ask for an album from the terminal, and follow what becomes of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from kima_stream.cli import parts
from kima_stream.cli.database import require_root
from kima_stream.cli.loop import run, settings
from kima_stream.cli.text import plain
from kima_stream.database import Connection, Pool
from kima_stream.effects import waiting
from kima_stream.errors import ConfigurationError, UserFacingError
from kima_stream.events import new_event_id
from kima_stream.http import download_requests, download_views, user_requests
from kima_stream.http.download_requests import Requested
from kima_stream.http.download_views import JobView
from kima_stream.projector import Row
from kima_stream.read_models import download_jobs
from kima_stream.settings import store, subject_keys
from kima_stream.settings.config import Settings
from kima_stream.settings.policies import policy_of
from kima_stream.settings.store import Sources
from kima_stream.settings.subject_keys import PlainText
from projections import correlation
from projections.correlation import Album
from projections.download_job import DownloadJob

LOOK_SECONDS: Final = 0.3
FAILED: Final = 1
_MARKS: Final = {"completed": ("✓", "green"), "failed": ("✗", "red"), "cancelled": ("-", "yellow")}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed."""

    album: Album
    user_id: str
    note: str | None
    seconds: float | None


@click.command()
@click.argument("artist")
@click.argument("album")
@click.option("--mbid", type=click.UUID, help="MusicBrainz release group; without it the names decide.")
@click.option("--user", "user_id", default="admin", show_default=True, help="Id of the user who wants it.")
@click.option("--note", help="A note with the request; it is sealed, and goes when the user is erased.")
@click.option("--no-wait", is_flag=True, help="Ask, and do not follow the job.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Follow it for so many seconds; for ever if left out.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON: the job as it is in the end.")
def request(
    *,
    artist: str,
    album: str,
    mbid: UUID | None,
    user_id: str,
    note: str | None,
    no_wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Ask for ALBUM by ARTIST and follow the job to its end.

    Exit 1 when it fails, is cancelled, or has not ended in time. Ctrl-C stops following: the job goes on.
    """
    wanted = Album(artist=correlation.clean(artist), title=correlation.clean(album), mbid=mbid)
    if not wanted.artist or not wanted.title:
        raise UserFacingError("ARTIST and ALBUM each need at least one letter", status=422)
    wish = Wish(album=wanted, user_id=user_id, note=note, seconds=0 if no_wait else timeout)
    loaded = settings()
    if note is not None:
        require_root(loaded)
    ended = run(_request(loaded, wish, as_json=as_json))
    if as_json:
        click.echo(msgspec.json.encode(ended))
    if not no_wait and (ended.status != "completed" or ended.is_partial):
        raise SystemExit(FAILED)


async def _request(loaded: Settings, wish: Wish, *, as_json: bool) -> JobView:
    sources = Sources.of(loaded)
    async with parts.pool(parts.database_url(loaded), "cli", max_size=2) as pool:
        async with pool.acquire() as conn:
            policy = policy_of(await store.read(conn, sources))
        note = None if wish.note is None else PlainText(wish.note, sources.roots)
        correlation_id = str(new_event_id())

        async def work(conn: Connection) -> Requested:
            return await download_requests.request(
                conn, wish.album, user_id=wish.user_id, correlation_id=correlation_id, policy=policy, note=note
            )

        asked = await user_requests.decided(pool, work)
        row = await _follow(pool, asked, wish, silent=as_json)
        async with pool.acquire() as conn:
            reader = await subject_keys.reader(conn, sources.roots, [row.state.note])
        return download_views.view(row, reader)


async def _follow(pool: Pool, asked: Requested, wish: Wish, *, silent: bool) -> Row[DownloadJob]:
    """Show each step as it comes, the newest with its progress; return the job as it was last."""
    console = Console(highlight=False, soft_wrap=True, quiet=silent)
    known = "it was under way already" if asked.duplicate else "asked for"
    console.print(f"{plain(wish.album.title)} by {plain(wish.album.artist)}: {known}, job {asked.id}")
    shown: tuple[str, str | None] | None = None
    row = await _read(pool, asked.id)
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        async for row in _looks(pool, asked.id, wish.seconds):
            if (row.state.status, row.state.reason) != shown:
                shown = row.state.status, row.state.reason
                console.print(_line(row))
            live.update(Text(await _progress(pool, row), "dim"))
    return row


async def _looks(pool: Pool, job_id: UUID, seconds: float | None) -> AsyncIterator[Row[DownloadJob]]:
    """Yield the job again and again until its attempt is over, or the time is."""
    loop = asyncio.get_running_loop()
    until = None if seconds is None else loop.time() + seconds
    while True:
        row = await _read(pool, job_id)
        yield row
        if not row.state.is_active or (until is not None and loop.time() >= until):
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _read(pool: Pool, job_id: UUID) -> Row[DownloadJob]:
    async with pool.acquire() as conn:
        row = await download_jobs.get(conn, job_id)
    if row is None:
        raise ConfigurationError(["the job is not there yet: the table download_jobs is being built anew"])
    return row


def _line(row: Row[DownloadJob]) -> Text:
    mark, color = _MARKS.get(row.state.status, ("•", "cyan"))
    line = Text.assemble((f"{mark} {row.state.status:<12}", color), plain(row.state.reason or ""))
    if row.state.next_step:
        line.append(f"\n  {'':<12}{plain(row.state.next_step)}", "dim")
    return line


async def _progress(pool: Pool, row: Row[DownloadJob]) -> str:
    """Return what is being done just now."""
    async with pool.acquire() as conn:
        effects = await waiting.list_page(conn, stream=row.stream, limit=10)
    said = [
        f"{each.kind}: {each.progress.text if each.progress else each.last_error or each.state}" for each in effects
    ]
    return "  " + plain("; ".join(said)) if said else ""
