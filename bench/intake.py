"""Grabs that open jobs, from the entry of a stream to the committed row of ``download_jobs``."""

import os
import time
from collections.abc import Sequence
from uuid import uuid4

import msgspec

from bench import cpu
from bench.house import FIXTURE, House, connected
from bench.report import Figure
from consumers import intake
from kima_stream import database, delivery, event_store
from kima_stream.database import Connection, Pool
from kima_stream.event_store import Append
from kima_stream.events import RecordedEvent, new_event_id
from kima_stream.integrations import lidarr_webhooks

EVENTS, BATCH, ALONE = 3_000, 200, 300


async def run(built: House) -> list[Figure]:
    """Deliver in batches, then one by one; the clock is that of this process and of its one backend."""
    async with connected(built) as conn:
        grabs = await receive(conn, EVENTS + ALONE)
    pool = await database.open_pool(built.database_url, role="bench", min_size=1, max_size=1)
    async with pool.acquire() as conn:
        backend = int(await conn.fetchval("SELECT pg_backend_pid()"))
    ours, theirs, began = cpu.seconds(os.getpid()), cpu.seconds(backend), time.perf_counter()
    for start in range(0, EVENTS, BATCH):
        await deliver(pool, grabs[start : start + BATCH])
    seconds = time.perf_counter() - began
    ours, theirs = cpu.seconds(os.getpid()) - ours, cpu.seconds(backend) - theirs
    began = time.perf_counter()
    for grab in grabs[EVENTS:]:
        await deliver(pool, [grab])
    alone = time.perf_counter() - began
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM download_jobs WHERE status = 'downloading'") == len(grabs)
    await pool.close()
    return [
        Figure(f"grabs per second in batches of {BATCH}", EVENTS / seconds, "/s", goal=">= 4,000"),
        Figure("  of a core, here", ours / EVENTS * 1e6, "µs each"),
        Figure("  of a core, in its backend", theirs / EVENTS * 1e6, "µs each"),
        Figure("a grab alone", alone / ALONE * 1e3, "ms"),
    ]


async def receive(conn: Connection, number: int) -> list[RecordedEvent]:
    """Append grabs of as many albums as the door does."""
    body = msgspec.json.decode(FIXTURE.read_bytes())
    grabs: list[RecordedEvent] = []
    for start in range(0, number, BATCH):
        appends = []
        for n in range(start, min(start + BATCH, number)):
            album = body["albums"][0] | {"id": n, "mbId": str(uuid4()), "title": f"Album {n}"}
            named = body | {"albums": [album], "downloadId": uuid4().hex.upper()}
            received = lidarr_webhooks.receive(msgspec.json.encode(named))
            event_id = new_event_id()
            event = received.new_event(event_id, metadata="{}", correlation_id=None)
            appends.append(Append(received.stream(event_id), [event]))
        grabs += await event_store.append_many(conn, appends)
    return grabs


async def deliver(pool: Pool, grabs: Sequence[RecordedEvent]) -> None:
    """Hand over each grab's stream; nothing may be held back."""
    delivered = await delivery.deliver(pool, intake.GROUP, {grab.stream: [grab] for grab in grabs})
    assert not delivered.held
