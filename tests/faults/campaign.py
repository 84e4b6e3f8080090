"""A campaign: the whole product as processes, clients that remember what they were told, and a nemesis.

The oracle is the clients' own: a file of what was acknowledged, and the fixtures that they sent.
Nothing of ours is asked what should be true.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import aiohttp
import msgspec
import redis.asyncio as redis_client

from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey
from tests.front_door import LIDARR, webhook
from tests.polling import eventually

API_KEY = "kima_campaign_key_0123456789"
GROUPS = ("intake", "download_jobs", "job_endings", "notifications")
PAUSE_SECONDS = 4.0  # longer than the publisher's lease


@dataclass
class Role:
    """One process of ours: started, killed, stopped in its tracks, started again."""

    name: str
    arguments: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it logs to its own file."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kima_stream", *self.arguments], env=dict(self.env), stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End it without a word."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def pause(self, seconds: float) -> None:
        """Stop it in its tracks for a while, as a machine that swaps or sleeps does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)  # the fault itself, not a wait for something
            self.process.send_signal(signal.SIGCONT)


@dataclass
class House:
    """Every role over a Postgres and a Valkey of their own."""

    postgres: Postgres
    valkey: Valkey
    roles: dict[str, Role]
    url: str
    env: Mapping[str, str]

    def ended(self) -> list[str]:
        """Return the roles that ended by themselves, which none may."""
        return [role.name for role in self.roles.values() if role.process and role.process.poll() is not None]


@asynccontextmanager
async def house(
    postgres: Postgres,
    valkey: Valkey,
    port: int,
    folder: Path,
    *,
    more: Mapping[str, str] | None = None,
    also: Mapping[str, tuple[str, ...]] | None = None,
) -> AsyncIterator[House]:
    """Start one of each role, a second publisher, a second consumer, and ``also``; ``more`` is their environment."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "KIMA_DATABASE_URL": postgres.url,
        "KIMA_REDIS_URL": valkey.url,
        "KIMA_API_KEY": API_KEY,
        "KIMA_PORT": str(port),
        "KIMA_DATA_DIR": str(folder),
        "KIMA_LOG_FORMAT": "json",
        **(more or {}),
    }
    commands = {
        "api": ("serve",),
        "publisher-1": ("publish",),
        "publisher-2": ("publish",),
        "consumer-1": ("consume", *GROUPS, "--slot", "1"),
        "consumer-2": ("consume", *GROUPS, "--slot", "2"),
        "reconciler": ("reconcile",),
        **(also or {}),
    }
    roles = {name: Role(name, arguments, env, folder / f"{name}.log") for name, arguments in commands.items()}
    built = House(postgres, valkey, roles, f"http://127.0.0.1:{port}", env)
    try:
        for role in roles.values():
            role.start()
        await eventually(lambda: answers(built.url), timeout=30)
        yield built
    finally:
        for role in roles.values():
            role.kill()


async def answers(url: str) -> bool:
    """Whether the front door is ready."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError):
        return False


class Nemesis:
    """Faults from a seed, one after the other."""

    def __init__(self, built: House, rng: random.Random) -> None:
        """Break nothing yet."""
        self._house = built
        self._rng = rng
        self.done: list[str] = []

    async def strike(self) -> None:
        """Do one fault and repair what a supervisor would; a role that ended by itself ends the test."""
        assert self._house.ended() == []
        faults = {"role": 10, "flush": 3, "valkey": 3, "postgres": 2, "pause": 1}
        fault = self._rng.choices(list(faults), list(faults.values()))[0]
        name = self._rng.choice(sorted(self._house.roles))
        if fault == "role":
            self._house.roles[name].kill()
            self._house.roles[name].start()
        elif fault == "flush":
            async with redis_client.Redis.from_url(self._house.valkey.url, protocol=3) as client:
                await client.flushall()
        elif fault == "valkey":
            await self._house.valkey.kill()
            await self._house.valkey.start()
        elif fault == "postgres":
            await self._house.postgres.restart_immediate()
        else:
            name = self._rng.choice(["publisher-1", "publisher-2"])
            await self._house.roles[name].pause(PAUSE_SECONDS)
        self.done.append(f"{fault} {name}" if fault in {"role", "pause"} else fault)


@dataclass
class Client:
    """Lidarr and its users: sends what happens to albums, in order, again until it is acknowledged."""

    url: str
    acknowledged: Path
    rng: random.Random
    expected: dict[str, str] = field(default_factory=dict)  # album MBID -> the status its job must end in
    requested: dict[str, UUID] = field(default_factory=dict)  # album MBID -> the job id that was answered
    failures: int = 0

    async def play(self, stopping: asyncio.Event) -> None:
        """Play one album after the other until told to stop; the last one is played to its end."""
        timeout = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(self.url, timeout=timeout, headers={"X-Api-Key": API_KEY}) as session:
            while not stopping.is_set():
                await self._play_album(session)

    async def _play_album(self, session: aiohttp.ClientSession) -> None:
        album, number, download_id = str(uuid4()), self.rng.randrange(10**9), uuid4().hex.upper()
        ending = self.rng.choice(["completed", "failed", "downloading"])
        if self.rng.random() < 0.5:
            body = {"artist": "The Harbour Lights", "album": f"Album {number}", "mbid": album}
            answer = await self._send(session, "/api/downloads", json.dumps(body).encode())
            self.requested[album] = UUID(answer["id"])
        await self._webhook(session, "grab", album, number, download_id)
        if ending == "completed":
            await self._webhook(session, "download", album, number, download_id)
        elif ending == "failed":
            await self._webhook(session, "download-failure", album, number, download_id)
        self.expected[album] = ending

    async def _webhook(
        self, session: aiohttp.ClientSession, name: str, album: str, number: int, download_id: str
    ) -> None:
        body = msgspec.json.decode(webhook(name))
        body["downloadId"] = download_id
        for item in [*body.get("albums", []), *filter(None, [body.get("album")])]:
            item |= {"id": number, "mbId": album, "title": f"Album {number}"}
        for item in body.get("trackFiles", []):
            item["id"] = number * 10 + item["id"] % 10
        answer = await self._send(session, LIDARR, json.dumps(body, indent=2).encode())
        if self.rng.random() < 0.2:  # Lidarr never repeats by itself; a proxy in between may
            again = await self._send(session, LIDARR, json.dumps(body, indent=2).encode())
            assert again["event_id"] == answer["event_id"]

    async def _send(self, session: aiohttp.ClientSession, path: str, body: bytes) -> dict[str, str]:
        """Post until it is acknowledged, then write that down before anything else."""
        while True:
            try:
                async with session.post(path, data=body, headers={"Content-Type": "application/json"}) as answer:
                    if answer.status in {200, 202}:
                        content: dict[str, str] = await answer.json()
                        with self.acknowledged.open("a") as file:
                            file.write(f"{content['event_id']}\n")
                        return content
                    assert answer.status == 503, (answer.status, await answer.text())
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.failures += 1
            await asyncio.sleep(0.1)  # a client's manners
