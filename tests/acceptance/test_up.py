"""``kima-stream up`` and the roles alone, as processes, as an operator meets them."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest

from kima_stream.embedded import home as homes
from tests.polling import eventually

ROOT = Path(__file__).parent.parent.parent
GRAB = (ROOT / "tests" / "fixtures" / "webhooks" / "grab.json").read_bytes()
START_SECONDS = STOP_SECONDS = 30


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Name a data folder that every user can reach and that is not there yet."""
    folder = Path(tempfile.mkdtemp(prefix="kima-test-"))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def environment(data_dir: Path) -> dict[str, str]:
    """Return an environment in which nothing but the data folder and the port is set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIMA_") and "_URL" not in name}
    return {**kept, "KIMA_DATA_DIR": str(data_dir), "KIMA_PORT": "0"}


class Up:
    """A running ``up`` and what it said about itself."""

    def __init__(self, process: asyncio.subprocess.Process, place: Mapping[str, Any]) -> None:
        """Read its key."""
        self.process = process
        self.page = place["page"]
        self.key = Path(place["key_file"]).read_text().strip() if place["key_file"] else ""

    async def post_grab(self) -> tuple[int, Mapping[str, Any]]:
        """Send a webhook as Lidarr would."""
        url = f"{self.page}api/webhooks/lidarr"
        headers = {"X-Api-Key": self.key, "Content-Type": "application/json"}
        async with aiohttp.ClientSession() as session, session.post(url, data=GRAB, headers=headers) as answer:
            return answer.status, await answer.json()

    async def readiness(self) -> str:
        """Return ok, degraded or unavailable."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.page}readyz") as answer:
            return str((await answer.json())["status"])

    async def stop(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()


def said(environment: Mapping[str, str]) -> str:
    """Return what the programs of this test wrote to stderr: a file, since a full pipe would stop them."""
    return Path(environment["KIMA_DATA_DIR"]).with_name("stderr").read_text()


async def start(environment: Mapping[str, str], *arguments: str) -> asyncio.subprocess.Process:
    """Start the program."""
    with Path(environment["KIMA_DATA_DIR"]).with_name("stderr").open("a") as errors:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kima_stream",
            *arguments,
            env=environment,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )


@asynccontextmanager
async def up(environment: Mapping[str, str]) -> AsyncIterator[Up]:
    """Run ``up``; at the end it is stopped, whatever became of it."""
    process = await start(environment, "up", "--json")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        assert line, "it did not start"
        yield Up(process, msgspec.json.decode(line))
    except BaseException:
        print(said(environment)[-5000:])  # noqa: T201 - pytest shows it with the failure
        raise
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_it_starts_says_where_stops_and_starts_again(environment: dict[str, str], data_dir: Path) -> None:
    """Ctrl-C stops it, and after the next start what was acknowledged is there."""
    async with up(environment) as first:
        status, accepted = await first.post_grab()
        code = await first.stop()
    assert (status, code) == (200, 0)
    assert (data_dir / "api_key").stat().st_mode & 0o777 == 0o600

    async with up(environment) as second:
        assert second.key == first.key
        assert await second.post_grab() == (200, {"event_id": accepted["event_id"], "duplicate": True})


async def test_a_second_one_says_that_it_already_runs(environment: dict[str, str]) -> None:
    """It names the process and the page, and leaves with 1."""
    async with up(environment) as running:
        second = await start(environment, "up")
        assert await second.wait() == 1
        assert f"already runs on {environment['KIMA_DATA_DIR']}: process {running.process.pid}" in said(environment)
        assert running.page in said(environment)


