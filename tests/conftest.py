"""Real parts for every test: one PostgreSQL and one Valkey per pytest process, a fresh database per test.

    dsn           a database of its own, migrated
    pool, conn    connected to it
    redis_url     a logical Redis database of its own, empty
    valkey        a Valkey of its own, to flush, kill and start again
    postgres      a PostgreSQL of its own, migrated, to kill and start again
    rng, seed     randomness that KIMA_TEST_SEED repeats
    scaled        the size of a large test: a tenth, or all of it with KIMA_TEST_FULL=1

KIMA_TEST_DATABASE_URL (a user who may create databases) and KIMA_TEST_REDIS_URL (its logical
databases 1 to 15 are flushed) take other servers than the embedded ones. With pytest-xdist each worker
needs servers of its own, since transactions are seen across databases: {worker} in the URL is its name, gw0 and on.
"""

import asyncio
import logging
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
import structlog

from kima_stream import database, logs, schema
from kima_stream.database import Connection, Pool
from kima_stream.embedded import home as homes
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.server import Server
from kima_stream.embedded.valkey import Valkey

OTHER_SERVERS = ("KIMA_TEST_DATABASE_URL", "KIMA_TEST_REDIS_URL")
FULL = os.environ.get("KIMA_TEST_FULL", "") not in {"", "0"}
_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed before any worker starts, so that all share it; refuse servers that workers would share."""
    for variable in OTHER_SERVERS:
        if config.getoption("numprocesses", None) and "{worker}" not in os.environ.get(variable, "{worker}"):
            raise pytest.UsageError(f"{variable}: each worker needs a server of its own: write {{worker}} into it")
    os.environ.setdefault("KIMA_TEST_SEED", str(random.SystemRandom().randrange(2**32)))


def pytest_report_header(config: pytest.Config) -> str:
    """Print what it takes to run the same again."""
    return f"KIMA_TEST_SEED={os.environ['KIMA_TEST_SEED']}" + (" KIMA_TEST_FULL=1" if FULL else "")


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Undo what a command set up: its stderr is gone after the test, and so are its secrets."""
    before, handlers, level = structlog.get_config(), list(logging.root.handlers), logging.root.level
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logs._hidden = logs._Hidden()


@pytest.fixture(scope="session")
def seed() -> int:
    """Return the seed of this run."""
    return int(os.environ["KIMA_TEST_SEED"])


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Return a source of randomness of the test's own, the same in every run with this seed."""
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="session")
def scaled() -> Callable[[int], int]:
    """Return how many of ``full`` to do in this run: a tenth, unless all are asked for."""
    return lambda full: full if FULL else max(1, full // 10)


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    """Make a folder that the servers' user can reach, with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="kima-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def _home(servers_dir: Path) -> homes.Home:
    folder = servers_dir / str(next(_numbers))
    folder.mkdir(mode=0o711)
    return homes.prepare(folder)


def _run(server: Server) -> Iterator[Server]:
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


def _of_this_worker(url: str) -> str:
    """Return the URL of a server that this worker has to itself."""
    return url.replace("{worker}", os.environ.get("PYTEST_XDIST_WORKER", "gw0"))


@pytest.fixture(scope="session")
def database_server(servers_dir: Path) -> Iterator[str]:
    """Return the URL of the shared PostgreSQL; its database ``postgres`` is for administration."""
    if url := os.environ.get(OTHER_SERVERS[0]):
        yield _of_this_worker(url)
        return
    server = Postgres(_home(servers_dir), fsync=False, max_connections=300)
    for _ in _run(server):
        yield server.url


@pytest.fixture(scope="session")
def redis_server(servers_dir: Path) -> Iterator[str]:
    """Return the URL of the shared Valkey; its logical database 0 is not used."""
    if url := os.environ.get(OTHER_SERVERS[1]):
        yield _of_this_worker(url)
        return
    server = Valkey(_home(servers_dir))
    for _ in _run(server):
        yield server.url


def _url_of(server: str, name: str) -> str:
    parts = urlsplit(server)
    return urlunsplit(parts._replace(path=f"/{name}"))


def _administer(server: str, statement: str) -> None:
    with psycopg.connect(_url_of(server, "postgres"), autocommit=True) as conn:
        conn.execute(statement.encode())


@pytest.fixture(scope="session")
def empty_database(database_server: str) -> Iterator[Callable[[], str]]:
    """Return a function that makes an empty database and returns its URL."""
    made: list[str] = []

    def make() -> str:
        name = f"test_{os.getpid()}_{next(_numbers)}"
        _administer(database_server, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
        made.append(name)
        return _url_of(database_server, name)

    yield make
    for name in made:
        _administer(database_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def template(empty_database: Callable[[], str]) -> str:
    """Return the name of a migrated database to copy; nobody connects to it."""
    dsn = empty_database()
    schema.migrate(dsn)
    return urlsplit(dsn).path.removeprefix("/")


@pytest.fixture
def dsn(database_server: str, template: str) -> Iterator[str]:
    """Return the URL of a migrated database of the test's own."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _administer(database_server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _url_of(database_server, name)
    _administer(database_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """Return a pool on the test's database."""
    opened = await database.open_pool(dsn, role="test", max_size=20)
    yield opened
    opened.terminate()  # a failed test may still hold one


@pytest.fixture
async def conn(dsn: str) -> AsyncIterator[Connection]:
    """Return one connection to the test's database."""
    opened = await database.connect(dsn, role="test")
    yield opened
    opened.terminate()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """Return the URL of an empty logical database of the test's own; never FLUSHALL it, use ``valkey``."""
    number = 1 + next(_numbers) % 15
    parts = urlsplit(redis_server)
    # urlunsplit would make unix:/path of it, which redis-py refuses.
    unix = f"unix://{parts.path}?db={number}"
    url = unix if parts.scheme == "unix" else urlunsplit(parts._replace(path=f"/{number}"))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
async def valkey(servers_dir: Path) -> AsyncIterator[Valkey]:
    """Run a Valkey of the test's own: ``.url``, ``kill()``, ``start()``, ``stop()``, ``restart_immediate()``."""
    async with Valkey(_home(servers_dir)).running() as server:
        yield server


@pytest.fixture
async def postgres(servers_dir: Path) -> AsyncIterator[Postgres]:
    """Run a PostgreSQL of the test's own, durable and migrated, to kill and start again."""
    async with Postgres(_home(servers_dir)).running() as server:
        await schema.migrate_async(server.url)
        yield server
