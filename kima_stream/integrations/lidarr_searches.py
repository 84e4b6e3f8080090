"""One search for an album at Lidarr, whatever happened before: asks first, then follows it to its end.

A crash anywhere, or an answer that was lost, is mended by doing it again. Waiting is bounded; who waits
out the bound gets a retryable error and comes back later.
"""

import asyncio
import re
from datetime import datetime, timedelta
from typing import Final

import msgspec

from kima_stream.integrations.lidarr import Lidarr
from kima_stream.integrations.lidarr_additions import NotFoundAtLidarrError
from kima_stream.integrations.lidarr_http import LidarrError
from kima_stream.integrations.lidarr_types import Command
from kima_stream.integrations.lidarr_waits import Pause, looks

SEARCH_SECONDS: Final = 300.0  # for all indexers to answer
CLOCK_SECONDS: Final = 2.0  # how well we know Lidarr's clock: its answers name whole seconds
SEARCH: Final = "AlbumSearch"

_FOUND: Final = re.compile(r"\b(\d+) reports? downloaded", re.IGNORECASE)
_IN_VAIN: Final = frozenset({"failed", "aborted", "cancelled", "orphaned"})  # Lidarr stopped, or could not


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """A search that has ended; ``found`` 0: nothing, None: Lidarr does not say (any more)."""

    found: int | None


async def search_album(
    lidarr: Lidarr, album_id: int, since: datetime | None, *, pause: Pause = asyncio.sleep
) -> Searched:
    """Return what a search for the album found; one is begun if none was since ``since``, a time of our clock.

    Without it one is begun in any case; Lidarr itself joins one that waits or runs already.

    Raises:
        ConfigurationError: key or address are wrong.
        NotFoundAtLidarrError: the album is not in the library any more.
        LidarrError: retryable: away, the search was broken off, or has not ended within SEARCH_SECONDS.
    """
    album = await lidarr.album(album_id)
    if album is None:
        raise NotFoundAtLidarrError(f"album {album_id} is not in the library any more")
    command = None
    if since is not None:
        command = await _search_since(lidarr, album_id, since)
        if command is None and album.last_search_time is not None and album.last_search_time >= _theirs(lidarr, since):
            return Searched(found=await _found(lidarr, album_id, None))
    if command is None:
        command = await lidarr.start(SEARCH, albumIds=[album_id])
    ended = await _followed(lidarr, command, pause)
    return Searched(found=await _found(lidarr, album_id, ended))


async def _search_since(lidarr: Lidarr, album_id: int, since: datetime) -> Command | None:
    """Return the newest search for this album that is not older, nor was broken off."""
    commands = await lidarr.commands()
    searches = [
        command
        for command in commands
        if command.name == SEARCH
        and command.status not in _IN_VAIN
        and album_id in command.body.album_ids
        and command.queued is not None
        and command.queued >= _theirs(lidarr, since)
    ]
    return max(searches, key=lambda command: command.id, default=None)


def _theirs(lidarr: Lidarr, moment: datetime) -> datetime:
    """Return a time of our clock as Lidarr's shows it, a little earlier."""
    return moment + timedelta(seconds=lidarr.transport.ahead_seconds - CLOCK_SECONDS)


async def _followed(lidarr: Lidarr, command: Command, pause: Pause) -> Command | None:
    """Return the command as it ended; None when Lidarr has forgotten it, which it does after the end."""
    found: Command | None = command
    async for _ in looks(SEARCH_SECONDS, pause):
        if found is None:
            return None
        if found.status in _IN_VAIN:
            raise LidarrError(f"broke the search off ({found.status})", retryable=True)
        if found.is_over:
            return found
        found = await lidarr.command(command.id)
    raise LidarrError(f"is still searching after {SEARCH_SECONDS:.0f} s", retryable=True)


async def _found(lidarr: Lidarr, album_id: int, ended: Command | None) -> int | None:
    """Return how many releases were grabbed; what waits in the queue, or was there before, counts too."""
    said = _FOUND.search(ended.message) if ended is not None else None
    if said is not None and int(said[1]):
        return int(said[1])
    waiting = len({item.download_id or item.id for item in await lidarr.queue_of([album_id])})
    return waiting or (None if said is None else 0)
