"""The tables of Postgres: plain SQL files, applied by yoyo, once each and in order.

``migrate`` runs at every start. Processes that start at once wait for each other: one applies,
the others find it done. The files are ``./migrations`` in a checkout and
``kima_stream/_migrations`` in an installed wheel.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg
import structlog
import yoyo

from kima_stream.errors import ConfigurationError

ALONE_WAIT_SECONDS = 120.0  # how long to wait for another process that migrates
_ALONE_POLL_SECONDS = 0.05
_ALONE_KEY = 0x6B696D61  # "kima": the advisory lock of those who migrate

log = structlog.get_logger(__name__)


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the schema; ``applied_at`` is None while it waits."""

    id: str
    applied_at: datetime | None


def folder() -> Path:
    """Return where the SQL files lie: the wheel's copy, or else the checkout's."""
    package = Path(__file__).parent
    copy = package / "_migrations"
    return copy if copy.is_dir() else package.parent / "migrations"


def status(dsn: str) -> list[Migration]:
    """Return every migration known to this version, oldest first, with the time it was applied.

    Raises:
        psycopg.OperationalError: Postgres is away.
    """
    with psycopg.connect(dsn, connect_timeout=5) as conn:
        return _status(conn)


def migrate(dsn: str) -> list[str]:
    """Apply what is missing and return the ids of what was applied; ``[]`` when nothing was.

    Raises:
        ConfigurationError: another process has been migrating for ALONE_WAIT_SECONDS.
        psycopg.Error: Postgres is away, or a file failed; that file left nothing behind.
    """
    with psycopg.connect(dsn, connect_timeout=5) as conn:
        waiting = [migration.id for migration in _status(conn) if migration.applied_at is None]
        conn.rollback()
        if waiting:
            with _alone(conn):
                waiting = _apply(dsn)
    for migration_id in waiting:
        log.info("migration_applied", migration=migration_id)
    log.info("Database schema is up to date!")
    return waiting


def rollback(dsn: str) -> list[str]:
    """Undo every migration, newest first, and return their ids; all data is gone. For tests."""
    with psycopg.connect(dsn, connect_timeout=5) as conn, _alone(conn), _backend(dsn) as (backend, known):
        done = backend.to_rollback(known)
        backend.rollback_migrations(done)
        return [migration.id for migration in done]


async def migrate_async(dsn: str) -> list[str]:
    """Do as ``migrate`` does, in a thread."""
    return await asyncio.to_thread(migrate, dsn)


_SELECT_APPLIED = """
    SELECT migration_id, applied_at_utc
      FROM _yoyo_migration
"""


def _status(conn: "psycopg.Connection[tuple[object, ...]]") -> list[Migration]:
    applied: dict[object, object] = {}
    known_to_yoyo = conn.execute("SELECT to_regclass('_yoyo_migration') IS NOT NULL").fetchone()
    if known_to_yoyo == (True,):
        applied = {row[0]: row[1] for row in conn.execute(_SELECT_APPLIED)}
    names = sorted(path.stem for path in folder().glob("[0-9]*.sql") if not path.name.endswith(".rollback.sql"))
    return [Migration(id=name, applied_at=_utc(applied.get(name))) for name in names]


def _utc(moment: object) -> datetime | None:
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) else None


def _apply(dsn: str) -> list[str]:
    with _backend(dsn) as (backend, known):
        waiting = backend.to_apply(known)
        backend.apply_migrations(waiting)
        return [migration.id for migration in waiting]


@contextmanager
def _backend(dsn: str) -> Iterator[tuple["yoyo.backends.DatabaseBackend", "yoyo.migrations.MigrationList"]]:
    """Open yoyo on our files; its own lock row is not used, since a killed process would leave it behind."""
    logging.getLogger("yoyo").setLevel(logging.WARNING)
    backend = yoyo.get_backend(urlunsplit(("postgresql+psycopg", *urlsplit(dsn)[1:])))
    try:
        yield backend, yoyo.read_migrations(str(folder()))
    finally:
        backend.connection.close()


@contextmanager
def _alone(conn: "psycopg.Connection[tuple[object, ...]]") -> Iterator[None]:
    """Hold the advisory lock of those who migrate; it ends with the transaction, also when we are killed.

    Polled, since a statement that waits keeps a snapshot, and CREATE INDEX CONCURRENTLY waits for those.
    """
    deadline = time.monotonic() + ALONE_WAIT_SECONDS
    conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    while conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (_ALONE_KEY,)).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise ConfigurationError([f"another process has been migrating for {ALONE_WAIT_SECONDS:.0f} s"])
        time.sleep(_ALONE_POLL_SECONDS)
    yield
    conn.rollback()
