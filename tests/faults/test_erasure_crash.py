"""Erasing somebody, killed at every step: all of it or nothing."""

import asyncio
import signal
import subprocess
import sys
from itertools import count

import pytest

from kima_stream import event_store
from kima_stream.database import Connection
from kima_stream.events import UserErased, event_type
from kima_stream.http.download_requests import Requested
from kima_stream.read_models import erasure, users
from kima_stream.settings import api_keys
from kima_stream.settings.seals import ERASED
from projections.user import stream_of
from tests.integration.test_erasure import ask, check_log, make_user, note_of

# Kills itself once the statement of this number is done and before its answer counts; ends well when there are fewer.
DIES = """
import asyncio, os, signal, sys
from asyncpg.connection import Connection
from kima_stream import database
from kima_stream.read_models import erasure

dsn, user_id, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0

def counted(name):
    run = getattr(Connection, name)
    async def wrapped(self, *arguments, **named):
        global seen
        seen += 1
        answer = await run(self, *arguments, **named)
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    setattr(Connection, name, wrapped)

for name in ("execute", "fetch", "fetchrow", "fetchval"):
    counted(name)

async def main():
    conn = await database.connect(dsn, role="test")
    await erasure.erase(conn, user_id, by="admin")
    await conn.close()

asyncio.run(main())
"""


@pytest.mark.fault
@pytest.mark.timeout(300)
async def test_a_kill_between_any_two_steps_leaves_all_or_nothing(dsn: str, conn: Connection) -> None:
    """Real processes, each killed after another statement, BEGIN and COMMIT included; the next one does the rest."""
    await make_user(conn, "an admin", "admin")
    outcomes = []
    for number in count(1):
        anna = await make_user(conn)
        asked = await ask(conn, anna.user_id)
        arguments = [sys.executable, "-c", DIES, dsn, anna.user_id, str(number)]
        ended = await asyncio.to_thread(subprocess.run, arguments, check=False, capture_output=True)
        outcomes.append(await is_erased(conn, anna.user_id, asked))
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        await erasure.erase(conn, anna.user_id, by="admin")
        assert await is_erased(conn, anna.user_id, asked)
    # All or nothing: all for the one killed after COMMIT, and for the one that nobody killed.
    assert (outcomes[-2:], any(outcomes[:-2]), len(outcomes) > 10) == ([True, True], False, True)
    await check_log(conn)


async def is_erased(conn: Connection, user_id: str, asked: Requested) -> bool:
    """Return whether somebody is erased; each part of it must say the same."""
    events = await event_store.read_stream(conn, stream_of(user_id))
    row = await users.TABLE.find(conn, stream_of(user_id))
    assert row is not None
    (key,) = [key for key in await api_keys.list_keys(conn) if key.user_id == user_id]
    says = [
        await conn.fetchval("SELECT wrapped IS NULL FROM subject_keys WHERE subject = $1", user_id),
        events[-1].type == event_type(UserErased),
        row.state.is_erased,
        key.revoked_at is not None,
        key.name == "",
        await note_of(conn, asked) == ERASED,
    ]
    assert (len(set(says)), row.version) == (1, events[-1].version), says
    return bool(says[0])
