"""From a webhook's acceptance to its job in the read model, while 1,000 webhooks a second come in."""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from uuid import UUID

import aiohttp
import msgspec

from bench import cpu
from bench.house import API_KEY, ROOT, House, connected, free_port, listening, process
from bench.report import Figure
from bench.steady import grab
from kima_stream.database import Connection
from projections import correlation

PER_SECOND, SECONDS = 1_000, 20
PROBE_EVERY_SECONDS = 0.05
LOOK_EVERY_SECONDS = 0.001  # so much too late at most does a probe see its row; more often, and looking is a load
ROLES = (
    ("publish",),
    ("consume", "intake", "--slot", "1"),
    ("consume", "download_jobs", "--slot", "2"),
    ("reconcile",),
)


async def run(built: House) -> list[Figure]:
    """Probe while a steady load runs."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    rate = int(os.environ.get("KIMA_BENCH_RATE", PER_SECOND))
    with ExitStack() as stack:
        pids = {"serve": stack.enter_context(process(built, port, "kima_stream", "serve"))}
        for role in ROLES:
            pids[" ".join(role[:2])] = stack.enter_context(process(built, 0, "kima_stream", *role))
        await listening(port)
        async with (
            aiohttp.ClientSession(url, headers={"X-Webhook-Secret": API_KEY}) as session,
            connected(built) as conn,
        ):
            for number in range(20):
                await _probe(conn, session, number)
            computed = _computed(built, pids)
            load = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.steady", str(port), API_KEY, str(rate), str(SECONDS),
                cwd=ROOT, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            accepted_in, visible_in = [], []
            await asyncio.sleep(2)
            until = time.perf_counter() + SECONDS - 4
            number = 100
            while time.perf_counter() < until:
                number += 1
                accepted, visible = await _probe(conn, session, number)
                accepted_in.append(accepted)
                visible_in.append(visible)
                await asyncio.sleep(PROBE_EVERY_SECONDS)
            printed, _ = await load.communicate()
            computed = {name: after - computed[name] for name, after in _computed(built, pids).items()}
    visible_in.sort()
    return [
        Figure("webhooks accepted per second meanwhile", int(printed) / SECONDS, "/s", goal=f">= {rate:,}"),
        Figure("accepted: median", statistics.median(accepted_in) * 1e3, "ms"),
        Figure("accepted to visible: p50", visible_in[len(visible_in) // 2] * 1e3, "ms", goal="<= 5"),
        Figure("accepted to visible: p99", visible_in[int(len(visible_in) * 0.99)] * 1e3, "ms", goal="<= 25"),
        Figure("probes", len(visible_in), ""),
        *(
            Figure(f"  of a core, in {name}", seconds / int(printed) * 1e6, "µs a webhook")
            for name, seconds in computed.items()
        ),
    ]


def _computed(built: House, pids: Mapping[str, int]) -> dict[str, float]:
    """Return the time that each of our roles has computed, and PostgreSQL for all of them."""
    return {name: cpu.seconds(pid) for name, pid in pids.items()} | {
        "PostgreSQL": cpu.seconds_with_children(built.postgres_pid)
    }


async def _probe(conn: Connection, session: aiohttp.ClientSession, number: int) -> tuple[float, float]:
    """Send one webhook; return the seconds to its answer, and from there to its row."""
    body = grab(number)
    mbid = msgspec.json.decode(body)["albums"][0]["mbId"]
    stream = correlation.stream_of(correlation.job_id(correlation.LIDARR_USER, msgspec.convert(mbid, type=UUID)))
    look = await conn.prepare("SELECT EXISTS (SELECT FROM download_jobs WHERE stream = $1 AND status = 'downloading')")
    began = time.perf_counter()
    async with session.post("/api/webhooks/lidarr", data=body) as answer:
        assert answer.status == 200, await answer.text()
    accepted = time.perf_counter()
    async with asyncio.timeout(30):
        while not await look.fetchval(stream):  # noqa: ASYNC110 - only the table knows
            await asyncio.sleep(LOOK_EVERY_SECONDS)
    return accepted - began, time.perf_counter() - accepted
