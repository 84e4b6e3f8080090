"""What Lidarr's webhooks say about albums and downloads. Pure."""

from typing import Final

from consumers.news import Failed, Moved, News, album_news, download_key
from kima_stream.events import JobGrabbed, JobImported, RecordedEvent
from kima_stream.integrations import lidarr_webhooks
from kima_stream.integrations.lidarr_objects import Album as WireAlbum
from kima_stream.integrations.lidarr_webhooks import Download, DownloadFailure, Grab, ImportFailure
from projections.download_job import LidarrAlbum

# The others (Health, Test, Rename, ...) say nothing about a job: they are read and leave nothing.
_READ: Final = frozenset(lidarr_webhooks.TYPES[webhook] for webhook in (Grab, Download, DownloadFailure, ImportFailure))
_UNKNOWN_DOWNLOAD: Final = "No job knows this download."
_NO_IDENTITY: Final = "Lidarr does not say which album could not be imported: look into its queue."


def read(event: RecordedEvent) -> News | None:
    """Return what ``event`` says; None for a webhook that moves no job.

    Raises:
        msgspec.ValidationError: it does not fit its type.
    """
    if event.type not in _READ:
        return None
    match lidarr_webhooks.decode(event.data):
        case Grab() as grab:
            return _moved(event, grab, [(album, _grabbed(grab, album)) for album in grab.albums])
        case Download() as download:
            return _moved(event, download, [(download.album, _imported(download))])
        case DownloadFailure() as failure:
            return Failed(
                cause=event,
                download_id=failure.download_id,
                download_key=download_key(failure.download_id),
                release_title=failure.release_title,
                reason=_UNKNOWN_DOWNLOAD,
            )
        case ImportFailure():
            return Failed(cause=event, reason=_NO_IDENTITY)
        case _:
            return None


def _moved(
    event: RecordedEvent, webhook: Grab | Download, facts: list[tuple[WireAlbum, JobGrabbed | JobImported]]
) -> Moved:
    artist, instance = webhook.artist.name if webhook.artist else "", webhook.instance_name
    return Moved(
        cause=event,
        download_key=download_key(webhook.download_id),
        albums=tuple(
            album_news(event, LidarrAlbum(instance, album.id), (artist, album.title), album.mb_id, fact)
            for album, fact in facts
        ),
    )


def _grabbed(grab: Grab, album: WireAlbum) -> JobGrabbed:
    return JobGrabbed(
        download_id=grab.download_id or None,
        lidarr_instance=grab.instance_name,
        lidarr_album_id=album.id,
        release_title=grab.release.release_title,
        indexer=grab.release.indexer,
        quality=grab.release.quality,
        size_bytes=grab.release.size,
    )


def _imported(download: Download) -> JobImported:
    return JobImported(
        download_id=download.download_id or None,
        lidarr_instance=download.instance_name,
        lidarr_album_id=download.album.id,
        track_file_ids=tuple(sorted({file.id for file in download.track_files})),
        tracks=len(download.tracks),
        is_upgrade=download.is_upgrade,
    )
