"""No download job waits for ever: its deadline passes once, whoever sweeps and whatever dies, and not by mistake."""

import asyncio
import os
import signal
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from consumers import intake
from consumers.reconcilers.deadlines import Swept, sweep_once
from kima_stream import event_store, projector, reconciler
from kima_stream.database import Connection, Pool
from kima_stream.effect_work import Progress
from kima_stream.effects import breaker, leasing
from kima_stream.effects.leasing import Taken
from kima_stream.event_store import Append
from kima_stream.events import JobAttemptOpened, JobRequested, Policy, new_event, new_event_id
from kima_stream.http.download_requests import request
from kima_stream.integrations import lidarr_webhooks
from kima_stream.read_models.download_jobs import PROJECTION, Filter, list_page
from projections import correlation
from projections.correlation import Album
from projections.download_job import DownloadJob
from tests.factories import number_all
from tests.front_door import webhook
from tests.polling import eventually

TIDEWATER = UUID("0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f")
FIVE_MINUTES = timedelta(minutes=5)
DAY = timedelta(days=1)


async def ask(conn: Connection, number: int = 1, *, policy: Policy = Policy(), at: datetime | None = None) -> UUID:  # noqa: B008 - frozen
    """Ask for an album; return the job."""
    album = Album(artist="A", title=f"Album {number}", mbid=UUID(int=number))
    async with conn.transaction():
        return (await request(conn, album, user_id="ann", correlation_id="trace", policy=policy, at=at)).id


async def jobs(conn: Connection) -> list[DownloadJob]:
    """Return the jobs as the read model has them."""
    return [row.state for row in await list_page(conn, Filter(), limit=1_000)]


async def receive(conn: Connection, name: str) -> None:
    """Append a webhook as the door does."""
    received, event_id = lidarr_webhooks.receive(webhook(name)), new_event_id()
    event = received.new_event(event_id, metadata="{}", correlation_id="trace")
    await event_store.append_many(conn, [Append(received.stream(event_id), [event])])


async def counted(conn: Connection) -> Counter[str]:
    """Return how many events there are, by type."""
    rows = await conn.fetch("SELECT type, count(*) AS n FROM events GROUP BY type")
    return Counter({row["type"].removeprefix("download_job."): row["n"] for row in rows})


async def test_a_job_that_nobody_can_act_on_fails_after_its_bound(pool: Pool, conn: Connection) -> None:
    """Not a moment before; with a reason and what to do; and once."""
    at = datetime.now(UTC)
    await ask(conn, at=at)

    assert await sweep_once(pool, at + FIVE_MINUTES - timedelta(seconds=1)) == Swept()
    assert await sweep_once(pool, at + FIVE_MINUTES) == Swept(passed=1)
    assert await sweep_once(pool, at + DAY) == Swept()

    [job] = await jobs(conn)
    assert (job.status, job.code, job.deadline_at) == ("failed", "no_source", None)
    assert job.next_step
    assert (await counted(conn))["deadline_passed"] == 1


async def test_however_many_sweep_each_deadline_passes_once(pool: Pool, conn: Connection) -> None:
    """Eight at once, in chunks of five: thirty jobs, thirty failures."""
    for number in range(1, 31):
        await ask(conn, number)
    now = datetime.now(UTC) + FIVE_MINUTES

    swept = await asyncio.gather(*(sweep_once(pool, now, jobs_at_once=5) for _ in range(8)))

    assert sum(each.passed for each in swept) == 30
    assert sum(each.failed for each in swept) == 0
    counts = await counted(conn)
    assert (counts["deadline_passed"], counts["failed"]) == (30, 30)


_SWEEPER = """
import asyncio, sys
from datetime import datetime
from consumers.reconcilers.deadlines import sweep_once
from kima_stream import database

async def main():
    async with await database.open_pool(sys.argv[1], role="test", min_size=1, max_size=2) as pool:
        await sweep_once(pool, datetime.fromisoformat(sys.argv[2]))

asyncio.run(main())
"""


