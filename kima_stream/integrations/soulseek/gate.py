"""The one gate for searches: 30 in any 220 s, over all processes and restarts, in rows of Postgres.

The network bans an account for half an hour at about 34. Who waits is served in turn: first whoever had the
fewest searches in the window, so that one long album keeps nobody else waiting. The same query within the
window is not searched again: its answer is shared. Redis has no part in it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from time import perf_counter
from typing import Final

import msgspec
import structlog

from kima_stream import metrics
from kima_stream.database import Connection, Pool
from kima_stream.errors import RateLimitError
from kima_stream.integrations.soulseek import found
from kima_stream.integrations.soulseek.found import FoundFile

LIMIT: Final = 30
WINDOW_SECONDS: Final = 220.0
SLACK_SECONDS: Final = 2.0  # who passed sends within this, or asks again; the window is longer by it
WAIT_SECONDS: Final = 600.0
POLL_SECONDS: Final = 0.5
ALIVE_SECONDS: Final = 5.0  # a waiter that did not ask for so long is gone with its process
MAX_WAITING: Final = 200
KEEP_SECONDS: Final = 3_600.0

log = structlog.get_logger(__name__)


class Passed(msgspec.Struct, frozen=True):
    """Search now: until ``fresh_until`` by this process' ``perf_counter``, then ask again."""

    number: int
    fresh_until: float

    @property
    def is_fresh(self) -> bool:
        """Say whether it may still be sent."""
        return perf_counter() < self.fresh_until


class Shared(msgspec.Struct, frozen=True):
    """Somebody searched for the same just before; ``files`` is what came of it."""

    files: list[FoundFile]


