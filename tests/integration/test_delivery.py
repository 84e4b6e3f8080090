"""Delivery to consumer groups: once per event, per stream in order, and poison stops only its own stream."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
import pytest

from kima_stream import checkpoints, dead_letters, delivery, event_store, event_stream
from kima_stream.checkpoints import Batch
from kima_stream.database import Connection, Pool
from kima_stream.embedded.valkey import Valkey
from kima_stream.errors import ForkedLogError
from kima_stream.event_stream import EventStream, NoGroupError
from kima_stream.events import RecordedEvent
from kima_stream.publisher import Publisher
from kima_stream.reconciler import Reconciler, sweep_once
from kima_stream.stream_entries import Entry
from kima_stream.subscription import GroupStoppedError, Subscription
from tests.factories import CATEGORY, Scribe, a_note, append_notes, number_all
from tests.polling import eventually


@pytest.fixture
async def scribe(conn: Connection) -> Scribe:
    """A group that writes down what it is handed."""
    await Scribe.prepare(conn)
    return Scribe()


@pytest.fixture
async def stream(valkey: Valkey) -> AsyncIterator[EventStream]:
    """A connection to a Valkey of the test's own."""
    async with EventStream(valkey.url) as opened:
        yield opened


def by_stream(events: list[RecordedEvent]) -> dict[str, list[RecordedEvent]]:
    """Group events as a subscription does."""
    grouped: dict[str, list[RecordedEvent]] = {}
    for event in events:
        grouped.setdefault(event.stream, []).append(event)
    return grouped


async def test_any_shuffle_and_repetition_leaves_the_same(
    pool: Pool, conn: Connection, scribe: Scribe, rng: random.Random
) -> None:
    """Entries late, doubled, out of order and with holes: each event once, in order."""
    written = await append_notes(conn, streams=5, each=8)
    deliveries = [rng.sample(written, rng.randrange(1, 12)) for _ in range(40)] + [written]

    for batch in deliveries:
        await delivery.deliver(pool, scribe.group, by_stream([*batch, *batch[:2]]))

    assert await scribe.read(conn) == {f"note-{n}": list(range(8)) for n in range(5)}


async def test_consumers_side_by_side_keep_the_order_of_a_stream(
    pool: Pool, conn: Connection, scribe: Scribe, rng: random.Random
) -> None:
    """Eight members deliver parts of the same streams at once; the rows keep the order."""
    written = await append_notes(conn, streams=4, each=10)

    async def member(own: random.Random) -> None:
        for _ in range(15):
            await delivery.deliver(pool, scribe.group, by_stream(own.sample(written, 6)))

    await asyncio.gather(*(member(random.Random(rng.random())) for _ in range(8)))
    await delivery.deliver(pool, scribe.group, by_stream(written))

    assert await scribe.read(conn) == {f"note-{n}": list(range(10)) for n in range(4)}


async def test_a_poison_event_holds_only_its_own_stream(pool: Pool, conn: Connection, scribe: Scribe) -> None:
    """What came before it in its stream is handled, what comes after waits, other streams go on."""
    written = await append_notes(conn, streams=3, each=4)
    scribe.poison = {("note-1", 2)}

    delivered = await delivery.deliver(pool, scribe.group, by_stream(written))

    assert delivered.held == {"note-1"}
    assert await scribe.read(conn) == {"note-0": [0, 1, 2, 3], "note-1": [0, 1], "note-2": [0, 1, 2, 3]}
    [letter] = await dead_letters.find(conn)
    assert (letter.stream, letter.version, letter.status, letter.error_type) == ("note-1", 2, "retrying", "ValueError")
    assert letter.error == "note-1 2 is poison"


async def attempt_now(conn: Connection) -> None:
    """Let the time of every next attempt come."""
    await conn.execute("UPDATE dead_letters SET next_attempt_at = clock_timestamp() - interval '1 s'")


async def test_it_is_parked_after_its_attempts_and_revived_in_order(
    pool: Pool, conn: Connection, scribe: Scribe
) -> None:
    """Five attempts, then a human; reviving goes on where it stopped."""
    await append_notes(conn, streams=2, each=3)
    await number_all(conn)
    scribe.poison = {("note-1", 1)}
    for _ in range(dead_letters.MAX_ATTEMPTS):
        await sweep_once(pool, scribe.group)
        await attempt_now(conn)
    [letter] = await dead_letters.find(conn)
    assert (letter.status, letter.attempts) == ("parked", 5)
    swept = await sweep_once(pool, scribe.group)
    assert (swept.verified_position, swept.behind) == (6, 0)

    scribe.poison.clear()
    assert await dead_letters.revive(conn, "scribe", "note-1") == ["note-1"]
    await sweep_once(pool, scribe.group)

    assert await scribe.read(conn) == {"note-0": [0, 1, 2], "note-1": [0, 1, 2]}
    assert await dead_letters.find(conn) == []


