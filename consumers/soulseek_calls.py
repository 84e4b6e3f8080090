"""The calls that download jobs and search sessions want of Soulseek: made by the account's owner, by no other process.

An album that is here is not fetched again, so doing a call again does no harm; what a peer does wrong is the peer's
failure, and what our disk or settings do wrong is nobody else's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final, TypeAlias
from uuid import UUID

from kima_stream import delivery, projector
from kima_stream.database import Pool
from kima_stream.effect_work import Executor, MayRepeat, Progress, Work
from kima_stream.errors import ConfigurationError, UserFacingError, WrongExpectedVersionError
from kima_stream.events import (
    Event,
    FoundFile,
    JobSoulseekFinished,
    SearchCompleted,
    SearchFileDownloaded,
    SearchResultsFound,
    SoulseekFile,
    new_event_id,
)
from kima_stream.integrations.soulseek import found, names
from kima_stream.integrations.soulseek.acquisition import Acquisition, NothingFoundError
from kima_stream.integrations.soulseek.album_work import Acquired, Album, Hand
from kima_stream.integrations.soulseek.downloads import PeerError
from kima_stream.integrations.soulseek.files import DiskError
from kima_stream.integrations.soulseek.searching import Searches
from kima_stream.read_models import download_jobs, search_sessions
from kima_stream.settings.secrets import Roots
from projections.search_session import MAX_RESULTS, decide

SHOW_SECONDS: Final = 0.5  # results of a search are shown in so few events
MAX_REASONS: Final = 5
_TRIES: Final = 10
_LATER: Final = "Try again later, or from another source."
_MEND: Final = "An admin mends the settings; then ask again."
_DISK: Final = "Look at the disk of the library's folder, then ask again."


TracksOf: TypeAlias = Callable[[UUID], Awaitable[tuple[str, ...]]]  # of a release group; none where nobody knows


def executors(
    pool: Pool, acquisition: Acquisition, searches: Searches, roots: Roots, tracks_of: TracksOf
) -> list[Executor]:
    """Return what makes the calls to Soulseek; ``roots`` open what somebody typed, ``tracks_of`` knows titles."""
    return [Acquire(pool, acquisition, tracks_of), Search(pool, searches, roots), Fetch(pool, acquisition)]


class Acquire(Executor):
    """Brings a job's album into the library's folder; it goes on where it was."""

    kind = "soulseek.acquire"
    timeout_seconds = None  # an album takes as long as bytes come; each file has bounds of its own
    at_once = 8  # albums; how many files come at once is a setting

    def __init__(self, pool: Pool, acquisition: Acquisition, tracks_of: TracksOf) -> None:
        """``acquisition`` is the owner's."""
        self._pool = pool
        self._acquisition = acquisition
        self._tracks_of = tracks_of

    async def perform(self, work: Work) -> Event:
        """Search, choose, fetch; what is missing in the end is said by the figures."""
        album = await self._album(work)
        if album is None:
            return work.failure("not_found", "The job is gone.")
        try:
            came = await self._acquisition.album(album, _hand(work))
        except NothingFoundError as error:
            return work.failure("nothing_found", f"{error}.", _LATER)
        except DiskError as error:
            return work.failure("disk", f"{error.reason}.", _DISK)
        except ConfigurationError as error:
            return work.failure("refused", f"{error}.", _MEND)
        if not came.files:
            reasons = "; ".join(came.reasons[:MAX_REASONS]) or "nobody had a track of it"
            return work.failure("gave_up", f"No peer delivered: {reasons}.", _LATER)
        return _news(came)

    async def resolve(self, work: Work) -> Event | None:
        """Look at the folder: if all that was chosen is there, it happened."""
        album = await self._album(work)
        try:
            came = None if album is None else await self._acquisition.is_here(album)
        except ConfigurationError:
            return None
        return None if came is None else _news(came)

    async def _album(self, work: Work) -> Album | None:
        async with self._pool.acquire() as conn:
            row = await download_jobs.TABLE.find(conn, work.stream)
        if row is None:
            return None
        job = row.state
        tracks = () if job.target_is_derived else await self._tracks_of(job.target_mbid)
        return Album(artist=job.artist, title=job.album, tracks=tracks)


