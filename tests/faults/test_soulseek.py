"""Real crashes on the way of an album through Soulseek: it arrives whole, and the network sees each search once."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest

from kima_stream.database import Pool
from kima_stream.events import Policy
from kima_stream.http import download_requests
from kima_stream.integrations.soulseek import names
from projections.correlation import Album
from tests import soulseek_server
from tests.integration.soulseek.conftest import PASSWORD, until
from tests.polling import eventually
from tests.soulseek_peers import free_port, nicotine

ROOT: Final = Path(__file__).parents[2]
ALBUM: Final = Album(artist="Some Artist", title="An Album", mbid=None)
LEASE_SECONDS: Final = 6.0


class Owners:
    """Processes that may own the account."""

    def __init__(self, settings: dict[str, str]) -> None:
        """Start none yet."""
        self._settings = settings
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> "subprocess.Popen[bytes]":
        """Start one."""
        settings = self._settings | {"KIMA_SOULSEEK_LISTEN_PORT": str(free_port())}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.soulseek_owner", str(LEASE_SECONDS), "2"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"]} | settings,
        )
        self.processes.append(process)
        return process


@pytest.fixture
def owners(dsn: str, redis_url: str, tmp_path: Path) -> Iterator[Owners]:
    """Return what starts processes; they are ended with the test."""
    (tmp_path / "music").mkdir()
    running = Owners(
        {
            "KIMA_DATABASE_URL": dsn,
            "KIMA_REDIS_URL": redis_url,
            "KIMA_DATA_DIR": str(tmp_path / "data"),
            "KIMA_SOULSEEK_USERNAME": "kima",
            "KIMA_SOULSEEK_PASSWORD": PASSWORD,
            "KIMA_SOULSEEK_LISTEN_HOST": "127.0.0.1",
            "KIMA_MUSIC_PATH": str(tmp_path / "music"),
        }
    )
    yield running
    for process in running.processes:
        process.kill()
        process.wait()


@pytest.mark.fault
async def test_an_owner_that_is_killed_in_mid_download_is_followed_by_one_that_goes_on(
    pool: Pool, owners: Owners, tmp_path: Path
) -> None:
    """Kill -9 while bytes come: the next owner takes over within the lease and resumes; one search, one outcome."""
    folder = tmp_path / "share" / "Some Artist - An Album"
    folder.mkdir(parents=True)
    for n in range(1, 3):
        (folder / f"0{n} - Song {n}.flac").write_bytes(random.Random(n).randbytes(2_000_000))
    async with soulseek_server.running() as server:
        owners._settings["KIMA_SOULSEEK_SERVER"] = f"127.0.0.1:{server.port}"
        async with nicotine(server, tmp_path / "home", tmp_path / "share", kilobytes_per_second=500):
            first = owners.start()
            await until(pool, "connected", timeout=40)
            async with pool.acquire() as conn, conn.transaction():
                asked = await download_requests.request(
                    conn, ALBUM, user_id="somebody", correlation_id="a test", policy=Policy(sources=("soulseek",))
                )
            await eventually(lambda: _bytes(tmp_path / "music") > 600_000, 60)
            logins = server.logins.count("kima")
            first.send_signal(signal.SIGKILL)
            first.wait()
            had = _bytes(tmp_path / "music")
            killed_at = asyncio.get_running_loop().time()
            owners.start()
            await eventually(lambda: server.logins.count("kima") > logins, 60)
            took_over = asyncio.get_running_loop().time() - killed_at
            (news,) = await _finished(pool, f"download_job-{asked.id}")

        music = {path.name: sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "music").rglob("*.*")}
        assert music == {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        assert (len(server.searches), server.kicks) == (1, [])
        assert had < 4_000_000
        assert '"tracks_wanted":2,"tracks_found":2' in news
        assert took_over < LEASE_SECONDS + 20  # the rest is this machine


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob(f"*{names.PARTIAL}"))


async def _finished(pool: Pool, stream: str) -> list[str]:
    """Wait for the news of the album and return all there are."""

    async def told() -> list[str]:
        async with pool.acquire() as conn:
            rows = await conn.fetch(
                "SELECT data FROM events WHERE stream = $1 AND type = 'download_job.soulseek_finished'", stream
            )
        return [row["data"] for row in rows]

    await eventually(told, 60)
    return await told()