class Gate:
    """Lets searches pass; any process may ask."""

    def __init__(
        self,
        pool: Pool,
        *,
        limit: int = LIMIT,
        window_seconds: float = WINDOW_SECONDS,
        slack_seconds: float = SLACK_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """At most ``limit`` pass in any ``window_seconds``; nobody waits longer than ``wait_seconds``."""
        self._pool = pool
        self._limit = limit
        self._window_seconds = window_seconds
        self._slack_seconds = slack_seconds
        self._wait_seconds = wait_seconds
        self._poll_seconds = poll_seconds
        self._sleep = sleep

    @property
    def _counted_seconds(self) -> float:
        """Return for how long a search counts: it may be sent a moment after it passed."""
        return self._window_seconds + self._slack_seconds

    async def enter(self, query: str, *, asker: str, seconds: float) -> Passed | Shared:
        """Wait until a search for ``query`` may be sent, or its answer is there.

        Args:
            query: normalised: equal texts are one search. Only its hash is kept: it is what somebody typed.
            asker: whose turn it is, e.g. the stream of a job.
            seconds: how long the search will last; for so long others wait for its answer.

        Raises:
            RateLimitError: it would take longer than allowed, or too many wait; nothing was sent.
        """
        began_at = perf_counter()
        query_hash = sha256(query.encode()).digest()
        number = await self._queue(query_hash, asker)
        try:
            while True:
                turn = await self._look(number, query_hash, seconds)
                if not isinstance(turn, float):
                    metrics.soulseek_gate_wait_seconds.observe(perf_counter() - began_at)
                    return turn
                if perf_counter() - began_at + turn > self._wait_seconds:
                    raise RateLimitError(retry_after_seconds=max(1, round(turn)))
                await self._sleep(min(max(turn, 0.01), self._poll_seconds))
        finally:
            await self._leave(number)

    async def settle(self, passed: Passed, files: Sequence[FoundFile]) -> None:
        """Keep what a search found, for those who ask the same within the window."""
        async with self._pool.acquire() as conn:
            await conn.execute(_ANSWER, passed.number, found.encode(files))

    async def give_up(self, passed: Passed) -> None:
        """Say that a search broke off: its answer is nobody's. It counts all the same."""
        async with self._pool.acquire() as conn:
            await conn.execute(_GIVE_UP, passed.number)

    async def _queue(self, query_hash: bytes, asker: str) -> int:
        async with self._pool.acquire() as conn, conn.transaction():
            row = await conn.fetchrow(_QUEUE, query_hash, asker, ALIVE_SECONDS)
            assert row is not None  # noqa: S101 - the statement always returns its row
            if row["waiting"] >= MAX_WAITING:
                raise RateLimitError(retry_after_seconds=round(self._window_seconds))
        return int(row["number"])

    async def _look(self, number: int, query_hash: bytes, seconds: float) -> Passed | Shared | float:
        """Return the way through, or for how many seconds there will be none."""
        async with self._pool.acquire() as conn, conn.transaction():
            await conn.execute(_LOCK)
            twin = await conn.fetchrow(_TWIN, query_hash, self._window_seconds)
            if twin is not None and twin["answer"] is not None:
                return Shared(found.decode(twin["answer"]))
            row = await conn.fetchrow(_TURN, number, self._counted_seconds, self._limit, ALIVE_SECONDS)
            assert row is not None  # noqa: S101 - an aggregate always answers
            if twin is not None:
                return self._poll_seconds  # somebody searches for it at this moment
            if row["used"] + row["ahead"] < self._limit:
                return await self._pass(conn, number, seconds)
            return float(row["left_seconds"]) if row["left_seconds"] is not None else self._poll_seconds

    async def _pass(self, conn: Connection, number: int, seconds: float) -> Passed:
        fresh_until = perf_counter() + self._slack_seconds  # what the statement takes counts against it
        await conn.execute(_LET_THROUGH, number, seconds + ALIVE_SECONDS)
        await conn.execute(_FORGET, self._counted_seconds + KEEP_SECONDS)
        return Passed(number, fresh_until)

    async def _leave(self, number: int) -> None:
        async with self._pool.acquire() as conn:
            await conn.execute(_LEAVE, number)


_QUEUE: Final = """
    WITH waiting AS (
        SELECT count(*) AS n FROM soulseek_searches WHERE passed_at IS NULL AND waits_until > clock_timestamp()
    )
    INSERT INTO soulseek_searches (query_hash, asker, waits_until)
    VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    RETURNING number, (SELECT n FROM waiting) AS waiting
"""

_LOCK: Final = "SELECT FROM soulseek_gate FOR UPDATE"

_TWIN: Final = """
    SELECT answer
      FROM soulseek_searches
     WHERE query_hash = $1 AND passed_at > clock_timestamp() - make_interval(secs => $2)
       AND (answer IS NOT NULL OR ends_at > clock_timestamp())
     ORDER BY answer IS NULL, passed_at DESC
     LIMIT 1
"""

# Everybody asks for himself: a place is never given to a process that died. Waiting for the same is waiting once.
_TURN: Final = """
    WITH alive AS (
        UPDATE soulseek_searches SET waits_until = clock_timestamp() + make_interval(secs => $4) WHERE number = $1
    ), passed AS (
        SELECT asker, passed_at,
               row_number() OVER (ORDER BY passed_at) AS place, count(*) OVER () AS used
          FROM soulseek_searches
         WHERE passed_at > clock_timestamp() - make_interval(secs => $2)
    ), had AS (
        SELECT asker, count(*) AS n FROM passed GROUP BY asker
    ), waiting AS (
        SELECT w.number, w.query_hash,
               coalesce(h.n, 0) + row_number() OVER (PARTITION BY w.asker ORDER BY w.number) AS turn
          FROM soulseek_searches AS w LEFT JOIN had AS h USING (asker)
         WHERE w.passed_at IS NULL AND (w.waits_until > clock_timestamp() OR w.number = $1)
    ), ahead AS (
        SELECT count(DISTINCT w.query_hash) AS n
          FROM waiting AS w, waiting AS me
         WHERE me.number = $1 AND (w.turn, w.number) < (me.turn, me.number) AND w.query_hash <> me.query_hash
    )
    SELECT coalesce(max(p.used), 0) AS used, a.n AS ahead,
           extract(epoch FROM min(p.passed_at) FILTER (WHERE p.place > p.used + a.n - $3)
                              + make_interval(secs => $2) - clock_timestamp())::float8 AS left_seconds
      FROM ahead AS a LEFT JOIN passed AS p ON true
     GROUP BY a.n
"""

_LET_THROUGH: Final = """
    UPDATE soulseek_searches
       SET passed_at = clock_timestamp(), ends_at = clock_timestamp() + make_interval(secs => $2)
     WHERE number = $1
"""

_ANSWER: Final = "UPDATE soulseek_searches SET answer = $2 WHERE number = $1"
_GIVE_UP: Final = "UPDATE soulseek_searches SET ends_at = clock_timestamp() WHERE number = $1"
_LEAVE: Final = "DELETE FROM soulseek_searches WHERE number = $1 AND passed_at IS NULL"
_FORGET: Final = """
    DELETE FROM soulseek_searches
     WHERE passed_at < clock_timestamp() - make_interval(secs => $1)
        OR (passed_at IS NULL AND waits_until < clock_timestamp() - make_interval(secs => $1))
"""
