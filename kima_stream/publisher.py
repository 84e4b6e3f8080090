"""The publisher: numbers what was appended, and keeps Redis a true copy of the newest part of it.

Two loops: numbering needs Postgres alone and never waits for Redis; publishing follows it and may fall behind, be
refused or find Redis empty: then it asks the stream where it ends and reads Postgres from there.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from kima_stream import cancellation, event_store, event_stream, metrics, stream_entries
from kima_stream.database import Connection, Pool
from kima_stream.delivery import OUTAGE
from kima_stream.errors import FencedError
from kima_stream.event_stream import EventStream
from kima_stream.events import RecordedEvent
from kima_stream.numbering import LEASE_SECONDS, Numberer, count_unnumbered
from kima_stream.stream_entries import CHUNK_EVENTS

POLL_SECONDS = 0.005  # while events keep coming
FEW_EVENTS = 50  # numbered at once: after so few, more are given a moment to share the next transaction
GATHER_SECONDS = 0.002
IDLE_POLL_SECONDS = 0.05  # when none came for a while
IDLE_AFTER_POLLS = 200
TRIM_SECONDS = 0.25  # how often what all groups have verified leaves Redis
CHECK_SECONDS = 1.0  # how often an idle publisher looks whether Redis still has what it published
HANDOVER_EVENTS = 20_000  # numbered and not yet published, kept in memory; beyond that Postgres keeps them
STANDBY_SECONDS, MEASURE_SECONDS = 0.5, 1.0

log = structlog.get_logger(__name__)


class Publisher:
    """Numbers and publishes while it leads; stands by otherwise. Any process may run one."""

    def __init__(self, pool: Pool, stream: EventStream, *, holder: str) -> None:
        """``pool``'s connections have ``idle_in_transaction_session_timeout`` 2 s; ``holder`` is unique."""
        self._pool = pool
        self._stream = stream
        self._holder = holder
        self._handover: list[RecordedEvent] = []
        self._numbered = asyncio.Event()
        # The last position published per category; a category that is not in it must be asked for.
        self._last: dict[str, int] = {}
        self._leads = False
        self._redis_up = False
        self._check_at = self._trim_at = 0.0
        self._trimmed: dict[str, int] = {}  # category -> the position below which nothing is left
        self.wake = asyncio.Event()  # set it after a commit: spares the wait for the next poll

    async def run(self) -> None:
        """Run until cancelled; the lease is given back at the end."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_numbering())
            tasks.create_task(self._keep_publishing())
            tasks.create_task(self._keep_measuring())

    async def _keep_measuring(self) -> None:
        """Say how much waits for its number, also while another process leads: it may be the one that hangs."""
        loop = asyncio.get_running_loop()
        while True:
            began_at = loop.time()
            try:
                async with self._pool.acquire() as conn:
                    lag = await count_unnumbered(conn)
            except OUTAGE as error:
                log.debug("lag_unknown", error_type=type(error).__name__)
            else:
                metrics.publish_lag_events.set(lag.events)
                metrics.publish_lag_seconds.set(lag.oldest_seconds)
            await asyncio.sleep(max(MEASURE_SECONDS, 10 * (loop.time() - began_at)))

    # --- numbering -------------------------------------------------------------------------------

    async def _keep_numbering(self) -> None:
        while True:
            cancellation.heed()
            try:
                async with self._pool.acquire() as conn:
                    await self._number_with(Numberer(conn, holder=self._holder))
            except OUTAGE as error:
                log.warning("numbering_interrupted", error_type=type(error).__name__)
            except FencedError:
                log.info("standing_by")
            self._leads = False
            await asyncio.sleep(STANDBY_SECONDS)

    async def _number_with(self, numberer: Numberer) -> None:
        """Stand by, then lead until the lease or the connection is lost."""
        try:
            while not await numberer.lead():
                cancellation.heed()
                await asyncio.sleep(STANDBY_SECONDS)
            self._leads = True
            await self._lead(numberer)
        finally:
            self._leads = False
            if numberer.leads:
                async with asyncio.timeout(STANDBY_SECONDS):
                    await numberer.resign()

    async def _lead(self, numberer: Numberer) -> None:
        loop = asyncio.get_running_loop()
        held_at, idle_polls = loop.time(), 0
        while True:
            cancellation.heed()
            self.wake.clear()
            numbered = await numberer.number_once()
            _measure(numbered)
            if numbered:
                idle_polls, held_at = 0, loop.time()
                self._hand_over(numbered)
                metrics.log_position.set(numberer.position)
                if len(numbered) < FEW_EVENTS:
                    await asyncio.sleep(GATHER_SECONDS)
                continue
            idle_polls += 1
            if loop.time() - held_at > LEASE_SECONDS / 4:
                await numberer.keep()
                held_at = loop.time()
            await _wait(self.wake, POLL_SECONDS if idle_polls < IDLE_AFTER_POLLS else IDLE_POLL_SECONDS)

    def _hand_over(self, numbered: Sequence[RecordedEvent]) -> None:
        self._handover.extend(numbered)
        if len(self._handover) > HANDOVER_EVENTS:
            self._handover.clear()
            self._last.clear()  # publishing reads on from Postgres
        self._numbered.set()

    # --- publishing ------------------------------------------------------------------------------

    async def _keep_publishing(self) -> None:
        while True:
            cancellation.heed()
            await _wait(self._numbered, CHECK_SECONDS)
            self._numbered.clear()
            if not self._leads:
                self._handover.clear()
                self._last.clear()
                continue
            try:
                await self.publish_once()
            except event_stream.OUTAGE:
                self._last.clear()
                self._mark_redis(up=False)
                await asyncio.sleep(STANDBY_SECONDS)
            except OUTAGE as error:
                self._last.clear()
                log.warning("publishing_interrupted", error_type=type(error).__name__)
                await asyncio.sleep(STANDBY_SECONDS)

    async def publish_once(self) -> int:
        """Publish what was handed over and whatever Redis lacks; return how many entries were added."""
        handed, self._handover = self._handover, []
        by_category: dict[str, list[RecordedEvent]] = defaultdict(list)
        for event in handed:
            by_category[event.category].append(event)
        published = 0
        for category, events in by_category.items():
            published += await self._publish(category, events)
        now = asyncio.get_running_loop().time()
        if now >= self._check_at:
            published += await self._catch_up()
            self._check_at = now + CHECK_SECONDS
        if now >= self._trim_at:
            await self._trim()
            self._trim_at = now + TRIM_SECONDS
        self._mark_redis(up=True)
        return published

    def _mark_redis(self, *, up: bool) -> None:
        if up and not self._redis_up:
            log.info("Redis ready")
        elif self._redis_up and not up:
            log.warning("redis_lost")
        self._redis_up = up
        metrics.redis_up.set(up)

    async def _publish(self, category: str, events: Sequence[RecordedEvent]) -> int:
        """Add fresh events behind those already there; when Redis refuses, repair the stream from Postgres."""
        published = 0
        for chunk in stream_entries.chunks(events):
            last = self._last.get(category)
            fresh = [event for event in chunk if _position(event) > (last or 0)]  # a repair may have been faster
            if not fresh:
                continue
            if last is None or await self._stream.add(category, fresh, last=last) is not None:
                async with self._pool.acquire() as conn:
                    return published + await self._repair(conn, category)
            self._last[category] = _position(fresh[-1])
            published += len(fresh)
        return published

    async def _catch_up(self) -> int:
        """Compare every category with Redis and repair what differs."""
        published = 0
        async with self._pool.acquire() as conn:
            for row in await conn.fetch(_CATEGORIES):
                category = row["category"]
                last = self._last.get(category)
                if last is None or await self._stream.add(category, [], last=last) is not None:
                    published += await self._repair(conn, category)
        return published

    async def _trim(self) -> None:
        """Remove from Redis what all groups of a category have verified."""
        async with self._pool.acquire() as conn:
            verified = {row["category"]: row["verified"] for row in await conn.fetch(_VERIFIED)}
        for category, position in verified.items():
            if position != self._trimmed.get(category) and category in self._last:
                await self._stream.trim(category, below=position + 1)
                self._trimmed[category] = position

    async def _repair(self, conn: Connection, category: str) -> int:
        """Publish again from where the stream ends, or from what its groups have verified if that is later."""
        published = 0
        last = await self._stream.last_position(category)
        start = await conn.fetchrow(_REPAIR_FROM, category, last, self._stream.max_entries)
        assert start is not None  # noqa: S101 - an aggregate always answers
        if last > start["head"] or not await self._is_ours(conn, category):
            log.warning("foreign_stream_dropped", category=category, last=last, head=start["head"])
            await self._stream.drop(category)
            last = 0
        after = start["start"] if last else start["start_empty"]
        while events := await event_store.read_log(conn, after=after, category=category, limit=CHUNK_EVENTS):
            for chunk in stream_entries.chunks(events):
                actual = await self._stream.add(category, chunk, last=last)
                if actual is not None:  # it moved under our hands: a flush, or another publisher
                    log.info("stream_moved", category=category, expected=last, actual=actual)
                    self._last.pop(category, None)
                    self._check_at = 0.0
                    self._numbered.set()
                    return published
                last = after = _position(chunk[-1])
                published += len(chunk)
        self._last[category] = last
        if published:
            log.info("stream_repaired", category=category, published=published, last=last)
        return published

    async def _is_ours(self, conn: Connection, category: str) -> bool:
        """Whether the newest entry in Redis is the event that the log has at its position."""
        newest = await self._stream.newest(category)
        if newest is None:
            return True
        position, event_id = newest
        return bool(await conn.fetchval(_IS_OURS, position, event_id))


_IS_OURS = "SELECT EXISTS (SELECT FROM event_positions WHERE position = $1 AND event_id::text = $2)"

_CATEGORIES = """
    WITH RECURSIVE c (category) AS (
        (SELECT category FROM event_positions ORDER BY category LIMIT 1)
         UNION ALL
        SELECT (SELECT p.category FROM event_positions AS p
                 WHERE p.category > c.category ORDER BY p.category LIMIT 1)
          FROM c
         WHERE c.category IS NOT NULL
    )
    SELECT c.category FROM c WHERE c.category IS NOT NULL
