"""Effects: what the states have open is done once, by whoever, and its outcome is recorded."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from kima_stream import event_store
from kima_stream.cli import outside
from kima_stream.database import Connection, Pool
from kima_stream.effects import Executor, Work, Worker, breaker, waiting
from kima_stream.effects.breaker import OPEN_AFTER_FAILURES
from kima_stream.errors import ConfigurationError, IntegrationError, RateLimitError
from kima_stream.events import Event, NewEvent, new_event_id
from tests import shop as shops
from tests.polling import eventually
from tests.shop import OWNER, AskingExecutor, MuteExecutor, RepeatingExecutor, Shop, an_effect, order, state, types


class Clock:
    """A clock that goes when it is told to; for waiting, never for leases."""

    def __init__(self) -> None:
        """Begin now."""
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        """Return the moment."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    """An open shop, and the table of its orders."""
    await shops.prepare(pool)
    async with shops.opened() as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


def a_worker(pool: Pool, *executors: Executor, clock: Clock | None = None, lease_seconds: float = 10.0) -> Worker:
    """Return a worker as a process has one."""
    return Worker(
        pool, executors, [OWNER], holder=shops.unique(), clock=clock, chance=lambda: 0.5, lease_seconds=lease_seconds
    )


async def open_ids(conn: Connection) -> set[object]:
    """Return what the table has open."""
    return {row["effect_id"] for row in await conn.fetch("SELECT effect_id FROM effects")}


async def test_what_is_intended_is_done_once_and_closed(pool: Pool, conn: Connection, shop: Shop) -> None:
    """The outcome and the news are in the stream, linked to the intention; the table is empty again."""
    [intended] = await order(conn, 1)
    assert await open_ids(conn) == {an_effect(1).effect_id}
    executor = AskingExecutor(shop.url)
    worker = a_worker(pool, executor)

    assert await worker.run_once() == 1
    assert await worker.run_once() == 0

    assert list(shop.calls.values()) == [1]
    assert await types(conn, 1) == ["effect.intended", "effect.done", "order.delivered"]
    assert (await state(conn, 1)).delivered == 1
    assert await open_ids(conn) == set()
    assert await conn.fetchval("SELECT count(*) FROM effect_leases") == 0
    rows = await conn.fetch("SELECT event_id, causation_id, correlation_id FROM events ORDER BY version")
    assert rows[1]["event_id"] == an_effect(1).outcome_id
    assert {row["causation_id"] for row in rows[1:]} == {intended.event_id}
    assert {row["correlation_id"] for row in rows} == {"c1"}
    [work] = executor.works
    assert (work.attempt, work.is_unknown, work.correlation_id) == (1, False, "c1")


async def test_two_workers_share_many_effects_and_do_each_once(pool: Pool, conn: Connection, shop: Shop) -> None:
    """A row has one holder."""
    for number in range(40):
        await order(conn, number)
    workers = [a_worker(pool, AskingExecutor(shop.url)) for _ in range(2)]

    async def work(worker: Worker) -> int:
        done = 0
        while taken := await worker.run_once():
            done += taken
        return done

    done = await asyncio.gather(*map(work, workers))

    assert sum(done) == 40
    assert min(done) > 0
    assert set(shop.calls.values()) == {1}
    assert len(shop.calls) == 40


async def test_what_may_heal_is_tried_again_later_and_later(
    pool: Pool, conn: Connection, shop: Shop, clock: Clock
) -> None:
    """Not before its time, and without an end while the executor sets none."""
    await order(conn, 1)
    worker = a_worker(pool, AskingExecutor(shop.url), clock=clock)
    shop.is_open = False

    for attempt in range(1, 21):
        assert await worker.run_once() == 1, attempt
        assert await worker.run_once() == 0
        clock.forward(61)
    shop.is_open = True
    assert await worker.run_once() == 1

    assert await types(conn, 1) == ["effect.intended", "effect.done", "order.delivered"]
    assert (shop.refused, list(shop.calls.values())) == (20, [1])


async def test_what_waits_is_shown_with_the_reason(pool: Pool, conn: Connection, shop: Shop) -> None:
    """Postponed by its own failure, blocked by its system's, ready when nothing was tried."""
    shop.is_open = False
    await order(conn, 1)
    assert [effect.state for effect in await waiting.list_page(conn)] == ["ready"]
    await a_worker(pool, AskingExecutor(shop.url)).run_once()

    [effect] = await waiting.list_page(conn)

    assert (effect.state, effect.attempts, effect.is_unknown) == ("postponed", 1, False)
    assert effect.last_error == "it is closed"
    assert effect.next_attempt_at is not None


