"""The parts that every role is put together from: pools, Redis, consumer groups, the door.

Each is a context, so that leaving them in turn is the orderly stop: first the door, which answers
what it has taken, then those who handle, then the connections.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from ipaddress import ip_address
from pkgutil import iter_modules
from typing import TypeVar

import psycopg
import structlog

import consumers
from consumers.reconcilers import deadlines
from kima_stream import database, delivery, schema
from kima_stream.checkpoints import ConsumerGroup
from kima_stream.cli.loop import Role
from kima_stream.database import Pool
from kima_stream.embedded import home as homes
from kima_stream.errors import ConfigurationError
from kima_stream.event_stream import EventStream
from kima_stream.http import app, health, server, table
from kima_stream.http.routes import AnyRoute
from kima_stream.publisher import Publisher
from kima_stream.reconciler import Reconciler
from kima_stream.settings import keyring
from kima_stream.settings.config import Settings
from kima_stream.settings.secrets import WRONG_ROOT
from kima_stream.settings.store import SettingsStore, Sources
from kima_stream.subscription import Subscription

CLOSE_SECONDS = 1.0
AWAIT_SECONDS = 60.0  # for a Postgres that is starting, or being restarted, while we start
AWAIT_POLL_SECONDS = 0.5
T = TypeVar("T")
log = structlog.get_logger(__name__)

PUBLISHER_IDLE_SECONDS = 2.0  # a paused leader holds nothing for longer


def holder() -> str:
    """Return a name for leases, unlike that of any other process, also of an earlier one on this host."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def database_url(settings: Settings) -> str:
    """Return where Postgres is: as configured, or that of the ``up`` that runs on this data folder.

    Raises:
        ConfigurationError: nobody said.
    """
    running = homes.find_running(settings.data_dir)
    url = settings.database_url or (running.database_url if running is not None else "")
    if not url:
        raise ConfigurationError([f"KIMA_DATABASE_URL: missing, and no kima-stream runs on {settings.data_dir}"])
    return url


def redis_url(settings: Settings) -> str:
    """Return where Redis or Valkey is: as configured, or that of the ``up`` that runs on this data folder.

    Raises:
        ConfigurationError: nobody said.
    """
    running = homes.find_running(settings.data_dir)
    url = settings.redis_url or (running.redis_url if running is not None else "")
    if not url:
        raise ConfigurationError([f"KIMA_REDIS_URL: missing, and no kima-stream runs on {settings.data_dir}"])
    return url


def check_root(settings: Settings) -> None:
    """See that production has a root for its secrets, which every process shares; see ADR 009.

    Raises:
        ConfigurationError: there is none.
    """
    if is_production(settings) and not Sources.of(settings).roots.is_there():
        fault = (
            f"KIMA_SECRET_KEY: missing, and {settings.host} with a Postgres of your own is production: give every "
            "process the same one, made with `openssl rand -base64 32`"
        )
        raise ConfigurationError([fault])


def is_production(settings: Settings) -> bool:
    """Say whether others reach this machine, and processes elsewhere may share the database."""
    return settings.database_url is not None and not is_loopback(settings.host)


@asynccontextmanager
async def settings_store(settings: Settings, connections: Pool) -> AsyncIterator[SettingsStore]:
    """Follow the settings; they were read once when it yields, so that nobody acts on half of them.

    Raises:
        ConfigurationError: in production, when the stored secrets hang on another root.
    """
    sources = Sources.of(settings)
    following = SettingsStore(connections, sources)
    await when_up(following.refresh)
    async with connections.acquire() as conn:
        ring = await keyring.load(conn, sources.roots)
    if ring.is_lost and is_production(settings):
        raise ConfigurationError([WRONG_ROOT])
    async with following.following():
        yield following


