"""A Soulseek server of the test's own, and owners of the account: in this process and as processes."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from kima_stream.database import Pool
from kima_stream.integrations.soulseek import account
from kima_stream.integrations.soulseek.account import Account
from kima_stream.integrations.soulseek.ownership import Owner
from kima_stream.locks import Locks
from kima_stream.settings import config
from kima_stream.settings.store import SettingsStore, Sources
from tests import soulseek_server
from tests.polling import eventually
from tests.soulseek_peers import free_port
from tests.soulseek_server import SoulseekServer

OWNER = Path(__file__).parent / "owner.py"
PASSWORD = "correct horse battery"


@pytest.fixture
async def server() -> AsyncIterator[SoulseekServer]:
    """Run a server that knows one password of ours."""
    async with soulseek_server.running() as running:
        running.passwords["kima"] = PASSWORD
        yield running


@pytest.fixture
def environment(server: SoulseekServer, dsn: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the settings of an owner."""
    (tmp_path / "music").mkdir()
    return {
        "KIMA_DATABASE_URL": dsn,
        "KIMA_REDIS_URL": redis_url,
        "KIMA_DATA_DIR": str(tmp_path / "data"),
        "KIMA_SOULSEEK_USERNAME": "kima",
        "KIMA_SOULSEEK_PASSWORD": PASSWORD,
        "KIMA_SOULSEEK_SERVER": f"127.0.0.1:{server.port}",
        "KIMA_SOULSEEK_LISTEN_HOST": "127.0.0.1",
        "KIMA_SOULSEEK_LISTEN_PORT": str(free_port()),
        "KIMA_MUSIC_PATH": str(tmp_path / "music"),
    }


@asynccontextmanager
async def owning(
    pool: Pool, environment: dict[str, str], *, lease_seconds: float = 5.0, locks: Locks | None = None
) -> AsyncIterator[Owner]:
    """Run an owner beside the body."""
    store = SettingsStore(pool, Sources.of(config.load(environment)))
    async with store.following():
        owner = Owner(pool, store, holder="this process", locks=locks, lease_seconds=lease_seconds, poll_seconds=0.02)
        task = asyncio.create_task(owner.run())
        try:
            yield owner
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Starter:
    """Starts owners as processes and keeps what they say."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        """Start none yet."""
        self._environment = environment
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, lease_seconds: float = 2.0) -> "subprocess.Popen[bytes]":
        """Start one with a lease of so many seconds."""
        # A port of its own for peers: the one before may still hold its own.
        settings = self._environment | {"KIMA_SOULSEEK_LISTEN_PORT": str(free_port())}
        with (self._folder / f"owner {len(self.processes)}").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, str(OWNER), str(lease_seconds)],
                cwd=OWNER.parents[3],
                env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"} | settings,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def said(self, process: "subprocess.Popen[bytes]") -> str:
        """Return the log of one."""
        return (self._folder / f"owner {self.processes.index(process)}").read_text()


@pytest.fixture
def start_owner(environment: dict[str, str], tmp_path: Path) -> Iterator[Starter]:
    """Return what starts owners as processes; they are ended with the test."""
    starter = Starter(environment, tmp_path)
    yield starter
    for process in starter.processes:
        process.kill()
        process.wait()


async def read(pool: Pool) -> Account:
    """Return how the account is."""
    async with pool.acquire() as conn:
        return await account.read(conn)


async def ask(pool: Pool, *, wanted: bool = True) -> int:
    """Ask for the account."""
    async with pool.acquire() as conn:
        return await account.ask(conn, wanted=wanted)


async def until(pool: Pool, state: account.State, *, asked: int = 0, timeout: float = 10.0) -> Account:
    """Wait until the account is in ``state`` as the answer to ask ``asked``."""

    async def is_so() -> Account | None:
        row = await read(pool)
        assert (row.state, row.answered >= asked, row.is_owned) == (state, True, True), row
        return row

    row = await eventually(is_so, timeout)
    assert row is not None
    return row
