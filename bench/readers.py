"""Webhooks at a steady rate, with and without 50 readers of the live feed at the same door."""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import aiohttp

from bench.house import API_KEY, ROOT, House, free_port, listening, process
from bench.report import Figure
from bench.steady import grab

READERS, SECONDS, ROUNDS = 50, 6, 3
PER_SECOND = int(os.environ.get("KIMA_BENCH_RATE", "100"))
PROBE_EVERY_SECONDS = 0.02


async def run(built: House) -> list[Figure]:
    """Measure in interleaved rounds."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    alone: list[float] = []
    watched: list[float] = []
    accepted = {"alone": 0, "watched": 0}
    read = cuts = 0
    with ExitStack() as stack:
        stack.enter_context(process(built, port, "kima_stream", "serve"))
        stack.enter_context(process(built, 0, "kima_stream", "publish"))
        await listening(port)
        for _ in range(ROUNDS):
            accepted["alone"] += await _load(url, alone)
            async with _watching(url) as counts:
                accepted["watched"] += await _load(url, watched)
            read, cuts = read + counts[0], cuts + counts[1]
    offered = PER_SECOND * SECONDS * ROUNDS
    expected = READERS * (accepted["watched"] + len(watched))
    medians = {name: statistics.median(values) for name, values in (("alone", alone), ("watched", watched))}
    return [
        Figure("webhooks offered per second", PER_SECOND, "/s"),
        Figure(f"accepted with {READERS} readers, of those without", accepted["watched"] / accepted["alone"], "x",
               goal=">= 0.99"),
        Figure("accepted of those offered, watched", accepted["watched"] / offered, "x"),
        Figure("answer without readers: median", medians["alone"] * 1e3, "ms"),
        Figure(f"answer with {READERS} readers: median", medians["watched"] * 1e3, "ms"),
        Figure(f"answer with {READERS} readers: p99", sorted(watched)[int(len(watched) * 0.99)] * 1e3, "ms"),
        Figure("  of the median without", medians["watched"] / medians["alone"], "x"),
        Figure("events handed to readers, of those accepted times readers", read / expected, "x", goal=">= 0.99"),
        Figure("readers cut for being slow", cuts, ""),
    ]  # fmt: skip


async def _load(url: str, seconds: list[float]) -> int:
    """Send at the steady rate; meanwhile probe how long one answer takes; return how many were accepted."""
    load = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.steady", url.rpartition(":")[2], API_KEY, str(PER_SECOND), str(SECONDS),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed = asyncio.create_task(load.communicate())
    async with aiohttp.ClientSession(url, headers={"X-Webhook-Secret": API_KEY}) as session:
        number = 10_000_000
        while not printed.done():
            number += 1
            began = time.perf_counter()
            async with session.post("/api/webhooks/lidarr", data=grab(number)) as answer:
                assert answer.status == 200, await answer.text()
            seconds.append(time.perf_counter() - began)
            await asyncio.sleep(PROBE_EVERY_SECONDS)
    return int((await printed)[0])


@asynccontextmanager
async def _watching(url: str) -> AsyncIterator[list[int]]:
    """Run the readers in a process of their own; afterwards the list has events read and cuts."""
    readers = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.watchers", url, API_KEY, str(READERS), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert readers.stdout is not None
    await readers.stdout.readline()
    await asyncio.sleep(1)  # all of them know their place
    counts: list[int] = []
    yield counts
    await asyncio.sleep(1)  # what is on its way arrives
    readers.terminate()
    printed, _ = await readers.communicate()
    counts += map(int, printed.split())
