"""The gate for searches: never too many in any window, in turn, and nothing twice."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from time import perf_counter

import pytest
import redis

from kima_stream.database import Pool
from kima_stream.embedded.valkey import Valkey
from kima_stream.errors import RateLimitError
from kima_stream.integrations.soulseek.found import FoundFile
from kima_stream.integrations.soulseek.gate import Gate, Passed, Shared
from kima_stream.integrations.soulseek.searching import Searches
from tests.polling import eventually

A_FILE = FoundFile(peer="somebody", path="share\\x\\01 song.flac", size_bytes=3, extension="flac")
SEARCHER = Path(__file__).parent / "searcher.py"


def a_gate(pool: Pool, **over: float) -> Gate:
    """Return a gate with a short window."""
    bounds = {"limit": 3, "window_seconds": 0.5, "slack_seconds": 0.1, "wait_seconds": 10, "poll_seconds": 0.02} | over
    return Gate(pool, **bounds)  # type: ignore[arg-type]


async def passed_at(pool: Pool) -> list[float]:
    """Return when searches passed, in seconds of the database's clock."""
    async with pool.acquire() as conn:
        rows = await conn.fetch(
            "SELECT extract(epoch FROM passed_at)::float8 AS at FROM soulseek_searches "
            "WHERE passed_at IS NOT NULL ORDER BY 1"
        )
    return [row["at"] for row in rows]


def most_in_any(window_seconds: float, at: list[float]) -> int:
    """Return how many there were in the fullest window."""
    return max(sum(1 for other in at if start <= other < start + window_seconds) for start in at)


async def test_no_window_holds_more_than_the_limit(pool: Pool) -> None:
    """Twelve at once through three at a time: all of them pass, in four windows."""
    gate = a_gate(pool)

    turns = await asyncio.gather(*(gate.enter(f"query {n}", asker=f"job {n}", seconds=0) for n in range(12)))

    assert all(isinstance(turn, Passed) for turn in turns)
    at = await passed_at(pool)
    assert len(at) == 12
    assert most_in_any(0.6, at) == 3


async def test_the_same_query_is_searched_once_and_its_answer_shared(pool: Pool) -> None:
    """Two people want the same: the second gets what the first found, without a place at the gate."""
    gate = a_gate(pool, limit=1, window_seconds=30)
    first = await gate.enter("artist album", asker="a", seconds=30)
    assert isinstance(first, Passed)
    second = asyncio.create_task(gate.enter("artist album", asker="b", seconds=30))
    await gate.settle(first, [A_FILE])

    assert await second == Shared([A_FILE])
    assert await gate.enter("artist album", asker="c", seconds=30) == Shared([A_FILE])
    assert len(await passed_at(pool)) == 1


async def test_an_answer_that_never_came_is_asked_for_again(pool: Pool) -> None:
    """Who searched was killed or cut off: its place is used up, its answer is nobody's."""
    gate = a_gate(pool, limit=2, window_seconds=30)
    first = await gate.enter("artist album", asker="a", seconds=30)
    assert isinstance(first, Passed)
    await gate.give_up(first)

    assert isinstance(await gate.enter("artist album", asker="b", seconds=30), Passed)
    assert len(await passed_at(pool)) == 2


async def test_one_long_album_does_not_keep_the_others_waiting(pool: Pool) -> None:
    """Who had fewer searches goes first, whoever came first."""
    gate = a_gate(pool, limit=2, window_seconds=0.5)
    for n in range(2):
        await gate.enter(f"greedy {n}", asker="greedy", seconds=0)
    order: list[str] = []

    async def one(query: str, asker: str) -> None:
        await gate.enter(query, asker=asker, seconds=0)
        order.append(asker)

    greedy = [asyncio.create_task(one(f"more {n}", "greedy")) for n in range(4)]
    await eventually(lambda: waiting(pool, 4))
    await asyncio.gather(one("something", "modest"), *greedy)

    assert order.index("modest") <= 1


