"""Many who watch, over two real processes, while webhooks come in: every position once, in order, for each."""

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from kima_stream.database import Pool
from tests import processes
from tests.front_door import LIDARR, webhook
from tests.processes import Running
from tests.watcher import Watcher

KEY = "kima_test_key_" + "7" * 32
READERS = 50
SENDERS = 16
GONE = (aiohttp.ClientError, asyncio.IncompleteReadError, ConnectionError)


@pytest.fixture
def environment(dsn: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Return what every role of this test is told."""
    return {
        "KIMA_DATABASE_URL": dsn, "KIMA_REDIS_URL": redis_url, "KIMA_DATA_DIR": str(tmp_path), "KIMA_PORT": "0",
        "KIMA_API_KEY": KEY, "KIMA_LOG_LEVEL": "warning",
    }  # fmt: skip


@asynccontextmanager
async def doors(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[list[Running]]:
    """Run two front doors and a publisher."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(processes.running(environment, tmp_path / "log", "publish"))
        yield [
            await stack.enter_async_context(processes.running(environment, tmp_path / "log", "serve")) for _ in range(2)
        ]


def client(door: Running) -> aiohttp.ClientSession:
    """Return a client of one door, with as many connections as it asks for."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(door.url, headers={"X-Api-Key": KEY}, connector=connector)


async def send(session: aiohttp.ClientSession, count: int) -> None:
    """Post webhooks, each a fact of its own, one after the other."""
    for _ in range(count):
        async with session.post(LIDARR, data=io.BytesIO(webhook("health"))) as answer:
            assert answer.status == 200


@pytest.mark.fault
async def test_fifty_readers_beside_ingest_miss_nothing(
    environment: dict[str, str], tmp_path: Path, pool: Pool, scaled: Callable[[int], int]
) -> None:
    """On both doors, with webhooks coming in at both; what was numbered is what everybody saw."""
    count = scaled(4_000) // SENDERS * SENDERS
    watchers = [Watcher() for _ in range(READERS)]
    ready = asyncio.Barrier(READERS + 1)

    async def watch(watcher: Watcher, session: aiohttp.ClientSession) -> None:
        async with watcher.watching(session) as messages:
            await ready.wait()
            async with asyncio.timeout(90):
                while len(watcher.seen) < count:
                    await anext(messages)

    async with (
        doors(environment, tmp_path) as two,
        client(two[0]) as one,
        client(two[1]) as other,
        asyncio.TaskGroup() as group,
    ):
        for number, watcher in enumerate(watchers):
            group.create_task(watch(watcher, (one, other)[number % 2]))
        await ready.wait()
        for number in range(SENDERS):
            group.create_task(send((one, other)[number % 2], count // SENDERS))
    assert all(watcher.positions == list(range(1, count + 1)) for watcher in watchers)
    assert await pool.fetchval("SELECT max(position) FROM event_positions") == count
    assert len({json.dumps(watcher.seen) for watcher in watchers}) == 1


@pytest.mark.fault
async def test_a_reader_cut_twenty_times_over_two_processes_misses_nothing(
    environment: dict[str, str], tmp_path: Path, rng: random.Random, scaled: Callable[[int], int]
) -> None:
    """By hanging up and by kill -9 of the door that it watches, each time on at the other one."""
    count = scaled(4_000)
    watcher = Watcher(last_id="0")
    cuts = 0
    async with doors(environment, tmp_path) as two, AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        sessions = [await stack.enter_async_context(client(door)) for door in two]
        third = await stack.enter_async_context(processes.running(environment, tmp_path / "log", "serve"))
        sending = await stack.enter_async_context(client(third))  # a door that nobody kills
        group.create_task(send(sending, count))
        while len(watcher.seen) < count:
            which = cuts % 2
            with suppress(*GONE):
                async with watcher.watching(sessions[which]) as messages:
                    await watcher.take(messages, min(rng.randint(0, count // 15), count - len(watcher.seen)))
                    if cuts in {7, 14}:  # while it is connected
                        await two[which].kill()
                        two[which] = await stack.enter_async_context(
                            processes.running(environment, tmp_path / "log", "serve")
                        )
                        sessions[which] = await stack.enter_async_context(client(two[which]))
                        await watcher.take(messages, count)  # until it notices
            cuts += 1
        async with watcher.watching(sessions[0]) as messages:  # and nothing comes twice
            await send(sending, 1)
            await watcher.take(messages, 1)
    assert cuts >= 20
    assert watcher.positions == list(range(1, count + 2))


async def test_a_door_that_stops_sends_its_readers_on(environment: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM, as in a rolling deploy: the stream has a proper end, and the other door goes on after it."""
    watcher = Watcher()
    async with doors(environment, tmp_path) as two, client(two[0]) as one, client(two[1]) as other:
        async with watcher.watching(one) as messages:
            await send(other, 3)
            await watcher.take(messages, 3)
            two[0].process.terminate()
            with suppress(StopAsyncIteration):
                await watcher.take(messages, 1)
        async with asyncio.timeout(20):
            assert await two[0].process.wait() == 0
        await send(other, 2)
        async with watcher.watching(other) as messages:
            await watcher.take(messages, 2)
    assert watcher.positions == [1, 2, 3, 4, 5]
