"""The publisher and Redis: everything arrives, whatever happens to Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio as redis_client
from prometheus_client import REGISTRY

from kima_stream import checkpoints, event_store
from kima_stream.database import Connection, Pool
from kima_stream.embedded.valkey import Valkey
from kima_stream.event_stream import EventStream, key
from kima_stream.numbering import Numberer, Unnumbered, count_unnumbered
from kima_stream.occupancy import STREAM_BYTES
from kima_stream.publisher import Publisher
from kima_stream.reconciler import sweep_once
from kima_stream.subscription import Subscription
from tests.factories import CATEGORY, Scribe, a_note, append_notes, number_all
from tests.polling import eventually


@asynccontextmanager
async def running(*loops: object) -> AsyncIterator[None]:
    """Run publishers and subscriptions until the block ends."""
    tasks = [asyncio.create_task(loop.run()) for loop in loops]  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def stream(valkey: Valkey) -> AsyncIterator[EventStream]:
    """A connection to a Valkey that the test may flush and kill."""
    async with EventStream(valkey.url) as opened:
        yield opened


async def positions(url: str) -> list[int]:
    """Return the positions of the entries of the category as Redis has them."""
    async with redis_client.Redis.from_url(url, protocol=3, decode_responses=True) as client:
        entries = await client.xrange(key(CATEGORY)) or []
        return [int(str(entry_id).partition("-")[0]) for entry_id, _ in entries]


async def test_what_is_appended_arrives_under_its_position(
    pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream
) -> None:
    """Every event is in Redis once, in order, with the log's own bytes."""
    async with running(Publisher(pool, stream, holder="p")):
        written = await append_notes(conn)
        await eventually(lambda: _equal(positions(valkey.url), list(range(1, 13))))
        await stream.create_group(CATEGORY, "reader", after=0)
        entries = await stream.read(CATEGORY, "reader", "me", after=">", count=100)

    assert [entry.event and (entry.event.event_id, entry.event.data) for entry in entries] == [
        (event.event_id, event.data) for event in written
    ]


async def _equal(answer: object, expected: object) -> bool:
    return bool(await answer == expected)  # type: ignore[misc]


async def test_a_large_event_travels_as_a_reference_and_arrives(
    pool: Pool, conn: Connection, stream: EventStream
) -> None:
    """Above 64 kB the entry names the event; the group reads it from the log."""
    scribe = Scribe()
    await scribe.prepare(conn)
    large = a_note('"' + "x" * 100_000 + '"')
    async with running(Publisher(pool, stream, holder="p"), Subscription(scribe.group, pool, stream, consumer="c")):
        await event_store.append(conn, "note-large", [large, a_note()])
        await eventually(lambda: _equal(scribe.read(conn), {"note-large": [0, 1]}))

    assert await scribe.read(conn) == {"note-large": [0, 1]}


async def test_a_flush_while_idle_is_noticed_and_repaired(
    pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream
) -> None:
    """Nothing is appended any more, and still Redis is filled again from what the groups have verified."""
    async with running(Publisher(pool, stream, holder="p")):
        await append_notes(conn)
        await eventually(lambda: _equal(positions(valkey.url), list(range(1, 13))))
        async with redis_client.Redis.from_url(valkey.url, protocol=3) as client:
            await client.flushall()
        await eventually(lambda: _equal(positions(valkey.url), list(range(1, 13))))


async def test_a_hidden_loss_is_refused_and_repaired(
    pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream
) -> None:
    """A consumer makes the flushed stream anew before the next event: the event must not hide the loss."""
    async with running(Publisher(pool, stream, holder="p")):
        await append_notes(conn)
        await eventually(lambda: _equal(positions(valkey.url), list(range(1, 13))))
        async with redis_client.Redis.from_url(valkey.url, protocol=3) as client:
            await client.flushall()
            await stream.create_group(CATEGORY, "early", after=0)
        await event_store.append(conn, "note-0", [a_note()])
        await eventually(lambda: _equal(positions(valkey.url), list(range(1, 14))))


async def test_a_stream_of_another_log_is_replaced(
    pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream
) -> None:
    """Redis may hold what another database published; it must not mask ours."""
    async with redis_client.Redis.from_url(valkey.url, protocol=3) as client:
        await client.xadd(key(CATEGORY), {"id": "somebody-else"}, id="5-0")
    async with running(Publisher(pool, stream, holder="p")):
        await append_notes(conn)
        await eventually(lambda: _equal(positions(valkey.url), list(range(1, 13))))


async def test_redis_dies_and_comes_back_empty(
    pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream
) -> None:
    """Appending goes on meanwhile; afterwards each event has been handled once and in order."""
    scribe = Scribe()
    await scribe.prepare(conn)
    loops = (Publisher(pool, stream, holder="p"), Subscription(scribe.group, pool, stream, consumer="c"))
    async with running(*loops):
        await append_notes(conn, streams=2, each=3)
        await eventually(lambda: _equal(scribe.read(conn), {"note-0": [0, 1, 2], "note-1": [0, 1, 2]}))
        await valkey.kill()
        await append_notes(conn, streams=2, each=3)
        await valkey.start()
        expected = {"note-0": [0, 1, 2, 3, 4, 5], "note-1": [0, 1, 2, 3, 4, 5]}
        await eventually(lambda: _equal(scribe.read(conn), expected), timeout=10)


