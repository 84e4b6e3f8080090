"""An album in Lidarr's library, whatever happened before.

Each step asks before it acts, so a crash anywhere, or an answer that was lost, is mended by doing it
again: one artist, one album. Waiting is bounded; who waits out the bound gets a retryable error and
comes back later. Knows nothing of our events; how names are compared is handed in.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from kima_stream.integrations.lidarr import Lidarr
from kima_stream.integrations.lidarr_additions import (
    Choice,
    HiddenAlbumError,
    NotFoundAtLidarrError,
    album_body,
    artist_body,
    check_shown,
)
from kima_stream.integrations.lidarr_http import LidarrError
from kima_stream.integrations.lidarr_types import Album, Artist, Whole
from kima_stream.integrations.lidarr_waits import Pause, looks

__all__ = ["AddedAlbum", "Choice", "HiddenAlbumError", "NotFoundAtLidarrError", "Wanted", "ensure_album"]

REFRESH_SECONDS: Final = 120.0  # for the albums of a new artist to appear
REFRESH: Final = "RefreshArtist"

IsIt: TypeAlias = Callable[[str, str], bool]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An album that is wanted; ``mbid`` is the release group's, None when nobody knows it."""

    artist: str
    title: str
    mbid: str | None = None


class AddedAlbum(msgspec.Struct, frozen=True, kw_only=True):
    """An album that is in the library and monitored; ``tracks_total`` None when Lidarr does not know yet."""

    instance: str
    album_id: int
    mbid: str
    tracks_total: int | None
    tracks_present: int


async def ensure_album(
    lidarr: Lidarr, wanted: Wanted, is_it: IsIt, *, choice: Choice | None = None, pause: Pause = asyncio.sleep
) -> AddedAlbum:
    """Return the album, which is in the library and monitored from now on; nothing else is monitored by it.

    Args:
        lidarr: where.
        wanted: by MBID, or else by names.
        is_it: whether artist and title, as Lidarr writes them, are what is wanted; asked where there is no MBID.
        choice: of profiles and folder, for an artist that is new.
        pause: waits so many seconds.

    Raises:
        ConfigurationError: key, address, root folder or profile are wrong or missing.
        NotFoundAtLidarrError: there is no such album.
        HiddenAlbumError: the artist's metadata profile hides it.
        LidarrError: retryable: away, or not done within REFRESH_SECONDS; not: it refuses.
    """
    instance = (await lidarr.status()).instance_name
    album = await lidarr.album_by_mbid(wanted.mbid) if wanted.mbid else None
    if album is None:
        album = await _added(lidarr, await _looked_up(lidarr, wanted, is_it), choice or Choice(), pause)
    await _until_refreshed(lidarr, album.artist_id, pause)
    now = await lidarr.album(album.id)
    if now is None:
        raise LidarrError(f"{album.title} has left the library while it was added", retryable=True)
    if not now.monitored:
        await lidarr.monitor_albums([now.id])
    return AddedAlbum(
        instance=instance,
        album_id=now.id,
        mbid=now.foreign_album_id,
        tracks_total=now.statistics.total_track_count or None,
        tracks_present=now.statistics.track_file_count,
    )


async def _looked_up(lidarr: Lidarr, wanted: Wanted, is_it: IsIt) -> Whole[Album]:
    """Return the album that is wanted as the metadata server describes it."""
    what = f"{wanted.artist} – {wanted.title}"  # noqa: RUF001 - for people
    if wanted.mbid:
        found = await lidarr.look_up_album(f"lidarr:{wanted.mbid.lower()}")
        # Release groups get merged: then the only answer has another id, and that is the one to go by.
        exact = [each for each in found if each.resource.foreign_album_id.lower() == wanted.mbid.lower()]
        if not exact and len(found) != 1:
            raise NotFoundAtLidarrError(f"its metadata server does not know {what} (MBID {wanted.mbid})")
        return (exact or list(found))[0]
    found = await lidarr.look_up_album(f"{wanted.artist} {wanted.title}")
    same = [
        each
        for each in found
        if each.resource.artist is not None and is_it(each.resource.artist.artist_name, each.resource.title)
    ]
    if not same:
        raise NotFoundAtLidarrError(f"its metadata server does not know {what}; give the album's MBID")
    # What is in the library comes first, then albums before singles, studio before live.
    return min(
        same,
        key=lambda each: (not each.resource.id, each.resource.album_type != "Album", each.resource.secondary_types),
    )


async def _added(lidarr: Lidarr, found: Whole[Album], choice: Choice, pause: Pause) -> Album:
    """Return the album, now in the library."""
    mbid, maker = found.resource.foreign_album_id, found.resource.artist
    album = await lidarr.album_by_mbid(mbid)  # it may be there under the id that it was merged into
    if album is not None:
        return album
    if maker is None or not maker.foreign_artist_id:
        raise NotFoundAtLidarrError(f"its metadata server names no artist of {found.resource.title}")
    artist = await lidarr.artist_by_mbid(maker.foreign_artist_id)
    if artist is None:
        artist = await _new_artist(lidarr, found, maker, choice)
    else:
        check_shown(found.resource, artist.metadata_profile_id, await lidarr.metadata_profiles())
    album = await _until_shown(lidarr, mbid, artist.id, pause)
    if album is not None:
        return album
    # The artist was there before, and the album is newer than its last refresh.
    try:
        return await lidarr.add_album(album_body(found, artist))
    except LidarrError as error:
        if not error.is_already_added:
            raise
    album = await lidarr.album_by_mbid(mbid)
    if album is None:
        raise LidarrError(f"says that {found.resource.title} is there, and does not show it", retryable=True)
    return album


async def _new_artist(lidarr: Lidarr, found: Whole[Album], maker: Artist, choice: Choice) -> Artist:
    try:
        return await lidarr.add_artist(await artist_body(lidarr, found, choice))
    except LidarrError as error:
        if not error.is_already_added:
            raise
    artist = await lidarr.artist_by_mbid(maker.foreign_artist_id)
    if artist is None:
        raise LidarrError(f"says that {maker.artist_name} is there, and does not show it", retryable=True)
    return artist


async def _until_shown(lidarr: Lidarr, mbid: str, artist_id: int, pause: Pause) -> Album | None:
    """Return the album once it is there; None when no refresh runs that could bring it."""
    was_quiet = False
    async for _ in looks(REFRESH_SECONDS, pause):
        is_refreshing = await _is_refreshing(lidarr, artist_id)
        album = await lidarr.album_by_mbid(mbid)  # after the question: a refresh that ended in between brought it
        if album is not None:
            return album
        if not is_refreshing and was_quiet:  # twice: Lidarr gives itself the command a moment after the answer
            return None
        was_quiet = not is_refreshing
    raise LidarrError(f"is still refreshing artist {artist_id}", retryable=True)


async def _until_refreshed(lidarr: Lidarr, artist_id: int, pause: Pause) -> None:
    """Wait for the end of a refresh, which sets anew what is monitored; not for ever."""
    async for _ in looks(REFRESH_SECONDS, pause):
        if not await _is_refreshing(lidarr, artist_id):
            return


async def _is_refreshing(lidarr: Lidarr, artist_id: int) -> bool:
    return any(
        command.name == REFRESH
        and not command.is_over
        and (command.body.artist_id == artist_id or artist_id in command.body.artist_ids)
        for command in await lidarr.commands()
    )
