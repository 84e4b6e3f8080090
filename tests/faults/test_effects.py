"""Calls to the outside under kill -9, SIGSTOP and a restart of Postgres: the outside's books say once."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kima_stream import database
from kima_stream.database import Connection, Pool
from kima_stream.embedded.postgres import Postgres
from tests import shop as shops
from tests.faults.effect_worker import APPENDED, BEGUN, CALLED, LEASED, POINTS, SETTLED
from tests.polling import eventually
from tests.shop import Shop, an_effect, order, state, types

LEASE_SECONDS = 2.0
KILLS = 100
BETWEEN_KILLS = 10  # effects

pytestmark = pytest.mark.fault


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """An open shop."""
    async with shops.opened() as opened:
        yield opened


def start(dsn: str, shop: Shop, *, crash: str | None = None, signal_number: int = signal.SIGKILL) -> "Process":
    """Start a worker that is struck at a point, or works until it is killed."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    if crash is not None:
        env |= {"KIMA_TEST_CRASH": crash, "KIMA_TEST_SIGNAL": str(int(signal_number))}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.effect_worker", dsn, shop.url, str(LEASE_SECONDS)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


Process = subprocess.Popen[bytes]


@contextmanager
def ended(*processes: Process) -> Iterator[None]:
    """Kill what is left of processes, also of stopped ones."""
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


@contextmanager
def ended_at_last(processes: list[Process]) -> Iterator[None]:
    """Kill those that are in the list in the end."""
    try:
        yield
    finally:
        with ended(*processes):
            pass


async def is_empty(conn: Connection) -> bool:
    """Return whether every effect has its outcome."""
    return not await conn.fetchval("SELECT count(*) FROM effects")


async def more(number: Callable[[], int], *, than: int) -> None:
    """Wait until a number of the shop has grown."""
    await eventually(lambda: number() > than, timeout=30)


async def said(process: Process) -> str:
    """Wait for a process to say where it was struck."""
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).decode().strip()


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_between_any_two_steps_makes_no_second_call(
    dsn: str, pool: Pool, conn: Connection, shop: Shop, point: str
) -> None:
    """The next worker asks what became of it: the shop's books have one call, the log one outcome."""
    await shops.prepare(pool)
    await order(conn, 1)
    first = start(dsn, shop, crash=point)
    with ended(first):
        assert await said(first) == point
        assert await asyncio.to_thread(first.wait) == -signal.SIGKILL
        assert sum(shop.calls.values()) == (point in {CALLED, APPENDED, SETTLED})
        second = start(dsn, shop)
        with ended(second):
            await eventually(lambda: is_empty(conn), timeout=20)

    key = str(an_effect(1).effect_id)
    assert shop.calls == {key: 1}
    assert shop.questions[key] == (point in {BEGUN, CALLED, APPENDED})
    assert await types(conn, 1) == ["effect.intended", "effect.done", "order.delivered"]


@pytest.mark.parametrize("point", [LEASED, BEGUN, CALLED, APPENDED])
async def test_a_worker_paused_beyond_its_lease_makes_no_second_call(
    dsn: str, pool: Pool, conn: Connection, shop: Shop, point: str
) -> None:
    """SIGSTOP, another takes over, SIGCONT: it must not go on, and what it has to tell is known already."""
    await shops.prepare(pool)
    await order(conn, 1)
    first = start(dsn, shop, crash=point, signal_number=signal.SIGSTOP)
    with ended(first):
        assert await said(first) == point
        second = start(dsn, shop)
        with ended(second):
            await eventually(lambda: is_empty(conn), timeout=20)
            first.send_signal(signal.SIGCONT)
            await order(conn, 2)
            await eventually(lambda: is_empty(conn), timeout=20)
            # The paused one goes on with what comes next: without the second, so it is alive.
            second.kill()
            await order(conn, 3)
            await eventually(lambda: is_empty(conn), timeout=20)

    assert set(shop.calls.values()) == {1}
    assert len(shop.calls) == 3
    for number in (1, 2, 3):
        assert await types(conn, number) == ["effect.intended", "effect.done", "order.delivered"]


async def test_a_worker_that_was_fenced_and_holds_the_outcome_tells_it(
    dsn: str, pool: Pool, conn: Connection, shop: Shop
) -> None:
    """Its call was made; who took over cannot ask, as the shop is closed: the outcome is true all the same."""
    await shops.prepare(pool)
    await order(conn, 1)
    first = start(dsn, shop, crash=CALLED, signal_number=signal.SIGSTOP)
    with ended(first):
        assert await said(first) == CALLED
        shop.is_open = False
        second = start(dsn, shop)
        with ended(second):
            await eventually(lambda: bool(shop.questions), timeout=20)
            assert not await is_empty(conn)
            first.send_signal(signal.SIGCONT)
            await eventually(lambda: is_empty(conn), timeout=20)

    assert set(shop.calls.values()) == {1}
    assert (await state(conn, 1)).delivered == 1


@pytest.mark.timeout(900)
async def test_random_kills_among_many_effects_make_each_call_once(
    dsn: str, pool: Pool, conn: Connection, shop: Shop, rng: random.Random, scaled: Callable[[int], int]
) -> None:
    """Two workers, killed at any moment under load, an outage of the shop in between."""
    await shops.prepare(pool)
    shop.rng = rng
    count = 0
    workers = [start(dsn, shop), start(dsn, shop)]
    with ended_at_last(workers):
        for strike in range(scaled(KILLS)):
            before = shop.calls.total()
            for number in range(count, count + BETWEEN_KILLS):
                await order(conn, number)
            count += BETWEEN_KILLS
            await more(shop.calls.total, than=before)
            await asyncio.sleep(rng.random() * 0.3)  # the fault's moment, not a wait for something
            victim = rng.randrange(len(workers))
            workers[victim].kill()
            workers[victim].communicate()
            workers[victim] = start(dsn, shop)
            if strike % 10 == 5:
                shop.is_open, before = False, shop.refused
                await order(conn, count)  # so that somebody calls for sure
                count += 1
                await more(lambda: shop.refused, than=before)
                shop.is_open = True
        await eventually(lambda: is_empty(conn), timeout=120)

    assert len(shop.calls) == count
    assert {key: calls for key, calls in shop.calls.items() if calls != 1} == {}
    assert await conn.fetchval("SELECT count(*) FROM events WHERE type = 'effect.done'") == count
    assert await conn.fetchval("SELECT count(*) FROM orders WHERE delivered = 1") == count
    assert shop.questions, "no kill has left anything in doubt"


async def test_postgres_restarts_in_the_middle_of_a_call(postgres: Postgres, shop: Shop) -> None:
    """The call ends while Postgres is away; its outcome is told when it is back, and nobody calls again."""
    pool = await database.open_pool(postgres.url, role="test")
    await shops.prepare(pool)
    async with pool.acquire() as conn:
        await order(conn, 1)
    shop.answer.clear()
    worker = start(postgres.url, shop)
    with ended(worker):
        await asyncio.wait_for(shop.called.wait(), 20)
        await postgres.kill()
        shop.answer.set()
        await postgres.start()
        async with pool.acquire() as conn:
            await eventually(lambda: is_empty(conn), timeout=20)
            assert await types(conn, 1) == ["effect.intended", "effect.done", "order.delivered"]
        assert worker.poll() is None
    pool.terminate()
    assert set(shop.calls.values()) == {1}
