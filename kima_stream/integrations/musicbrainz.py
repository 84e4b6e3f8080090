"""The titles of an album, as MusicBrainz has them; kept for a week, that there is no such album for an hour.

Nobody depends on it: an answer that does not come in time is as good as none. MusicBrainz allows one request a
second and wants to know who asks. Source: musicbrainz.org/doc/MusicBrainz_API.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from time import monotonic
from typing import Final
from uuid import UUID

import aiohttp
import msgspec
import structlog

from kima_stream.cache import Cache, Kind
from kima_stream.errors import IntegrationError

SYSTEM: Final = "musicbrainz"
ANSWER_SECONDS: Final = 10.0
PACE_SECONDS: Final = 1.1  # between two requests of this process
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
RELEASES: Final = 25  # editions that are looked at

log = structlog.get_logger(__name__)


class Tracks(msgspec.Struct, frozen=True):
    """The titles of one edition, in order."""

    titles: tuple[str, ...]


TRACKS: Final = Kind(name="musicbrainz_tracks", type=Tracks, seconds=7 * 24 * 3_600, missing_seconds=3_600)


class _Track(msgspec.Struct):
    title: str = ""


class _Medium(msgspec.Struct):
    tracks: tuple[_Track, ...] = ()


class _Release(msgspec.Struct):
    date: str = ""
    status: str | None = None
    media: tuple[_Medium, ...] = ()

    @property
    def titles(self) -> tuple[str, ...]:
        return tuple(track.title for medium in self.media for track in medium.tracks)


class _Page(msgspec.Struct):
    releases: tuple[_Release, ...] = ()


class MusicBrainz:
    """Asks one MusicBrainz, or a mirror of it, through a cache."""

    def __init__(self, base_url: Callable[[], str | None], cache: Cache, connections: aiohttp.ClientSession) -> None:
        """Ask nothing yet; ``base_url`` returns the address that is in force, None for nobody."""
        self._base_url = base_url
        self._cache = cache
        self._connections = connections
        self._turn = asyncio.Lock()
        self._next_at = 0.0

    async def tracks_of(self, release_group: UUID) -> tuple[str, ...]:
        """Return the titles of the edition that most editions are like; none when it is unknown or cannot be asked."""
        base_url = self._base_url()
        if base_url is None:
            return ()
        try:
            found = await self._cache.through(TRACKS, str(release_group), lambda: self._ask(base_url, release_group))
        except IntegrationError as error:
            log.warning("tracks_not_found", release_group=str(release_group), fault=error.detail)
            return ()
        return found.titles if found is not None else ()

    async def _ask(self, base_url: str, release_group: UUID) -> Tracks | None:
        query = {"release-group": str(release_group), "inc": "recordings", "fmt": "json", "limit": str(RELEASES)}
        async with self._turn:  # one after the other, at their pace
            await asyncio.sleep(max(0.0, self._next_at - monotonic()))
            self._next_at = monotonic() + PACE_SECONDS
            content = await self._get(f"{base_url}/release", query)
        if content is None:
            return None
        try:
            page = msgspec.json.decode(content, type=_Page)
        except msgspec.DecodeError:
            raise IntegrationError("what answers is not MusicBrainz", system=SYSTEM, retryable=False) from None
        return usual(page.releases)

    async def _get(self, url: str, query: dict[str, str]) -> bytes | None:
        """Return the answer; None when there is no such thing."""
        headers = {"User-Agent": f"kima-stream/{version('kima-stream')} ( self-hosted )", "Accept": "application/json"}
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._connections.get(url, params=query, headers=headers, allow_redirects=False) as answer,
            ):
                if answer.status in {400, 404}:
                    return None
                if answer.status != 200:  # noqa: PLR2004 - HTTP's own
                    raise IntegrationError(f"answered {answer.status}", system=SYSTEM, retryable=True)
                content = await answer.content.read(MAX_ANSWER_BYTES + 1)
                while len(content) <= MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES)):
                    content += more
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise IntegrationError(f"no answer ({type(error).__name__})", system=SYSTEM, retryable=True) from None
        if len(content) > MAX_ANSWER_BYTES:
            raise IntegrationError("the answer is too long", system=SYSTEM, retryable=False)
        return content


def usual(releases: tuple[_Release, ...]) -> Tracks | None:
    """Return the titles of the oldest official edition that has as many tracks as most have."""
    known = [release for release in releases if release.titles and all(release.titles)]
    if not known:
        return None
    counts = Counter(len(release.titles) for release in known)
    most = max(counts, key=lambda count: (counts[count], -count))
    fitting = [release for release in known if len(release.titles) == most]
    return Tracks(min(fitting, key=lambda release: (release.status != "Official", release.date or "9999")).titles)
