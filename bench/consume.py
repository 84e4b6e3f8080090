"""One consumer: XREADGROUP, fold, save, commit, XACK."""

import time

from bench.house import House, connected
from bench.material import fill, number
from bench.report import Figure
from consumers import download_jobs
from kima_stream import database, event_store
from kima_stream.event_stream import EventStream
from kima_stream.subscription import Subscription

EVENTS = 60_000


async def run(built: House) -> list[Figure]:
    """Drain a full stream."""
    group = download_jobs.GROUP
    async with connected(built) as conn, EventStream(built.redis_url, max_entries=EVENTS * 2) as stream:
        await fill(conn, EVENTS)
        head, last = await number(conn), 0
        while events := await event_store.read_log(conn, after=last, limit=500):
            await stream.add(group.category, events, last=last)
            last = events[-1].position or 0
        assert last == head
        pool = await database.open_pool(built.database_url, role="bench")
        await stream.create_group(group.category, group.name, after=0)
        subscription = Subscription(group, pool, stream, consumer="bench")
        began = time.perf_counter()
        done = 0
        while done < EVENTS:
            done += await subscription.run_once(block_ms=100)
        seconds = time.perf_counter() - began
        assert await conn.fetchval("SELECT count(*) FROM download_jobs WHERE status = 'completed'") == EVENTS // 5
        await pool.close()
    return [Figure("projected per second, with commit", EVENTS / seconds, "/s", goal=">= 40,000")]
