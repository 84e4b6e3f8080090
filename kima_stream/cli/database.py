"""One connection for one command."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from kima_stream import database
from kima_stream.cli import parts
from kima_stream.cli.loop import run, settings
from kima_stream.database import Connection
from kima_stream.errors import ConfigurationError
from kima_stream.settings.config import Settings
from kima_stream.settings.secrets import Roots
from kima_stream.settings.store import Sources

T = TypeVar("T")


def with_connection(work: Callable[[Connection], Awaitable[T]], loaded: Settings | None = None) -> T:
    """Run ``work`` on a connection to the configured or running database and return its answer.

    ``loaded`` is the configuration, when the caller has read it already.

    Raises:
        ConfigurationError: there is none.
        OSError, asyncpg.PostgresError: Postgres is away.
    """
    configured = loaded or settings()

    async def answer() -> T:
        async with connected(configured) as conn:
            return await work(conn)

    return run(answer())


@asynccontextmanager
async def connected(loaded: Settings | None = None) -> AsyncIterator[Connection]:
    """Open one connection, as ``with_connection`` does: e.g. a second one."""
    conn = await database.connect(parts.database_url(loaded or settings()), role="cli")
    try:
        yield conn
    finally:
        await conn.close()


def roots() -> Roots:
    """Return what the keys that seal hang on, as configured.

    Raises:
        ConfigurationError: with every fault of the configuration.
    """
    return Sources.of(settings()).roots


def require_root(loaded: Settings) -> None:
    """See that a root is not made here, when the roles that need it may run elsewhere.

    Raises:
        ConfigurationError: it would be.
    """
    if loaded.database_url is not None and not Sources.of(loaded).roots.is_there():
        fault = "missing here, and the roles may run elsewhere; give the one that they have, or do it over HTTP"
        raise ConfigurationError([f"KIMA_SECRET_KEY: {fault}"])
