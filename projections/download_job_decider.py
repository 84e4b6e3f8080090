"""What follows for a download job from news of it: requests, time, calls that ended, and what Lidarr says.

Pure. ``decide`` answers ``[]`` to what the state already has, so that deciding twice changes nothing, and every
job that it leaves active has a deadline. Never another source than the policy of the attempt names.
"""

from collections.abc import Mapping, Set as AbstractSet
from datetime import datetime
from typing import Final

from kima_stream.events import (
    Deadline,
    EffectFailed,
    Event,
    JobAddedToLidarr,
    JobAttemptOpened,
    JobCancelRequested,
    JobDeadlinePassed,
    JobDownloadBlocked,
    JobDownloadFailed,
    JobDownloadFinished,
    JobDownloadRemoved,
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
    JobTracksCounted,
    Policy,
)
from projections import download_job_lidarr as lidarr
from projections.download_job_course import Course
from projections.download_job_state import DownloadJob

NO_SOURCES: Final = Policy()  # Lidarr's own business, or nothing is set up

_CANCELLED: Final = "It was cancelled."
_CANCELLED_HERE: Final = "It was cancelled; a download goes on in Lidarr, for others or because nobody may tell it."
_SCANNED: Final = "Soulseek brought the album."
_NOTHING_FOUND: Final = "Soulseek found nothing."
_PART_FOUND: Final = "Soulseek found a part of the album."
_CONNECT: Final = "Set up Lidarr or Soulseek in the settings, then ask again."
_LATE: Final[Mapping[Deadline, tuple[str, str, str | None]]] = {
    "source": ("no_source", "No source is set up that could bring the album, and Lidarr grabbed nothing.", _CONNECT),
    "answer": ("gave_up", "The source gave no answer in time.", "Look whether it can be reached, then ask again."),
    "grab": ("not_grabbed", "Lidarr grabbed nothing in time.", "Look for releases in Lidarr, or ask again later."),
    "progress": ("stalled", "The download made no progress.", "Look into Lidarr's queue, or ask again."),
    "import": ("not_imported", "Lidarr did not import in time.", "Look into Lidarr's queue, or ask again."),
}
_NO_DEADLINE: Final[Mapping[str, Deadline]] = {
    "requested": "source", "searching": "answer", "downloading": "progress", "importing": "import",
}  # fmt: skip


def decide(
    state: DownloadJob,
    news: Event,
    at: datetime,
    *,
    policy: Policy = NO_SOURCES,
    is_wanted_elsewhere: bool = False,
    unreachable: AbstractSet[str] = frozenset(),
) -> Course:
    """Return what follows from ``news``, itself included, and the job after it.

    Nothing follows when the state has it or it is not for this job.

    Args:
        state: the job before the news.
        news: what came; of an ``EffectFailed`` only the consequences are returned.
        at: when it came, aware UTC; deadlines count from it.
        policy: of the attempt that a request opens.
        is_wanted_elsewhere: whether another active job wants the album, so that Lidarr must go on.
        unreachable: the systems that cannot be asked just now: their silence proves nothing.
    """
    course = Course(state, at)
    match news:
        case JobRequested() | JobRetryRequested():
            _requested(course, news, policy)
        case JobCancelRequested():
            _cancel_requested(course, news, is_wanted_elsewhere=is_wanted_elsewhere)
        case JobDeadlinePassed():
            _deadline_passed(course, news, at, unreachable)
        case EffectFailed():
            _effect_failed(course, news)
        case JobSoulseekFinished():
            _soulseek_finished(course, news)
        case JobScanRequested():
            if state.is_scan_wanted:
                course.add(news)
        case JobGrabbed():
            lidarr.grabbed(course, news, is_wanted_elsewhere=is_wanted_elsewhere, at=at)
        case _:
            _from_lidarr(course, news, at)
    return course


