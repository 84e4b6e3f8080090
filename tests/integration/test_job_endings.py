"""What ended is told once: per job, attempt and kind, however often it is handled."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY

from consumers import job_endings, notifications
from kima_stream import delivery, event_store
from kima_stream.database import Connection, Pool
from kima_stream.event_store import Append
from kima_stream.events import (
    Event,
    JobAttemptOpened,
    JobCancelled,
    JobCompleted,
    JobDownloadFailed,
    JobFailed,
    JobGrabbed,
    JobRequested,
    derived_id,
    new_event,
)
from kima_stream.read_models import notifications as table
from kima_stream.reconciler import sweep_once
from projections.correlation import stream_of
from tests.factories import number_all


def requested(job_id: UUID, origin: str = "user", batch: UUID | None = None) -> JobRequested:
    """Somebody, or Lidarr by itself, wants Tidewater."""
    return JobRequested(
        job_id=job_id, user_id="ann", artist="The Harbour Lights", album="Tidewater", target_mbid=uuid4(),
        target_is_derived=False, origin=origin, discovery_batch_id=batch, correlation_id="c",  # type: ignore[arg-type]
    )  # fmt: skip


async def happened(conn: Connection, job_id: UUID, *facts: Event) -> None:
    """Append facts to the stream of a job and number them."""
    await event_store.append_many(conn, [Append(stream_of(job_id), [new_event(fact) for fact in facts])])
    await number_all(conn)


async def told(conn: Connection) -> list[tuple[int, str, str | None]]:
    """Return attempt, kind and reason of all notifications in the table."""
    rows = await conn.fetch("SELECT attempt, kind, state FROM notifications WHERE version >= 0 ORDER BY attempt, kind")
    return [(row["attempt"], row["kind"], row["state"]) for row in rows]


async def swept(pool: Pool, conn: Connection) -> None:
    """Let both groups handle what is there."""
    for group in (job_endings.GROUP, notifications.GROUP):
        await number_all(conn)
        assert (await sweep_once(pool, group)).behind == 0


async def test_each_ending_is_told_and_nothing_else(pool: Pool, conn: Connection) -> None:
    """A release that fails on the way tells nobody; each attempt's end does, with its reason."""
    job_id = uuid4()
    grab = JobGrabbed(download_id="D1", lidarr_instance="Lidarr", lidarr_album_id=1)
    await happened(conn, job_id, requested(job_id), JobAttemptOpened(attempt=1), grab,
                   JobDownloadFailed(download_id="D1"))  # fmt: skip
    await swept(pool, conn)
    assert await told(conn) == []

    await happened(conn, job_id, JobFailed(reason="No release.", next_step="Ask again."), JobAttemptOpened(attempt=2),
                   JobCompleted(reason="It is there."))  # fmt: skip
    await swept(pool, conn)

    assert [(attempt, kind) for attempt, kind, _ in await told(conn)] == [(1, "failed"), (2, "completed")]
    assert "No release." in str((await told(conn))[0][2])


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (JobCompleted(reason="x", is_partial=True), "partial"),
        (JobFailed(reason="x", next_step="y", is_partial=True), "partial"),
    ],
)
async def test_a_partial_result_is_told_as_such(pool: Pool, conn: Connection, ending: Event, kind: str) -> None:
    """Partial is partial, whichever way it ended."""
    job_id = uuid4()
    await happened(conn, job_id, requested(job_id), JobAttemptOpened(attempt=1), ending)
    await swept(pool, conn)

    assert [found for _, found, _ in await told(conn)] == [kind]


async def test_what_nobody_asked_for_is_told_to_nobody(pool: Pool, conn: Connection) -> None:
    """Neither Lidarr's own jobs nor those of a batch."""
    for origin, batch in (("lidarr", None), ("user", uuid4())):
        job_id = uuid4()
        await happened(conn, job_id, requested(job_id, origin, batch), JobAttemptOpened(attempt=1),
                       JobCompleted(reason="x"))  # fmt: skip
    await swept(pool, conn)

    assert await told(conn) == []


async def test_handled_twice_at_once_it_is_told_once(pool: Pool, conn: Connection) -> None:
    """Two processes with the same news, and once more after the progress was lost."""
    job_id = uuid4()
    await happened(conn, job_id, requested(job_id), JobAttemptOpened(attempt=1), JobCompleted(reason="x"))
    news: dict[str, list[object]] = {stream_of(job_id): []}

    await asyncio.gather(*(delivery.deliver(pool, job_endings.GROUP, news) for _ in range(4)))  # type: ignore[arg-type]
    await conn.execute("DELETE FROM reactions")
    again = await delivery.deliver(pool, job_endings.GROUP, news)  # type: ignore[arg-type]
    await swept(pool, conn)

    assert again.held == frozenset()
    assert await conn.fetchval("SELECT count(*) FROM events WHERE type = 'notification.wanted'") == 1
    assert len(await told(conn)) == 1


async def test_the_database_refuses_a_second_one(conn: Connection) -> None:
    """Whatever a program does: one row per job, attempt and kind."""
    statement = """
        INSERT INTO notifications (stream, version, created_at, updated_at, state, notification_id, job_id, attempt,
                                   kind, user_id, status)
        VALUES ($1, 0, now(), now(), '{}', gen_random_uuid(), $2, 1, 'completed', 'ann', 'wanted')
    """
    job_id = uuid4()
    await conn.execute(statement, table.stream_of(uuid4()), job_id)

    with pytest.raises(asyncpg.UniqueViolationError):
        await conn.execute(statement, table.stream_of(uuid4()), job_id)


async def test_the_event_follows_from_the_ending(pool: Pool, conn: Connection) -> None:
    """Cause and id derive from the ending, so a trace shows why somebody was told."""
    job_id = uuid4()
    await happened(conn, job_id, requested(job_id), JobAttemptOpened(attempt=1), JobCompleted(reason="x"))
    await swept(pool, conn)

    ending = await conn.fetchval("SELECT event_id FROM events WHERE type = 'download_job.completed'")
    wanted = await conn.fetchrow("SELECT event_id, causation_id FROM events WHERE type = 'notification.wanted'")
    assert wanted is not None
    assert (wanted["event_id"], wanted["causation_id"]) == (derived_id(ending, job_endings.NAME), ending)


async def test_every_ending_is_counted(pool: Pool, conn: Connection) -> None:
    """By how it ended, once, with the time that the attempt took; also what is told to nobody."""
    endings: dict[str, Event] = {
        "success": JobCompleted(reason="x"),
        "partial": JobCompleted(reason="x", is_partial=True),
        "failed": JobFailed(reason="x", next_step="y"),
        "cancelled": JobCancelled(reason="x"),
    }
    before = {status: counted(status) for status in endings}
    for ending in endings.values():
        job_id = uuid4()
        await happened(conn, job_id, requested(job_id, "lidarr"), JobAttemptOpened(attempt=1), ending)
    await swept(pool, conn)
    await swept(pool, conn)

    assert {status: counted(status) - was for status, was in before.items()} == dict.fromkeys(endings, 1)


def counted(status: str) -> float:
    """Return the counter, which the histogram must agree with."""
    labels = {"source": "none", "status": status}
    value = REGISTRY.get_sample_value("kima_download_jobs_total", labels) or 0.0
    assert value == (REGISTRY.get_sample_value("kima_download_job_duration_seconds_count", labels) or 0.0)
    return value
