"""A download job: one user's wish for one album, through all its attempts.

    requested -> searching -> downloading -> importing -> completed | failed | cancelled

Pure: the state and its fold; what follows from a new fact is decided in ``download_job_decider``.
Only ``JobAttemptOpened`` leaves completed, failed or cancelled.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Final, Literal, TypeAlias, assert_never
from uuid import UUID

import msgspec
from msgspec.structs import replace

from kima_stream.events import (
    Event,
    JobAttemptOpened,
    JobCompleted,
    JobDownloadFailed,
    JobFailed,
    JobGrabbed,
    JobImported,
    JobRequested,
    JobRequestMerged,
)

Status: TypeAlias = Literal[
    "none", "requested", "searching", "downloading", "importing", "completed", "failed", "cancelled"
]
Fact: TypeAlias = (
    JobRequested
    | JobRequestMerged
    | JobAttemptOpened
    | JobGrabbed
    | JobImported
    | JobCompleted
    | JobDownloadFailed
    | JobFailed
)
ACTIVE: Final[frozenset[Status]] = frozenset({"requested", "searching", "downloading", "importing"})

# What the page says: (reason, next step).
_REQUESTED: Final = ("The album was asked for.", "Lidarr looks for a release and grabs one.")
_DOWNLOADING: Final = ("Lidarr grabbed a release.", "The download ends, then Lidarr imports it.")
_IMPORTING: Final = ("Lidarr imported files.", "The job is about to complete.")


class LidarrAlbum(msgspec.Struct, frozen=True, gc=False):
    """An album as one Lidarr numbers it."""

    instance: str
    album_id: int


class Download(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One release on its way; ``key`` is the client's download id, or what stands for it."""

    key: str
    attempt: int
    outcome: Literal["running", "imported", "failed"]
    was_grabbed: bool = False  # False while the grab itself has not been seen
    release_title: str | None = None
    indexer: str | None = None
    quality: str | None = None
    size_bytes: int | None = None


class DownloadJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job as it stands; ``reason`` and ``next_step`` are for people."""

    job_id: UUID = UUID(int=0)
    user_id: str = ""
    target_mbid: UUID = UUID(int=0)
    target_is_derived: bool = False
    discovery_batch_id: UUID | None = None
    status: Status = "none"
    artist: str = ""
    album: str = ""
    source: str | None = None
    attempt: int = 0
    reason: str | None = None
    next_step: str | None = None
    origin: Literal["user", "lidarr"] = "user"
    correlation_id: str = ""
    requests: int = 0
    downloads: tuple[Download, ...] = ()
    lidarr_albums: tuple[LidarrAlbum, ...] = ()
    track_file_ids: dict[str, tuple[int, ...]] = {}  # by Lidarr instance, each ascending
    note: str | None = None  # the newest of its user, as it was sealed

    @property
    def is_active(self) -> bool:
        """Return whether an attempt is under way."""
        return self.status in ACTIVE

    def download(self, key: str | None) -> Download | None:
        """Return the download of this key, if the job knows it."""
        return next((download for download in self.downloads if download.key == key), None)


INITIAL: Final = DownloadJob()


def apply(state: DownloadJob, event: Event) -> DownloadJob:  # noqa: PLR0911 - one per fact
    """Return the job as it stands after ``event``; never refuses, the fact has happened."""
    if not isinstance(event, Fact):
        return state  # of another category
    match event:
        case JobRequested():
            return _requested(state, event)
        case JobRequestMerged():
            return state
        case JobAttemptOpened():
            return _opened(state, event)
        case JobGrabbed():
            return _grabbed(state, event)
        case JobImported():
            return _imported(state, event)
        case JobCompleted():
            return _moved(state, "completed", event.reason, None)
        case JobDownloadFailed():
            return _with_download(state, _failed_download(state, event))
        case JobFailed():
            return _moved(state, "failed", event.reason, event.next_step)
        case _:
            assert_never(event)


def fold(facts: Sequence[Event], state: DownloadJob = INITIAL) -> DownloadJob:
    """Return ``state`` after all of ``facts``, oldest first."""
    return reduce(apply, facts, state)


def _requested(state: DownloadJob, event: JobRequested) -> DownloadJob:
    if not state.is_active:
        state = replace(state, correlation_id=event.correlation_id)
    if event.note is not None:
        state = replace(state, note=event.note)
    if state.requests:
        return replace(state, requests=state.requests + 1)
    return replace(
        state,
        job_id=event.job_id,
        user_id=event.user_id,
        target_mbid=event.target_mbid,
        target_is_derived=event.target_is_derived,
        discovery_batch_id=event.discovery_batch_id,
        artist=event.artist,
        album=event.album,
        origin=event.origin,
        requests=1,
    )


def _opened(state: DownloadJob, event: JobAttemptOpened) -> DownloadJob:
    if event.attempt <= state.attempt:
        return state
    reason, next_step = _REQUESTED
    return replace(state, status="requested", attempt=event.attempt, source=None, reason=reason, next_step=next_step)


def _grabbed(state: DownloadJob, event: JobGrabbed) -> DownloadJob:
    known = state.download(key_of(event))
    outcome: Literal["running", "imported"] = "imported" if known and known.outcome == "imported" else "running"
    grabbed = Download(
        key=key_of(event),
        attempt=known.attempt if known and outcome == "imported" else state.attempt,
        outcome=outcome,
        was_grabbed=True,
        release_title=event.release_title,
        indexer=event.indexer,
        quality=event.quality,
        size_bytes=event.size_bytes,
    )
    state = _with_album(_with_download(state, grabbed), event)
    if outcome == "imported":
        return state  # the import overtook its grab: nothing is on its way
    return _moved(replace(state, source=state.source or "lidarr"), "downloading", *_DOWNLOADING)


def _imported(state: DownloadJob, event: JobImported) -> DownloadJob:
    if event.download_id is not None:
        known = state.download(event.download_id) or Download(
            key=event.download_id, attempt=state.attempt, outcome="imported"
        )
        state = _with_download(state, replace(known, outcome="imported"))
    files = {*state.track_file_ids.get(event.lidarr_instance, ()), *event.track_file_ids}
    state = replace(
        _with_album(state, event),
        track_file_ids=state.track_file_ids | {event.lidarr_instance: tuple(sorted(files))},
        source=state.source or "lidarr",
    )
    return _moved(state, "importing", *_IMPORTING)


def _failed_download(state: DownloadJob, event: JobDownloadFailed) -> Download:
    known = state.download(event.download_id) or Download(
        key=event.download_id, attempt=state.attempt, outcome="failed", release_title=event.release_title
    )
    return known if known.outcome == "imported" else replace(known, outcome="failed")


def _moved(state: DownloadJob, status: Status, reason: str | None, next_step: str | None) -> DownloadJob:
    """Return the job in its new status; what is over stays over, and files do not go back to a download."""
    if not state.is_active or (status == "downloading" and state.status == "importing"):
        return state
    return replace(state, status=status, reason=reason, next_step=next_step)


def _with_download(state: DownloadJob, download: Download) -> DownloadJob:
    if state.download(download.key) is None:
        return replace(state, downloads=(*state.downloads, download))
    downloads = tuple(download if known.key == download.key else known for known in state.downloads)
    return replace(state, downloads=downloads)


def _with_album(state: DownloadJob, event: JobGrabbed | JobImported) -> DownloadJob:
    album = LidarrAlbum(event.lidarr_instance, event.lidarr_album_id)
    return state if album in state.lidarr_albums else replace(state, lidarr_albums=(*state.lidarr_albums, album))


def key_of(event: JobGrabbed) -> str:
    """Return what names the download: the client's id, or else the release and where it is from."""
    return event.download_id or f"{event.release_title} [{event.indexer}]"
