"""What is sent to Lidarr to add an artist or an album: what its metadata server said, and how it is to be kept."""

from collections.abc import Sequence

import msgspec

from kima_stream.errors import ConfigurationError
from kima_stream.integrations.lidarr import Lidarr
from kima_stream.integrations.lidarr_http import LidarrError
from kima_stream.integrations.lidarr_types import (
    Album,
    Artist,
    Json,
    MetadataProfile,
    QualityProfile,
    RootFolder,
    Whole,
)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How a new artist is kept; None: as the root folder says, else Lidarr's first."""

    quality_profile_id: int | None = None
    metadata_profile_id: int | None = None
    root_folder: str | None = None


class NotFoundAtLidarrError(LidarrError):
    """Lidarr's metadata server does not know the album, or more than one is meant."""

    def __init__(self, detail: str) -> None:
        """Say what was looked for; another try finds no more."""
        super().__init__(detail, retryable=False)


class HiddenAlbumError(LidarrError):
    """The artist's metadata profile does not show albums of this kind: a human must change it."""

    def __init__(self, kind: str, profile: str) -> None:
        """Name both."""
        super().__init__(
            f"the metadata profile {profile!r} hides albums of the kind {kind}; allow it under Settings, Profiles, "
            "in Lidarr, or give the artist another profile, then retry",
            retryable=False,
        )


async def artist_body(lidarr: Lidarr, found: Whole[Album], choice: Choice) -> Json:
    """Return what adds the artist of ``found``: nothing monitored but this album, nothing searched.

    Raises:
        ConfigurationError: Lidarr has no root folder, or not the profile.
        HiddenAlbumError: the profile would hide the album.
    """
    folder = _folder(await lidarr.root_folders(), choice)
    qualities, metadata = await lidarr.quality_profiles(), await lidarr.metadata_profiles()
    quality_id = _profile(
        "lidarrQualityProfileId", choice.quality_profile_id, folder.default_quality_profile_id, qualities
    )
    metadata_id = _profile(
        "lidarrMetadataProfileId", choice.metadata_profile_id, folder.default_metadata_profile_id, metadata
    )
    check_shown(found.resource, metadata_id, metadata)
    return {
        **_object(found.body.get("artist")),
        "qualityProfileId": quality_id,
        "metadataProfileId": metadata_id,
        "rootFolderPath": folder.path,
        "monitored": True,
        "monitorNewItems": "none",
        "addOptions": {
            "monitor": "none",
            "albumsToMonitor": [found.resource.foreign_album_id],
            "monitored": True,
            "searchForMissingAlbums": False,
        },
    }


def album_body(found: Whole[Album], artist: Artist) -> Json:
    """Return what adds ``found`` to an artist of the library, monitored; nothing is searched."""
    return {
        **found.body,
        "monitored": True,
        "anyReleaseOk": True,
        "artistId": artist.id,
        "artist": {
            **_object(found.body.get("artist")),
            "id": artist.id,
            "qualityProfileId": artist.quality_profile_id,
            "metadataProfileId": artist.metadata_profile_id,
            "path": artist.path,
            "monitored": artist.monitored,
        },
        "addOptions": {"addType": "manual", "searchForNewAlbum": False},
    }


def check_shown(album: Album, profile_id: int, profiles: Sequence[MetadataProfile]) -> None:
    """Look whether the metadata profile shows albums of this kind.

    Raises:
        HiddenAlbumError: it does not.
    """
    for profile in profiles:
        kind = profile.hides(album.album_type, album.secondary_types)
        if profile.id == profile_id and kind is not None:
            raise HiddenAlbumError(kind, profile.name)


def _folder(folders: Sequence[RootFolder], choice: Choice) -> RootFolder:
    if not folders:
        raise ConfigurationError(["Lidarr has no root folder; add one under Settings, Media Management, in Lidarr"])
    chosen = (choice.root_folder or "").rstrip("/")
    usable = [folder for folder in folders if folder.accessible] or folders
    return next((folder for folder in folders if folder.path.rstrip("/") == chosen), usable[0])


def _profile(
    setting: str, chosen: int | None, default: int, profiles: Sequence[QualityProfile] | Sequence[MetadataProfile]
) -> int:
    known = [profile.id for profile in profiles]
    if not known:
        raise ConfigurationError([f"{setting}: Lidarr has no profile at all; make one under Settings, Profiles, there"])
    if chosen is not None and chosen not in known:
        raise ConfigurationError([f"{setting}: Lidarr has no profile {chosen}; it has {', '.join(map(str, known))}"])
    return chosen or (default if default in known else known[0])


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}
