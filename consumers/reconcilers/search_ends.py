"""Sees that a search session ends with its hour: its results and words leave the state, its calls are withdrawn."""

from datetime import UTC, datetime
from typing import Final

from consumers.reconcilers import sweeping
from kima_stream import delivery, projector
from kima_stream.database import Pool
from kima_stream.errors import WrongExpectedVersionError
from kima_stream.events import SearchExpired, new_event_id
from kima_stream.read_models import search_sessions
from kima_stream.read_models.search_sessions import PROJECTION
from projections.search_session import decide

EVERY_SECONDS: Final = 30.0
SESSIONS_AT_ONCE: Final = 200


async def keep_ending(pool: Pool) -> None:
    """Sweep every half minute; any process may, all at once."""
    await sweeping.keep("search_ends", lambda: sweep_once(pool), every_seconds=EVERY_SECONDS)


async def sweep_once(pool: Pool, now: datetime | None = None) -> int:
    """End every session whose time is over at ``now`` and return how many ended."""
    at, ended, tried = now or datetime.now(UTC), 0, set[str]()
    while True:
        async with pool.acquire() as conn:
            over = await search_sessions.find_over(conn, at, limit=SESSIONS_AT_ONCE)
        fresh = [stream for stream in over if stream not in tried]
        for stream in fresh:
            tried.add(stream)
            ended += await _end(pool, stream, at)
        if not fresh:
            return ended


async def _end(pool: Pool, stream: str, at: datetime) -> bool:
    """End one session; another process that was here first is no harm, nor one that appended just now."""
    try:
        async with pool.acquire() as conn, conn.transaction():
            row = await projector.load(conn, PROJECTION, stream)
            if row.state.expires_at is None:
                return False
            facts = decide(row.state, SearchExpired(expires_at=row.state.expires_at), at)
            if facts:
                events = projector.consequences(facts, event_id=new_event_id(), correlation_id=None)
                await projector.decide(conn, PROJECTION, row, events)
            return bool(facts)
    except (WrongExpectedVersionError, *delivery.RIVALRY):
        return False
