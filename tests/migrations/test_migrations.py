"""The tables: built, taken down and built again, by one process at a time."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from kima_stream import schema

_SCHEMA_OBJECTS = """
    SELECT 'relation', c.oid::regclass::text, c.relkind::text
      FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ 'yoyo'
     UNION ALL
    SELECT 'function', p.oid::regprocedure::text, md5(p.prosrc)
      FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace
     UNION ALL
    SELECT 'column', a.attrelid::regclass::text || '.' || a.attname, format_type(a.atttypid, a.atttypmod)
      FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ 'yoyo' AND a.attnum > 0
     UNION ALL
    SELECT 'trigger', t.tgrelid::regclass::text || '.' || t.tgname, t.tgenabled::text
      FROM pg_trigger AS t WHERE NOT t.tgisinternal
     ORDER BY 1, 2
"""


def objects(dsn: str) -> list[tuple[object, ...]]:
    """Return what there is in the schema, yoyo's own tables aside."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(_SCHEMA_OBJECTS).fetchall()


def test_every_migration_has_a_reason_a_number_and_a_way_back() -> None:
    """The first line says why, the numbers have no holes, and each file has its rollback."""
    files = sorted(path for path in schema.folder().glob("*.sql") if not path.name.endswith(".rollback.sql"))

    assert [path.name[:4] for path in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    for path in files:
        assert path.read_text().startswith("-- "), path.name
        assert path.with_suffix("").with_suffix(".rollback.sql").exists(), path.name


def test_all_is_applied_rolled_back_and_applied_again(empty_database: Callable[[], str]) -> None:
    """A rollback leaves nothing behind, and the second time builds the same as the first."""
    dsn = empty_database()
    ids = [migration.id for migration in schema.status(dsn)]

    assert schema.migrate(dsn) == ids
    built = objects(dsn)
    assert schema.rollback(dsn) == ids[::-1]
    assert objects(dsn) == []
    assert schema.migrate(dsn) == ids
    assert objects(dsn) == built


def test_migrating_twice_changes_nothing(dsn: str) -> None:
    """The second start finds everything done, and the status says when."""
    assert schema.migrate(dsn) == []
    assert all(migration.applied_at is not None for migration in schema.status(dsn))


async def test_processes_that_start_at_once_migrate_once(empty_database: Callable[[], str]) -> None:
    """Six processes against an empty database: one applies, the others wait for it, nobody fails."""
    dsn = empty_database()
    program = "import sys; from kima_stream import schema; print('applied', len(schema.migrate(sys.argv[1])))"

    starts = [
        asyncio.create_subprocess_exec(sys.executable, "-c", program, dsn, stdout=asyncio.subprocess.PIPE)
        for _ in range(6)
    ]
    processes = await asyncio.gather(*starts)
    outputs = await asyncio.gather(*(process.communicate() for process in processes))

    assert [process.returncode for process in processes] == [0] * 6
    applied = sorted(int(output.split()[-1]) for output, _ in outputs)
    assert applied == [0] * 5 + [len(schema.status(dsn))]
    assert all(b"Database schema is up to date!" in output for output, _ in outputs)


async def test_a_killed_migration_blocks_nobody(empty_database: Callable[[], str]) -> None:
    """Whoever dies while it holds the lock leaves no lock behind."""
    dsn = empty_database()
    program = (
        "import os, signal, sys; from kima_stream import schema\n"
        "schema._apply = lambda dsn: os.kill(os.getpid(), signal.SIGKILL)\n"
        "schema.migrate(sys.argv[1])"
    )

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, dsn)

    assert await process.wait() == -signal.SIGKILL
    assert await schema.migrate_async(dsn) == [migration.id for migration in schema.status(dsn)]


def test_a_migration_that_fails_leaves_nothing_behind(
    empty_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A broken second statement takes the first one with it; the next start tries the file again."""
    dsn = empty_database()
    (tmp_path / "0001_break.sql").write_text("CREATE TABLE half (id int);\nSELECT 1/0;\n")
    monkeypatch.setattr(schema, "folder", lambda: tmp_path)

    with pytest.raises(psycopg.Error):
        schema.migrate(dsn)

    assert objects(dsn) == []
    assert schema.status(dsn) == [schema.Migration(id="0001_break", applied_at=None)]