async def test_what_cannot_heal_fails_at_once(pool: Pool, conn: Connection, shop: Shop) -> None:
    """With the other side's words as its reason."""
    effect = an_effect(1, target="bad thing")
    await order(conn, 1, effect)

    await a_worker(pool, AskingExecutor(shop.url)).run_once()

    assert await types(conn, 1) == ["effect.intended", "effect.failed", "order.complained"]
    assert (await state(conn, 1)).failures == ("refused",)
    assert await open_ids(conn) == set()


async def test_attempts_end_where_the_executor_says(pool: Pool, conn: Connection, shop: Shop, clock: Clock) -> None:
    """The effect fails with the last error."""
    await order(conn, 1)
    shop.is_open = False
    worker = a_worker(pool, AskingExecutor(shop.url, max_attempts=3), clock=clock)

    for _ in range(3):
        assert await worker.run_once() == 1
        clock.forward(61)

    assert (await state(conn, 1)).failures == ("unreachable",)
    assert shop.refused == 3


async def test_a_system_that_is_down_is_probed_by_one_and_then_served_at_once(
    pool: Pool, conn: Connection, shop: Shop, clock: Clock
) -> None:
    """The breaker opens, lets one through at a time, and when it closes nobody waits any longer."""
    shop.is_open = False
    for number in range(12):
        await order(conn, number)
    executor = AskingExecutor(shop.url)
    executor.at_once = OPEN_AFTER_FAILURES
    worker = a_worker(pool, executor, clock=clock)

    assert await worker.run_once() == OPEN_AFTER_FAILURES
    assert await worker.run_once() == 0
    [(found, standing)] = await breaker.read(conn, now=clock.now)
    assert (found.system, standing) == ("shop", "open")
    assert {effect.state for effect in await waiting.list_page(conn)} == {"blocked"}
    clock.forward(2.1)
    assert [await worker.run_once(), await worker.run_once()] == [1, 0]
    assert shop.refused == OPEN_AFTER_FAILURES + 1

    shop.is_open = True
    clock.forward(4.1)
    assert await worker.run_once() == 1
    assert [standing for _, standing in await breaker.read(conn)] == ["closed"]
    done = 0
    while taken := await worker.run_once():
        done += taken

    assert done == 11
    assert set(shop.calls.values()) == {1}
    assert len(shop.calls) == 12


async def test_an_answer_that_never_came_is_asked_for(pool: Pool, conn: Connection, shop: Shop, clock: Clock) -> None:
    """A call that timed out may have arrived: it is not made again when it has."""
    await order(conn, 1)
    shop.answer.clear()
    executor = AskingExecutor(shop.url, timeout_seconds=0.3)
    worker = a_worker(pool, executor, clock=clock)
    await worker.run_once()
    [effect] = await waiting.list_page(conn)
    assert effect.is_unknown
    assert effect.last_error == "did not end within 0 s"
    shop.answer.set()
    clock.forward(61)

    await worker.run_once()

    assert list(shop.calls.values()) == [1]
    assert (await state(conn, 1)).delivered == 1