class Search(MayRepeat):
    """Searches for a session and shows the answers as they come.

    To do it twice is harmless: within the gate's window the first one's answer is shared.
    """

    kind = "soulseek.search"
    timeout_seconds = None  # the gate and the search have their own bounds
    at_once = 16

    def __init__(self, pool: Pool, searches: Searches, roots: Roots) -> None:
        """``searches`` is the owner's."""
        self._pool = pool
        self._searches = searches
        self._roots = roots

    async def perform(self, work: Work) -> Event:
        """Search."""
        query = await search_sessions.query_of(self._pool, self._roots, work.stream)
        if query is None:
            return work.failure("not_found", "The search is over.")
        try:
            count = await self._shown(work, query)
        except UserFacingError as error:
            return work.failure("refused", error.detail)
        except ConfigurationError as error:
            return work.failure("refused", f"{error}.", _MEND)
        return SearchCompleted(found=min(count, MAX_RESULTS), left_out=max(0, count - MAX_RESULTS))

    async def _shown(self, work: Work, query: str) -> int:
        """Show what is found; return how many files there were."""
        waiting: list[FoundFile] = []
        count, shown_at = 0, asyncio.get_running_loop().time()
        async with aclosing(self._searches.search(query, asker=work.stream)) as answers:
            async for files in answers:
                count += len(files)
                waiting += files
                work.report(Progress(text=f"{count} files found"))
                now = asyncio.get_running_loop().time()
                if now - shown_at > SHOW_SECONDS:
                    await self._show(work, waiting)
                    waiting, shown_at = [], now
        await self._show(work, waiting)
        return count

    async def _show(self, work: Work, files: Sequence[FoundFile]) -> None:
        """Append results to the session, those that it has not and has room for."""
        if not files:
            return
        work.check_lease()
        for attempt in range(1, _TRIES + 1):
            try:
                async with self._pool.acquire() as conn, conn.transaction():
                    row = await projector.load(conn, search_sessions.PROJECTION, work.stream)
                    decided = decide(row.state, SearchResultsFound(results=tuple(files)), datetime.now(UTC))
                    events = projector.consequences(
                        decided, event_id=new_event_id(), correlation_id=work.correlation_id
                    )
                    if events:
                        await projector.decide(conn, search_sessions.PROJECTION, row, events)
            except (WrongExpectedVersionError, *delivery.RIVALRY):
                if attempt == _TRIES:
                    raise
            else:
                return


class Fetch(MayRepeat):
    """Fetches one result of a session into the library's folder; a file that is there is not fetched again."""

    kind = "soulseek.fetch"
    timeout_seconds = None
    at_once = 8

    def __init__(self, pool: Pool, acquisition: Acquisition) -> None:
        """``acquisition`` is the owner's."""
        self._pool = pool
        self._acquisition = acquisition

    async def perform(self, work: Work) -> Event:
        """Fetch it."""
        async with self._pool.acquire() as conn:
            row = await search_sessions.TABLE.find(conn, work.stream)
        chosen = None if row is None else row.state.download(work.effect.effect_id)
        if chosen is None:
            return work.failure("not_found", "The search is over.")
        file = found.FoundFile(peer=chosen.peer, path=chosen.path, size_bytes=chosen.size_bytes, extension="")
        try:
            came = await self._acquisition.file(file, PurePosixPath(names.safe(_last(file.folder))), _hand(work))
        except PeerError as error:
            return work.failure("gave_up", f"The peer {error.reason}.", "Take another result.")
        except DiskError as error:
            return work.failure("disk", f"{error.reason}.", _DISK)
        except ConfigurationError as error:
            return work.failure("refused", f"{error}.", _MEND)
        (kept,) = came.files
        return SearchFileDownloaded(peer=chosen.peer, path=chosen.path, saved_as=kept.path, size_bytes=kept.size_bytes)


def _hand(work: Work) -> Hand:
    def report(text: str, done_bytes: int, total_bytes: int) -> None:
        work.report(Progress(text=text, done_bytes=done_bytes or None, total_bytes=total_bytes or None))

    return Hand(asker=work.stream, check_lease=work.check_lease, report=report)


def _news(came: Acquired) -> JobSoulseekFinished:
    return JobSoulseekFinished(
        files=tuple(SoulseekFile(path=one.path, size_bytes=one.size_bytes, peer=one.peer) for one in came.files),
        tracks_wanted=came.tracks_wanted,
        tracks_found=len(came.files),
        peers=came.peers,
    )


def _last(folder: str) -> str:
    return folder.rpartition("\\")[2]
