"""What Lidarr's REST API answers, as far as we read it: its resources as structs.

Pure, and lenient: unknown fields are skipped, what Lidarr may leave out has a default, an enum is its
text, since later versions add to it. Ids are small integers, 0 for what is not in the library; sizes
are bytes, durations milliseconds, times aware UTC. A resource that goes back to Lidarr is ``Whole``:
beside the struct it holds every field as it came, so that none is lost on the way.
Source: Lidarr ``src/Lidarr.Api.V1`` and its own OpenAPI document.
"""

from datetime import datetime
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

Json: TypeAlias = dict[str, object]
T = TypeVar("T", bound=msgspec.Struct)

ALREADY_ADDED: Final = "has already been added"
ENDED: Final = frozenset({"completed", "failed", "aborted", "cancelled", "orphaned"})  # a command's last states


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all: ``id`` is Lidarr's own number."""

    id: int = 0


class SystemStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who answers; ``instance_name`` is also in every webhook."""

    app_name: str
    instance_name: str = "Lidarr"
    version: str = ""
    url_base: str = ""


class QualityProfile(Resource, frozen=True, kw_only=True, rename="camel"):
    """What quality is wanted."""

    name: str = ""


class AlbumType(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A kind of album: Album, EP, Single, Broadcast, Other; or Live, Compilation and the like."""

    name: str = ""