async def test_who_cannot_ask_gives_up_when_in_doubt_and_says_so(
    pool: Pool, conn: Connection, shop: Shop, clock: Clock
) -> None:
    """While who may repeat does so."""
    mute, repeated = an_effect(1, "till.ring"), an_effect(1, "bell.ring")
    await order(conn, 1, mute, repeated)
    shop.answer.clear()
    executors = (MuteExecutor(shop.url, timeout_seconds=0.3), RepeatingExecutor(shop.url, timeout_seconds=0.3))
    worker = a_worker(pool, *executors, clock=clock)
    await worker.run_once()
    shop.answer.set()
    clock.forward(61)

    await worker.run_once()

    assert shop.calls == {str(mute.effect_id): 1, str(repeated.effect_id): 2}
    assert (await state(conn, 1)).failures == ("gave_up",)
    data = await conn.fetchval("SELECT data::text FROM events WHERE type = 'effect.failed'")
    assert '"was_unknown":true' in data


async def test_what_is_withdrawn_before_is_never_called(pool: Pool, conn: Connection, shop: Shop) -> None:
    """Nobody takes it any more."""
    await order(conn, 1)
    await shops.withdraw(conn, 1)

    assert await a_worker(pool, AskingExecutor(shop.url)).run_once() == 0
    assert not shop.calls


async def test_what_is_withdrawn_while_it_runs_is_cancelled(pool: Pool, conn: Connection, shop: Shop) -> None:
    """Within about a second, and nothing comes of it."""
    await order(conn, 1)
    executor = AskingExecutor(shop.url)
    executor.go_on.clear()
    running = asyncio.create_task(a_worker(pool, executor).run_once())
    await executor.reached.wait()
    [effect] = await waiting.list_page(conn)
    assert effect.state == "running"
    await shops.withdraw(conn, 1)

    async with asyncio.timeout(3):
        await running

    assert not shop.calls
    assert await types(conn, 1) == ["effect.intended", "effect.withdrawn"]


async def test_a_lease_that_is_somebody_elses_is_left_to_him(pool: Pool, conn: Connection, shop: Shop) -> None:
    """Who comes back late is not let on, and renews nothing; the call is cancelled."""
    await order(conn, 1)
    executor = AskingExecutor(shop.url)
    executor.go_on.clear()
    worker = a_worker(pool, executor)
    await worker.look()
    await executor.reached.wait()
    await conn.execute("UPDATE effect_leases SET fence = fence + 1, holder = 'another', expires_at = now()")
    before = await conn.fetchrow("SELECT * FROM effect_leases")

    await worker.renew()
    async with asyncio.timeout(3):
        await worker.drain(3)

    assert not shop.calls
    assert await conn.fetchrow("SELECT * FROM effect_leases") == before


async def test_progress_is_shown_while_it_runs(pool: Pool, conn: Connection, shop: Shop) -> None:
    """With the next heartbeat."""
    await order(conn, 1)
    executor = AskingExecutor(shop.url)
    executor.go_on.clear()
    running = asyncio.create_task(a_worker(pool, executor).run_once())

    async def shown() -> bool:
        [effect] = await waiting.list_page(conn)
        return effect.progress is not None and effect.progress.done_bytes == 1

    await eventually(shown)
    executor.go_on.set()
    await running


async def test_a_call_longer_than_its_lease_keeps_it(pool: Pool, conn: Connection, shop: Shop) -> None:
    """While its process lives nobody else takes it."""
    await order(conn, 1)
    executor = AskingExecutor(shop.url)
    executor.go_on.clear()
    first = asyncio.create_task(a_worker(pool, executor, lease_seconds=1.5).run_once())
    await executor.reached.wait()
    taken = await conn.fetchval("SELECT expires_at FROM effect_leases")

    async def renewed_twice() -> bool:
        return bool(
            await conn.fetchval("SELECT expires_at > $1::timestamptz + interval '1.8 s' FROM effect_leases", taken)
        )

    await eventually(renewed_twice)
    assert await a_worker(pool, AskingExecutor(shop.url)).run_once() == 0
    executor.go_on.set()
    await first

    assert set(shop.calls.values()) == {1}


