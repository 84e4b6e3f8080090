"""What one Lidarr has: artists, albums, files, downloads, history, commands. Plain records.

Ids are small integers from 1, as Lidarr's database counts them. Sizes are bytes, times aware UTC.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec

from kima_stream.simulator.catalogue import KnownAlbum, KnownArtist

ROOT: Final = "/music"
QUALITY: Final = "FLAC"
SHOWN_TYPES: Final = frozenset({"Album"})  # by the one metadata profile
CLIENT: Final = "qBittorrent"
_TICKS_OF_1970: Final = 621_355_968_000_000_000  # .NET counts 100 ns since the year 1

EventType = Literal["grabbed", "trackFileImported", "downloadFailed", "albumImportIncomplete", "downloadImported"]
NUMBERS: Final[dict[str, int]] = {  # of the history's event types, as the filter of /history takes them
    "unknown": 0,
    "grabbed": 1,
    "artistFolderImported": 2,
    "trackFileImported": 3,
    "downloadFailed": 4,
    "trackFileDeleted": 5,
    "trackFileRenamed": 6,
    "albumImportIncomplete": 7,
    "downloadImported": 8,
    "trackFileRetagged": 9,
    "downloadIgnored": 10,
}


class TrackFile(msgspec.Struct, kw_only=True):
    """A file in the library; one that was imported by hand has no release behind it."""

    id: int
    path: str
    size_bytes: int
    date_added: str
    quality: str = QUALITY
    release_group: str | None = None
    scene_name: str | None = None


class Artist(msgspec.Struct, kw_only=True):
    """An artist that was added."""

    id: int
    known: KnownArtist
    added: datetime
    path: str
    quality_profile_id: int = 1
    metadata_profile_id: int = 1
    monitored: bool = True
    monitor_new_items: str = "none"
    to_monitor: frozenset[UUID] | None = None  # of its albums, once the first refresh has ended; None leaves them
    tags: tuple[str, ...] = ()
    last_write: int = 638_761_234_567_890_000


class Album(msgspec.Struct, kw_only=True):
    """An album of an artist that was added; ``files`` by the index of the track."""

    id: int
    artist: Artist
    known: KnownAlbum
    monitored: bool = False
    last_search: datetime | None = None
    first_track_id: int = 1
    files: dict[int, TrackFile] = {}

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return f"{self.artist.path}/{self.known.title.replace('/', '+')} ({self.known.released.year})"


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What an indexer offers; ``group`` None when nobody claims it."""

    guid: str
    title: str
    size_bytes: int
    quality: str = QUALITY
    group: str | None = "WEBGRP"
    indexer: str = "MyIndexer (Prowlarr)"
    indexer_id: int = 3
    custom_formats: tuple[str, ...] = ()
    custom_format_score: int = 0


class Download(msgspec.Struct, kw_only=True):
    """A release at the download client; ``id`` is the client's, None of a blackhole."""

    id: str | None
    albums: list[Album]
    release: Release
    added: datetime
    client: str = CLIENT
    client_type: str = CLIENT
    state: Literal["downloading", "importPending", "importFailed", "imported", "failed"] = "downloading"
    message: str | None = None


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of Lidarr's history: what a reconciler reads."""

    id: int
    album: Album
    event_type: EventType
    date: datetime
    source_title: str
    download_id: str | None
    data: dict[str, str]


class Command(msgspec.Struct, kw_only=True):
    """Something that Lidarr was told to do; ``started`` and ``ended`` None until then."""

    id: int
    name: str
    body: dict[str, object]
    queued: datetime
    started: datetime | None = None
    ended: datetime | None = None
    outcome: Literal["completed", "failed", "aborted", "orphaned"] = "completed"
    result: Literal["unknown", "successful", "unsuccessful"] = "unknown"
    message: str | None = None

    @property
    def status(self) -> str:
        """queued, started or how it ended."""
        if self.ended is not None:
            return self.outcome
        return "queued" if self.started is None else "started"


def iso(moment: datetime) -> str:
    """Return ``moment`` as .NET writes it: UTC with ``Z``, no trailing zeros in the fraction."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return text.rstrip("0").rstrip(".") + "Z"


def ticks(moment: datetime) -> int:
    """Return ``moment`` as .NET counts it."""
    return _TICKS_OF_1970 + int(moment.timestamp() * 1_000_000) * 10


def grabbed(download: Download, now: datetime) -> dict[str, str]:
    """Return the data of a ``grabbed`` row: all values are text."""
    release = download.release
    return {
        "indexer": release.indexer,
        "releaseGroup": release.group or "",
        "age": "1",
        "ageHours": "24",
        "ageMinutes": "1440",
        "publishedDate": iso(now - timedelta(days=1)),
        "downloadClient": download.client,
        "size": str(release.size_bytes),
        "guid": release.guid,
        "protocol": "2",
        "downloadForced": "False",
        "customFormatScore": str(release.custom_format_score),
        "releaseSource": "Search",
        "indexerFlags": "0",
    }
