"""Sees that a search session ends with its hour: its results and words leave the state, its calls are withdrawn."""

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog

from kima_stream import cancellation, delivery, projector
from kima_stream.database import Pool
from kima_stream.errors import WrongExpectedVersionError
from kima_stream.events import SearchExpired, new_event_id
from kima_stream.read_models import search_sessions
from kima_stream.read_models.search_sessions import PROJECTION
from projections.search_session import decide

EVERY_SECONDS: Final = 30.0
SESSIONS_AT_ONCE: Final = 200

log = structlog.get_logger(__name__)


class SearchEnds:
    """Sweeps every half minute; any process may, all at once."""

    def __init__(self, pool: Pool) -> None:
        """Sweep nothing yet."""
        self._pool = pool

    async def run(self) -> None:
        """Sweep until cancelled; a sweep that fails is logged and the next one tries again."""
        while True:
            cancellation.heed()
            try:
                await sweep_once(self._pool)
            except delivery.OUTAGE as error:
                log.warning("search_ends_interrupted", error_type=type(error).__name__)
            except Exception:
                log.exception("search_ends_not_swept")
            await asyncio.sleep(EVERY_SECONDS)


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