@pytest.mark.fault
async def test_a_sweep_that_is_killed_is_finished_by_the_next(pool: Pool, conn: Connection, dsn: str) -> None:
    """Killed with -9 in the middle: what it did is done, the rest is done by another, nothing twice."""
    for number in range(1, 151):
        await ask(conn, number)
    now = datetime.now(UTC) + FIVE_MINUTES
    sweeper = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SWEEPER, dsn, now.isoformat(), stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL, env=os.environ,
    )  # fmt: skip

    async def has_begun() -> bool:
        return (await counted(conn))["failed"] > 0

    try:
        await eventually(has_begun)
    finally:
        sweeper.send_signal(signal.SIGKILL)
        await sweeper.wait()
    done = (await counted(conn))["failed"]
    assert 0 < done < 150

    assert (await sweep_once(pool, now)).passed == 150 - done
    counts = await counted(conn)
    assert (counts["deadline_passed"], counts["failed"]) == (150, 150)


async def test_what_was_received_in_time_counts(pool: Pool, conn: Connection) -> None:
    """A grab that the intake has not handled yet may be what the job waits for, numbered or not."""
    at = datetime.now(UTC)
    album = Album(artist="The Harbour Lights", title="Tidewater", mbid=TIDEWATER)
    async with conn.transaction():
        await request(conn, album, user_id="ann", correlation_id="trace", policy=Policy(), at=at)
    await receive(conn, "grab")

    assert await sweep_once(pool, at + FIVE_MINUTES) == Swept()
    await number_all(conn)
    assert await sweep_once(pool, at + FIVE_MINUTES) == Swept()
    await reconciler.sweep_once(pool, intake.GROUP)
    assert await sweep_once(pool, at + FIVE_MINUTES) == Swept()
    assert [job.status for job in await jobs(conn)] == ["downloading"]
    assert await sweep_once(pool, at + DAY) == Swept(passed=1)


async def test_a_backlog_is_no_excuse_for_ever(pool: Pool, conn: Connection) -> None:
    """A group that stands still keeps no job for longer than an hour; one that has come up excuses nothing."""
    for number in (1, 2):
        await receive(conn, "health")
        at = datetime.now(UTC)
        await ask(conn, number, at=at)

        assert await sweep_once(pool, at + FIVE_MINUTES) == Swept()
        if number == 1:
            assert await sweep_once(pool, at + FIVE_MINUTES + timedelta(hours=1)) == Swept(passed=1)
        else:
            await number_all(conn)
            await reconciler.sweep_once(pool, intake.GROUP)
            assert await sweep_once(pool, at + FIVE_MINUTES) == Swept(passed=1)


async def test_the_silence_of_a_system_that_is_away_proves_nothing(pool: Pool, conn: Connection) -> None:
    """Lidarr did not answer: its jobs get more time, up to the bound of a source; then they fail."""
    at = datetime.now(UTC)
    await ask(conn, 1, policy=Policy(sources=("lidarr",), total_seconds=24 * 3_600), at=at)
    row = await projector.load(conn, PROJECTION, correlation.stream_of((await jobs(conn))[0].job_id))
    assert row.state.deadline_at == at + DAY
    await ask(conn, 2, policy=Policy(sources=("lidarr", "soulseek")), at=at)
    await breaker.record_failure(conn, "lidarr", "no answer", now=None)

    assert await sweep_once(pool, at + timedelta(minutes=10)) == Swept(passed=1)
    second = next(job for job in await jobs(conn) if job.album == "Album 2")
    assert (second.source, second.deadline_at) == ("lidarr", at + timedelta(minutes=20))
    await sweep_once(pool, at + DAY)
    assert {job.album: (job.status, job.source) for job in await jobs(conn)} == {
        "Album 1": ("failed", "lidarr"), "Album 2": ("searching", "soulseek"),
    }  # fmt: skip


SOULSEEK = Policy(sources=("soulseek",))


async def begin(conn: Connection) -> Taken:
    """Begin the oldest call to Soulseek that nobody has begun."""
    [taken] = await leasing.take(
        conn, {"soulseek.acquire": 1}, categories=["download_job"], closed=[], holder="test", seconds=10.0, now=None
    )
    assert await leasing.begin(conn, taken)
    return taken


async def test_an_album_that_comes_from_soulseek_is_not_cut_off(pool: Pool, conn: Connection) -> None:
    """Only one that stands still as long as the bound says."""
    now = datetime.now(UTC)
    await ask(conn, policy=SOULSEEK, at=now - timedelta(hours=3))
    taken = await begin(conn)
    await leasing.renew(conn, [(taken, Progress(text="1 of 9 tracks", done_bytes=7))], seconds=10.0)

    assert await sweep_once(pool, now) == Swept()
    assert await sweep_once(pool, now + timedelta(hours=1, minutes=59)) == Swept()
    assert await sweep_once(pool, now + timedelta(hours=2, minutes=1)) == Swept(passed=1)
    [job] = await jobs(conn)
    assert (job.status, job.code) == ("failed", "gave_up")


