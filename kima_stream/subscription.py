"""The loop of one consumer group in one process: read, deliver, acknowledge.

Own pending entries first, after every reconnect too; then new ones; abandoned ones are claimed.
Entries are acknowledged when Postgres has what became of them. It idles while Redis or Postgres
is away, and while its group has stopped itself.
"""

import asyncio
from collections.abc import Sequence

import structlog

from kima_stream import cancellation, checkpoints, delivery, event_stream, metrics
from kima_stream.checkpoints import ConsumerGroup
from kima_stream.database import Pool
from kima_stream.event_stream import EventStream, NoGroupError
from kima_stream.events import RecordedEvent
from kima_stream.stream_entries import Entry

BATCH_ENTRIES = 500  # read and handled at once; behind a full one the next is read meanwhile
BLOCK_MS = 1_000
CLAIM_IDLE_MS = 30_000  # longer than the slowest batch: whoever held them is gone
CLAIM_EVERY_SECONDS = 10.0
CHECK_EVERY_SECONDS = 1.0
BACK_OFF_SECONDS = (0.1, 0.2, 0.5, 1.0)

log = structlog.get_logger(__name__)


class GroupStoppedError(Exception):
    """Too many streams were parked at once; the group waits until a probe succeeds."""


class Subscription:
    """One member of a consumer group; ``consumer`` is stable over restarts, e.g. ``<host>-<slot>``."""

    def __init__(self, group: ConsumerGroup, pool: Pool, stream: EventStream, *, consumer: str) -> None:
        """Read nothing yet."""
        self._group = group
        self._pool = pool
        self._stream = stream
        self._consumer = consumer
        self._claim_at = 0.0
        self._check_at = 0.0
        self._ahead: asyncio.Task[list[Entry]] | None = None  # the read of the next batch, begun before its turn

    async def run(self) -> None:
        """Read until cancelled; a batch that was begun is delivered again after a restart."""
        failures = 0
        while True:
            cancellation.heed()
            try:
                await self._join()
                failures = 0
                while True:
                    cancellation.heed()
                    await self.run_once(block_ms=BLOCK_MS)
            except NoGroupError:
                log.info("group_lost", group=self._group.name)
                await asyncio.sleep(BACK_OFF_SECONDS[0])  # whoever flushes all the time must not make us spin
            except GroupStoppedError:
                await asyncio.sleep(CHECK_EVERY_SECONDS)
            except (*event_stream.OUTAGE, *delivery.OUTAGE) as error:
                if not failures:
                    log.warning("subscription_interrupted", group=self._group.name, error_type=type(error).__name__)
                await asyncio.sleep(BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)])
                failures += 1
            finally:
                await self._forget_ahead()

    async def _join(self) -> None:
        """Make the group where it is missing, at its verified position, and handle what we had begun."""
        async with self._pool.acquire() as conn:
            checkpoint = await checkpoints.read(conn, self._group)
        if checkpoint.stopped:
            raise GroupStoppedError
        await self._stream.create_group(self._group.category, self._group.name, after=checkpoint.verified_position)
        after = "0"
        while entries := await self._read(after):
            await self._handle(entries)
            after = entries[-1].entry_id.decode()

    async def run_once(self, *, block_ms: int | None = None) -> int:
        """Read one batch of new entries, deliver and acknowledge it; return how many there were.

        Raises:
            NoGroupError, GroupStoppedError, OUTAGE: join again.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._check_at:
            async with self._pool.acquire() as conn:
                if (await checkpoints.read(conn, self._group)).stopped:
                    raise GroupStoppedError
            self._check_at = now + CHECK_EVERY_SECONDS
        if now >= self._claim_at:
            await self._handle(await self._claim())
            self._claim_at = now + CLAIM_EVERY_SECONDS
        entries = await self._next(block_ms)
        if len(entries) == BATCH_ENTRIES:
            self._ahead = asyncio.create_task(self._read(">"))  # while Postgres works on this one
        await self._handle(entries)
        return len(entries)

    async def _next(self, block_ms: int | None) -> list[Entry]:
        """Return the batch that was read ahead, or else read one; none ahead and the stream is at its end: wait."""
        ahead, self._ahead = self._ahead, None
        return (ahead and await ahead) or await self._read(">", block_ms=block_ms)

    async def _forget_ahead(self) -> None:
        """End a read that nobody waits for; what it was given is pending, and handled by the next ``_join``."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _read(self, after: str, *, block_ms: int | None = None) -> list[Entry]:
        group = self._group
        return await self._stream.read(
            group.category, group.name, self._consumer, after=after, count=BATCH_ENTRIES, block_ms=block_ms
        )

    async def _claim(self) -> list[Entry]:
        group = self._group
        return await self._stream.claim(
            group.category, group.name, self._consumer, idle_ms=CLAIM_IDLE_MS, count=BATCH_ENTRIES
        )

    async def _handle(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        group = self._group
        metrics.group_pending.labels(group=group.name).set(len(entries))
        delivered = await delivery.deliver(self._pool, group, _by_stream(entries))
        if delivered.held:
            self._check_at = 0.0  # one more parked stream may have stopped the group
        await self._stream.acknowledge(group.category, group.name, [entry.entry_id for entry in entries])
        metrics.handled_events.labels(group=group.name).inc(len(entries))
        metrics.group_pending.labels(group=group.name).set(0)


def _by_stream(entries: Sequence[Entry]) -> dict[str, list[RecordedEvent]]:
    """Group entries by stream; a stream with an entry that came without its event is read from the log."""
    streams: dict[str, list[RecordedEvent]] = {}
    references = set()
    for entry in entries:
        if not entry.stream:
            continue  # trimmed away before we had it: the sweep finds what it was
        events = streams.setdefault(entry.stream, [])
        if entry.event is None:
            references.add(entry.stream)
        else:
            events.append(entry.event)
    return streams | {stream: [] for stream in references}
