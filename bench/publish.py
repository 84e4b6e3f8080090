"""The publisher: numbering, chaining and adding to Redis."""

import time

from bench.house import House, connected
from bench.material import fill
from bench.report import Figure
from kima_stream import database, event_store
from kima_stream.event_stream import EventStream
from kima_stream.numbering import Numberer
from kima_stream.publisher import PUBLISH_EVENTS, Publisher

EVENTS = 100_000


async def run(built: House) -> list[Figure]:
    """Number and publish a backlog."""
    async with connected(built) as conn:
        await fill(conn, EVENTS)
        numberer = Numberer(conn, holder="bench")
        await numberer.lead()
        began = time.perf_counter()
        handed = []
        while numbered := await numberer.number_once():
            handed.append(numbered)
        numbering = EVENTS / (time.perf_counter() - began)
        await numberer.resign()
        pool = await database.open_pool(built.database_url, role="bench")
        async with EventStream(built.redis_url, max_entries=20_000) as stream:
            publisher = Publisher(pool, stream, holder="bench")
            began = time.perf_counter()
            last = 0
            for events in handed:
                for start in range(0, len(events), PUBLISH_EVENTS):
                    chunk = events[start : start + PUBLISH_EVENTS]
                    await stream.add(chunk[0].category, chunk, last=last)
                    last = chunk[-1].position or 0
            adding = EVENTS / (time.perf_counter() - began)
            await stream.drop("download_job")
            began = time.perf_counter()
            await publisher.publish_once()  # Redis is empty: everything below the cap comes from Postgres again
            repaired = 20_000 / (time.perf_counter() - began)
        await pool.close()
        assert await event_store.read_log(conn, after=EVENTS - 1)
    both = 1 / (1 / numbering + 1 / adding)
    return [
        Figure("numbered and chained per second", numbering, "/s"),
        Figure("added to Redis per second", adding, "/s"),
        Figure("both, one after the other", both, "/s", goal=">= 20,000"),
        Figure("published again after a loss, from Postgres", repaired, "/s"),
    ]