async def waiting(pool: Pool, count: int) -> bool:
    """Say whether so many wait."""
    async with pool.acquire() as conn:
        return bool(await conn.fetchval("SELECT count(*) = $1 FROM soulseek_searches WHERE passed_at IS NULL", count))


async def test_waiting_has_an_end_that_says_when_to_come_again(pool: Pool) -> None:
    """Nobody waits for ever, and who gave up holds no place."""
    gate = a_gate(pool, limit=1, window_seconds=50, wait_seconds=0.1)
    await gate.enter("one", asker="a", seconds=0)

    with pytest.raises(RateLimitError) as refused:
        await gate.enter("two", asker="a", seconds=0)

    assert 1 <= refused.value.retry_after_seconds <= 51
    assert await waiting(pool, 0)


async def test_a_place_is_good_for_a_moment_only(pool: Pool) -> None:
    """A process that was paused behind the gate must not send when the window has moved on."""
    passed = await a_gate(pool, slack_seconds=-1.0, window_seconds=5).enter("one", asker="a", seconds=0)

    assert isinstance(passed, Passed)
    assert not passed.is_fresh


async def test_sixty_searches_over_two_processes_a_restart_and_a_flush(dsn: str, pool: Pool, valkey: Valkey) -> None:
    """30 per 220 s, in a window 200 times as short: kill -9 and FLUSHALL in the middle let not one more through."""

    def start(name: str, first: int, count: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(SEARCHER), dsn, valkey.url, name, str(first), str(count)]
        return subprocess.Popen(command, cwd=SEARCHER.parents[3])

    one, two = start("one", 0, 30), start("two", 30, 30)
    try:
        await eventually(lambda: enough(pool, 20), 30)
        one.send_signal(signal.SIGKILL)
        one.wait()
        valkey_flush(valkey.url)
        again = start("one", 0, 30)
        try:
            assert await asyncio.to_thread(again.wait, 60) == 0
            assert await asyncio.to_thread(two.wait, 60) == 0
        finally:
            again.kill()
            again.wait()
    finally:
        for process in (one, two):
            process.kill()
            process.wait()

    at = await passed_at(pool)
    assert len(at) >= 60
    assert most_in_any(1.1, at) <= 30


async def enough(pool: Pool, count: int) -> bool:
    """Say whether so many passed."""
    return len(await passed_at(pool)) >= count


def valkey_flush(url: str) -> None:
    """Make Redis forget everything."""
    with redis.Redis.from_url(url) as client:
        client.flushall()


class Connection:
    """A connection that is there, is lost while a search waits for its turn, and takes longer than a turn is good."""

    def __init__(self, away_seconds: float) -> None:
        """Be asked for nothing yet."""
        self.asked = 0
        self.sent_at: list[float] = []
        self._away_seconds = away_seconds

    async def client(self) -> "Connection":
        """Return it; the second time it has to be made anew."""
        self.asked += 1
        if self.asked == 2:
            until = perf_counter() + self._away_seconds
            await eventually(lambda: perf_counter() > until)
        return self

    async def search(self, words: str, *, seconds: float) -> AsyncGenerator[list[FoundFile]]:  # noqa: ARG002 - as the client's
        """Send it."""
        self.sent_at.append(perf_counter())
        yield [A_FILE]


async def test_a_search_is_not_sent_long_after_it_passed(pool: Pool) -> None:
    """Its place is used up by then: it takes another one, so that no window holds more than are counted in it."""
    connection = Connection(away_seconds=0.2)
    searches = Searches(a_gate(pool, slack_seconds=0.1), connection.client, seconds=1)  # type: ignore[arg-type]

    found = [files async for files in searches.search("artist album", asker="a")]

    assert found == [[A_FILE]]
    assert len(connection.sent_at) == 1
    assert len(await passed_at(pool)) == 2
