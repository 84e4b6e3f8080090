"""A PostgreSQL and a Valkey for the time of a measurement, durable as in production, and our own processes."""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import asyncpg

from kima_stream import database, schema
from kima_stream.embedded import home as homes
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey

ROOT = Path(__file__).parents[1]
FIXTURE = ROOT / "tests" / "fixtures" / "webhooks" / "grab.json"
API_KEY = "kima_bench_key_" + secrets.token_hex(16)


@dataclass(frozen=True)
class House:
    """Where the servers are."""

    database_url: str
    redis_url: str
    folder: Path
    postgres_pid: int

    def env(self, port: int) -> dict[str, str]:
        """Return the environment of one of our processes."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "KIMA_DATABASE_URL": self.database_url,
            "KIMA_REDIS_URL": self.redis_url,
            "KIMA_API_KEY": API_KEY,
            "KIMA_PORT": str(port),
            "KIMA_DATA_DIR": str(self.folder),
            "KIMA_LOG_LEVEL": "warning",
        }


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    """Start both servers in a folder of their own; everything goes at the end."""
    with tempfile.TemporaryDirectory(prefix="kima-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        home = homes.prepare(folder)
        async with Postgres(home).running() as postgres, Valkey(home).running() as valkey:
            await schema.migrate_async(postgres.url)
            assert postgres.pid is not None
            yield House(postgres.url, valkey.url, folder, postgres.pid)


@asynccontextmanager
async def connected(built: House) -> AsyncIterator[asyncpg.Connection]:
    """One connection, with the manners of all of ours: without them Postgres plans for tables that look small."""
    conn = await database.connect(built.database_url, role="bench")
    try:
        yield conn
    finally:
        await conn.close()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(built: House, port: int, *arguments: str) -> Iterator[int]:
    """Run ``python -m ARGUMENTS`` and yield its pid."""
    with (built.folder / "processes.log").open("ab") as log:
        child = subprocess.Popen([sys.executable, "-m", *arguments], env=built.env(port), stdout=log, stderr=log)
    try:
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


async def listening(port: int) -> None:
    """Wait until somebody answers on ``port``."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/ping"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
