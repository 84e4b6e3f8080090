"""The publisher: numbering, chaining and adding to Redis, against plain XADD of the same fields."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio as redis_client

from bench.house import House, connected
from bench.material import fill
from bench.report import Figure
from bench.rounds import interleaved
from kima_stream import database, event_store
from kima_stream.database import Connection
from kima_stream.event_stream import EventStream
from kima_stream.events import RecordedEvent
from kima_stream.numbering import Numberer
from kima_stream.publisher import Publisher
from kima_stream.stream_entries import CHUNK_EVENTS

EVENTS, CATEGORY, REPAIRED = 20_000, "download_job", 20_000


async def run(built: House) -> list[Figure]:
    """Number and publish a backlog per round; then lose Redis once and publish again."""
    pool = await database.open_pool(built.database_url, role="bench")
    redis = redis_client.Redis.from_url(built.redis_url, protocol=3)
    async with connected(built) as conn, EventStream(built.redis_url, max_entries=REPAIRED, max_bytes=10**9) as stream:
        numberer = Numberer(conn, holder="bench")
        await numberer.lead()
        paces = await interleaved(
            {
                "ours": lambda: _ours(conn, numberer, stream),
                "numbering": lambda: _numbering(conn, numberer),
                "xadd": lambda: _xadd(conn, redis),
            }
        )
        await numberer.resign()
        await stream.drop(CATEGORY)
        began = time.perf_counter()
        # Redis is empty: everything below the cap comes from Postgres again.
        await Publisher(pool, stream, holder="bench").publish_once()
        repaired = REPAIRED / (time.perf_counter() - began)
    await redis.aclose()
    await pool.close()
    ours, numbering, xadd = paces["ours"], paces["numbering"], paces["xadd"]
    return [
        Figure("numbered, chained and published per second", ours.per_second, "/s", goal=">= 20,000"),
        Figure("  of plain XADD", ours.per_second / xadd.per_second, "x"),
        Figure("  of a core, here", ours.cpu_us, "µs each"),
        Figure("numbered and chained alone", numbering.per_second, "/s"),
        Figure("plain XADD in pipelines, unnumbered and unchecked", xadd.per_second, "/s"),
        Figure("published again after a loss, from Postgres", repaired, "/s"),
    ]


async def _ours(conn: Connection, numberer: Numberer, stream: EventStream) -> Callable[[], Awaitable[int]]:
    await fill(conn, EVENTS)
    last = await stream.last_position(CATEGORY)

    async def publish() -> int:
        nonlocal last
        while numbered := await numberer.number_once():
            for start in range(0, len(numbered), CHUNK_EVENTS):
                chunk = numbered[start : start + CHUNK_EVENTS]
                assert await stream.add(CATEGORY, chunk, last=last) is None
                last = chunk[-1].position or 0
        return EVENTS

    return publish


async def _numbering(conn: Connection, numberer: Numberer) -> Callable[[], Awaitable[int]]:
    await fill(conn, EVENTS)

    async def number() -> int:
        while await numberer.number_once():
            pass
        return EVENTS

    return number


async def _xadd(conn: Connection, redis: redis_client.Redis) -> Callable[[], Awaitable[int]]:
    head = int(await conn.fetchval("SELECT coalesce(max(position), 0) FROM event_positions"))
    events: list[RecordedEvent] = []
    while len(events) < EVENTS and (chunk := await event_store.read_log(conn, after=head - EVENTS + len(events))):
        events += chunk

    async def add() -> int:
        for start in range(0, len(events), CHUNK_EVENTS):
            pipe = redis.pipeline(transaction=False)
            for event in events[start : start + CHUNK_EVENTS]:
                fields: dict[Any, Any] = {  # as redis-py's invariant type wants it
                    "id": str(event.event_id), "stream": event.stream, "type": event.type, "data": event.data,
                    "source": event.source, "time": event.occurred_at.isoformat(),
                }  # fmt: skip
                _ = pipe.xadd("bench", fields, maxlen=REPAIRED, approximate=True)  # queued, no awaitable
            await pipe.execute()
        return len(events)

    return add
