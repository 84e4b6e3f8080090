"""The objects that Lidarr's webhooks share: artists, albums, releases, tracks and files.

Pure, and lenient: what Lidarr may leave out is None. Sizes are bytes; times are kept as sent
(ISO 8601 with up to 7 digits). Source: Lidarr ``NzbDrone.Core/Notifications/Webhook``.
"""

import msgspec


class Image(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A picture; ``url`` is relative to Lidarr and includes its URL base."""

    cover_type: str | None = None
    url: str | None = None
    remote_url: str | None = None


class Artist(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``mb_id`` is the MusicBrainz artist id, but not a UUID in a connection test."""

    id: int
    name: str
    path: str | None = None
    mb_id: str | None = None
    disambiguation: str | None = None
    type: str | None = None
    overview: str | None = None
    genres: tuple[str, ...] | None = None
    images: tuple[Image, ...] | None = None
    tags: tuple[str, ...] | None = None


class Album(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``mb_id`` is the release-group id; absent in a connection test."""

    id: int
    title: str
    mb_id: str | None = None
    disambiguation: str | None = None
    overview: str | None = None
    album_type: str | None = None
    secondary_album_types: tuple[str, ...] | None = None
    release_date: str | None = None  # ISO 8601 with up to 7 digits, kept as sent
    genres: tuple[str, ...] | None = None
    images: tuple[Image, ...] | None = None


class Release(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was grabbed; ``size`` in bytes."""

    quality: str | None = None
    quality_version: int | None = None
    release_group: str | None = None
    release_title: str | None = None
    indexer: str | None = None
    size: int | None = None
    custom_format_score: int | None = None
    custom_formats: tuple[str, ...] | None = None


class Track(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``track_number`` is text, e.g. ``A1``."""

    id: int
    title: str | None = None
    track_number: str | None = None
    quality: str | None = None
    quality_version: int | None = None
    release_group: str | None = None


class TrackFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file in the library; ``path`` is absolute on Lidarr's machine, ``size`` in bytes."""

    id: int
    path: str | None = None
    quality: str | None = None
    quality_version: int | None = None
    release_group: str | None = None
    scene_name: str | None = None
    size: int | None = None
    date_added: str | None = None


class RenamedTrackFile(TrackFile, frozen=True, kw_only=True, rename="camel"):
    """A file and where it was before."""

    previous_path: str | None = None
