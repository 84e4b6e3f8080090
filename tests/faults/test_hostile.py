"""A door in a process of its own bears whatever is thrown at it: no answer of the 500s, no growth, nobody kept out."""

import asyncio
import os
import random
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from kima_stream.database import Pool
from kima_stream.http.table import ROUTES
from tests import front_door
from tests.faults.hostile import Hostile
from tests.polling import eventually
from tests.routes import body_of

REQUESTS = 10_000
AT_ONCE = 8
KEYS = 20  # each has its limit
GROWTH_BYTES = 24 * 1024 * 1024  # of the process between the first quarter of the requests and the last one
PATIENCE_SECONDS = 1.0
ANSWER_SECONDS = 20.0


@asynccontextmanager
async def serving(dsn: str, folder: Path) -> AsyncIterator[tuple[psutil.Process, int]]:
    """Run ``kima-stream serve`` behind a proxy that is this test; yield its process and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {
        **os.environ, **front_door.NOWHERE_NAMED,
        "KIMA_DATABASE_URL": dsn, "KIMA_DATA_DIR": str(folder), "KIMA_PORT": str(port),
        "KIMA_TRUSTED_PROXIES": "127.0.0.1", "KIMA_LOG_FORMAT": "json", "KIMA_LOG_LEVEL": "error",
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kima_stream", "serve", env=environment, stdout=log, stderr=log
        )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

            async def ready() -> bool:
                try:
                    async with client.get("/readyz") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(ready, timeout=30)
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        await process.wait()


async def status_of(port: int, request: bytes) -> int:
    """Return how ``request`` was answered; 0: the connection ended without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        try:
            line = await asyncio.wait_for(_status_line(reader), PATIENCE_SECONDS)
        except TimeoutError:  # it announced more than it sent
            writer.write_eof()
            line = await asyncio.wait_for(_status_line(reader), ANSWER_SECONDS)
    except ConnectionError:
        return 0
    finally:
        writer.transport.abort()
    return int(line.split()[1]) if line else 0


async def _status_line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    while line.startswith(b"HTTP/1.1 100"):
        await reader.readline()
        line = await reader.readline()
    return line


@pytest.mark.fault
@pytest.mark.timeout(900)
async def test_hostile_requests_harm_nobody(
    pool: Pool, dsn: str, tmp_path: Path, rng: random.Random, scaled: Callable[[int], int]
) -> None:
    """Thousands of hostile requests: each refused or taken, none a defect; memory stays, and webhooks still come in."""
    keys = [await front_door.make_key(pool) for _ in range(KEYS)]
    webhooks = [path.read_bytes() for path in sorted((front_door.FIXTURES / "webhooks").glob("*.json"))]
    routes = {(str(route.method), route.path): body_of(route) for route in ROUTES if route.path != "/api/live"}
    hostile = Hostile(rng, routes, webhooks)
    count = scaled(REQUESTS)
    async with serving(dsn, tmp_path) as (process, port):
        statuses: Counter[int] = Counter()
        faults: list[bytes] = []
        sizes: list[int] = []

        async def throw(request: bytes) -> None:
            status = await status_of(port, request)
            statuses[status] += 1
            if status >= 500:
                faults.append(request[:500])

        for number in range(0, count, AT_ONCE):
            await asyncio.gather(*(throw(hostile.request(rng.choice(keys))) for _ in range(AT_ONCE)))
            sizes.append(process.memory_info().rss)
            if number % 200 == 0:
                assert await status_of(port, _honest(keys[0])) == 200

        said = (tmp_path / "log").read_text()
        assert not faults, (statuses, said[-3_000:])
        assert "request_failed" not in said
        assert "connection_failed" not in said
        assert len(statuses) > 8, "the requests were not hostile in many ways"
        quarter = len(sizes) // 4
        assert max(sizes[-quarter:]) - max(sizes[:quarter]) < GROWTH_BYTES, sizes[:: max(1, quarter // 4)]


def _honest(key: str) -> bytes:
    body = front_door.webhook("health")
    head = f"POST {front_door.LIDARR} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
