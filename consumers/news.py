"""What intake understands: news of albums and downloads, with the keys that find their jobs.

Pure. Names are made comparable and ids derived here, once for each fact that came.
"""

from typing import TypeAlias
from uuid import UUID

import msgspec

from kima_stream import correlation_keys
from kima_stream.events import (
    JobDownloadFailed,
    JobDownloadFinished,
    JobGrabbed,
    JobImported,
    JobImportFailed,
    JobProgressed,
    JobRequested,
    JobTracksCounted,
    RecordedEvent,
)
from projections import correlation
from projections.correlation import LIDARR_USER, Album
from projections.download_job import LidarrAlbum


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
    is_import: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """Return the keys to lock."""
        return _set(self.download_key)

    @property
    def fact(self) -> JobDownloadFailed | JobImportFailed:
        """Return what a job that knows the download records."""
        download_id = self.download_id or ""
        if self.is_import:
            return JobImportFailed(download_id=download_id, release_title=self.release_title, reason=self.reason)
        return JobDownloadFailed(download_id=download_id, release_title=self.release_title)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """How far something is: for the jobs that ``key`` finds, and for nobody else."""

    cause: RecordedEvent
    key: str
    fact: JobProgressed | JobDownloadFinished | JobImportFailed | JobTracksCounted

    @property
    def keys(self) -> frozenset[str]:
        """Return the key to lock."""
        return frozenset([self.key])


News: TypeAlias = Moved | Failed | Seen


def album_news(
    cause: RecordedEvent, album: LidarrAlbum, names: tuple[str, str], mb_id: str | None, fact: JobGrabbed | JobImported
) -> AlbumNews:
    """Return news of ``album``, which its Lidarr calls by ``names``: artist and title."""
    artist, title, mbid = correlation.clean(names[0]), correlation.clean(names[1]), _mbid(mb_id)
    derived = correlation.derived_target(artist, title)
    keys = {correlation_keys.of_lidarr_album(album.instance, album.album_id)}
    if artist and title:
        keys.add(correlation_keys.of_names(derived))
    if mbid is not None:
        keys.add(correlation_keys.of_mbid(mbid))
    target = mbid or derived
    job_id = correlation.job_id(LIDARR_USER, target)
    return AlbumNews(
        album=Album(artist=artist, title=title, mbid=mbid, lidarr=album),
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
            correlation_id=cause.correlation_id,
        ),
    )


def download_key(download_id: str | None) -> str | None:
    """Return the key of a download, if it has an id."""
    return correlation_keys.of_download(download_id) if download_id else None


def _set(key: str | None) -> frozenset[str]:
    return frozenset([key] if key else [])


def _mbid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None  # a connection test sends "aaaaa-aaa-aaaa-aaaaaa"
