"""Redis is flushed, or killed: how long until the next event is handled."""

import asyncio
import statistics
import time
from collections.abc import Sequence

import redis.asyncio as redis_client

from bench.house import House, connected
from bench.report import Figure
from kima_stream import database, event_store, reaction
from kima_stream.database import Connection
from kima_stream.event_stream import EventStream
from kima_stream.events import NewEvent, RecordedEvent, new_event_id
from kima_stream.publisher import Publisher
from kima_stream.reconciler import Reconciler
from kima_stream.subscription import Subscription

ROUNDS = 20


async def run(built: House) -> list[Figure]:
    """Lose everything in Redis, then append one event and wait for it."""
    handled: dict[str, asyncio.Event] = {}

    async def react(_conn: Connection, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            handled.setdefault(event.stream, asyncio.Event()).set()

    group = reaction.consumer_group("recovery", "note", react)
    pool = await database.open_pool(built.database_url, role="bench")
    took: dict[str, list[float]] = {"flushed while idle": [], "flushed, and a consumer is there first": []}
    async with EventStream(built.redis_url) as stream, connected(built) as conn:
        redis = redis_client.Redis.from_url(built.redis_url, protocol=3)
        loops = (
            Publisher(pool, stream, holder="bench"),
            Subscription(group, pool, stream, consumer="bench"),
            Reconciler(group, pool, stream, holder="bench"),
        )
        tasks = [asyncio.create_task(loop.run()) for loop in loops]

        async def send(name: str) -> float:
            event = NewEvent(event_id=new_event_id(), type="note.taken", data="{}", source="bench")
            waiting = handled.setdefault(name, asyncio.Event())
            began = time.perf_counter()
            await event_store.append(conn, name, [event])
            async with asyncio.timeout(30):
                await waiting.wait()
            return time.perf_counter() - began

        await send("note-first")
        for number in range(ROUNDS):
            for kind, waits in took.items():
                await asyncio.sleep(0.3)
                await redis.flushall()
                if "consumer" in kind:
                    await stream.create_group("note", "recovery", after=0)
                waits.append(await send(f"note-{kind}-{number}"))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await redis.aclose()
    await pool.close()
    return [
        figure
        for kind, waits in took.items()
        for figure in (
            Figure(f"{kind}: median", statistics.median(waits) * 1e3, "ms"),
            Figure(f"{kind}: longest of {ROUNDS}", max(waits) * 1e3, "ms", goal="<= 2,000"),
        )
    ]