async def test_what_was_brought_about_after_a_withdrawal_is_told_all_the_same(
    pool: Pool, conn: Connection, shop: Shop
) -> None:
    """A call that was made when it was withdrawn is true; a failure then is of no interest to the decider."""
    for number, target in ((1, None), (2, "bad")):
        effect = an_effect(number, target=target)
        await order(conn, number, effect)
    executor = AskingExecutor(shop.url)
    executor.go_on.clear()
    worker = a_worker(pool, executor)
    running = asyncio.create_task(worker.run_once())
    await eventually(lambda: len(executor.works) == 2)
    for number in (1, 2):
        await shops.withdraw(conn, number)
    executor.go_on.set()
    await running

    assert await types(conn, 1) == ["effect.intended", "effect.withdrawn", "effect.done", "order.delivered"]
    assert await types(conn, 2) == ["effect.intended", "effect.withdrawn", "effect.failed"]


async def test_the_end_of_a_process_lets_short_calls_end_and_gives_back_long_ones(
    pool: Pool, conn: Connection, shop: Shop, clock: Clock
) -> None:
    """Nothing new is taken; what was begun is asked about by the next, without waiting for a lease to run out."""
    await order(conn, 1)
    await order(conn, 2, an_effect(2, "bell.ring"))
    long, short = AskingExecutor(shop.url), RepeatingExecutor(shop.url)
    long.go_on.clear()
    short.go_on.clear()
    async with outside.effect_worker(pool, [long, short], [OWNER], name="first") as worker:
        await long.reached.wait()
        await short.reached.wait()
        draining = asyncio.create_task(worker.drain(0.5))
        await order(conn, 3)
        short.go_on.set()
        await draining
        assert await worker.look() == 0

    assert await types(conn, 2) == ["effect.intended", "effect.done", "order.delivered"]
    assert {effect.stream: effect.state for effect in await waiting.list_page(conn)} == {
        shops.stream_of(1): "postponed", shops.stream_of(3): "ready",
    }  # fmt: skip
    clock.forward(30)
    assert await a_worker(pool, AskingExecutor(shop.url), clock=clock).run_once() == 2
    assert set(shop.calls.values()) == {1}
    assert list(shop.questions) == [str(an_effect(1).effect_id)]


class Raising(AskingExecutor):
    """Fails as it is told to."""

    def __init__(self, url: str, error: Exception) -> None:
        """``error`` is raised once."""
        super().__init__(url)
        self.errors = [error]

    async def perform(self, work: Work) -> Event:
        """Raise, or make the call."""
        if self.errors:
            raise self.errors.pop()
        return await super().perform(work)


async def test_a_defect_of_an_executor_is_tried_again_and_closes_no_system(
    pool: Pool, conn: Connection, shop: Shop, clock: Clock
) -> None:
    """It may be mended by a restart; its text may hold anything, so only its type is kept."""
    await order(conn, 1)
    worker = a_worker(pool, Raising(shop.url, KeyError("secret")), clock=clock)

    await worker.run_once()
    [effect] = await waiting.list_page(conn)
    assert (effect.last_error, effect.is_unknown) == ("defect: KeyError", True)
    assert await breaker.read(conn) == []
    clock.forward(6)
    await worker.run_once()

    assert (await state(conn, 1)).delivered == 1


async def test_what_fails_behind_an_effect_counts_for_its_own_system(pool: Pool, conn: Connection, shop: Shop) -> None:
    """It calls several, or one by another name: it has one breaker, and nobody else's is opened by it."""
    await order(conn, 1)
    error = IntegrationError("it is closed", system="till", retryable=True)

    await a_worker(pool, Raising(shop.url, error)).run_once()

    assert [(found.system, found.failures) for found, _ in await breaker.read(conn)] == [("shop", 1)]


class CutOff(RepeatingExecutor):
    """Is never answered: nobody knows whether the bell rang."""

    async def perform(self, work: Work) -> Event:
        """Lose the connection."""
        raise IntegrationError("it was cut off", system=work.effect.system, retryable=True)


