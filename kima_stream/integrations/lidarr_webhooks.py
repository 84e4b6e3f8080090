"""What Lidarr sends: the 13 webhook types as structs, and what makes each of them one fact.

Pure. Lenient to unknown fields, since later versions add some; a type we do not know, or a body
that does not fit its type, is kept all the same as ``lidarr.unknown``.
Source: Lidarr ``NzbDrone.Core/Notifications/Webhook``; tests/fixtures/webhooks are its own output.

Lidarr sends no id and no time. A Grab, a Download and a DownloadFailure have natural keys, so that
a delivery repeated by a proxy is one event; of all others each delivery is a fact of its own.
A torrent grabbed again after it failed has the old download id: so Grabs and DownloadFailures of a
stream alternate in rounds, and the round is part of their ids.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias
from uuid import UUID

import msgspec

from kima_stream.integrations.lidarr_objects import Album, Artist, Release, RenamedTrackFile, Track, TrackFile
from kima_stream.integrations.received import Received, understood
from kima_stream.metrics import OTHER

SOURCE: Final = "lidarr"  # also the category of its streams
NAMESPACE: Final = UUID("0b8f6f62-5f0c-5d5a-9c39-2a7f1d1f7e11")  # of the derived ids: never changes
UNKNOWN: Final = "lidarr.unknown"


class Webhook(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="eventType"):
    """Base of all 13; ``application_url`` is empty when unset, absent on HealthRestored."""

    instance_name: str = "Lidarr"
    application_url: str | None = None


class Grab(Webhook, frozen=True, kw_only=True, rename="camel", tag="Grab"):
    """A release was handed to a download client; one that returns no id (a blackhole) has no ``download_id``."""

    artist: Artist | None = None
    albums: tuple[Album, ...]
    release: Release
    download_client: str | None = None
    download_client_type: str | None = None
    download_id: str | None = None


class ConnectionTest(Webhook, frozen=True, kw_only=True, rename="camel", tag="Test"):
    """Somebody pressed Test or Save; nothing was downloaded."""

    artist: Artist | None = None
    albums: tuple[Album, ...] = ()


class Download(Webhook, frozen=True, kw_only=True, rename="camel", tag="Download"):
    """Files of one album were imported, perhaps a part of it; a manual import has no ``download_id``."""

    artist: Artist | None = None
    album: Album
    tracks: tuple[Track, ...] = ()
    track_files: tuple[TrackFile, ...] = ()
    deleted_files: tuple[TrackFile, ...] | None = None
    is_upgrade: bool = False
    download_client: str | None = None
    download_client_type: str | None = None
    download_id: str | None = None


class DownloadFailure(Webhook, frozen=True, kw_only=True, rename="camel", tag="DownloadFailure"):
    """The client gave up; only the download id says whose it was."""

    quality: str | None = None
    quality_version: int | None = None
    release_title: str | None = None
    download_client: str | None = None
    download_id: str | None = None


class ImportFailure(Webhook, frozen=True, kw_only=True, rename="camel", tag="ImportFailure"):
    """Something could not be imported; Lidarr does not say what: a hint to ask its queue."""

    artist: Artist | None = None
    album: Album | None = None
    tracks: tuple[Track, ...] = ()
    track_files: tuple[TrackFile, ...] = ()
    is_upgrade: bool = False
    download_id: str | None = None


class Rename(Webhook, frozen=True, kw_only=True, rename="camel", tag="Rename"):
    """Files got new names."""

    artist: Artist | None = None
    renamed_track_files: tuple[RenamedTrackFile, ...]


class Retag(Webhook, frozen=True, kw_only=True, rename="camel", tag="Retag"):
    """The tags of a file were written."""

    artist: Artist | None = None
    track_file: TrackFile


class ArtistAdd(Webhook, frozen=True, kw_only=True, rename="camel", tag="ArtistAdd"):
    """An artist was added and refreshed for the first time."""

    artist: Artist


class ArtistDelete(Webhook, frozen=True, kw_only=True, rename="camel", tag="ArtistDelete"):
    """An artist left; ``deleted_files`` says whether its files did."""

    artist: Artist
    deleted_files: bool


class AlbumDelete(Webhook, frozen=True, kw_only=True, rename="camel", tag="AlbumDelete"):
    """An album left; ``deleted_files`` says whether its files did."""

    artist: Artist | None = None
    album: Album
    deleted_files: bool


class Health(Webhook, frozen=True, kw_only=True, rename="camel", tag="Health"):
    """Lidarr is not well; ``type`` is the check's class, e.g. ``RootFolderCheck``."""

    level: str
    message: str
    type: str
    wiki_url: str | None = None


