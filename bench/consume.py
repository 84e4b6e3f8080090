"""One consumer: XREADGROUP, fold, save, commit, XACK, against XREADGROUP and XACK of the same entries alone."""

from collections.abc import Awaitable, Callable

from bench.house import House, connected
from bench.material import fill, number
from bench.report import Figure
from bench.rounds import interleaved
from consumers import download_jobs
from kima_stream import database, event_store
from kima_stream.database import Connection
from kima_stream.event_stream import EventStream
from kima_stream.subscription import BATCH_ENTRIES, Subscription

EVENTS = 10_000
GROUP = download_jobs.GROUP


async def run(built: House) -> list[Figure]:
    """Drain what was added for the round."""
    pool = await database.open_pool(built.database_url, role="bench")
    async with (
        connected(built) as conn,
        EventStream(built.redis_url, max_entries=EVENTS * 4, max_bytes=10**9) as stream,
    ):
        for group in (GROUP.name, "reader"):
            await stream.create_group(GROUP.category, group, after=0)
        subscription = Subscription(GROUP, pool, stream, consumer="bench")
        # The reader reads what the consumer has read: both have the same entries before them.
        paces = await interleaved(
            {"ours": lambda: _ours(conn, stream, subscription), "reading": lambda: _reading(stream)}
        )
        completed = await conn.fetchval("SELECT count(*) FROM download_jobs WHERE status = 'completed'")
        assert completed * 5 == await conn.fetchval("SELECT count(*) FROM events")
    await pool.close()
    ours, reading = paces["ours"], paces["reading"]
    return [
        Figure("projected per second, with commit", ours.per_second, "/s", goal=">= 40,000"),
        Figure("  of reading alone", ours.per_second / reading.per_second, "x"),
        Figure("  of a core, here", ours.cpu_us, "µs each"),
        Figure("read and acknowledged per second, nothing done", reading.per_second, "/s"),
        Figure("  of a core, here", reading.cpu_us, "µs each"),
    ]


async def _ours(conn: Connection, stream: EventStream, subscription: Subscription) -> Callable[[], Awaitable[int]]:
    last = await stream.last_position(GROUP.category)
    await fill(conn, EVENTS)
    await number(conn)
    while events := await event_store.read_log(conn, after=last, limit=BATCH_ENTRIES):
        await stream.add(GROUP.category, events, last=last)
        last = events[-1].position or 0

    async def drain() -> int:
        done = 0
        while done < EVENTS:
            done += await subscription.run_once(block_ms=100)
        return done

    return drain


async def _reading(stream: EventStream) -> Callable[[], Awaitable[int]]:
    async def read() -> int:
        done = 0
        while done < EVENTS:
            entries = await stream.read(GROUP.category, "reader", "bench", after=">", count=BATCH_ENTRIES)
            await stream.acknowledge(GROUP.category, "reader", [entry.entry_id for entry in entries])
            done += len(entries)
        return done

    return read
