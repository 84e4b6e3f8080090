"""A million events through every role: what Redis and each process need meanwhile."""

import asyncio
import os
import time
from contextlib import ExitStack
from pathlib import Path

from bench.house import House, connected, process
from bench.material import BATCH, batches
from bench.report import Figure
from kima_stream import event_store
from kima_stream.event_stream import EventStream

EVENTS = int(os.environ.get("KIMA_BENCH_EVENTS", "1000000"))
PER_SECOND = int(os.environ.get("KIMA_BENCH_RATE", "6000"))
ROLES = {
    "publish": ("publish",),
    "consume": ("consume", "download_jobs"),
    "reconcile": ("reconcile",),
}


async def run(built: House) -> list[Figure]:
    """Append at a steady pace, and sample."""
    redis: list[int] = []
    resident: dict[str, list[int]] = {name: [] for name in ROLES}
    with ExitStack() as stack:
        pids = {name: stack.enter_context(process(built, 0, "kima_stream", *role)) for name, role in ROLES.items()}
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
    figures = [
        Figure("events", EVENTS, ""),
        Figure("appended per second", EVENTS / appended, "/s"),
        Figure("settled after the last append", settled - appended, "s"),
        Figure("Redis, most of it at any time", max(redis) / 1e6, "MB", goal="< 10"),
    ]
    for name, sizes in resident.items():
        quarter = len(sizes) // 4
        figures.append(Figure(f"{name}: resident after a quarter", max(sizes[: quarter + 1]) / 1e6, "MB"))
        figures.append(Figure(f"{name}: resident at the end", sizes[-1] / 1e6, "MB", goal="flat"))
    return figures


_BEHIND = """
    SELECT coalesce((SELECT verified_position FROM group_checkpoints WHERE group_name = 'download_jobs'), 0)
           < (SELECT max(id) FROM events)
"""


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