def _from_lidarr(course: Course, news: Event, at: datetime) -> None:
    """Decide on what Lidarr says; facts that are no news change nothing."""
    match news:
        case JobAddedToLidarr() | JobTracksCounted():
            lidarr.counted(course, news)
        case JobSearched():
            lidarr.searched(course, news)
        case JobProgressed():
            lidarr.progressed(course, news, at=at)
        case JobDownloadFinished():
            lidarr.finished(course, news)
        case JobImported():
            lidarr.imported(course, news)
        case JobDownloadFailed():
            lidarr.download_failed(course, news)
        case JobImportFailed():
            lidarr.import_failed(course, news)
        case JobDownloadBlocked():
            lidarr.blocked(course, news)
        case JobDownloadRemoved():
            lidarr.removed(course, news)
        case _:
            return


def decide_unasked(state: DownloadJob, request: JobRequested, news: JobGrabbed | JobImported, at: datetime) -> Course:
    """Return what follows when Lidarr is taken to have asked for what it grabbed or imported."""
    course = Course(state, at)
    course.add(request)
    if not state.is_active:
        course.add(JobAttemptOpened(attempt=state.attempt + 1))
    if isinstance(news, JobGrabbed):
        lidarr.grabbed(course, news, is_wanted_elsewhere=False, at=at)
    else:
        lidarr.imported(course, news)
    return course


def _requested(course: Course, request: JobRequested | JobRetryRequested, policy: Policy) -> None:
    """Open an attempt, unless one is under way."""
    if isinstance(request, JobRetryRequested) and course.state.status == "none":
        return
    course.add(request)
    if course.state.is_active:
        course.add(JobRequestMerged(attempt=course.state.attempt))
    else:
        course.open_attempt(policy)


def _cancel_requested(course: Course, request: JobCancelRequested, *, is_wanted_elsewhere: bool) -> None:
    """Withdraw what is queued and what runs; a download that others wait for goes on."""
    job = course.state
    if job.status == "none":
        return
    course.add(request)
    if not job.is_active:
        return
    removed = [] if is_wanted_elsewhere else [hope for hope in job.hopes if lidarr.may_remove(job, hope)]
    course.cancel(_CANCELLED if len(removed) == len(job.hopes) else _CANCELLED_HERE)
    for download in removed:
        course.intend("lidarr.remove", download.download_id)


def _deadline_passed(course: Course, news: JobDeadlinePassed, at: datetime, unreachable: AbstractSet[str]) -> None:
    """Leave the source, or fail; a system that could not be asked has more time, up to the bound of the source."""
    job = course.state
    if not job.is_active or news.deadline_at != job.deadline_at:
        return
    kind = job.deadline_kind
    if kind is None:
        course.add(news)
        course.wait(_NO_DEADLINE[job.status])  # of a job that began before there were deadlines
        return
    if job.deadline_at is not None and at < job.deadline_at:
        return
    if kind != "source" and job.source in unreachable and job.until is not None and at < job.until:
        course.wait(kind, reason=f"{job.source} could not be asked.")
        return
    course.add(news)
    if kind in {"progress", "import"} and job.is_open(job.awaits) and not course.state.is_imported:
        course.wait("answer")
    else:
        course.give_up(*_LATE[kind])


def _effect_failed(course: Course, news: EffectFailed) -> None:
    """The step that the attempt waits for has failed: the next source is asked, or the job fails for that reason."""
    job = course.state
    if not job.is_active or job.awaits is None or job.awaits.effect_id != news.effect_id:
        return
    course.withdraw()
    if not job.hopes:
        course.give_up(news.code, news.reason, news.next_step)


def _soulseek_finished(course: Course, news: JobSoulseekFinished) -> None:
    """All tracks: complete. Some: partial, and the next source is asked. The library hears of every file."""
    job = course.state
    was_awaited = job.awaits is not None and job.awaits.kind == "soulseek.acquire"
    paths = {file.path for file in job.soulseek_files}
    if job.status == "none" or not (was_awaited or any(file.path not in paths for file in news.files)):
        return
    course.add(news)
    if news.files:
        course.intend("library.scan")
    if not course.state.is_active:
        return
    is_all = news.tracks_found >= max(news.tracks_wanted, course.state.tracks_total or 0)  # its folder may be a part
    if news.tracks_found and (is_all or not job.policy.requires_all_tracks):
        course.complete(_SCANNED)
    elif was_awaited and not job.hopes:
        if news.tracks_found:
            course.give_up("partial", _PART_FOUND)
        else:
            course.give_up("nothing_found", _NOTHING_FOUND)
