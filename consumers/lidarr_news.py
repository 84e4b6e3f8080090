"""What Lidarr's webhooks say about albums and downloads, with the keys that find their jobs.

Pure. Names are made comparable and ids derived here, once for each webhook.
"""

from typing import Final, TypeAlias
from uuid import UUID

import msgspec

from kima_stream import correlation_keys
from kima_stream.events import JobDownloadFailed, JobGrabbed, JobImported, JobRequested, RecordedEvent
from kima_stream.integrations import lidarr_webhooks
from kima_stream.integrations.lidarr_objects import Album as WireAlbum
from kima_stream.integrations.lidarr_webhooks import Download, DownloadFailure, Grab, ImportFailure
from projections import correlation
from projections.correlation import LIDARR_USER, Album
from projections.download_job import LidarrAlbum

# The others (Health, Test, Rename, ...) say nothing about a job: they are read and leave nothing.
_READ: Final = frozenset(lidarr_webhooks.TYPES[webhook] for webhook in (Grab, Download, DownloadFailure, ImportFailure))
_UNKNOWN_DOWNLOAD: Final = "No job knows this download."
_NO_IDENTITY: Final = "Lidarr does not say which album could not be imported: look into its queue."


class AlbumNews(msgspec.Struct, frozen=True, kw_only=True):
    """A grab or an import of one album.

    ``keys`` find its jobs; ``unasked`` opens Lidarr's own job in ``own_stream`` when there is none.
    """

    album: Album
    fact: JobGrabbed | JobImported
    keys: frozenset[str]
    own_stream: str
    unasked: JobRequested


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A grab or an import of albums that share a download; without a download id it has no ``download_key``."""

    cause: RecordedEvent
    download_key: str | None
    albums: tuple[AlbumNews, ...]

    @property
    def download_keys(self) -> frozenset[str]:
        """Return the key of the download, if there is one."""
        return _set(self.download_key)

    @property
    def keys(self) -> frozenset[str]:
        """Return the keys to lock."""
        return self.download_keys.union(*(album.keys for album in self.albums))


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Something failed: a download, known by its id alone, or an import that nothing identifies."""

    cause: RecordedEvent
    download_id: str | None = None
    download_key: str | None = None
    release_title: str | None = None
    reason: str

    @property
    def keys(self) -> frozenset[str]:
        """Return the keys to lock."""
        return _set(self.download_key)

    @property
    def fact(self) -> JobDownloadFailed:
        """Return what a job that knows the download records."""
        return JobDownloadFailed(download_id=self.download_id or "", release_title=self.release_title)


News: TypeAlias = Moved | Failed


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
                download_key=_download_key(failure.download_id),
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
    artist = correlation.clean(webhook.artist.name) if webhook.artist else ""
    return Moved(
        cause=event,
        download_key=_download_key(webhook.download_id),
        albums=tuple(_album_news(event, webhook.instance_name, artist, album, fact) for album, fact in facts),
    )


def _album_news(
    event: RecordedEvent, instance: str, artist: str, wire: WireAlbum, fact: JobGrabbed | JobImported
) -> AlbumNews:
    title, mbid = correlation.clean(wire.title), _mbid(wire.mb_id)
    names = correlation.derived_target(artist, title)
    keys = {correlation_keys.of_names(names), correlation_keys.of_lidarr_album(instance, wire.id)}
    if mbid is not None:
        keys.add(correlation_keys.of_mbid(mbid))
    target = mbid or names
    job_id = correlation.job_id(LIDARR_USER, target)
    return AlbumNews(
        album=Album(artist=artist, title=title, mbid=mbid, lidarr=LidarrAlbum(instance, wire.id)),
        fact=fact,
        keys=frozenset(keys),
        own_stream=correlation.stream_of(job_id),
        unasked=JobRequested(
            job_id=job_id,
            user_id=LIDARR_USER,
            artist=artist,
            album=title,
            target_mbid=target,
            target_is_derived=mbid is None,
            origin="lidarr",
            correlation_id=event.correlation_id,
        ),
    )


def _download_key(download_id: str | None) -> str | None:
    return correlation_keys.of_download(download_id) if download_id else None


def _set(key: str | None) -> frozenset[str]:
    return frozenset([key] if key else [])


def _mbid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None  # a connection test sends "aaaaa-aaa-aaaa-aaaaaa"


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
