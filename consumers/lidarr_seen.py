"""What was seen in Lidarr's history and queue, as the same news that its webhooks bring. Pure."""

from typing import Final

from consumers.news import Failed, Moved, News, Seen, album_news, download_key
from consumers.reconcilers.lidarr_sight import messages_of, number_of
from kima_stream import correlation_keys, upcasters
from kima_stream.events import (
    JobDownloadFinished,
    JobGrabbed,
    JobImported,
    JobImportFailed,
    JobProgressed,
    JobTracksCounted,
    LidarrAlbumSeen,
    LidarrFailureSeen,
    LidarrHistory,
    LidarrHistorySeen,
    LidarrQueueSeen,
    RecordedEvent,
    event_type,
)
from projections.download_job import LidarrAlbum

_READ: Final = frozenset(
    event_type(seen) for seen in (LidarrHistorySeen, LidarrFailureSeen, LidarrQueueSeen, LidarrAlbumSeen)
)
_NOT_IMPORTED: Final = frozenset({"importFailed", "importBlocked"})
_ALL_THERE: Final = frozenset({"importPending", "importing", "imported"})


def read(event: RecordedEvent) -> News | None:
    """Return what ``event`` says; None when it is nothing that was seen, or moves no job."""
    if event.type not in _READ:
        return None
    match upcasters.decode(event):
        case LidarrHistory() as seen:
            return _of_history(event, seen)
        case LidarrQueueSeen() as seen:
            fact = _of_queue(seen)
            return None if fact is None else Seen(cause=event, key=_key(seen.download_id), fact=fact)
        case LidarrAlbumSeen() as seen:
            counted = JobTracksCounted(
                lidarr_instance=seen.instance,
                lidarr_album_id=seen.album_id,
                tracks_total=seen.tracks_total,
                tracks_present=seen.tracks_present,
            )
            key = correlation_keys.of_lidarr_album(seen.instance, seen.album_id)
            return Seen(cause=event, key=key, fact=counted)
        case _:
            return None


def _of_history(event: RecordedEvent, seen: LidarrHistory) -> News | None:
    match seen.event_type:
        case "grabbed":
            return _moved(event, seen, _grabbed(seen))
        case "trackFileImported":
            return _moved(event, seen, _imported(seen))
        case "downloadFailed" | "albumImportIncomplete":
            return Failed(
                cause=event,
                download_id=seen.download_id,
                download_key=download_key(seen.download_id),
                release_title=seen.release_title,
                reason=messages_of(seen.data) or "Lidarr does not say why.",
                is_import=seen.event_type == "albumImportIncomplete",
            )
        case _:
            return None


def _moved(event: RecordedEvent, seen: LidarrHistory, fact: JobGrabbed | JobImported) -> Moved:
    album = LidarrAlbum(seen.instance, seen.album_id)
    news = album_news(event, album, (seen.artist, seen.album), seen.album_mbid, fact)
    return Moved(cause=event, download_key=download_key(seen.download_id), albums=(news,))


def _grabbed(seen: LidarrHistory) -> JobGrabbed:
    return JobGrabbed(
        download_id=seen.download_id,
        lidarr_instance=seen.instance,
        lidarr_album_id=seen.album_id,
        release_title=seen.release_title,
        indexer=seen.data.get("indexer"),
        size_bytes=number_of(seen.data.get("size")),
    )


def _imported(seen: LidarrHistory) -> JobImported:
    file_id = number_of(seen.data.get("fileId"))
    return JobImported(
        download_id=seen.download_id,
        lidarr_instance=seen.instance,
        lidarr_album_id=seen.album_id,
        track_file_ids=() if file_id is None else (file_id,),
        tracks=1,
    )


def _of_queue(seen: LidarrQueueSeen) -> JobProgressed | JobDownloadFinished | JobImportFailed | None:
    if seen.state in _NOT_IMPORTED:
        return JobImportFailed(download_id=seen.download_id, reason="; ".join(dict.fromkeys(seen.messages)))
    if seen.state in _ALL_THERE:
        return JobDownloadFinished(download_id=seen.download_id)
    if seen.state == "downloading" and seen.left_bytes < seen.size_bytes:
        return JobProgressed(download_id=seen.download_id, size_bytes=seen.size_bytes, left_bytes=seen.left_bytes)
    return None


def _key(download_id: str) -> str:
    return correlation_keys.of_download(download_id)
