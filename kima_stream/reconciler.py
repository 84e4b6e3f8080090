"""The sweep: compares the log with what each group has handled, and heals what is behind.

It walks the same ``deliver`` as live news, so replay is not another way to act. It alone moves
``verified_position``, the truth of lag, trimming and retention.
"""

import asyncio

import msgspec
import structlog

from kima_stream import cancellation, checkpoints, dead_letters, delivery, event_stream, leases, metrics
from kima_stream.checkpoints import BehindStream, ConsumerGroup
from kima_stream.database import Connection, Pool
from kima_stream.errors import FencedError, ForkedLogError
from kima_stream.event_stream import EventStream
from kima_stream.leases import Lease

SWEEP_EVERY_SECONDS = 1.0
GRACE_SECONDS = 2.0  # news this young is on its way through Redis; without Redis there is no grace
PROBE_EVERY_SECONDS = 30.0  # how often a stopped group tries one of the streams it parked
STREAMS_AT_ONCE = 200
LEASE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Swept(msgspec.Struct, frozen=True):
    """What one sweep found: how far the group is verified now, and how many streams it brought up."""

    verified_position: int
    reconciled: int
    behind: int
    stopped: bool = False


class Reconciler:
    """Sweeps one group each second, while this process holds the group's sweep lease."""

    def __init__(self, group: ConsumerGroup, pool: Pool, stream: EventStream | None, *, holder: str) -> None:
        """``stream`` tells whether Redis delivers; ``holder`` is unique to this process."""
        self._group = group
        self._pool = pool
        self._stream = stream
        self._holder = holder
        self._lease: Lease | None = None
        self._probe_at = 0.0

    async def run(self) -> None:
        """Sweep until cancelled; a sweep that fails is logged and the next one tries again."""
        while True:
            cancellation.heed()
            try:
                if await self._lead():
                    await self.sweep(grace_seconds=GRACE_SECONDS if await self._redis_delivers() else 0.0)
            except FencedError:
                self._lease = None
            except ForkedLogError:
                log.exception("log_forked", group=self._group.name)
            except delivery.OUTAGE as error:
                log.warning("sweep_interrupted", group=self._group.name, error_type=type(error).__name__)
            except Exception:
                log.exception("sweep_failed", group=self._group.name)
            await asyncio.sleep(SWEEP_EVERY_SECONDS)

    async def sweep(self, *, grace_seconds: float) -> Swept:
        """Sweep once, or probe when the group has stopped itself."""
        async with self._pool.acquire() as conn:
            checkpoint = await checkpoints.read(conn, self._group)
            await _measure(conn, self._group)
        if not checkpoint.stopped:
            return await sweep_once(self._pool, self._group, grace_seconds=grace_seconds)
        now = asyncio.get_running_loop().time()
        if now >= self._probe_at:
            self._probe_at = now + PROBE_EVERY_SECONDS
            await delivery.probe(self._pool, self._group)
        return Swept(verified_position=checkpoint.verified_position, reconciled=0, behind=0, stopped=True)

    async def _lead(self) -> bool:
        name = f"sweep:{self._group.name}"
        async with self._pool.acquire() as conn:
            if self._lease is None:
                self._lease = await leases.acquire(conn, name, holder=self._holder, seconds=LEASE_SECONDS)
            else:
                await leases.hold(conn, self._lease, seconds=LEASE_SECONDS)
        return self._lease is not None

    async def _redis_delivers(self) -> bool:
        if self._stream is None:
            return False
        try:
            await self._stream.ping()
        except event_stream.OUTAGE:
            return False
        return True


async def sweep_once(pool: Pool, group: ConsumerGroup, *, grace_seconds: float = 0.0) -> Swept:
    """Bring up every stream that is behind for longer than ``grace_seconds`` and move ``verified_position``."""
    async with pool.acquire() as conn:
        due = await dead_letters.due(conn, group.name)
    if due:
        await delivery.deliver(pool, group, {stream: [] for stream in due})
    reconciled = 0
    while True:
        async with pool.acquire() as conn:
            verified = (await checkpoints.read(conn, group)).verified_position
            end = await checkpoints.chunk_end(conn, group.category, verified)
            behind = await checkpoints.find_behind(conn, group, verified, end) if end > verified else []
        late = [stream for stream in behind if stream.age_seconds >= grace_seconds]
        if late:
            reconciled += await _bring_up(pool, group, late)
        async with pool.acquire() as conn:
            if late:
                behind = await checkpoints.find_behind(conn, group, verified, end)
            reached = behind[0].position - 1 if behind else end
            if reached > verified:
                await checkpoints.advance(conn, group, reached)
        if behind or end <= verified:
            return Swept(verified_position=max(reached, verified), reconciled=reconciled, behind=len(behind))


async def _bring_up(pool: Pool, group: ConsumerGroup, late: list[BehindStream]) -> int:
    handled = 0
    for start in range(0, len(late), STREAMS_AT_ONCE):
        streams = late[start : start + STREAMS_AT_ONCE]
        delivered = await delivery.deliver(pool, group, {stream.stream: [] for stream in streams})
        handled += len(delivered.handled)
    metrics.reconciled.labels(group=group.name).inc(handled)
    if handled:
        log.info("streams_reconciled", group=group.name, streams=handled)
    return handled


async def _measure(conn: Connection, group: ConsumerGroup) -> None:
    [status] = await checkpoints.status(conn, group.name)
    metrics.group_lag_events.labels(group=group.name).set(status.lag_events)
    metrics.group_stopped.labels(group=group.name).set(status.stopped)
    metrics.parked_streams.labels(group=group.name).set(status.parked_streams)