async def test_what_every_group_has_verified_leaves_redis(
    pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream
) -> None:
    """Redis keeps only what somebody may still need."""
    scribe = Scribe()
    await scribe.prepare(conn)
    loops = (Publisher(pool, stream, holder="p"), Subscription(scribe.group, pool, stream, consumer="c"))
    async with running(*loops):
        await append_notes(conn)
        await eventually(lambda: _equal(scribe.read(conn), {f"note-{n}": [0, 1, 2, 3] for n in range(3)}))
        await sweep_once(pool, scribe.group)
        await eventually(lambda: _equal(positions(valkey.url), []))

    async with pool.acquire() as other:
        assert (await checkpoints.read(other, scribe.group)).verified_position == 12


async def test_large_events_do_not_fill_redis(
    pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream
) -> None:
    """A group that is away: Redis holds no more than the newest part of it, and the rest is read from the log."""
    scribe = Scribe()
    await scribe.prepare(conn)
    each, size_bytes = 200, 40_000
    text = '"' + "x" * size_bytes + '"'
    assert each * size_bytes > STREAM_BYTES
    async with running(Publisher(pool, stream, holder="p")):
        for number in range(each):
            await event_store.append(conn, f"note-{number}", [a_note(text)])
        await eventually(lambda: _is_newest(stream, each))

        held = await positions(valkey.url)
        assert held == list(range(each - len(held) + 1, each + 1))
        assert STREAM_BYTES // 2 < len(held) * size_bytes <= STREAM_BYTES
        assert await stream.memory_bytes() < 2 * STREAM_BYTES
        async with running(Subscription(scribe.group, pool, stream, consumer="c")):
            await eventually(lambda: _handled(conn, scribe, len(held)))
        await sweep_once(pool, scribe.group)

    assert await scribe.read(conn) == {f"note-{number}": [0] for number in range(each)}


async def test_a_backlog_comes_back_after_a_flush(
    pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream
) -> None:
    """What was there before the flush takes no room from what is published again."""
    each, size_bytes = 60, 50_000
    assert STREAM_BYTES // 2 < each * size_bytes < STREAM_BYTES
    async with running(Publisher(pool, stream, holder="p")):
        for number in range(each):
            await event_store.append(conn, f"note-{number}", [a_note('"' + "x" * size_bytes + '"')])
        await eventually(lambda: _is_newest(stream, each))
        async with redis_client.Redis.from_url(valkey.url, protocol=3) as client:
            await client.flushall()
        await eventually(lambda: _is_newest(stream, each))

        assert await positions(valkey.url) == list(range(1, each + 1))


async def _is_newest(stream: EventStream, position: int) -> bool:
    newest = await stream.newest(CATEGORY)
    return newest is not None and newest[0] == position


async def _handled(conn: Connection, scribe: Scribe, count: int) -> bool:
    return len(await scribe.read(conn)) >= count


async def test_a_standby_takes_over(pool: Pool, conn: Connection, valkey: Valkey, stream: EventStream) -> None:
    """When the leader goes, another numbers on where it stopped."""
    async with running(Publisher(pool, stream, holder="one")):
        await append_notes(conn, streams=1, each=3)
        await eventually(lambda: _equal(positions(valkey.url), [1, 2, 3]))
    async with running(Publisher(pool, stream, holder="two")):
        await append_notes(conn, streams=1, each=3)
        await eventually(lambda: _equal(positions(valkey.url), [1, 2, 3, 4, 5, 6]), timeout=10)


async def test_each_event_is_counted_once_as_appended(pool: Pool, conn: Connection, stream: EventStream) -> None:
    """Whoever appended it, and however often the publisher looks."""
    before = REGISTRY.get_sample_value("kima_events_appended_total", {"category": CATEGORY}) or 0.0
    async with running(Publisher(pool, stream, holder="p")):
        await append_notes(conn)
        await eventually(
            lambda: REGISTRY.get_sample_value("kima_events_appended_total", {"category": CATEGORY}) == before + 12
        )
        await eventually(lambda: REGISTRY.get_sample_value("kima_publish_lag_events") == 0)


async def test_what_waits_for_its_number_is_measured_by_those_who_stand_by(
    pool: Pool, conn: Connection, stream: EventStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that hangs cannot say so; events and age rise at the others, and fall when it goes on."""
    monkeypatch.setattr("kima_stream.publisher.MEASURE_SECONDS", 0.01)
    leader = Numberer(conn, holder="hangs")
    assert await leader.lead()

    def measured() -> tuple[float | None, float | None]:
        return tuple(REGISTRY.get_sample_value(f"kima_publish_lag_{unit}") for unit in ("events", "seconds"))  # type: ignore[return-value]

    async with running(Publisher(pool, stream, holder="stands by")):
        await append_notes(conn)
        await eventually(lambda: measured()[0] == 12)
        assert (measured()[1] or 0) > 0
        await leader.keep()
        await leader.number_once()
        await eventually(lambda: measured() == (0, 0))
    await leader.resign()


async def test_an_event_that_was_committed_late_is_counted_as_waiting(pool: Pool, conn: Connection) -> None:
    """Its id lies below those that have their numbers already."""
    async with pool.acquire() as late, late.transaction():
        await append_notes(late, streams=1, each=2)
        await event_store.append(conn, "note-later", [a_note()])
        assert await number_all(conn) == 1
        assert (await count_unnumbered(conn)).events == 0
    waiting = await count_unnumbered(conn)

    assert waiting.events == 2
    assert waiting.oldest_seconds > 0
    await number_all(conn)
    assert await count_unnumbered(conn) == Unnumbered(events=0, oldest_seconds=0)
