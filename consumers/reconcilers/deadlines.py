"""Sees that no download job waits for ever: those whose deadline is past are told so, and go on or fail.

The deadline is in the job and named by the fact, so it passes once, however many processes look and whatever dies
in between. Three things excuse a job: what was received in time and is not handled yet may be what it waits for,
a system that does not answer proves nothing by its silence, and an album that comes from Soulseek, or has yet to have
its turn there, is not cut off before the bound of the source.
"""

from collections.abc import Sequence, Set as AbstractSet
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from consumers import intake
from consumers.reconcilers import sweeping
from kima_stream import checkpoints, delivery, metrics, projector
from kima_stream.database import Connection, Pool
from kima_stream.effects import breaker, turns
from kima_stream.effects.turns import Turn
from kima_stream.errors import WrongExpectedVersionError
from kima_stream.events import JobDeadlinePassed, new_event_id
from kima_stream.read_models import download_jobs
from kima_stream.read_models.download_jobs import PROJECTION, Due
from projections.download_job import DownloadJob
from projections.download_job_decider import decide

SOURCES: Final = ("lidarr", "soulseek", "none")
EVERY_SECONDS: Final = 2.0
JOBS_AT_ONCE: Final = 200
TRIES: Final = 5  # somebody appended without the row's lock: decide again
# A group that stands still, or a publisher that is gone, must not keep jobs for ever.
LONGEST_EXCUSE: Final = timedelta(hours=1)
ACQUIRE: Final = "soulseek.acquire"
# Where nobody has held a call for so long, nobody makes such calls: no turn will come. A restart takes less.
LONGEST_PAUSE: Final = timedelta(minutes=10)

log = structlog.get_logger(__name__)


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What one sweep did: jobs that moved because their deadline was past, and those whose turn failed."""

    passed: int = 0
    failed: int = 0


async def keep_passing(pool: Pool) -> None:
    """Sweep and measure every two seconds; any process may, all at once."""

    async def sweep() -> None:
        await sweep_once(pool)
        await measure(pool)

    await sweeping.keep("deadlines", sweep, every_seconds=EVERY_SECONDS)


async def measure(pool: Pool) -> None:
    """Say how many jobs are under way, by source; one that has none any more says so too."""
    async with pool.acquire() as conn:
        counts = await download_jobs.count_active(conn)
    for source in SOURCES:
        metrics.active_downloads.labels(source=source).set(counts.get(source, 0))


async def sweep_once(pool: Pool, now: datetime | None = None, *, jobs_at_once: int = JOBS_AT_ONCE) -> Swept:
    """Let every deadline pass that is past at ``now``, Postgres' clock unless given; each job in its own transaction.

    Raises:
        OUTAGE: Postgres is away; what was done stays done.
    """
    passed = failed = 0
    last: Due | None = None
    while True:
        async with pool.acquire() as conn:
            at = now or await _clock(conn)
            due = await download_jobs.find_due(conn, at, after=last, limit=jobs_at_once)
            known_until = await _known_until(conn, at) if due else at
            past = [job for job in due if job.deadline_at is None or job.deadline_at <= known_until]
            coming = await _coming(conn, past, at) if past else frozenset()
            unreachable = await _unreachable(conn) if past else frozenset()
        for job in past:
            if job.stream in coming:
                continue
            try:
                passed += await _pass(pool, job, at, unreachable)
            except delivery.OUTAGE:
                raise
            except Exception:
                failed += 1
                log.exception("deadline_not_passed", stream=job.stream)
        if len(due) < jobs_at_once:
            return Swept(passed=passed, failed=failed)
        last = due[-1]


async def _pass(pool: Pool, due: Due, at: datetime, unreachable: AbstractSet[str]) -> bool:
    """Tell one job that its time is up; say whether that moved it."""
    for attempt in range(1, TRIES + 1):
        try:
            async with pool.acquire() as conn, conn.transaction():
                return await _decide(conn, due, at, unreachable)
        except (WrongExpectedVersionError, *delivery.RIVALRY):
            if attempt == TRIES:
                raise
    raise AssertionError  # the last try has returned or raised


async def _decide(conn: Connection, due: Due, at: datetime, unreachable: AbstractSet[str]) -> bool:
    row = await projector.load(conn, PROJECTION, due.stream)
    news = JobDeadlinePassed(deadline_at=due.deadline_at)
    facts = decide(row.state, news, at, unreachable=unreachable).facts
    if not facts:
        return False  # it moved on, or another process was here
    events = projector.consequences(facts, event_id=new_event_id(), correlation_id=row.state.correlation_id)
    row = await projector.decide(conn, PROJECTION, row, events)
    log.info("deadline_passed", stream=row.stream, status=row.state.status, code=row.state.code)
    return True


async def _known_until(conn: Connection, at: datetime) -> datetime:
    """Return up to when everything that was received is decided on."""
    since = await checkpoints.unverified_since(conn, intake.GROUP)
    return at if since is None else max(since, at - LONGEST_EXCUSE)


async def _unreachable(conn: Connection) -> frozenset[str]:
    """Return the systems that did not answer the last time."""
    return frozenset(each.system for each, _ in await breaker.read(conn) if each.failures)


async def _coming(conn: Connection, past: Sequence[Due], at: datetime) -> frozenset[str]:
    """Return the streams of those that Soulseek still brings an album for, or that wait for their turn."""
    rows = await download_jobs.find_many(conn, [job.stream for job in past])
    calls = {row.stream: row.state.awaits.effect_id for row in rows if row.state.awaits and _may_come(row.state, at)}
    found = await turns.find(conn, ACQUIRE, list(calls.values())) if calls else {}
    idle = {row.stream: timedelta(seconds=row.state.policy.soulseek_seconds) for row in rows}
    return frozenset(
        stream for stream, call in calls.items() if call in found and _comes_on(found[call], at, idle[stream])
    )


def _may_come(job: DownloadJob, at: datetime) -> bool:
    """Return whether the job awaits an album from Soulseek and its source may have more time."""
    is_awaited = job.awaits is not None and job.awaits.kind == ACQUIRE and job.deadline_kind == "answer"
    return is_awaited and job.until is not None and at < job.until


def _comes_on(turn: Turn, at: datetime, idle: timedelta) -> bool:
    if turn.moved_at is not None:
        return at < turn.moved_at + idle
    return turn.held_at is not None and at < turn.held_at + LONGEST_PAUSE


async def _clock(conn: Connection) -> datetime:
    moment: datetime = await conn.fetchval("SELECT clock_timestamp()")
    return moment
