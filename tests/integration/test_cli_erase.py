"""``erase`` at the terminal: says what would go, and does it when it is told to."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from kima_stream import event_store
from kima_stream.database import Connection
from projections.user import stream_of
from tests.front_door import ROOT


async def run(dsn: str, folder: Path, *arguments: str, code: int = 0, root: str = ROOT) -> str:
    """Run the command line as a person would and return what it answers."""
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "kima_stream", *arguments],
        env={"KIMA_DATABASE_URL": dsn, "KIMA_SECRET_KEY": root, "KIMA_DATA_DIR": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return result.stdout + (result.stderr if code else "")


async def test_a_person_is_made_seen_and_forgotten(dsn: str, conn: Connection, tmp_path: Path) -> None:
    """Without --yes nothing changes; with it, once; afterwards nobody comes back under this id."""
    made = json.loads(await run(dsn, tmp_path, "keys", "create", "--name", "Anna Brandt", "--json"))
    user_id = made["user_id"]
    assert made["name"] == "Anna Brandt"
    assert "Anna Brandt" in await run(dsn, tmp_path, "keys", "list")

    said = await run(dsn, tmp_path, "erase", user_id)
    assert all(words in said for words in ("Anna Brandt", "Goes for ever", "Stays", "--yes"))
    planned = json.loads(await run(dsn, tmp_path, "erase", user_id, "--json"))
    assert (planned["name"], planned["key_names"], planned["is_erased"]) == ("Anna Brandt", ["Anna Brandt"], False)
    assert len(await event_store.read_stream(conn, stream_of(user_id))) == 1

    erased = json.loads(await run(dsn, tmp_path, "erase", user_id, "--yes", "--json"))
    assert (erased["keys_revoked"], erased["duplicate"], erased["erased_by"]) == (1, False, "the terminal")
    assert "erased before" in await run(dsn, tmp_path, "erase", user_id, "--yes")
    assert "erased before" in await run(dsn, tmp_path, "erase", user_id)
    listed = await run(dsn, tmp_path, "keys", "list")
    assert "[erased]" in listed
    assert "Anna" not in listed
    assert "was erased" in await run(dsn, tmp_path, "keys", "create", "--name", "A", "--user", user_id, code=1)
    assert "There is no such user" in await run(dsn, tmp_path, "erase", "nobody", code=1)
    assert list(tmp_path.iterdir()) == []


async def test_a_program_needs_no_secret_to_get_a_key(dsn: str, conn: Connection, tmp_path: Path) -> None:
    """Its name is no person's: kept as it is, and no file of a root is made for it."""
    made = json.loads(await run(dsn, tmp_path, "keys", "create", "--name", "Lidarr", "--role", "webhook", "--json"))
    assert await conn.fetchval("SELECT name FROM api_keys") == made["name"] == "Lidarr"
    for table in ("secret_keys", "subject_keys", "events"):
        assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_no_root_is_made_where_the_roles_do_not_find_it(dsn: str, conn: Connection, tmp_path: Path) -> None:
    """Whose key or note has to be sealed is told to give the root; nothing is stored, and no file made."""
    for command in (["keys", "create", "--name", "Ben"], ["request", "A", "B", "--note", "please", "--no-wait"]):
        assert "KIMA_SECRET_KEY: missing here" in await run(dsn, tmp_path, *command, code=2, root="")
    for table in ("secret_keys", "subject_keys", "api_keys", "events"):
        assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert list(tmp_path.iterdir()) == []
