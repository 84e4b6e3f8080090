"""What follows for a job from what Lidarr says: by webhook, in its queue and history, or when it is asked.

Pure. Each answers with nothing to what the state already has, whichever way it came and however often: a
download is known by its client's id, an import by that and by its files.
"""

from datetime import datetime, timedelta
from typing import Final

from kima_stream.events import (
    JobAddedToLidarr,
    JobDownloadBlocked,
    JobDownloadFailed,
    JobDownloadFinished,
    JobDownloadRemoved,
    JobGrabbed,
    JobImported,
    JobImportFailed,
    JobProgressed,
    JobSearched,
    JobTracksCounted,
)
from projections.download_job import apply, key_of
from projections.download_job_course import IMPORTED, Course
from projections.download_job_state import Download, DownloadJob

MIN_PROGRESS: Final = 0.05  # of a download's size: less is a fact only when time is running out

_HAD: Final = "Lidarr has the album."
_NOTHING_FOUND: Final = "Lidarr found no release."
_GIVEN_UP: Final = "The download client gave up the release."
_NOT_IMPORTED: Final = "Lidarr could not import the release."
_GOES_ON: Final = "Lidarr may grab another one, which goes on here; asking again opens a new attempt as well."


def has(state: DownloadJob, fact: JobGrabbed | JobImported) -> bool:
    """Return whether the job knows of this already: the download, and of an import every file.

    An import that names neither is news only to a job that waits for one.
    """
    if isinstance(fact, JobGrabbed):
        return state.download(key_of(fact)) is not None
    known = state.download(fact.download_id)
    if fact.download_id is not None and (known is None or known.outcome != "imported"):
        return False
    if _is_nameless(fact):
        return state.status in {"importing", "completed", "cancelled"}
    return set(fact.track_file_ids) <= set(state.track_file_ids.get(fact.lidarr_instance, ()))


def counted(course: Course, news: JobAddedToLidarr | JobTracksCounted) -> None:
    """Lidarr has the album, or a part of it; what it has not is searched for."""
    job = course.state
    is_answer = isinstance(news, JobAddedToLidarr) and _waits_for(job, "lidarr.add")
    if job.status == "none" or not (is_answer or apply(job, news) != job):
        return
    course.add(news)
    if not course.state.is_active:
        return
    if course.state.tracks_present > 0 and course.state.tracks_total is not None and not course.state.is_short:
        course.complete(_HAD)
    elif is_answer and not job.hopes:
        if job.status == "importing" and course.state.tracks_total is None:
            course.complete(IMPORTED)  # it came while Lidarr was asked, and nobody can say that it is not all
            return
        course.intend("lidarr.search")
        course.wait("answer")


def searched(course: Course, news: JobSearched) -> None:
    """Nothing found is the end of this source; otherwise a grab has to come."""
    if not _waits_for(course.state, f"{news.source}.search"):
        return
    course.add(news)
    if course.state.hopes:
        return
    if news.found == 0:
        course.give_up("nothing_found", _NOTHING_FOUND)
    else:
        course.wait("grab")


def grabbed(course: Course, grab: JobGrabbed, *, is_wanted_elsewhere: bool, at: datetime) -> None:
    """Lidarr goes on by itself after a failure, up to a cap; after the end, what it had begun is recorded."""
    job = course.state
    known = job.download(key_of(grab))
    if known and not known.may_be_grabbed_again(job.attempt):
        if not known.was_grabbed:
            course.add(grab)  # its import came first
        return
    match job.status:
        case "requested" | "searching" | "downloading" | "importing":
            _start(course, grab)
        case "failed" if job.reopened < job.policy.max_releases:
            course.reopen()
            _start(course, grab)
        case "failed":
            course.add(grab)
        case "completed" | "cancelled" if job.grabs_until is not None and at <= job.grabs_until:
            course.add(grab)
            if job.status == "cancelled" and not is_wanted_elsewhere:
                download = course.state.download(key_of(grab))
                if download is not None and may_remove(job, download):
                    course.intend("lidarr.remove", download.download_id)
        case _:
            return


def _start(course: Course, grab: JobGrabbed) -> None:
    course.add(grab)
    course.wait("progress")


def may_remove(job: DownloadJob, download: Download) -> bool:
    """Return whether Lidarr may be told to remove a download, and the client has a name for it."""
    return bool(download.download_id) and "lidarr" in job.policy.sources


