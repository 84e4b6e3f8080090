"""One way to act: how news reaches a consumer group's ``handle``, whoever brings them.

The subscription, the reconciler, a revived dead letter and a probe all come through ``deliver``.
It holds what is parked, runs the batch in one transaction, and when that fails finds the poison
event by going stream by stream and event by event, so that it stops only its own stream.
"""

from collections.abc import Mapping, Sequence

import asyncpg
import msgspec
import structlog

from kima_stream import checkpoints, database, dead_letters, event_store, metrics
from kima_stream.checkpoints import Batch, ConsumerGroup
from kima_stream.database import Connection, Pool
from kima_stream.events import RecordedEvent

RIVAL_TRIES = 10  # deadlocks, lost races: try again, never park

# Another transaction was in the way; the same work succeeds a moment later.
RIVALRY = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.UniqueViolationError,
)
OUTAGE = database.OUTAGE  # Postgres is away or going: nothing is wrong with the events.

log = structlog.get_logger(__name__)


class Delivered(msgspec.Struct, frozen=True):
    """What became of the streams of one delivery; ``held`` wait for a retry, a revival or for ever."""

    handled: frozenset[str]
    held: frozenset[str]


async def deliver(pool: Pool, group: ConsumerGroup, entries: Mapping[str, Sequence[RecordedEvent]]) -> Delivered:
    """Hand the news of some streams to ``group``; an empty list of entries means: read the log.

    Afterwards every stream is either handled or held in ``dead_letters``, so the entries may be
    acknowledged: the log has them.

    Raises:
        OUTAGE: Postgres is away; nothing is decided, deliver again later.
    """
    async with pool.acquire() as conn:
        waiting = await dead_letters.waiting(conn, group.name, list(entries))
        batch = Batch(
            entries={stream: news for stream, news in entries.items() if stream not in waiting.held},
            discarded=waiting.discarded,
        )
        if not batch.entries:
            return Delivered(handled=frozenset(), held=waiting.held)
        try:
            await _handle(conn, group, batch, waiting.retrying)
        except OUTAGE:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is sorted stream by stream
            log.info("batch_failed", group=group.name, streams=len(batch.entries), error_type=type(error).__name__)
            poisoned = await _stream_by_stream(conn, group, batch)
            return Delivered(handled=frozenset(batch.entries) - poisoned, held=waiting.held | poisoned)
        return Delivered(handled=frozenset(batch.entries), held=waiting.held)


async def news(conn: Connection, batch: Batch, versions: Mapping[str, int]) -> dict[str, Sequence[RecordedEvent]]:
    """Return what follows each of ``versions`` without a gap: from the entries, or else from the log."""
    found: dict[str, Sequence[RecordedEvent]] = {}
    unknown: dict[str, int] = {}
    for stream, version in versions.items():
        entries = batch.entries[stream]
        fresh = _contiguous(entries, version)
        if fresh is None:
            unknown[stream] = version
        else:
            found[stream] = fresh
    if unknown:
        found.update(await event_store.read_streams(conn, unknown))
    if batch.one_at_a_time:
        return {stream: events[:1] for stream, events in found.items()}
    return found


def _contiguous(entries: Sequence[RecordedEvent], version: int) -> Sequence[RecordedEvent] | None:
    """Return the entries after ``version`` in order; None when there is a hole or nothing to judge by."""
    if not entries:
        return None
    fresh = [entry for entry in entries if entry.version > version]
    expected = version + 1
    for entry in fresh:
        if entry.version != expected:
            break
        expected += 1
    else:
        return fresh
    by_version = {entry.version: entry for entry in fresh}  # repeated, or out of order
    if max(by_version) - version != len(by_version):
        return None
    return [by_version[number] for number in sorted(by_version)]


async def _handle(
    conn: Connection, group: ConsumerGroup, batch: Batch, retrying: frozenset[str] = frozenset()
) -> Mapping[str, int]:
    """Run the group's handle in one transaction, again when a rival was in the way."""
    for attempt in range(1, RIVAL_TRIES + 1):
        try:
            with metrics.handle_seconds.labels(group=group.name).time():
                async with conn.transaction():
                    reached = await group.handle(conn, batch)
                    if retrying:
                        await dead_letters.clear(conn, group.name, sorted(retrying))
                    return reached
        except RIVALRY:
            if attempt == RIVAL_TRIES:
                raise
    raise AssertionError  # the last try has returned or raised


async def _stream_by_stream(conn: Connection, group: ConsumerGroup, batch: Batch) -> frozenset[str]:
    """Handle each stream by itself, event by event; return those that a poison event holds."""
    poisoned = set()
    for stream in sorted(batch.entries):
        try:
            await _event_by_event(conn, group, stream, batch)
        except OUTAGE:
            raise
        except Exception as error:  # noqa: BLE001 - recorded with its text, and counted
            await _hold(conn, group, stream, error)
            poisoned.add(stream)
    return frozenset(poisoned)


async def _event_by_event(conn: Connection, group: ConsumerGroup, stream: str, batch: Batch) -> None:
    single = Batch(entries={stream: []}, discarded=batch.discarded, one_at_a_time=True)
    version = (await checkpoints.versions(conn, group, [stream]))[stream]
    while True:
        reached = (await _handle(conn, group, single)).get(stream, version)
        if reached == version:
            await dead_letters.clear(conn, group.name, [stream])
            return
        version = reached


async def _hold(conn: Connection, group: ConsumerGroup, stream: str, error: Exception) -> None:
    """Count the failure at the stream's next version, park it in the end, and the group when too many are."""
    version = (await checkpoints.versions(conn, group, [stream]))[stream] + 1
    status = await dead_letters.record_failure(conn, group.name, stream, version, error)
    log.warning(
        "stream_held", group=group.name, stream=stream, version=version, status=status, error_type=type(error).__name__
    )
    if status == "parked" and await dead_letters.parked_lately(conn, group.name) >= dead_letters.STOP_AFTER_PARKED:
        await checkpoints.set_stopped(conn, group.name, stopped=True)
        log.error("group_stopped", group=group.name, parked=dead_letters.STOP_AFTER_PARKED)


async def probe(pool: Pool, group: ConsumerGroup) -> bool:
    """Try one of the streams that a stopped group has parked; when it works, resume and revive them all."""
    async with pool.acquire() as conn:
        parked = await dead_letters.find(conn, group_name=group.name, status="parked", limit=1)
        if parked:
            discarded = (await dead_letters.waiting(conn, group.name, [parked[0].stream])).discarded
            try:
                await _event_by_event(conn, group, parked[0].stream, Batch(entries={}, discarded=discarded))
            except OUTAGE:
                raise
            except Exception as error:  # noqa: BLE001 - recorded with its text
                await dead_letters.record_failure(conn, group.name, parked[0].stream, parked[0].version, error)
                return False
        async with conn.transaction():
            await dead_letters.revive_burst(conn, group.name)
            await checkpoints.set_stopped(conn, group.name, stopped=False)
    log.info("group_resumed", group=group.name)
    return True
