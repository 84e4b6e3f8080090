"""The categories of others: each is a stream in Redis, so there may only be so many.

A category that has an event is known for ever. A new one is let in under a lock of Postgres that all
processes share, held until its first event is committed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from kima_stream.database import Connection, Pool
from kima_stream.errors import UserFacingError
from kima_stream.events import OWN_CATEGORIES

MAX_CATEGORIES: Final = 64  # of others
_LOCK: Final = 0x6B696D61_63617465  # "kimacate"


class Categories:
    """Lets the events of others in, by category."""

    def __init__(self, pool: Pool) -> None:
        """Know none at first."""
        self._pool = pool
        self._known: set[str] = set()
        self._one_at_a_time = asyncio.Lock()  # so that waiting for the shared lock takes one connection

    @asynccontextmanager
    async def admitted(self, categories: set[str]) -> AsyncIterator[None]:
        """Let events of ``categories`` be appended in the body.

        Raises:
            UserFacingError: 403, one is kima-stream's own; 422, there are enough already.
        """
        own = categories & OWN_CATEGORIES
        if own:
            detail = f"The category {min(own)} is kima-stream's own; name a stream of yours, e.g. order-4711."
            raise UserFacingError(detail, status=403, code="own_category")
        async with AsyncExitStack() as stack:
            if not categories <= self._known:
                await stack.enter_async_context(self._one_at_a_time)
                if categories <= self._known or await self._are_known(stack, categories):
                    await stack.aclose()  # nothing new: nobody has to wait for us
            yield

    async def _are_known(self, stack: AsyncExitStack, categories: set[str]) -> bool:
        """Return whether all have events; if not, hold the lock for ``stack`` while the new ones get theirs."""
        conn = await stack.enter_async_context(self._pool.acquire())
        await stack.enter_async_context(conn.transaction())
        await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        self._known = await find_categories(conn)
        if len(self._known | categories) > max(MAX_CATEGORIES, len(self._known)):
            detail = f"There may be {MAX_CATEGORIES} categories, and there are {len(self._known)}; use one of them."
            raise UserFacingError(detail, status=422, code="too_many_categories")
        return categories <= self._known


# From one category to the next by the index; what has no position yet lies above the publisher's floor.
_CATEGORIES: Final = """
    WITH RECURSIVE numbered (category) AS (
        (SELECT category FROM event_positions ORDER BY category LIMIT 1)
         UNION ALL
        SELECT (SELECT p.category FROM event_positions AS p WHERE p.category > n.category ORDER BY p.category LIMIT 1)
          FROM numbered AS n WHERE n.category IS NOT NULL
    )
    SELECT category FROM numbered WHERE category IS NOT NULL
     UNION
    SELECT category FROM events WHERE id > coalesce((SELECT floor FROM leases WHERE name = 'publisher'), 0)
"""


async def find_categories(conn: Connection) -> set[str]:
    """Return the categories of others that have an event."""
    return {row["category"] for row in await conn.fetch(_CATEGORIES)} - OWN_CATEGORIES