def progressed(course: Course, news: JobProgressed, *, at: datetime) -> None:
    """Progress pushes the deadline; little of it is no fact yet. A download that was given up may come after all."""
    job = course.state
    known = job.download(news.download_id)
    if known is None or not known.may_come or known.outcome == "finished" or not job.is_active:
        return
    left = known.left_bytes if known.left_bytes is not None else known.size_bytes
    came = news.size_bytes if left is None else left - news.left_bytes
    is_late = job.deadline_at is None or job.deadline_at - at < timedelta(seconds=job.policy.no_progress_seconds / 2)
    if came > 0 and (known not in job.hopes or is_late or came >= news.size_bytes * MIN_PROGRESS):
        course.add(news)
        course.wait("progress")


def finished(course: Course, news: JobDownloadFinished) -> None:
    """The client has it all: the import has to come."""
    known = course.state.download(news.download_id)
    if known is None or known.outcome not in {"running", "abandoned"} or not course.state.is_active:
        return
    course.add(news)
    course.wait("import")


def imported(course: Course, news: JobImported) -> None:
    """Files are there: the attempt is complete, or waits for the other tracks."""
    job = course.state
    if job.status == "none" or has(job, news):
        return
    if not job.is_active:
        is_enough = apply(job, news).is_enough
        if job.status == "failed" and (is_enough or job.reopened < job.policy.max_releases):
            course.reopen()
        elif _is_nameless(news):
            return
        else:
            course.add(news)  # more of an album that comes in parts, or a better copy
            return
    course.add(news)
    # Lidarr is being asked how many tracks there are: until it says so nobody knows that these are all.
    if course.state.is_enough and not (job.policy.requires_all_tracks and _waits_for(course.state, "lidarr.add")):
        course.complete(IMPORTED)
    else:
        course.wait("progress" if course.state.hopes else "import")


def download_failed(course: Course, news: JobDownloadFailed) -> None:
    """The attempt goes on with another download, another release, another source, or fails with its last hope."""
    failed = course.state.download(news.download_id)
    if failed is None or not failed.is_running:
        return
    was_hope = failed in course.state.hopes
    course.add(news)
    if was_hope:
        _go_on(course, "download_failed", _GIVEN_UP)


def import_failed(course: Course, news: JobImportFailed) -> None:
    """Lidarr is told to take another release, up to the cap; jobs that are Lidarr's own business only hear of it."""
    failed = course.state.download(news.download_id)
    if failed is None or not failed.is_running:
        return
    was_hope = failed in course.state.hopes
    course.add(news)
    job = course.state
    if not was_hope or not job.is_active:
        return
    may_block = "lidarr" in job.policy.sources and job.blocklists < job.policy.max_blocklists
    if may_block and not _waits_for(job, "soulseek.acquire"):
        course.withdraw("lidarr.add", "lidarr.search")  # Lidarr has the album, and searches again by itself
        course.intend("lidarr.blocklist", news.download_id)
        if not course.state.hopes:
            course.wait("answer")
    elif not job.hopes:
        reason = f"{_NOT_IMPORTED} {news.reason}".strip()
        if _waits_for(job, "soulseek.acquire"):
            course.wait("answer")
        else:
            course.give_up("import_failed", reason)


def blocked(course: Course, news: JobDownloadBlocked) -> None:
    """Lidarr looks for another release by itself: a grab has to come."""
    job = course.state
    is_answer = _waits_for(job, "lidarr.blocklist") and job.awaits is not None and job.awaits.target == news.download_id
    known = job.download(news.download_id)
    if is_answer or (known is not None and known.outcome not in {"blocked", "imported"}):
        course.add(news)
    if is_answer and not course.state.hopes:
        course.wait("grab")


def removed(course: Course, news: JobDownloadRemoved) -> None:
    """The download is gone."""
    known = course.state.download(news.download_id)
    if known is None or known.outcome in {"removed", "imported"}:
        return
    was_hope = known in course.state.hopes
    course.add(news)
    if was_hope:
        _go_on(course, "download_failed", "The download was removed.")


def _go_on(course: Course, code: str, reason: str) -> None:
    """Wait for what else may bring the album, or leave the source."""
    job = course.state
    if not job.is_active or job.hopes:
        return
    if job.is_open(job.awaits):
        course.wait("answer")
    elif job.source == "lidarr" and "lidarr" in job.policy.sources and job.releases < job.policy.max_releases:
        course.wait("grab")
    else:
        course.give_up(code, reason, _GOES_ON)


def _is_nameless(fact: JobImported) -> bool:
    return fact.download_id is None and not fact.track_file_ids


def _waits_for(job: DownloadJob, kind: str) -> bool:
    return job.awaits is not None and job.awaits.kind == kind
