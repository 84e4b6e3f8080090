"""Redis Streams: one stream per category, ``kima:events:{<category>}``.

All that is in Redis is a copy: whoever misses an entry reads Postgres. Entries carry explicit
ids ``<position>-0``, so Redis itself keeps the order, refuses what it has passed and fences a
stale publisher. Only commands that Redis 7.0 and Valkey both have.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Self

import hiredis
import redis.asyncio as redis_client
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from kima_stream import metrics, stream_entries
from kima_stream.events import RecordedEvent
from kima_stream.occupancy import STREAM_BYTES, Occupancy
from kima_stream.stream_entries import Entry

ANSWER_SECONDS = 5.0  # Redis answers within this, or counts as away
CONNECT_SECONDS = 1.0

# Redis is away, starting, full or a replica: nothing is lost, publish or read again later.
OUTAGE = (
    OSError,
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    MovedError,
    AskError,
)

# Add entries only where the publisher left off: a stream that was flushed and made anew by a
# consumer would otherwise take the next entry and hide that it lost the ones before (ADR-0004).
_COMPARE_AND_ADD = """
local last = '0-0'
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then last = info[i + 1] end
    end
end
if last ~= ARGV[1] then return {0, last} end
local i = 4
while i <= #ARGV do
    local n = tonumber(ARGV[i])
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], unpack(ARGV, i + 1, i + n))
    last = ARGV[i + 1]
    i = i + n + 1
end
if ARGV[3] ~= '' then redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[3]) end
return {1, last}
"""


class NoGroupError(Exception):
    """The consumer group or its stream is gone from Redis: make it anew at the verified position."""


def key(category: str) -> str:
    """Return the stream's key; the braces are literal, one hash slot per category."""
    return f"kima:events:{{{category}}}"


