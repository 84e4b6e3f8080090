"""What ``doctor`` finds out from Postgres: how the server is set, who is in the way, how far the log is.

It reads and changes nothing, so that it may be run against a system that is not well.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from kima_stream import checkpoints, leases, numbering, schema
from kima_stream.checkpoints import GroupStatus
from kima_stream.database import Connection
from kima_stream.leases import Holding
from kima_stream.numbering import LEASE_NAME, Unnumbered


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """How Postgres is set; ``clock_skew_seconds`` is its clock minus ours."""

    version: str
    version_number: int  # 150004 is 15.4
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    connections: int
    connection_limit: int  # what an ordinary user can have
    clock_skew_seconds: float


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One that has written or holds a lock; ``blocks`` are the connections of ours that wait for it."""

    pid: int
    application: str
    age_seconds: float
    writes: bool
    blocks: int


class Migrations(msgspec.Struct, frozen=True, kw_only=True):
    """Those that wait to be applied, and those in the database that this version does not know."""

    applied: int
    waiting: Sequence[str]
    unknown: Sequence[str]


class Category(msgspec.Struct, frozen=True, kw_only=True):
    """Part of the log: its newest position, and up to where all its groups have verified it."""

    name: str
    head: int
    verified: int


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log is; ``publisher`` is None when nobody ever led, ``forked`` names groups of another past."""

    unnumbered: Unnumbered
    publisher: Holding | None
    groups: Sequence[GroupStatus]
    forked: Sequence[str]


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """What waits to be called at one system; ``closed_seconds``: since when it does not answer, 0 when it does.

    ``idle_seconds``: how long the oldest that is due waits for somebody to make the call.
    """

    system: str
    open: int
    running: int
    idle_seconds: float
    closed_seconds: float
    last_error: str | None


_READ_SERVER = """
    SELECT current_setting('server_version') AS version,
           current_setting('server_version_num')::int AS version_number,
           current_setting('fsync')::bool AS fsync,
           current_setting('full_page_writes')::bool AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true), '0')::int AS connection_limit
"""
_READ_CLOCK = "SELECT clock_timestamp()"


async def read_server(conn: Connection) -> Server:
    """Return how Postgres is set, as this connection sees it."""
    row = await conn.fetchrow(_READ_SERVER)
    assert row is not None  # noqa: S101 - it has no FROM
    before = datetime.now(UTC)
    clock: datetime = await conn.fetchval(_READ_CLOCK)
    ours = before + (datetime.now(UTC) - before) / 2
    return Server(**dict(row), clock_skew_seconds=(clock - ours).total_seconds())


# A transaction that only reads holds nothing back, unless it holds a lock that one of ours waits for.
_FIND_TRANSACTIONS = """
    SELECT pid, application, age_seconds, writes, blocks
      FROM (SELECT a.pid, coalesce(a.application_name, '') AS application,
                   extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_seconds,
                   a.backend_xid IS NOT NULL AS writes,
                   (SELECT count(*) FROM pg_stat_activity AS w
                     WHERE w.application_name LIKE 'kima-stream %' AND w.wait_event_type = 'Lock'
                       AND a.pid = ANY(pg_blocking_pids(w.pid))) AS blocks
              FROM pg_stat_activity AS a
             WHERE a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
             UNION ALL
            SELECT 0, 'prepared transaction ' || gid,
                   extract(epoch FROM clock_timestamp() - prepared)::float8, true, 0
              FROM pg_prepared_xacts) AS t
     WHERE writes OR blocks > 0
     ORDER BY age_seconds DESC
     LIMIT 10
"""


async def find_transactions(conn: Connection) -> list[Transaction]:
    """Return the oldest open transactions that may hold somebody back; pid 0 is a prepared one."""
    return [Transaction(**dict(row)) for row in await conn.fetch(_FIND_TRANSACTIONS)]


_READ_APPLIED = "SELECT migration_id FROM _yoyo_migration ORDER BY migration_id"


async def read_migrations(conn: Connection, dsn: str) -> Migrations:
    """Return how far the tables are."""
    known = await asyncio.to_thread(schema.status, dsn)
    waiting = [migration.id for migration in known if migration.applied_at is None]
    applied: list[str] = []
    if len(waiting) < len(known):
        applied = [row["migration_id"] for row in await conn.fetch(_READ_APPLIED)]
    ids = {migration.id for migration in known}
    return Migrations(
        applied=len(known) - len(waiting), waiting=waiting, unknown=[name for name in applied if name not in ids]
    )


_FIND_FORKED = """
    SELECT c.group_name
      FROM group_checkpoints AS c
      LEFT JOIN event_positions AS p ON p.position = c.verified_position
     WHERE c.verified_position > 0 AND c.chain_hash IS DISTINCT FROM p.chain_hash
     ORDER BY c.group_name
"""


async def read_log(conn: Connection) -> Log:
    """Return how far numbering and the groups are."""
    return Log(
        unnumbered=await numbering.count_unnumbered(conn),
        publisher=await leases.find(conn, LEASE_NAME),
        groups=await checkpoints.status(conn),
        forked=[row["group_name"] for row in await conn.fetch(_FIND_FORKED)],
    )


_READ_CATEGORIES = """
    WITH RECURSIVE c (name) AS (
        (SELECT category FROM event_positions ORDER BY category LIMIT 1)
         UNION ALL
        SELECT (SELECT p.category FROM event_positions AS p WHERE p.category > c.name ORDER BY p.category LIMIT 1)
          FROM c
         WHERE c.name IS NOT NULL
    )
    SELECT c.name, (SELECT max(p.position) FROM event_positions AS p WHERE p.category = c.name) AS head,
           coalesce((SELECT min(g.verified_position) FROM group_checkpoints AS g WHERE g.category = c.name), 0)
               AS verified
      FROM c
     WHERE c.name IS NOT NULL
"""


async def read_categories(conn: Connection) -> list[Category]:
    """Return every category of the log."""
    return [Category(**dict(row)) for row in await conn.fetch(_READ_CATEGORIES)]


_READ_AGE = """
    SELECT extract(epoch FROM clock_timestamp() - numbered_at)::float8
      FROM event_positions
     WHERE category = $1 AND position > $2
     ORDER BY position
     LIMIT 1
"""


async def age_after(conn: Connection, category: str, position: int) -> float:
    """Return how many seconds ago the first event of ``category`` after ``position`` was numbered; 0 if none is."""
    age: float | None = await conn.fetchval(_READ_AGE, category, position)
    return age or 0.0


_READ_CALLS = """
    SELECT e.system, count(*) AS open, count(*) FILTER (WHERE l.expires_at > n.now) AS running,
           coalesce(max(extract(epoch FROM n.now - greatest(e.intended_at, l.next_attempt_at, l.expires_at)))
                    FILTER (WHERE l.effect_id IS NULL OR (l.expires_at <= n.now AND l.next_attempt_at <= n.now)),
                    0)::float8 AS idle_seconds,
           coalesce(max(extract(epoch FROM n.now - b.opened_at)), 0)::float8 AS closed_seconds,
           max(b.last_error) AS last_error
      FROM effects AS e
      LEFT JOIN effect_leases AS l ON l.effect_id = e.effect_id
      LEFT JOIN effect_breakers AS b ON b.system = e.system
     CROSS JOIN (SELECT clock_timestamp() AS now) AS n
     GROUP BY e.system
     ORDER BY e.system
"""


async def read_calls(conn: Connection) -> list[Calls]:
    """Return what waits to be called, by system."""
    return [Calls(**dict(row)) for row in await conn.fetch(_READ_CALLS)]
