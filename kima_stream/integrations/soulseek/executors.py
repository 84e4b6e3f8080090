"""The effects ``soulseek.acquire`` and ``soulseek.search``: made by the owner's process, and by no other."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from kima_stream.effect_work import Executor, MayRepeat, Progress, Work
from kima_stream.errors import ConfigurationError, UserFacingError
from kima_stream.events import EffectFailed, Event, JobSoulseekFinished, SoulseekFile
from kima_stream.integrations.soulseek.acquisition import Acquisition, NothingFoundError
from kima_stream.integrations.soulseek.album_work import Acquired, Album, Hand
from kima_stream.integrations.soulseek.downloads import PeerError
from kima_stream.integrations.soulseek.files import DiskError
from kima_stream.integrations.soulseek.found import FoundFile
from kima_stream.integrations.soulseek.searching import Searches

MAX_REASONS: Final = 5
_LATER: Final = "Try again later, or from another source."


class Acquire(Executor):
    """Brings an album into the library's folder, or the one file that ``target`` names: a ``FoundFile`` in JSON.

    It goes on where it was: what is here is not fetched again, and a plan that was made is kept to.
    """

    kind = "soulseek.acquire"
    timeout_seconds = None  # an album takes as long as bytes come; each file has bounds of its own
    at_once = 8  # albums; how many files come at once is a setting

    def __init__(self, acquisition: Acquisition, album_of: Callable[[str], Awaitable[Album | None]]) -> None:
        """``album_of`` says what a stream's job wants."""
        self._acquisition = acquisition
        self._album_of = album_of

    async def perform(self, work: Work) -> Event:
        """Search, choose, fetch; what is missing in the end is said by the figures."""
        try:
            found = await self._acquired(work)
        except NothingFoundError as error:
            return _failed(work, "nothing_found", f"{error}.", _LATER)
        except DiskError as error:
            return _failed(work, "disk", f"{error.reason}.", "Look at the disk of the library's folder, then retry.")
        except PeerError as error:
            return _failed(work, "gave_up", f"The peer {error.reason}.", "Choose another file.")
        except ConfigurationError as error:
            return _failed(work, "refused", f"{error}.", "Mend the settings, then retry.")
        if not found.files:
            reasons = "; ".join(found.reasons[:MAX_REASONS]) or "nobody had a track of it"
            return _failed(work, "gave_up", f"No peer delivered: {reasons}.", _LATER)
        return _news(found)

    async def resolve(self, work: Work) -> Event | None:
        """Look at the folder: if all that was chosen is there, it happened."""
        if work.effect.target is not None:
            return None  # to perform it is to look first
        album = await self._album_of(work.stream)
        try:
            found = None if album is None else await self._acquisition.is_here(album)
        except ConfigurationError:
            return None
        return None if found is None else _news(found)

    async def _acquired(self, work: Work) -> Acquired:
        album = await self._album_of(work.stream)
        if album is None:
            raise ConfigurationError(["there is no such job"])

        def report(text: str, done_bytes: int, total_bytes: int) -> None:
            work.report(Progress(text=text, done_bytes=done_bytes or None, total_bytes=total_bytes or None))

        hand = Hand(asker=work.stream, check_lease=work.check_lease, report=report)
        if work.effect.target is None:
            return await self._acquisition.album(album, hand)
        wanted = msgspec.json.decode(work.effect.target, type=FoundFile)
        return await self._acquisition.file(wanted, album, hand)


class Search(MayRepeat):
    """Searches for what a stream asks and hands on the answers as they come.

    To do it twice is harmless: within the gate's window the first one's answer is shared.
    """

    kind = "soulseek.search"
    timeout_seconds = None  # the gate and the search have their own bounds
    at_once = 16

    def __init__(
        self,
        searches: Searches,
        query_of: Callable[[str], Awaitable[str | None]],
        take: Callable[[Work, Sequence[FoundFile]], Awaitable[None]],
        news: Callable[[int], Event],
    ) -> None:
        """``query_of`` a stream, None when it is over; ``take`` gets each answer; ``news`` says how many came."""
        self._searches = searches
        self._query_of = query_of
        self._take = take
        self._news = news

    async def perform(self, work: Work) -> Event:
        """Search."""
        query = await self._query_of(work.stream)
        if query is None:
            return _failed(work, "refused", "There is no such search.")
        count = 0
        try:
            async with aclosing(self._searches.search(query, asker=work.stream)) as answers:
                async for files in answers:
                    work.check_lease()
                    await self._take(work, files)
                    count += len(files)
                    work.report(Progress(text=f"{count} files found"))
        except UserFacingError as error:
            return _failed(work, "refused", error.detail)
        return self._news(count)


def _news(found: Acquired) -> JobSoulseekFinished:
    return JobSoulseekFinished(
        files=tuple(SoulseekFile(path=one.path, size_bytes=one.size_bytes, peer=one.peer) for one in found.files),
        tracks_wanted=found.tracks_wanted,
        tracks_found=len(found.files),
        peers=found.peers,
    )


def _failed(work: Work, code: str, reason: str, next_step: str | None = None) -> EffectFailed:
    return EffectFailed(
        effect_id=work.effect.effect_id, kind=work.effect.kind, code=code, reason=reason, next_step=next_step
    )