class EventStream:
    """A connection pool to Redis with the few verbs that the log needs."""

    def __init__(self, url: str, *, max_entries: int = 20_000, max_bytes: int = STREAM_BYTES) -> None:
        """Connect lazily; ``max_entries`` and ``max_bytes`` cap each stream, whatever anybody has read."""
        self.max_entries = max_entries
        self._occupancy: dict[str, Occupancy] = defaultdict(lambda: Occupancy(max_bytes))
        self._redis: redis_client.Redis = redis_client.Redis.from_url(
            url,
            protocol=3,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 1),
            client_name="kima-stream",
        )
        pool = self._redis.connection_pool
        pool.connection_class = _packing(pool.connection_class)
        for command in ("XREADGROUP", "XAUTOCLAIM", "XINFO STREAM", "XREVRANGE"):
            self._redis.set_response_callback(command, _raw)  # type: ignore[arg-type]  # it may give anything
        self._add = self._redis.register_script(_COMPARE_AND_ADD)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raise one of OUTAGE when Redis does not answer."""
        await self._redis.ping()

    async def add(self, category: str, events: Sequence[RecordedEvent], *, last: int) -> int | None:
        """Add numbered ``events`` behind position ``last``.

        Returns None when the stream ends there, and its actual last position when it does not;
        then nothing was added. No events: only compare.
        """
        arguments = chain.from_iterable(map(stream_entries.with_length, events))
        size_bytes = sum(map(stream_entries.size_bytes, events))
        occupancy = self._occupancy[category]
        below = occupancy.make_room(size_bytes)
        added, actual = await self._add(
            keys=[key(category)], args=[f"{last}-0", self.max_entries, f"{below}-0" if below else "", *arguments]
        )
        if not added:
            self._occupancy.pop(category, None)  # flushed, or another's: what is published again begins anew
            return int(actual.partition(b"-")[0])
        if events:
            occupancy.add(events[-1].position or 0, size_bytes)
            metrics.published_events.labels(category=category).inc(len(events))
        return None

    async def last_position(self, category: str) -> int:
        """Return the position of the newest entry ever added, 0 when there is no such stream."""
        try:
            info = await self._execute("XINFO STREAM", key(category))
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            info = {b"last-generated-id": b"0-0"}
        last = int(info[b"last-generated-id"].partition(b"-")[0])
        if not last:
            self._occupancy.pop(category, None)  # flushed
        return last

    async def newest(self, category: str) -> tuple[int, str] | None:
        """Return position and event id of the newest entry that is still there, None when there is none."""
        answer = await self._execute("XREVRANGE", key(category), "+", "-", "COUNT", 1)
        if not answer:
            return None
        entry_id, flat = answer[0]
        return int(entry_id.partition(b"-")[0]), dict(zip(flat[::2], flat[1::2], strict=True))[b"id"].decode()

    async def drop(self, category: str) -> None:
        """Remove the whole stream: it belongs to another log."""
        self._occupancy.pop(category, None)
        await self._redis.delete(key(category))

    async def trim(self, category: str, *, below: int) -> int:
        """Remove the entries below position ``below``; return how many went."""
        self._occupancy[category].forget(below=below)
        return int(await self._redis.xtrim(key(category), minid=f"{below}-0", approximate=False))

    async def create_group(self, category: str, group: str, *, after: int) -> None:
        """Make the group so that it reads on behind position ``after``; nothing happens if it is there."""
        try:
            await self._redis.xgroup_create(key(category), group, id=f"{after}-0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def read(
        self, category: str, group: str, consumer: str, *, after: str, count: int, block_ms: int | None = None
    ) -> list[Entry]:
        """Return entries for ``consumer``: its own pending ones with ids above ``after``, or new ones for ``>``.

        Raises:
            NoGroupError: see there.
        """
        block: list[str | int] = [] if block_ms is None else ["BLOCK", block_ms]
        try:
            answer = await self._execute(
                "XREADGROUP", "GROUP", group, consumer, "COUNT", count, *block, "STREAMS", key(category), after
            )
        except ResponseError as error:
            raise _as_no_group(error) from error
        return [stream_entries.entry(*item) for items in (answer or {}).values() for item in items]

    async def claim(self, category: str, group: str, consumer: str, *, idle_ms: int, count: int) -> list[Entry]:
        """Take over entries that another consumer has left unacknowledged for ``idle_ms``."""
        try:
            answer = await self._execute("XAUTOCLAIM", key(category), group, consumer, idle_ms, "0-0", "COUNT", count)
        except ResponseError as error:
            raise _as_no_group(error) from error
        return [stream_entries.entry(*item) for item in answer[1]]

    async def acknowledge(self, category: str, group: str, entry_ids: Sequence[bytes]) -> None:
        """Tell Redis that these entries are handled or held in Postgres."""
        if entry_ids:
            await self._redis.xack(key(category), group, *entry_ids)

    async def _execute(self, *arguments: str | int) -> Any:  # noqa: ANN401 - typed by each caller
        return await self._redis.execute_command(*arguments)  # type: ignore[no-untyped-call]  # redis-py's

    async def facts(self) -> Mapping[str, Any]:
        """Return what Redis or Valkey says about itself: the answer of INFO."""
        return dict(await self._redis.info())

    async def memory_bytes(self) -> int:
        """Return the memory that Redis says it uses."""
        return int((await self._redis.info("memory"))["used_memory"])


def _packing(connection_class: type[AbstractConnection]) -> type[AbstractConnection]:
    """Return the class with commands packed by hiredis, as the blocking client has them (measured: 4 times as fast)."""

    class Packing(connection_class):  # type: ignore[misc,valid-type]  # TCP, TLS or a socket
        def pack_command(self, *args: Any) -> list[bytes]:  # noqa: ANN401 - as redis-py has it
            words = tuple(args[0].split()) if isinstance(args[0], str) else args[:1]
            return [hiredis.pack_command((*words, *args[1:]))]

    return Packing


def _as_no_group(error: ResponseError) -> Exception:
    return NoGroupError(str(error)) if str(error).startswith("NOGROUP") else error


def _raw(answer: Any, **_: object) -> Any:  # noqa: ANN401 - what Redis says, before it is typed
    return answer
