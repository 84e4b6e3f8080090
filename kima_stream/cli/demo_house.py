"""The house of the demo: servers and roles of its own, on data of its own, gone afterwards.

The roles are the real program as processes, one role each, so that one of them can be killed.
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from kima_stream.embedded import home as homes
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.server import end_with_parent
from kima_stream.embedded.valkey import Valkey
from kima_stream.errors import KimaStreamError

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "door": ("serve",),
    "publisher": ("publish",),
    "consumer 1": ("consume", "--slot", "1"),
    "consumer 2": ("consume", "--slot", "2"),
    "reconciler": ("reconcile",),
}
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.05


class HouseError(KimaStreamError):
    """A part of the demo did not do what it should; the message says which."""


class Role:
    """One role as a process."""

    def __init__(self, name: str, env: Mapping[str, str], log: Path) -> None:
        """Nothing runs yet; what it says goes to ``log``."""
        self.name = name
        self.log = log
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it ends with us, however we end, and hears no Ctrl-C meant for us."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "kima_stream", *ROLES[self.name]],
                env=dict(self._env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one system call
            )

    @property
    def pid(self) -> int:
        """The process that was started last."""
        return self._process.pid if self._process is not None else 0

    @property
    def has_ended(self) -> bool:
        """Whether it ended, by itself or by us."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """End it with SIGKILL: it cannot say goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> None:
        """Ask it to end, and make it end when it takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


class House:
    """What runs: ``url`` is the door, ``key`` its admin key."""

    def __init__(self, place: Path, postgres: Postgres, valkey: Valkey, port: int) -> None:
        """Name every part; nothing is started."""
        self.url = f"http://127.0.0.1:{port}"
        self.key = f"kima_demo_{secrets.token_urlsafe(24)}"
        self.valkey = valkey
        self.env = {
            **_clean_environment(),
            "KIMA_DATABASE_URL": postgres.url,
            "KIMA_REDIS_URL": valkey.url,
            "KIMA_DATA_DIR": str(place / "data"),
            "KIMA_PORT": str(port),
            "KIMA_API_KEY": self.key,
            "KIMA_LOG_LEVEL": "warning",
        }
        self.roles = {name: Role(name, self.env, place / f"{name.replace(' ', '-')}.log") for name in ROLES}

    async def open(self) -> None:
        """Start every role and return when the door is ready.

        Raises:
            HouseError: a role ended, or the door does not open.
        """
        for role in self.roles.values():
            role.start()
        async with asyncio.timeout(START_SECONDS):
            while not await self._is_ready():
                self.check()
                await asyncio.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Raise when a role ended by itself, with its last words."""
        for role in self.roles.values():
            if role.has_ended:
                words = role.log.read_text(errors="replace").splitlines()[-3:]
                raise HouseError(f"the {role.name} ended by itself: {' / '.join(words)}")

    async def flush_redis(self) -> None:
        """Wipe everything that Valkey has."""
        reader, writer = await asyncio.open_unix_connection(self.valkey.socket)
        try:
            writer.write(b"FLUSHALL\r\n")
            if await reader.readline() != b"+OK\r\n":
                raise HouseError("Valkey did not flush")
        finally:
            writer.close()

    async def command(self, *arguments: str) -> tuple[int, bytes]:
        """Run a command of ours on this house and return its exit code and answer."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kima_stream", *arguments, env=self.env, stdout=subprocess.PIPE
        )
        answer, _ = await process.communicate()
        return process.returncode or 0, answer

    async def _is_ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as answer:
                return answer.ok
        except (aiohttp.ClientError, OSError):
            return False


@asynccontextmanager
async def built() -> AsyncIterator[House]:
    """Run PostgreSQL and Valkey in a folder of their own, and yield the house; its roles are not started yet."""
    place = _make_place()
    home = None
    try:
        home = await asyncio.to_thread(homes.prepare, place / "data")
        async with Postgres(home).running() as postgres, Valkey(home).running() as valkey:
            house = House(place, postgres, valkey, _free_port())
            try:
                yield house
            finally:
                await asyncio.gather(*(role.stop() for role in house.roles.values()))
    finally:
        for folder in (home.files, home.sockets, place) if home is not None else (place,):
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _make_place() -> Path:
    """Return a new folder that the servers' user can enter."""
    place = Path(tempfile.mkdtemp(prefix="kima-demo-"))
    place.chmod(0o711)
    return place


def _clean_environment() -> dict[str, str]:
    """Leave out what would lead the demo to your own servers."""
    mine = ("KIMA_", "DATABASE_URL", "REDIS_URL", "LIDARR_", "SLSKD_", "SOULSEEK_", "SETTINGS_ENCRYPTION_KEY")
    return {name: value for name, value in os.environ.items() if not name.startswith(mine)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