async def when_up(work: Callable[[], Awaitable[T]]) -> T:
    """Do ``work`` once Postgres answers: a role that starts while it restarts waits for it.

    Raises:
        OUTAGE: it did not answer for AWAIT_SECONDS.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + AWAIT_SECONDS
    while True:
        try:
            return await work()
        except (*delivery.OUTAGE, psycopg.OperationalError) as error:
            if loop.time() > deadline:
                raise
            log.warning("postgres_awaited", error_type=type(error).__name__)
        await asyncio.sleep(AWAIT_POLL_SECONDS)


async def migrated(dsn: str) -> None:
    """Bring the tables up to date, once Postgres answers."""
    await when_up(lambda: schema.migrate_async(dsn))


@asynccontextmanager
async def pool(dsn: str, role: str, *, max_size: int = 10, idle_seconds: float = 10.0) -> AsyncIterator[Pool]:
    """Open a pool, and close it in order, or by force when somebody keeps a connection."""
    opened = await database.open_pool(
        dsn, role=role, min_size=0, max_size=max_size, idle_in_transaction_seconds=idle_seconds
    )
    try:
        yield opened
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await opened.close()
        except TimeoutError:
            opened.terminate()


def event_stream(settings: Settings, url: str) -> EventStream:
    """Return the connections to Redis; they are made when first used."""
    return EventStream(_redis_scheme(url), max_entries=settings.redis_max_entries)


def _redis_scheme(url: str) -> str:
    return url.replace("valkey", "redis", 1) if url.startswith("valkey") else url


def consumer_groups(names: Sequence[str] = ()) -> list[ConsumerGroup]:
    """Return the groups of the package ``consumers``: each module's ``GROUP``; all, or those named.

    Raises:
        ConfigurationError: there is no group of that name.
    """
    modules = [import_module(f"consumers.{found.name}") for found in iter_modules(consumers.__path__)]
    groups = {
        group.name: group for group in (getattr(module, "GROUP", None) for module in modules) if group is not None
    }
    unknown = [name for name in names if name not in groups]
    if unknown:
        raise ConfigurationError(
            [f"there is no consumer group {name}; there are {', '.join(groups)}" for name in unknown]
        )
    return [groups[name] for name in names] if names else list(groups.values())


def subscriptions(groups: Sequence[ConsumerGroup], connections: Pool, stream: EventStream, *, slot: int) -> list[Role]:
    """Return the loops of the groups; a consumer's name is the same after a restart."""
    consumer = f"{socket.gethostname()}-{slot}"
    return [Subscription(group, connections, stream, consumer=consumer).run for group in groups]


def reconcilers(
    groups: Sequence[ConsumerGroup], connections: Pool, stream: EventStream | None, *, name: str
) -> list[Role]:
    """Return the sweeps of the groups, which whoever holds a group's lease does, and that of the deadlines."""
    sweeps: list[Role] = [Reconciler(group, connections, stream, holder=name).run for group in groups]
    return [*sweeps, partial(deadlines.keep_passing, connections)]


@asynccontextmanager
async def publisher(dsn: str, stream: EventStream, *, name: str) -> AsyncIterator[Publisher]:
    """Open the publisher on connections of its own; run it with ``run()``."""
    async with pool(dsn, "publisher", max_size=4, idle_seconds=PUBLISHER_IDLE_SECONDS) as connections:
        yield Publisher(connections, stream, holder=name)


@asynccontextmanager
async def door(
    settings: Settings,
    connections: Pool,
    stream: EventStream | None,
    *,
    port: int,
    routes: Sequence[AnyRoute] = table.ROUTES,
    redis_url: str | None = None,
    wake_publisher: Callable[[], None] = lambda: None,
    store: SettingsStore | None = None,
) -> AsyncIterator[int]:
    """Open the front door and yield its port; ``redis_url`` where it is not the configured one.

    Raises:
        ConfigurationError: the port is taken; by whom, where the system tells.
    """
    ping = stream.ping if stream is not None else None
    url = redis_url or settings.redis_url
    async with app.opened(
        settings,
        connections,
        settings_store=store,
        redis_url=url and _redis_scheme(url),
        ping_redis=ping,
        wake_publisher=wake_publisher,
    ) as opened:
        try:
            async with server.serving(app.build(opened, routes), host=settings.host, port=port) as taken:
                yield taken
        except ConfigurationError as error:
            raise ConfigurationError([f"{fault}{_taken_by(port)}" for fault in error.faults]) from None


@asynccontextmanager
async def metrics_door(settings: Settings, connections: Pool, stream: EventStream | None) -> AsyncIterator[str | None]:
    """Serve /metrics, /livez and /readyz of a role without HTTP, on KIMA_METRICS_PORT; yield where.

    Port 0 serves nothing, and that is None.
    """
    if not settings.metrics_port:
        yield None
        return
    routes = [route for route in health.ROUTES if route.path in {"/metrics", "/livez", "/readyz"}]
    async with door(settings, connections, stream, port=settings.metrics_port, routes=routes) as port:
        yield url_of(settings, port)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable_host(host: str) -> str:
    """Return what a program on this machine connects to, to reach a server that listens on ``host``."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def door_url(settings: Settings) -> str:
    """Return where this machine reaches the door, without a slash at its end; port 0 is known to who took it."""
    running = homes.find_running(settings.data_dir) if not settings.port else None
    if running is not None and running.page:
        return running.page.rstrip("/")
    return url_of(settings, settings.port)


def url_of(settings: Settings, port: int) -> str:
    """Return where a program on this machine reaches what listens on ``port``, without a slash at its end."""
    return f"http://{reachable_host(settings.host)}:{port}{settings.url_base}"


def _taken_by(port: int) -> str:
    """Return who listens on ``port``, when psutil is there and the system tells us."""
    try:
        import psutil
    except ImportError:
        return "; choose another with KIMA_PORT"
    with suppress(OSError, psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f": held by process {connection.pid} ({name}); choose another with KIMA_PORT"
    return "; choose another with KIMA_PORT"