"""

_VERIFIED = "SELECT category, min(verified_position) AS verified FROM group_checkpoints GROUP BY category"

# From the stream's end, but not from before what all groups have verified nor beyond the cap.
_REPAIR_FROM = """
    SELECT coalesce((SELECT max(position) FROM event_positions), 0) AS head,
           greatest($2::bigint, b.verified, b.capped) AS start,
           greatest(b.verified, b.capped) AS start_empty
      FROM (SELECT coalesce((SELECT min(verified_position) FROM group_checkpoints WHERE category = $1), 0) AS verified,
                   coalesce((SELECT position FROM event_positions
                              WHERE category = $1 ORDER BY position DESC OFFSET $3 LIMIT 1), 0) AS capped) AS b
"""


def _position(event: RecordedEvent) -> int:
    assert event.position is not None  # noqa: S101 - numbered just before
    return event.position


def _measure(numbered: Sequence[RecordedEvent]) -> None:
    """Set the lag to what was just found unnumbered, and count it as appended: here each event comes by once."""
    metrics.publish_lag_events.set(len(numbered))
    age = datetime.now(UTC) - numbered[0].recorded_at if numbered else timedelta()
    metrics.publish_lag_seconds.set(max(age.total_seconds(), 0.0))
    for category, count in Counter(event.category for event in numbered).items():
        metrics.events_appended.labels(category=category).inc(count)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for ``event``, ``seconds`` at most."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