async def test_a_discarded_event_is_stepped_over_for_ever(pool: Pool, conn: Connection, scribe: Scribe) -> None:
    """Discard gives up one version; the stream goes on behind it, a replay steps over it too."""
    await append_notes(conn, streams=1, each=3)
    await number_all(conn)
    scribe.poison = {("note-0", 1)}
    await sweep_once(pool, scribe.group)

    assert await dead_letters.discard(conn, "scribe", "note-0") == 1
    await sweep_once(pool, scribe.group)
    assert await scribe.read(conn) == {"note-0": [0, 2]}

    await conn.execute("DELETE FROM reactions")
    await conn.execute("UPDATE group_checkpoints SET verified_position = 0")
    await conn.execute("TRUNCATE scribbled")
    await sweep_once(pool, scribe.group)
    assert await scribe.read(conn) == {"note-0": [0, 2]}


async def test_a_bad_deploy_stops_the_group_and_a_probe_revives_it(
    pool: Pool, conn: Connection, scribe: Scribe, stream: EventStream
) -> None:
    """When twenty streams are parked at once it is not the events: the group waits, then goes on in order."""
    await append_notes(conn, streams=30, each=2)
    await number_all(conn)
    scribe.broken = True
    reconciler = Reconciler(scribe.group, pool, stream, holder="h")
    subscription = Subscription(scribe.group, pool, stream, consumer="c")
    await stream.create_group(CATEGORY, "scribe", after=0)
    for _ in range(dead_letters.MAX_ATTEMPTS):
        await reconciler.sweep(grace_seconds=0)
        await attempt_now(conn)

    assert (await checkpoints.read(conn, scribe.group)).stopped
    assert (await reconciler.sweep(grace_seconds=0)).stopped
    with pytest.raises(GroupStoppedError):
        await subscription.run_once()
    assert not await delivery.probe(pool, scribe.group)

    scribe.broken = False
    assert await delivery.probe(pool, scribe.group)
    await reconciler.sweep(grace_seconds=0)
    assert await scribe.read(conn) == {f"note-{n}": [0, 1] for n in range(30)}
    assert await dead_letters.find(conn) == []


async def test_an_outage_parks_nothing(conn: Connection, pool: Pool, scribe: Scribe) -> None:
    """While Postgres is going away nothing is counted against an event."""
    written = await append_notes(conn)

    async def cut(victim: Connection, _events: Sequence[RecordedEvent]) -> None:
        await victim.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    from kima_stream import reaction  # noqa: PLC0415 - only here

    broken = reaction.consumer_group("cut", CATEGORY, cut)
    with pytest.raises(delivery.OUTAGE):
        await delivery.deliver(pool, broken, by_stream(written))

    assert await dead_letters.find(conn) == []


async def test_the_sweep_heals_what_was_never_delivered(pool: Pool, conn: Connection, scribe: Scribe) -> None:
    """Without Redis the log itself is enough; the checkpoint follows to the head."""
    await append_notes(conn, streams=3, each=4)
    await number_all(conn)

    swept = await sweep_once(pool, scribe.group)

    assert (swept.verified_position, swept.reconciled, swept.behind) == (12, 3, 0)
    assert await scribe.read(conn) == {f"note-{n}": [0, 1, 2, 3] for n in range(3)}
    assert (await sweep_once(pool, scribe.group)).reconciled == 0

    await event_store.append(conn, "note-1", [a_note()])
    await number_all(conn)
    assert (await sweep_once(pool, scribe.group)).verified_position == 13
    assert (await scribe.read(conn))["note-1"] == [0, 1, 2, 3, 4]


async def test_the_sweep_leaves_fresh_news_to_redis(pool: Pool, conn: Connection, scribe: Scribe) -> None:
    """Within its grace nothing is fetched twice, and nothing counts as verified that is not handled."""
    await append_notes(conn, streams=3, each=4)
    await number_all(conn)

    swept = await sweep_once(pool, scribe.group, grace_seconds=60)

    assert (swept.verified_position, swept.behind) == (0, 3)
    assert await scribe.read(conn) == {}


