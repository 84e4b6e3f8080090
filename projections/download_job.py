"""A download job: one user's wish for one album, through all its attempts.

    requested -> searching -> downloading -> importing -> completed | failed | cancelled

Pure: the fold of its facts; what follows from a new one is decided in ``download_job_decider``.
A release or a source that fails leads back to ``searching``. Only ``JobAttemptOpened`` leaves completed,
failed or cancelled. Deadlines are facts: the fold never asks a clock.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from kima_stream.events import (
    EffectDone,
    EffectFailed,
    EffectIntended,
    EffectWithdrawn,
    Event,
    JobAddedToLidarr,
    JobAttemptOpened,
    JobCancelled,
    JobCancelRequested,
    JobCompleted,
    JobDeadlinePassed,
    JobDeadlineSet,
    JobDownloadBlocked,
    JobDownloadFailed,
    JobDownloadFinished,
    JobDownloadRemoved,
    JobFailed,
    JobGrabbed,
    JobImported,
    JobImportFailed,
    JobProgressed,
    JobRequested,
    JobRequestMerged,
    JobRetryRequested,
    JobScanRequested,
    JobSearched,
    JobSoulseekFinished,
    JobSourceChosen,
    JobTracksCounted,
    Source,
    open_effects,
)
from projections import download_job_downloads as downloads
from projections.download_job_downloads import key_of
from projections.download_job_state import (
    ACTIVE,
    INITIAL,
    STEPS,
    Download,
    DownloadJob,
    LidarrAlbum,
    Status,
    answered,
    ended,
)

__all__ = ["ACTIVE", "FOLDS", "INITIAL", "Download", "DownloadJob", "LidarrAlbum", "Status", "apply", "fold", "key_of"]

_Fold: TypeAlias = Callable[[DownloadJob, Any], DownloadJob]  # the key in FOLDS says which fact

# What the page says: (reason, next step).
_REQUESTED: Final = ("The album was asked for.", "A source takes it, or Lidarr grabs it by itself.")
_SEARCHED: Final = ("The search is over.", "Lidarr grabs one of the releases that it found.")
_UNREACHABLE: Final = "Remove the download in Lidarr: it could not be told."

_CHOSEN: Final[Mapping[Source, tuple[str, str]]] = {
    "lidarr": ("Lidarr is asked for the album.", "Lidarr watches it and searches for it."),
    "soulseek": ("Soulseek is searched for the album.", "Its files come into the library's folder."),
}
_WITHIN: Final[Mapping[str, tuple[str, str]]] = {
    "lidarr.search": ("Lidarr searches for the album.", "Lidarr grabs one of the releases that it finds."),
    "lidarr.blocklist": ("A release could not be imported.", "Lidarr is told to take another one."),
}


def apply(state: DownloadJob, event: Event) -> DownloadJob:
    """Return the job as it stands after ``event``; never refuses, the fact has happened."""
    folded = FOLDS.get(type(event))
    return state if folded is None else folded(state, event)  # None: of another category


def fold(facts: Sequence[Event], state: DownloadJob = INITIAL) -> DownloadJob:
    """Return ``state`` after all of ``facts``, oldest first."""
    return reduce(apply, facts, state)


def _requested(state: DownloadJob, event: JobRequested) -> DownloadJob:
    if not state.is_active:
        state = replace(state, correlation_id=event.correlation_id, reopened=0)
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


def _retry_requested(state: DownloadJob, event: JobRetryRequested) -> DownloadJob:
    return state if state.is_active else replace(state, correlation_id=event.correlation_id, reopened=0)


def _opened(state: DownloadJob, event: JobAttemptOpened) -> DownloadJob:
    if event.attempt <= state.attempt:
        return state
    reason, next_step = _REQUESTED
    return replace(
        state,
        status="requested",
        attempt=event.attempt,
        reopened=state.reopened + event.is_reopened,
        source=None,
        reason=reason,
        next_step=next_step,
        code=None,
        is_partial=False,
        policy=event.policy,
        sources=(),
        releases=0,
        blocklists=0,
        intended=0,
        awaits=None,
        deadline_at=None,
        deadline_kind=None,
        until=None,
        grabs_until=None,
        # Who asks again may have deleted the files; what Lidarr goes on with, it goes on with.
        tracks_total=state.tracks_total if event.is_reopened else None,
        tracks_present=state.tracks_present if event.is_reopened else 0,
        lidarr_tracks=state.lidarr_tracks if event.is_reopened else None,
    )


def _chosen(state: DownloadJob, event: JobSourceChosen) -> DownloadJob:
    if not state.is_active:
        return state
    reason, next_step = _CHOSEN[event.source]
    return replace(
        state,
        status="searching",
        source=event.source,
        sources=state.sources if event.source in state.sources else (*state.sources, event.source),
        reason=f"{event.reason} {reason}" if event.reason else reason,
        next_step=next_step,
        awaits=None,
        until=None,
    )


def _intended(state: DownloadJob, event: EffectIntended) -> DownloadJob:
    effect = event.effect
    state = replace(
        state,
        effects=open_effects(state.effects, event),
        intended=state.intended + 1,
        is_scan_wanted=state.is_scan_wanted or effect.kind == "library.scan",
    )
    if effect.kind not in STEPS or not state.is_active:
        return state
    state = replace(state, awaits=effect, blocklists=state.blocklists + (effect.kind == "lidarr.blocklist"))
    if state.hopes or effect.kind not in _WITHIN:
        return state
    reason, next_step = _WITHIN[effect.kind]
    return replace(state, status="searching", reason=reason, next_step=next_step)


def _done(state: DownloadJob, event: EffectDone) -> DownloadJob:
    return replace(state, effects=open_effects(state.effects, event))


def _effect_failed(state: DownloadJob, event: EffectFailed) -> DownloadJob:
    is_scan_wanted = state.is_scan_wanted and event.kind != "library.scan"
    state = replace(state, effects=open_effects(state.effects, event), is_scan_wanted=is_scan_wanted)
    if event.kind == "lidarr.remove" and state.status == "cancelled":
        return replace(state, next_step=event.next_step or _UNREACHABLE)
    return state


def _withdrawn(state: DownloadJob, event: EffectWithdrawn) -> DownloadJob:
    is_awaited = state.awaits is not None and state.awaits.effect_id == event.effect_id
    return replace(state, effects=open_effects(state.effects, event), awaits=None if is_awaited else state.awaits)


def _deadline_set(state: DownloadJob, event: JobDeadlineSet) -> DownloadJob:
    if not state.is_active:
        return state
    return replace(state, deadline_at=event.deadline_at, deadline_kind=event.kind, until=event.until)


def _unchanged(state: DownloadJob, event: JobRequestMerged | JobCancelRequested) -> DownloadJob:
    return state


def _scan_requested(state: DownloadJob, event: JobScanRequested) -> DownloadJob:
    return replace(state, is_scan_wanted=False)


def _deadline_passed(state: DownloadJob, event: JobDeadlinePassed) -> DownloadJob:
    if state.deadline_at != event.deadline_at:
        return state
    if state.deadline_kind in {"progress", "import"}:
        state = downloads.abandoned(state)
    return replace(state, deadline_at=None, deadline_kind=None)


def _searched(state: DownloadJob, event: JobSearched) -> DownloadJob:
    state = answered(state, f"{event.source}.search")
    if state.status != "searching":
        return state
    reason, next_step = _SEARCHED
    return replace(state, reason=reason, next_step=next_step)


def _completed(state: DownloadJob, event: JobCompleted) -> DownloadJob:
    return ended(state, "completed", event)


def _failed(state: DownloadJob, event: JobFailed) -> DownloadJob:
    return ended(state, "failed", event)


def _cancelled(state: DownloadJob, event: JobCancelled) -> DownloadJob:
    return ended(state, "cancelled", event)


FOLDS: Final[Mapping[type[Event], _Fold]] = {
    JobRequested: _requested,
    JobRequestMerged: _unchanged,
    JobRetryRequested: _retry_requested,
    JobCancelRequested: _unchanged,
    JobAttemptOpened: _opened,
    JobSourceChosen: _chosen,
    EffectIntended: _intended,
    EffectDone: _done,
    EffectFailed: _effect_failed,
    EffectWithdrawn: _withdrawn,
    JobDeadlineSet: _deadline_set,
    JobDeadlinePassed: _deadline_passed,
    JobAddedToLidarr: downloads.counted,
    JobTracksCounted: downloads.counted,
    JobSearched: _searched,
    JobGrabbed: downloads.grabbed,
    JobProgressed: downloads.progressed,
    JobDownloadFinished: downloads.finished,
    JobImported: downloads.imported,
    JobDownloadFailed: downloads.download_failed,
    JobImportFailed: downloads.download_failed,
    JobDownloadBlocked: downloads.blocked,
    JobDownloadRemoved: downloads.removed,
    JobSoulseekFinished: downloads.soulseek_finished,
    JobScanRequested: _scan_requested,
    JobCompleted: _completed,
    JobFailed: _failed,
    JobCancelled: _cancelled,
}