class AllowedType(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether a metadata profile shows albums of this kind."""

    album_type: AlbumType = AlbumType()
    allowed: bool = False


class MetadataProfile(Resource, frozen=True, kw_only=True, rename="camel"):
    """Which albums of an artist are shown at all."""

    name: str = ""
    primary_album_types: tuple[AllowedType, ...] = ()
    secondary_album_types: tuple[AllowedType, ...] = ()

    def hides(self, primary: str, secondary: tuple[str, ...]) -> str | None:
        """Return the first kind of an album that this profile does not show; an album of no second kind is Studio."""
        shown = {each.album_type.name.casefold() for each in self.primary_album_types if each.allowed}
        shown_second = {each.album_type.name.casefold() for each in self.secondary_album_types if each.allowed}
        if self.primary_album_types and primary and primary.casefold() not in shown:
            return primary
        kinds = secondary or ("Studio",)
        hidden = (kind for kind in kinds if self.secondary_album_types and kind.casefold() not in shown_second)
        return next(hidden, None)


class RootFolder(Resource, frozen=True, kw_only=True, rename="camel"):
    """Where music lies on Lidarr's machine; sizes in bytes. Profile ids are 0 when it has no defaults."""

    name: str = ""
    path: str = ""
    default_quality_profile_id: int = 0
    default_metadata_profile_id: int = 0
    accessible: bool = True
    free_space: int | None = None


class Tag(Resource, frozen=True, kw_only=True, rename="camel"):
    """A label on artists and notifications."""

    label: str = ""


class Statistics(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``track_count`` leaves out what is not monitored, ``total_track_count`` nothing."""

    track_file_count: int = 0
    track_count: int = 0
    total_track_count: int = 0
    size_on_disk: int = 0
    percent_of_tracks: float = 0.0


class Artist(Resource, frozen=True, kw_only=True, rename="camel"):
    """An artist, of the library or (``id`` 0) of a lookup; ``foreign_artist_id`` is the MBID."""

    artist_name: str = ""
    foreign_artist_id: str = ""
    path: str = ""
    quality_profile_id: int = 0
    metadata_profile_id: int = 0
    monitored: bool = False
    statistics: Statistics = Statistics()


class Album(Resource, frozen=True, kw_only=True, rename="camel"):
    """An album, of the library or (``id`` 0) of a lookup; ``foreign_album_id`` is the release group's MBID."""

    title: str = ""
    artist_id: int = 0
    foreign_album_id: str = ""
    monitored: bool = False
    album_type: str = ""
    secondary_types: tuple[str, ...] = ()
    last_search_time: datetime | None = None
    statistics: Statistics = Statistics()
    artist: Artist | None = None


class CommandBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a command is about."""

    album_ids: tuple[int, ...] = ()
    artist_ids: tuple[int, ...] = ()
    artist_id: int | None = None


class Command(Resource, frozen=True, kw_only=True, rename="camel"):
    """Something that Lidarr does, or did in the last minutes: it forgets them."""

    name: str = ""
    message: str = ""
    body: CommandBody = CommandBody()
    status: str = "queued"
    result: str = "unknown"
    queued: datetime | None = None
    ended: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ENDED


class Quality(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """E.g. FLAC."""

    name: str = ""


class QualityModel(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A quality, without its revision."""

    quality: Quality = Quality()


class Release(Resource, frozen=True, kw_only=True, rename="camel"):
    """What an indexer offers; ``size`` in bytes. ``guid`` and ``indexer_id`` name it for half an hour."""

    guid: str = ""
    title: str = ""
    indexer: str = ""
    indexer_id: int = 0
    size: int = 0
    quality: QualityModel = QualityModel()
    release_group: str | None = None
    approved: bool = False
    rejections: tuple[str, ...] = ()
    download_allowed: bool = False
    protocol: str = "unknown"
    seeders: int | None = None


class StatusMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Why a download stands still, in Lidarr's words."""

    title: str = ""
    messages: tuple[str, ...] = ()


class QueueItem(Resource, frozen=True, kw_only=True, rename="camel"):
    """One album of one download; ``id`` means nothing after a restart of Lidarr, ``download_id`` does.

    ``status`` is the client's word, or ``delay`` of what waits; ``tracked_download_state`` is one of
    downloading, downloadFailed, importBlocked, importPending, importing, importFailed, imported, …
    """

    artist_id: int | None = None
    album_id: int | None = None
    title: str = ""
    size: float = 0.0
    sizeleft: float = 0.0
    added: datetime | None = None
    status: str = ""
    tracked_download_status: str = "ok"
    tracked_download_state: str = ""
    status_messages: tuple[StatusMessage, ...] = ()
    error_message: str | None = None
    download_id: str | None = None
    download_client: str | None = None
    indexer: str | None = None
    protocol: str = "unknown"
    track_file_count: int = 0


class HistoryRow(Resource, frozen=True, kw_only=True, rename="camel"):
    """A line of the history; its ``id`` only grows. All values of ``data`` are text.

    ``event_type``: grabbed, trackFileImported, downloadFailed, albumImportIncomplete, downloadImported, …
    """

    album_id: int = 0
    artist_id: int = 0
    track_id: int = 0
    source_title: str = ""
    date: datetime
    event_type: str
    download_id: str | None = None
    data: dict[str, str | None] = {}


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True, rename="camel"):
    """A part of a list, counted from 1; Lidarr gives ten at a time unless it is told otherwise."""

    page: int = 1
    page_size: int = 10
    total_records: int = 0
    records: tuple[T, ...] = ()


class NotificationField(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One input of a notification's form; ``value`` is of the field's own type."""

    name: str = ""
    value: str | int | float | bool | list[object] | Json | None = None


class Notification(Resource, frozen=True, kw_only=True, rename="camel"):
    """Somebody whom Lidarr tells what happens."""

    name: str = ""
    implementation: str = ""
    fields: tuple[NotificationField, ...] = ()
    tags: tuple[int, ...] = ()

    def field(self, name: str) -> object:
        """Return the value of a field, None when it has none."""
        return next((each.value for each in self.fields if each.name == name), None)

    @property
    def url(self) -> str:
        """Return where a webhook goes, empty for other kinds."""
        found = self.field("url")
        return found if self.implementation == "Webhook" and isinstance(found, str) else ""

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a webhook; Lidarr shows their values to all who ask."""
        found = self.field("headers")
        pairs = [pair for pair in found if isinstance(pair, dict)] if isinstance(found, list) else []
        return {str(pair.get("key") or ""): str(pair.get("value") or "") for pair in pairs}


class Fault(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What Lidarr does not like about what it was sent."""

    property_name: str = ""
    error_message: str = ""
    error_code: str = ""
    is_warning: bool = False


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The other shape of an error; its ``description`` is a stack trace and is not read."""

    message: str = ""


class Whole(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A resource as it came, to be sent back: what we read of it, and all of it."""

    resource: T
    body: Json
