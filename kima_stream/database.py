"""Connections to Postgres: named, bounded, and never idle inside a transaction for long.

Every connection says who it is (``application_name``), gives up a lock it cannot get, and is cut
when it leaves a transaction open, so that one paused process never stalls the others.
``json`` columns come and go as text: nothing here decodes a payload.
"""

from typing import TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

# Postgres is away, going or coming: whatever was asked may be asked again later.
OUTAGE = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # how asyncpg says that the connection went in the middle of a statement
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)

CONNECT_SECONDS = 5.0  # an unreachable Postgres is known to be so within this
IDLE_IN_TRANSACTION_SECONDS = 10.0
LOCK_TIMEOUT_SECONDS = 10.0


async def open_pool(
    dsn: str,
    *,
    role: str,
    min_size: int = 1,
    max_size: int = 10,
    idle_in_transaction_seconds: float = IDLE_IN_TRANSACTION_SECONDS,
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
) -> Pool:
    """Open a pool of ``min_size`` to ``max_size`` connections; close it with ``await pool.close()``.

    Args:
        dsn: a libpq URL; a Unix socket is ``postgresql://user@/database?host=/directory``.
        role: what the connections are for, seen in ``pg_stat_activity``: ``publisher``, ``http``, …
        min_size: connections opened at once.
        max_size: connections never exceeded; who comes later waits for one.
        idle_in_transaction_seconds: a transaction that does nothing for so long is cut.
        lock_timeout_seconds: a statement that waits so long for a lock fails.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError: Postgres is away or refuses; try again later.
    """
    return await asyncpg.create_pool(
        dsn,
        min_size=min_size,
        max_size=max_size,
        timeout=CONNECT_SECONDS,
        reset=_reset,
        server_settings=_server_settings(role, idle_in_transaction_seconds, lock_timeout_seconds),
    )


async def connect(
    dsn: str,
    *,
    role: str,
    idle_in_transaction_seconds: float = IDLE_IN_TRANSACTION_SECONDS,
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
) -> "asyncpg.Connection[asyncpg.Record]":
    """Open one connection with the manners of ``open_pool``, e.g. to LISTEN on."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_SECONDS,
        server_settings=_server_settings(role, idle_in_transaction_seconds, lock_timeout_seconds),
    )


def _server_settings(role: str, idle_in_transaction_seconds: float, lock_timeout_seconds: float) -> dict[str, str]:
    return {
        "application_name": f"kima-stream {role}",
        "idle_in_transaction_session_timeout": str(int(idle_in_transaction_seconds * 1000)),
        "lock_timeout": str(int(lock_timeout_seconds * 1000)),
        # All that is asked often has its index. A plan made while a table was small would read all of it
        # for as long as the session lasts: at 1,000 webhooks a second from an empty log it was half the load.
        "enable_seqscan": "off",
        "jit": "off",  # short statements only: compiling them costs more than running them
        "timezone": "UTC",
    }


async def _reset(conn: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Give a connection back as it was taken; we change no session state, so there is nothing to ask.

    It saves one round trip per use; an open transaction was rolled back by asyncpg before.
    """