async def test_a_taken_port_is_named_with_its_holder(environment: dict[str, str]) -> None:
    """The message has the pid and the setting; everything that was started is stopped again."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        process = await start({**environment, "KIMA_PORT": str(port)}, "up")
        assert await process.wait() == 2
    last = said(environment).splitlines()[-1]
    assert f"held by process {os.getpid()}" in last
    assert "KIMA_PORT" in last


async def test_kill_9_of_everything_loses_nothing(environment: dict[str, str], data_dir: Path) -> None:
    """The process and both servers, at once; the next start has what was acknowledged."""
    async with up(environment) as first:
        _, accepted = await first.post_grab()
        servers = psutil.Process(first.process.pid).children(recursive=True)
        for process in (psutil.Process(first.process.pid), *servers):
            with suppress(psutil.NoSuchProcess):  # a backend ends with its postmaster
                process.kill()
        await first.process.wait()

    async with up(environment) as second:
        assert await second.post_grab() == (200, {"event_id": accepted["event_id"], "duplicate": True})


async def test_kill_9_of_a_server_is_healed_while_it_runs(environment: dict[str, str]) -> None:
    """Postgres, then Valkey: the door answers again by itself."""
    async with up(environment) as running:
        _, accepted = await running.post_grab()
        for name in ("postgres", "valkey-server"):
            children = psutil.Process(running.process.pid).children()
            next(child for child in children if child.name() == name).kill()

            async def healed() -> bool:
                return await running.readiness() == "ok"

            await eventually(healed, timeout=20)
        assert await running.post_grab() == (200, {"event_id": accepted["event_id"], "duplicate": True})
        assert await running.stop() == 0


async def test_with_urls_it_uses_those(environment: dict[str, str], data_dir: Path, dsn: str, redis_url: str) -> None:
    """No server is started, and none of their folders is made."""
    given = {**environment, "KIMA_DATABASE_URL": dsn, "KIMA_REDIS_URL": redis_url}
    async with up(given) as running:
        assert (await running.post_grab())[0] == 200
        assert psutil.Process(running.process.pid).children() == []
        assert sorted(path.name for path in data_dir.iterdir()) == ["api_key", homes.IN_USE]


async def test_other_commands_find_the_database_of_a_running_up(environment: dict[str, str]) -> None:
    """``migrate --status`` without any URL, by the data folder."""
    async with up(environment):
        process = await start(environment, "migrate", "--status")
        output, _ = await process.communicate()

    assert process.returncode == 0
    assert output.decode().startswith("0001_create_events ")


@asynccontextmanager
async def role(environment: Mapping[str, str], name: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run one role; yield it and where it answers, once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    setting = "KIMA_PORT" if name == "serve" else "KIMA_METRICS_PORT"
    process = await start({**environment, setting: str(port)}, name)
    address = f"http://127.0.0.1:{port}"

    async def ready() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{address}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False

    try:
        await eventually(ready, timeout=START_SECONDS)
        yield process, address
    except BaseException:
        print(said(environment)[-5000:])  # noqa: T201 - pytest shows it with the failure
        raise
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("name", ["serve", "publish", "consume", "reconcile"])
async def test_each_role_runs_alone(environment: dict[str, str], dsn: str, redis_url: str, name: str) -> None:
    """A role without HTTP answers on its metrics port, and SIGTERM ends each with 0, within 5 s."""
    urls = {"KIMA_DATABASE_URL": dsn, "KIMA_REDIS_URL": redis_url, "KIMA_API_KEY": "a key of this test"}
    async with role({**environment, **urls}, name) as (process, address):
        async with aiohttp.ClientSession() as session, session.get(f"{address}/metrics") as answer:
            assert "kima_log_position" in await answer.text()
        process.terminate()
        async with asyncio.timeout(5):
            assert await process.wait() == 0


async def test_serve_beyond_loopback_wants_a_key_first(environment: dict[str, str], dsn: str) -> None:
    """Nobody is served to the world without a lock on the door."""
    given = {"KIMA_DATABASE_URL": dsn, "KIMA_HOST": "0.0.0.0", "KIMA_SECRET_KEY": os.urandom(32).hex()}  # noqa: S104
    process = await start({**environment, **given}, "serve")

    assert await process.wait() == 2
    assert "KIMA_API_KEY" in said(environment).splitlines()[-1]


async def test_a_signal_while_it_waits_for_postgres_ends_it(environment: dict[str, str]) -> None:
    """A role that cannot start yet does not have to be killed."""
    process = await start({**environment, "KIMA_DATABASE_URL": "postgresql://kima@127.0.0.1:1/kima"}, "serve")
    await eventually(lambda: "postgres_awaited" in said(environment), timeout=START_SECONDS)

    process.terminate()

    async with asyncio.timeout(5):
        assert await process.wait() == 0
    await process.communicate()


async def test_the_demo_tells_its_story_to_the_end(environment: dict[str, str], data_dir: Path) -> None:
    """Webhooks, kill -9, duplicates, verify: and the data of the person who runs it is not touched."""
    process = await start(environment, "demo")
    output, _ = await process.communicate()

    assert process.returncode == 0, said(environment)
    assert output.decode().splitlines()[-1].endswith("0 lost, 0 doubled")
    assert not data_dir.exists()
