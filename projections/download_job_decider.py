"""What follows for a download job from news of it.

Pure. ``decide`` answers ``[]`` to what the state already has, whichever way it came and however
often: a download is known by its client's id, an import by that and by its files.
"""

from typing import Final, TypeAlias, assert_never

from kima_stream.events import (
    JobAttemptOpened,
    JobCompleted,
    JobDownloadFailed,
    JobFailed,
    JobGrabbed,
    JobImported,
    JobRequested,
    JobRequestMerged,
)
from projections.download_job import DownloadJob, Fact, key_of

News: TypeAlias = JobRequested | JobGrabbed | JobImported | JobDownloadFailed  # what comes from outside

_IMPORTED: Final = "Lidarr imported the album."
_GIVEN_UP: Final = (
    "The download client gave up the release.",
    "Lidarr may grab another one, which goes on here; asking again opens a new attempt as well.",
)


def decide(state: DownloadJob, fact: News) -> list[Fact]:
    """Return what follows from ``fact``, itself included; ``[]`` when the state has it or it is not for this job."""
    match fact:
        case JobRequested():
            return _decide_request(state, fact)
        case JobGrabbed():
            return _decide_grab(state, fact)
        case JobImported():
            return _decide_import(state, fact)
        case JobDownloadFailed():
            return _decide_failure(state, fact)
        case _:
            assert_never(fact)


def has(state: DownloadJob, fact: JobGrabbed | JobImported) -> bool:
    """Return whether the job knows of this already: the download, and of an import every file."""
    if isinstance(fact, JobGrabbed):
        return state.download(key_of(fact)) is not None
    known = state.download(fact.download_id)
    if fact.download_id is not None and (known is None or known.outcome != "imported"):
        return False
    if fact.download_id is None and not fact.track_file_ids:
        return state.status == "completed"
    return set(fact.track_file_ids) <= set(state.track_file_ids.get(fact.lidarr_instance, ()))


def _decide_request(state: DownloadJob, request: JobRequested) -> list[Fact]:
    """A new attempt, unless one is under way."""
    if state.is_active:
        return [request, JobRequestMerged(attempt=state.attempt)]
    return [request, JobAttemptOpened(attempt=state.attempt + 1)]


def _decide_grab(state: DownloadJob, grab: JobGrabbed) -> list[Fact]:
    """Lidarr goes on by itself after a failure, never after a success."""
    known = state.download(key_of(grab))
    if known and known.outcome != "failed":
        return [] if known.was_grabbed else [grab]  # its import came first
    match state.status:
        case "requested" | "searching" | "downloading" | "importing":
            return [grab]
        case "failed":
            return [JobAttemptOpened(attempt=state.attempt + 1), grab]
        case "none" | "completed" | "cancelled":
            return []
        case _:
            assert_never(state.status)


def _decide_import(state: DownloadJob, imported: JobImported) -> list[Fact]:
    """The album is there, so whatever was under way is complete."""
    if has(state, imported):
        return []
    completed = JobCompleted(reason=_IMPORTED)
    match state.status:
        case "requested" | "searching" | "downloading" | "importing":
            return [imported, completed]
        case "failed":
            return [JobAttemptOpened(attempt=state.attempt + 1), imported, completed]
        case "completed" | "cancelled":
            return [imported]  # more of an album that comes in parts, or a better copy
        case "none":
            return []
        case _:
            assert_never(state.status)


def _decide_failure(state: DownloadJob, failure: JobDownloadFailed) -> list[Fact]:
    """The attempt fails with the last of its downloads."""
    failed = state.download(failure.download_id)
    if failed is None or failed.outcome != "running":
        return []
    hopes = [
        download
        for download in state.downloads
        if download.outcome == "running" and download.attempt == state.attempt and download is not failed
    ]
    if not state.is_active or failed.attempt != state.attempt or hopes:
        return [failure]
    reason, next_step = _GIVEN_UP
    return [failure, JobFailed(reason=reason, next_step=next_step)]
