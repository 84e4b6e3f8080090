"""What we saw in Lidarr by looking, beside what it told by webhook: in the same streams, as facts of our own."""

from datetime import datetime

import msgspec

from kima_stream.events.shapes import Event


class LidarrHistory(Event, frozen=True, kw_only=True):
    """A line of Lidarr's history. Source: ``GET /api/v1/history/since``.

    ``event_type`` and ``happened_at`` are Lidarr's. ``data`` has only what says something of the album: the rest
    of it may hold addresses with keys in them. Names and MBID are the album's as Lidarr shows it now.
    """

    instance: str
    history_id: int
    event_type: str
    happened_at: datetime
    download_id: str | None = None
    release_title: str | None = None
    album_id: int
    artist: str = ""
    album: str = ""
    album_mbid: str | None = None
    data: dict[str, str] = msgspec.field(default_factory=dict)


class LidarrHistorySeen(LidarrHistory, frozen=True, kw_only=True, tag="lidarr.history_seen"):
    """A line that says that something was grabbed, imported, or could not be imported."""


class LidarrFailureSeen(LidarrHistory, frozen=True, kw_only=True, tag="lidarr.failure_seen"):
    """A line that says that a download failed: a grab of the same download after it is another one."""


class LidarrQueueSeen(Event, frozen=True, kw_only=True, tag="lidarr.queue_seen"):
    """A line of Lidarr's queue that moved: one album of one download. Source: ``GET /api/v1/queue``.

    ``state`` is Lidarr's ``trackedDownloadState``; sizes in bytes.
    """

    instance: str
    download_id: str
    album_id: int
    state: str
    size_bytes: int
    left_bytes: int
    messages: tuple[str, ...] = ()


class LidarrAlbumSeen(Event, frozen=True, kw_only=True, tag="lidarr.album_seen"):
    """How much of an album Lidarr has. Source: ``statistics`` of ``GET /api/v1/album/{id}``."""

    instance: str
    album_id: int
    tracks_total: int | None
    tracks_present: int
