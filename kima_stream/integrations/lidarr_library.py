"""What Lidarr has: profiles, folders, tags, artists, albums; and what its metadata server knows."""

from collections.abc import Sequence
from typing import Final

import msgspec

from kima_stream.errors import ConfigurationError
from kima_stream.integrations.lidarr_http import LOOKUP_SECONDS
from kima_stream.integrations.lidarr_reading import Reader, decoded
from kima_stream.integrations.lidarr_types import (
    Album,
    Artist,
    Json,
    MetadataProfile,
    QualityProfile,
    RootFolder,
    SystemStatus,
    Tag,
    Whole,
)

_STATUS: Final = msgspec.json.Decoder(SystemStatus)
_QUALITIES: Final = msgspec.json.Decoder(tuple[QualityProfile, ...])
_METADATA: Final = msgspec.json.Decoder(tuple[MetadataProfile, ...])
_FOLDERS: Final = msgspec.json.Decoder(tuple[RootFolder, ...])
_TAGS: Final = msgspec.json.Decoder(tuple[Tag, ...])
_TAG: Final = msgspec.json.Decoder(Tag)
_ARTISTS: Final = msgspec.json.Decoder(tuple[Artist, ...])
_ARTIST: Final = msgspec.json.Decoder(Artist)
_ALBUMS: Final = msgspec.json.Decoder(tuple[Album, ...])
_ALBUM: Final = msgspec.json.Decoder(Album)


class Library(Reader):
    """The library of one Lidarr."""

    async def status(self) -> SystemStatus:
        """Return who answers.

        Raises:
            ConfigurationError: it is another program.
        """
        found = decoded(_STATUS, await self.transport.read("/system/status"))
        if found.app_name.lower() != "lidarr":
            raise ConfigurationError(["lidarrUrl: something answers there, but it is not Lidarr"])
        return found

    async def quality_profiles(self) -> tuple[QualityProfile, ...]:
        """Return all quality profiles."""
        return await self._list("/qualityprofile", _QUALITIES)

    async def metadata_profiles(self) -> tuple[MetadataProfile, ...]:
        """Return all metadata profiles."""
        return await self._list("/metadataprofile", _METADATA)

    async def root_folders(self) -> tuple[RootFolder, ...]:
        """Return all root folders."""
        return await self._list("/rootfolder", _FOLDERS)

    async def tags(self) -> tuple[Tag, ...]:
        """Return all tags."""
        return await self._list("/tag", _TAGS)

    async def add_tag(self, label: str) -> Tag:
        """Make a tag; Lidarr keeps labels in lower case."""
        return decoded(_TAG, await self.transport.call("POST", "/tag", body={"label": label}))

    async def look_up_artist(self, term: str) -> tuple[Whole[Artist], ...]:
        """Return what the metadata server knows by ``term``: words, or ``lidarr:<mbid>``."""
        return await self._wholes("/artist/lookup", Artist, {"term": term}, LOOKUP_SECONDS)

    async def look_up_album(self, term: str) -> tuple[Whole[Album], ...]:
        """Return what the metadata server knows by ``term``, each with its artist: words, or ``lidarr:<mbid>``."""
        return await self._wholes("/album/lookup", Album, {"term": term}, LOOKUP_SECONDS)

    async def artist_by_mbid(self, mbid: str) -> Artist | None:
        """Return an artist of the library."""
        found = await self._list("/artist", _ARTISTS, {"mbId": mbid})
        return next((each for each in found if each.foreign_artist_id.lower() == mbid.lower()), None)

    async def add_artist(self, body: Json) -> Artist:
        """Add an artist; its albums come later, when Lidarr has refreshed it."""
        return decoded(_ARTIST, await self.transport.call("POST", "/artist", body=body, seconds=LOOKUP_SECONDS))

    async def albums_of(self, artist_id: int) -> tuple[Album, ...]:
        """Return all albums of an artist of the library."""
        return await self._list("/album", _ALBUMS, {"artistId": artist_id})

    async def album_by_mbid(self, mbid: str) -> Album | None:
        """Return an album of the library by its release group's MBID."""
        found = await self._list("/album", _ALBUMS, {"foreignAlbumId": mbid})
        return next((each for each in found if each.foreign_album_id.lower() == mbid.lower()), None)

    async def album(self, album_id: int) -> Album | None:
        """Return an album of the library."""
        return await self._one_or_none("/album/{id}", _ALBUM, album_id)

    async def add_album(self, body: Json) -> Album:
        """Add one album, and its artist when that is new."""
        return decoded(_ALBUM, await self.transport.call("POST", "/album", body=body, seconds=LOOKUP_SECONDS))

    async def monitor_albums(self, album_ids: Sequence[int], *, monitored: bool = True) -> None:
        """Monitor these albums, or stop to; doing it twice changes nothing."""
        body = {"albumIds": list(album_ids), "monitored": monitored}
        await self.transport.call("PUT", "/album/monitor", body=body)