async def test_who_asks_nobody_has_heard_no_answer(pool: Pool, conn: Connection, shop: Shop, clock: Clock) -> None:
    """What may be repeated is repeated without a question: only the call itself shows whether its system is there."""
    await order(conn, 1, an_effect(1, kind="bell.ring"))
    worker = a_worker(pool, CutOff(shop.url), clock=clock)

    for failures in range(1, OPEN_AFTER_FAILURES + 2):
        assert await worker.run_once() == 1
        assert [found.failures for found, _ in await breaker.read(conn)] == [failures]
        clock.forward(61)


async def test_who_is_too_fast_waits_and_has_not_tried(pool: Pool, conn: Connection, shop: Shop, clock: Clock) -> None:
    """As long as the other side says."""
    await order(conn, 1)
    executor = Raising(shop.url, RateLimitError(retry_after_seconds=220))
    executor.max_attempts = 1
    worker = a_worker(pool, executor, clock=clock)

    await worker.run_once()
    [effect] = await waiting.list_page(conn)
    assert (effect.attempts, effect.is_unknown) == (0, False)
    clock.forward(219)
    assert await worker.run_once() == 0
    clock.forward(2)
    await worker.run_once()

    assert (await state(conn, 1)).delivered == 1
    assert not shop.questions


async def test_an_outcome_that_cannot_be_recorded_yet_is_recorded_later(
    pool: Pool, conn: Connection, shop: Shop, clock: Clock
) -> None:
    """A poison event in the stream: the call was made and is asked about until the stream can be read."""
    await order(conn, 1)
    executor = AskingExecutor(shop.url)
    executor.go_on.clear()
    worker = a_worker(pool, executor, clock=clock)
    running = asyncio.create_task(worker.run_once())
    await executor.reached.wait()
    poison = NewEvent(event_id=new_event_id(), type="order.nonsense", data='{"type":"order.nonsense"}', source="test")
    await event_store.append(conn, shops.stream_of(1), [poison])
    executor.go_on.set()
    await running
    [effect] = await waiting.list_page(conn)
    assert effect.last_error == "its outcome cannot be recorded: UndecodableEventError"
    await conn.execute("ALTER TABLE events DISABLE TRIGGER ALL; DELETE FROM events WHERE type = 'order.nonsense'")
    clock.forward(6)

    await worker.run_once()

    assert set(shop.calls.values()) == {1}
    assert (await state(conn, 1)).delivered == 1


async def test_only_what_a_worker_can_make_and_settle_is_taken(pool: Pool, conn: Connection, shop: Shop) -> None:
    """Of its kinds and its categories."""
    await order(conn, 1, an_effect(1, "till.ring"))
    await conn.execute("INSERT INTO effects VALUES (gen_random_uuid(), 'x-1', 'x', 'shop.order', 'shop', NULL, now())")

    assert await a_worker(pool, AskingExecutor(shop.url)).run_once() == 0
    with pytest.raises(ConfigurationError, match="one kind"):
        a_worker(pool, AskingExecutor(shop.url), AskingExecutor(shop.url))


async def test_what_waits_is_counted(pool: Pool, conn: Connection, shop: Shop) -> None:
    """By system, with its breaker; outcomes by kind."""
    shop.is_open = False
    for number in range(OPEN_AFTER_FAILURES):
        await order(conn, number)
    executor = AskingExecutor(shop.url)
    executor.at_once = OPEN_AFTER_FAILURES
    task = asyncio.create_task(a_worker(pool, executor).run())

    def shown() -> bool:
        get = REGISTRY.get_sample_value
        return (
            get("kima_effects_open", {"system": "shop"}) == OPEN_AFTER_FAILURES
            and get("kima_breaker_open", {"system": "shop"}) == 1
            and (get("kima_effect_outcomes_total", {"kind": "shop.order", "outcome": "postponed"}) or 0) > 0
        )

    await eventually(shown, timeout=15)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
