"""``keys`` and ``events`` at the terminal: what they print is what is there."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID, uuid4

import pytest

from kima_stream import event_store
from kima_stream.database import Connection, Pool
from kima_stream.events import NewEvent
from kima_stream.settings.api_keys import Role
from kima_stream.settings.known_keys import ApiKeys
from tests.front_door import ROOT


async def run(dsn: str, *arguments: str, code: int = 0) -> str:
    """Run the command line as a person would and return what it answers."""
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "kima_stream", *arguments],
        env={"KIMA_DATABASE_URL": dsn, "COLUMNS": "200", "KIMA_SECRET_KEY": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return result.stdout + (result.stderr if code else "")


async def test_a_key_lives_and_ends_at_the_terminal(dsn: str, pool: Pool) -> None:
    """Created, it opens; listed, its secret is not shown; revoked, it opens no more."""
    made = json.loads(await run(dsn, "keys", "create", "--name", "Lidarr", "--role", "webhook", "--json"))
    (principal,) = await ApiKeys(pool).verify([made["key"].encode()])
    assert (principal.name, principal.role, principal.key_id) == ("Lidarr", "webhook", UUID(made["key_id"]))

    listed = await run(dsn, "keys", "list")
    assert "Lidarr" in listed
    assert made["key"] not in listed + await run(dsn, "keys", "list", "--json")

    await run(dsn, "keys", "revoke", made["key_id"])
    assert await ApiKeys(pool).verify([made["key"].encode()]) == ()
    assert "There is no key" in await run(dsn, "keys", "revoke", str(uuid4()), code=1)
    assert "Invalid value" in await run(dsn, "keys", "create", "--name", "x", "--role", "king", code=2)


@pytest.mark.parametrize("role", get_args(Role))
async def test_a_key_of_each_role_says_when_it_was_last_used(dsn: str, pool: Pool, role: Role) -> None:
    """Made for somebody else, used, listed: the role and the owner are those that were asked for."""
    made = json.loads(await run(dsn, "keys", "create", "--name", "N", "--role", role, "--user", "U", "--json"))
    assert (made["role"], made["user_id"], made["last_used_at"]) == (role, "U", None)

    keys = ApiKeys(pool)
    await keys.verify([made["key"].encode()])
    await keys.write_used()

    (listed,) = json.loads(await run(dsn, "keys", "list", "--json"))
    assert (listed["key_id"], listed["role"], listed["revoked_at"]) == (made["key_id"], role, None)
    assert datetime.now(UTC) - datetime.fromisoformat(listed["last_used_at"]) < timedelta(minutes=1)
    assert "key" not in listed
    revoked = json.loads(await run(dsn, "keys", "revoke", made["key_id"], "--json"))
    assert revoked["revoked_at"] is not None


async def test_events_are_listed_and_shown(dsn: str, conn: Connection) -> None:
    """By stream at once, also before they have a number; the data is what was received."""
    event = NewEvent(event_id=uuid4(), type="test.happened", data='{ "a" : 1.0 }', source="test")
    await event_store.append(conn, "test-1", [event])

    page = json.loads(await run(dsn, "events", "list", "--stream", "test-1", "--json"))
    assert [found["event_id"] for found in page["events"]] == [str(event.event_id)]
    assert "test.happened" in await run(dsn, "events", "list", "--stream", "test-1")
    assert event.data in await run(dsn, "events", "show", str(event.event_id))
    assert event.data in await run(dsn, "events", "show", str(event.event_id), "--json")
    assert "There is no event" in await run(dsn, "events", "show", str(uuid4()), code=1)
