"""A million events through every role: what Redis and each process need meanwhile."""

import asyncio
import os
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from bench.house import API_KEY, House, connected, free_port, listening, process
from bench.material import BATCH, batches
from bench.report import Figure
from kima_stream import event_store
from kima_stream.event_stream import EventStream

EVENTS = int(os.environ.get("KIMA_BENCH_EVENTS", "1000000"))
PER_SECOND = int(os.environ.get("KIMA_BENCH_RATE", "6000"))
ROLES = {
    "serve": ("serve",),  # with a reader of the live feed, through which all of it passes
    "publish": ("publish",),
    "consume": ("consume",),
    "reconcile": ("reconcile",),
}


async def run(built: House) -> list[Figure]:
    """Append at a steady pace, and sample."""
    redis: list[int] = []
    resident: dict[str, list[int]] = {name: [] for name in ROLES}
    port = free_port()
    with ExitStack() as stack:
        pids = {name: stack.enter_context(process(built, port, "kima_stream", *role)) for name, role in ROLES.items()}
        await listening(port)
        watching = asyncio.create_task(_watch(f"http://127.0.0.1:{port}"))
        async with connected(built) as conn, connected(built) as other, EventStream(built.redis_url) as stream:

            async def sample() -> None:
                while True:
                    redis.append(await stream.memory_bytes())
                    for name, pid in pids.items():
                        resident[name].append(_resident_bytes(pid))
                    await asyncio.sleep(0.5)

            sampling = asyncio.create_task(sample())
            began = time.perf_counter()
            for number, batch in enumerate(batches(EVENTS)):
                await event_store.insert(conn, batch)
                ahead = began + number * BATCH / PER_SECOND - time.perf_counter()
                if ahead > 0:
                    await asyncio.sleep(ahead)
            appended = time.perf_counter() - began
            while await other.fetchval(_BEHIND):  # noqa: ASYNC110 - only the table knows
                await asyncio.sleep(0.2)
            settled = time.perf_counter() - began
            sampling.cancel()
            peak = int((await stream.facts())["used_memory_peak"])  # what no sample may have met
        seen = await watching
    figures = [
        Figure("events", EVENTS, ""),
        Figure("appended per second", EVENTS / appended, "/s"),
        Figure("settled after the last append", settled - appended, "s"),
        Figure("seen by the reader", seen, ""),
        Figure("Redis, most of it in any sample", max(redis) / 1e6, "MB", goal="< 10"),
        Figure("Redis, its own peak", peak / 1e6, "MB", goal="< 10"),
    ]
    for name, sizes in resident.items():
        quarter = len(sizes) // 4
        figures.append(Figure(f"{name}: resident after a quarter", max(sizes[: quarter + 1]) / 1e6, "MB"))
        figures.append(Figure(f"{name}: resident at the end", sizes[-1] / 1e6, "MB", goal="flat"))
    return figures


async def _watch(url: str) -> int:
    """Read the log from its beginning until all of it was seen; return how many events that were."""
    seen = 0
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(url, headers={"X-Api-Key": API_KEY}, timeout=timeout) as session:
        while seen < EVENTS:
            try:
                async with session.get("/api/live", params={"after": seen}, read_bufsize=2**20) as answer:
                    async for line in answer.content:
                        seen += line.startswith(b"data: ")
                        if seen == EVENTS:
                            return seen
            except aiohttp.ClientError:
                continue  # cut for being slow: positions are dense, so the count is the place to go on from
    return seen


_BEHIND = """
    SELECT coalesce((SELECT verified_position FROM group_checkpoints WHERE group_name = 'download_jobs'), 0)
           < (SELECT max(id) FROM events)
"""


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
