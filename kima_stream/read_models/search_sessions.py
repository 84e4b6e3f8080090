"""Table ``search_sessions``: what people looked for in Soulseek, one row per session."""

import math
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from kima_stream.cache import Copies
from kima_stream.database import Connection, Pool
from kima_stream.projector import Projection, Row
from kima_stream.read_models.table import Table
from kima_stream.settings import subject_keys
from kima_stream.settings.seals import ERASED, UNREADABLE
from kima_stream.settings.secrets import Roots
from kima_stream.settings.subject_keys import Reader
from projections import search_session
from projections.search_session import SearchSession

CATEGORY: Final = "search_session"
FIELD: Final = "query"  # as which queries are sealed
TABLE: Final = Table("search_sessions", SearchSession, columns=("session_id", "user_id", "status", "expires_at"))
PROJECTION: Final = Projection(
    name="search_sessions",
    category=CATEGORY,
    initial=search_session.INITIAL,
    apply=search_session.apply,
    read_model=TABLE,
)

_OVER: Final = """
    SELECT stream FROM search_sessions
     WHERE status IN ('running', 'completed', 'failed') AND expires_at <= $1
     ORDER BY expires_at
     LIMIT $2
"""


def stream_of(session_id: UUID) -> str:
    """Return the stream of a session."""
    return f"{CATEGORY}-{session_id}"


async def get(conn: Connection, session_id: UUID) -> Row[SearchSession] | None:
    """Return the session of this id, or None."""
    return await TABLE.find(conn, stream_of(session_id))


async def query_of(pool: Pool, roots: Roots, stream: str) -> str | None:
    """Return what is searched for in a session, opened; None when it is over, or nobody can open it any more."""
    async with pool.acquire() as conn:
        row = await TABLE.find(conn, stream)
        if row is None or row.state.status != "running":
            return None
        query = (await reader(conn, roots, row)).show(FIELD, row.state.query)
    return None if query in {ERASED, UNREADABLE} else query


async def reader(conn: Connection, roots: Roots, row: Row[SearchSession]) -> Reader:
    """Return what opens the query of a session, with ``show(FIELD, row.state.query)``."""
    return await subject_keys.reader(conn, roots, [row.state.query])


_VERSION: Final = "SELECT version FROM search_sessions WHERE stream = $1 AND version >= 0"


async def read(conn: Connection, copies: Copies, session_id: UUID) -> Row[SearchSession] | None:
    """Return the session, from its copy in Redis when that is of the version the table has.

    A copy is made when there is none, or an older one, and lives as long as the session is shown.
    """
    version = await conn.fetchval(_VERSION, stream_of(session_id))
    if version is None:
        return None
    kept = await copies.get(f"kima:session:{session_id}")
    if kept is not None and (copy := _copy(kept)) is not None and copy.version == version:
        return copy
    row = await get(conn, session_id)
    if row is not None and row.state.expires_at is not None:
        left = (row.state.expires_at - datetime.now(UTC)).total_seconds()
        if left > 0:
            await copies.put(f"kima:session:{session_id}", msgspec.json.encode(row), seconds=math.ceil(left))
    return row


def _copy(kept: bytes) -> Row[SearchSession] | None:
    try:
        return msgspec.json.decode(kept, type=Row[SearchSession])
    except msgspec.DecodeError:
        return None  # of another version of ours


async def find_over(conn: Connection, now: datetime, *, limit: int) -> list[str]:
    """Return the streams of at most ``limit`` sessions whose time is over at ``now``, the oldest first."""
    return [row["stream"] for row in await conn.fetch(_OVER, now, limit)]