class HealthRestored(Webhook, frozen=True, kw_only=True, rename="camel", tag="HealthRestored"):
    """The check described here has passed again."""

    level: str
    message: str
    type: str
    wiki_url: str | None = None


class ApplicationUpdate(Webhook, frozen=True, kw_only=True, rename="camel", tag="ApplicationUpdate"):
    """Lidarr updated itself."""

    message: str | None = None
    previous_version: str
    new_version: str


AnyWebhook: TypeAlias = (
    Grab | Download | DownloadFailure | ImportFailure | Rename | Retag | ArtistAdd | ArtistDelete | AlbumDelete
    | Health | HealthRestored | ApplicationUpdate | ConnectionTest
)  # fmt: skip

TYPES: Final[Mapping[type[Webhook], str]] = MappingProxyType(
    {
        Grab: "lidarr.grab",
        Download: "lidarr.download",
        DownloadFailure: "lidarr.download_failure",
        ImportFailure: "lidarr.import_failure",
        Rename: "lidarr.rename",
        Retag: "lidarr.retag",
        ArtistAdd: "lidarr.artist_add",
        ArtistDelete: "lidarr.artist_delete",
        AlbumDelete: "lidarr.album_delete",
        Health: "lidarr.health",
        HealthRestored: "lidarr.health_restored",
        ApplicationUpdate: "lidarr.application_update",
        ConnectionTest: "lidarr.test",
    }
)

_WEBHOOK: Final = msgspec.json.Decoder(AnyWebhook)


class _Unknown(msgspec.Struct, frozen=True, rename="camel"):
    download_id: str | None = None


_UNKNOWN: Final = msgspec.json.Decoder(_Unknown)


def decode(data: str | bytes) -> AnyWebhook:
    """Return the typed webhook of a stored event's data.

    Raises:
        msgspec.ValidationError: it is none of the 13, or does not fit; it was stored as unknown.
    """
    webhook: AnyWebhook = _WEBHOOK.decode(data)
    return webhook


def receive(body: bytes) -> Received:
    """Return what the webhook in ``body`` is; its data is the body, byte for byte.

    Raises:
        MalformedBodyError: it is no JSON object that can be kept.
    """
    text, webhook = understood(body, decode)
    if webhook is None:
        return Received(source=SOURCE, type=UNKNOWN, label=OTHER, data=text, name=_download_id(body))
    name = getattr(webhook, "download_id", None) or None
    return Received(
        source=SOURCE,
        type=TYPES[type(webhook)],
        label=str(webhook.__struct_config__.tag),
        data=text,
        name=name,
        key=_natural_key(webhook, name),
        is_in_rounds=name is not None and isinstance(webhook, Grab | DownloadFailure),
    )


def _natural_key(webhook: AnyWebhook, download_id: str | None) -> tuple[object, ...] | None:
    match webhook:
        case Grab(release=release):
            what = [download_id] if download_id else [release.release_title, release.indexer]
            return (webhook.instance_name, what, sorted(album.id for album in webhook.albums)) if what[0] else None
        case Download(album=album):
            files = sorted(file.id for file in webhook.track_files)
            return (webhook.instance_name, download_id, album.id, files) if download_id or files else None
        case DownloadFailure() if download_id:
            return (webhook.instance_name, download_id, webhook.release_title)
        case _:
            return None


def _download_id(body: bytes) -> str | None:
    try:
        return _UNKNOWN.decode(body).download_id or None
    except msgspec.ValidationError:
        return None