async def test_an_album_that_comes_for_ever_is_cut_off(pool: Pool, conn: Connection) -> None:
    """At the bound of a source, whatever progress it makes."""
    now = datetime.now(UTC)
    await ask(conn, policy=SOULSEEK, at=now - DAY)
    taken = await begin(conn)
    await leasing.renew(conn, [(taken, Progress(text="1 of 9 tracks", done_bytes=7))], seconds=10.0)

    assert await sweep_once(pool, now - timedelta(seconds=1)) == Swept()
    assert await sweep_once(pool, now) == Swept(passed=1)


async def test_a_job_whose_turn_has_not_come_waits_for_it(pool: Pool, conn: Connection) -> None:
    """As long as somebody works: where nobody does no turn will come. A worker that starts anew is no such case."""
    now = datetime.now(UTC)
    for number in (1, 2):
        await ask(conn, number, policy=SOULSEEK, at=now - timedelta(hours=3))
    running = await begin(conn)

    assert await sweep_once(pool, now) == Swept()
    await leasing.release(conn, running, seconds=0.0, now=None)
    assert await sweep_once(pool, now + FIVE_MINUTES) == Swept()
    assert await sweep_once(pool, now + 3 * FIVE_MINUTES) == Swept(passed=1)
    ended = [job.status for job in await jobs(conn)]
    assert sorted(ended) == ["failed", "searching"]


async def test_a_call_that_nobody_takes_is_given_up(pool: Pool, conn: Connection) -> None:
    """Nobody brings anything from Soulseek: the job ends as it always did."""
    now = datetime.now(UTC)
    await ask(conn, policy=SOULSEEK, at=now - timedelta(hours=3))

    assert await sweep_once(pool, now) == Swept(passed=1)


async def test_a_job_of_before_there_were_deadlines_is_found(pool: Pool, conn: Connection) -> None:
    """It gets one at the next sweep, and fails at the end of it."""
    job_id = correlation.job_id("ann", UUID(int=1))
    stream = correlation.stream_of(job_id)
    asked = JobRequested(
        job_id=job_id, user_id="ann", artist="A", album="B", target_mbid=UUID(int=1), target_is_derived=False,
        origin="user", correlation_id="trace",
    )  # fmt: skip
    async with conn.transaction():
        row = await projector.load(conn, PROJECTION, stream)
        await projector.decide(conn, PROJECTION, row, [new_event(asked), new_event(JobAttemptOpened(attempt=1))])
    now = datetime.now(UTC)

    assert await sweep_once(pool, now) == Swept(passed=1)
    assert await sweep_once(pool, now) == Swept()
    assert (await jobs(conn))[0].deadline_at == now + FIVE_MINUTES
    assert await sweep_once(pool, now + FIVE_MINUTES) == Swept(passed=1)


async def test_one_job_that_cannot_be_read_holds_up_no_other(pool: Pool, conn: Connection) -> None:
    """It is counted, and the sweep goes on to the next."""
    at = datetime.now(UTC)
    poisoned, _ = await ask(conn, 1, at=at), await ask(conn, 2, at=at)
    stream = correlation.stream_of(poisoned)
    poison = new_event(JobAttemptOpened(attempt=2))
    await event_store.append_many(
        conn, [Append(stream, [type(poison)(event_id=new_event_id(), type=poison.type, data="{}", source="test")])]
    )

    assert await sweep_once(pool, at + FIVE_MINUTES, jobs_at_once=1) == Swept(passed=1, failed=1)


async def test_the_sweep_reads_an_index(conn: Connection) -> None:
    """However many jobs have ended, the due ones are found at once."""
    plan = await conn.fetch(
        """
        EXPLAIN SELECT stream FROM download_jobs
         WHERE status IN ('requested', 'searching', 'downloading', 'importing') AND version >= 0
           AND coalesce(deadline_at, '-infinity'::timestamptz) <= clock_timestamp()
         ORDER BY coalesce(deadline_at, '-infinity'::timestamptz), stream LIMIT 10
        """
    )

    assert any("download_jobs_deadline_idx" in row[0] for row in plan)