async def test_abandoned_entries_are_claimed(
    pool: Pool, conn: Connection, scribe: Scribe, stream: EventStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that died after reading leaves its entries to another."""
    await append_notes(conn, streams=1, each=3)
    await number_all(conn)
    await stream.add(CATEGORY, await event_store.read_log(conn), last=0)
    await stream.create_group(CATEGORY, "scribe", after=0)
    assert len(await stream.read(CATEGORY, "scribe", "dead", after=">", count=10)) == 3
    monkeypatch.setattr("kima_stream.subscription.CLAIM_IDLE_MS", 0)

    await Subscription(scribe.group, pool, stream, consumer="alive").run_once()

    assert await scribe.read(conn) == {"note-0": [0, 1, 2]}
    assert await stream.read(CATEGORY, "scribe", "dead", after="0", count=10) == []


async def test_a_member_finishes_first_what_it_had_begun(
    pool: Pool, conn: Connection, scribe: Scribe, stream: EventStream
) -> None:
    """After a restart under the same name its own pending entries come before new ones."""
    await append_notes(conn, streams=1, each=3)
    await number_all(conn)
    await stream.add(CATEGORY, await event_store.read_log(conn), last=0)
    await stream.create_group(CATEGORY, "scribe", after=0)
    await stream.read(CATEGORY, "scribe", "me", after=">", count=10)

    task = asyncio.create_task(Subscription(scribe.group, pool, stream, consumer="me").run())
    await eventually(lambda: _reads(scribe, conn, {"note-0": [0, 1, 2]}))
    task.cancel()

    assert await stream.read(CATEGORY, "scribe", "me", after="0", count=10) == []


async def test_a_batch_read_ahead_outlives_an_outage(
    pool: Pool, conn: Connection, scribe: Scribe, stream: EventStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next batch is in hand while Postgres goes under the first: neither is lost, each event comes once."""
    monkeypatch.setattr("kima_stream.subscription.BATCH_ENTRIES", 2)
    await append_notes(conn, streams=3, each=4)
    await number_all(conn)
    await stream.add(CATEGORY, await event_store.read_log(conn), last=0)
    in_hand: list[Entry] = []

    async def cut_once(victim: Connection, batch: Batch) -> Mapping[str, int]:
        if not in_hand:
            await eventually(lambda: _pending(stream, 4))
            in_hand.extend(await stream.read(CATEGORY, "scribe", "me", after="0", count=10))
            await victim.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return await scribe.group.handle(victim, batch)

    group = msgspec.structs.replace(scribe.group, handle=cut_once)
    task = asyncio.create_task(Subscription(group, pool, stream, consumer="me").run())
    everything = {f"note-{n}": [0, 1, 2, 3] for n in range(3)}
    await eventually(lambda: _reads(scribe, conn, everything))
    await eventually(lambda: _pending(stream, 0))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert len(in_hand) == 4
    assert await scribe.read(conn) == everything


async def _pending(stream: EventStream, expected: int) -> bool:
    return len(await stream.read(CATEGORY, "scribe", "me", after="0", count=10)) == expected


async def _reads(scribe: Scribe, conn: Connection, expected: dict[str, list[int]]) -> bool:
    return await scribe.read(conn) == expected


async def test_a_lost_group_is_made_anew_where_the_log_says(
    pool: Pool, conn: Connection, scribe: Scribe, stream: EventStream, valkey: Valkey
) -> None:
    """After FLUSHALL the group starts at its verified position, never at the end."""
    await append_notes(conn, streams=1, each=3)
    subscription = Subscription(scribe.group, pool, stream, consumer="me")
    with pytest.raises(NoGroupError):
        await subscription.run_once()
    publisher = Publisher(pool, stream, holder="p")
    tasks = [asyncio.create_task(publisher.run()), asyncio.create_task(subscription.run())]
    await eventually(lambda: _reads(scribe, conn, {"note-0": [0, 1, 2]}))
    await valkey.kill()
    await valkey.start()
    await event_store.append(conn, "note-0", [a_note()])
    await eventually(lambda: _reads(scribe, conn, {"note-0": [0, 1, 2, 3]}), timeout=10)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert event_stream.key(CATEGORY) == "kima:events:{note}"


async def test_another_past_is_noticed(pool: Pool, conn: Connection, scribe: Scribe) -> None:
    """A log that was replaced by a backup is not folded into what was built from the lost one."""
    await append_notes(conn)
    await number_all(conn)
    await sweep_once(pool, scribe.group)
    await conn.execute("UPDATE group_checkpoints SET chain_hash = decode(repeat('ab', 32), 'hex')")

    with pytest.raises(ForkedLogError):
        await sweep_once(pool, scribe.group)
