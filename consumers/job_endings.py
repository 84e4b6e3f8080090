"""What ended is counted, and to be told: an attempt of a job that completed or failed becomes a notification.

Only an ending is told: a release that failed while another one is looked for tells nobody. What nobody
here asked for, and the albums of a batch, are told to nobody either.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from kima_stream import event_store, metrics, projector, reaction, upcasters
from kima_stream.database import Connection
from kima_stream.event_store import Append
from kima_stream.events import (
    NO_STREAM,
    JobAttemptOpened,
    JobCancelled,
    JobCompleted,
    JobFailed,
    NotificationWanted,
    RecordedEvent,
    derived_id,
    event_type,
)
from kima_stream.read_models import notifications
from kima_stream.read_models.download_jobs import PROJECTION as JOBS
from projections import notification
from projections.download_job import DownloadJob

NAME: Final = "job_endings"  # consumer group and key of its progress: renaming it tells everything again

_ENDINGS: Final = frozenset(event_type(ending) for ending in (JobCompleted, JobFailed, JobCancelled))
_CANCELLED: Final = event_type(JobCancelled)
_OPENED: Final = event_type(JobAttemptOpened)


async def react(conn: Connection, events: Sequence[RecordedEvent]) -> None:
    """Append a notification for each ending, once however often it is delivered; then count them all."""
    ended = [(event, await _job_after(conn, event)) for event in events if event.type in _ENDINGS]
    for event, (job, _) in ended:
        if job.origin == "user" and job.discovery_batch_id is None and event.type != _CANCELLED:
            await _tell(conn, event, job)
    for event, (job, opened_at) in ended:
        # Last: what raised before is handled again. A commit that fails counts twice, which no log can tell.
        labels = {"source": job.source or "none", "status": _status(upcasters.decode(event))}
        metrics.download_jobs.labels(**labels).inc()
        metrics.download_job_seconds.labels(**labels).observe((event.recorded_at - opened_at).total_seconds())


async def _job_after(conn: Connection, ending: RecordedEvent) -> tuple[DownloadJob, datetime]:
    """Return the job as ``ending`` left it, and when the attempt was opened."""
    history = await event_store.read_stream(conn, ending.stream, up_to=ending.version)
    opened = [event.recorded_at for event in history if event.type == _OPENED]
    return projector.fold(JOBS, projector.blank(JOBS, ending.stream), history).state, (
        opened[-1] if opened else history[0].recorded_at
    )


async def _tell(conn: Connection, ended: RecordedEvent, job: DownloadJob) -> None:
    wanted = _wanted(job, upcasters.decode(ended))
    stream = notifications.stream_of(wanted.notification_id)
    if await event_store.head_version(conn, stream) != NO_STREAM:
        return
    decided = notification.decide(notification.INITIAL, wanted, ended.recorded_at)
    new = projector.consequences(
        decided,
        event_id=derived_id(ended.event_id, NAME),
        correlation_id=ended.correlation_id,
        causation_id=ended.event_id,
    )
    await event_store.append_many(conn, [Append(stream, new, NO_STREAM)])


def _wanted(job: DownloadJob, ending: object) -> NotificationWanted:
    kind = _kind(ending)
    return NotificationWanted(
        notification_id=notification.notification_id(job.job_id, job.attempt, kind),
        job_id=job.job_id,
        attempt=job.attempt,
        kind=kind,
        user_id=job.user_id,
        artist=job.artist,
        album=job.album,
        reason=job.reason,
        next_step=job.next_step,
    )


def _kind(ending: object) -> Literal["completed", "failed", "partial"]:
    match ending:
        case JobCompleted(is_partial=True) | JobFailed(is_partial=True):
            return "partial"
        case JobCompleted():
            return "completed"
        case _:
            return "failed"


def _status(ending: object) -> str:
    if isinstance(ending, JobCancelled):
        return "cancelled"
    kind = _kind(ending)
    return "success" if kind == "completed" else kind


GROUP: Final = reaction.consumer_group(NAME, "download_job", react)
