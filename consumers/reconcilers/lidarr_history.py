"""What Lidarr's history says and nobody told: read from where the last look came to, oldest first, in chunks.

The facts of a chunk are appended and the cursor is saved in one transaction. So a look that ends in the middle has
done what it did, and the next one goes on there; however much there is, each look comes further.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from consumers.reconcilers import lidarr_sight
from consumers.reconcilers.lidarr_sight import WATCHED
from kima_stream import event_store
from kima_stream.database import Connection, Pool
from kima_stream.errors import DuplicateEventError
from kima_stream.event_store import Append
from kima_stream.integrations.lidarr import Lidarr
from kima_stream.integrations.lidarr_types import Album, HistoryRow
from kima_stream.integrations.received import stream_name

FIRST_LOOK_BACK: Final = timedelta(days=1)
OVERLAP: Final = timedelta(minutes=5)  # Lidarr writes its history a moment after the time it gives it
CHUNK_ROWS: Final = 25  # each may cost two calls to Lidarr; a chunk has to fit into a look


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """How many lines were new; ``is_whole``: there is nothing more to read just now."""

    found: int
    is_whole: bool


class History:
    """Reads the history of one Lidarr, once; ``instance`` is its name."""

    def __init__(self, pool: Pool, lidarr: Lidarr, instance: str) -> None:
        """Read nothing yet."""
        self._pool = pool
        self._lidarr = lidarr
        self._instance = instance
        self._albums: dict[int, Album | None] = {}

    async def read(self, *, seconds: float) -> Read:
        """Append what is new since the cursor; after ``seconds`` it ends behind a chunk that has moved the cursor.

        Raises:
            LidarrError: it does not answer; the chunks before are appended.
        """
        until, found, has_moved = asyncio.get_running_loop().time() + seconds, 0, False
        async with self._pool.acquire() as conn:
            cursor = await conn.fetchval("SELECT cursor_at FROM polls WHERE name = $1", self._instance)
        theirs = datetime.now(UTC) + timedelta(seconds=self._lidarr.transport.ahead_seconds)
        async for rows in self._lidarr.history_from((cursor or theirs - FIRST_LOOK_BACK) - OVERLAP):
            for chunk in _chunks(rows):
                if has_moved and asyncio.get_running_loop().time() >= until:
                    return Read(found=found, is_whole=False)
                found += await self._tell(chunk)
                has_moved = cursor is None or chunk[-1].date > cursor
        if not has_moved:
            async with self._pool.acquire() as conn:
                await conn.execute(_SAVE, self._instance, cursor or theirs)
        return Read(found=found, is_whole=True)

    async def _tell(self, chunk: Sequence[HistoryRow]) -> int:
        """Append what nobody told of these rows, and move the cursor behind all of them."""
        fresh = await self._untold([row for row in chunk if row.event_type in WATCHED and row.album_id])
        for album_id in sorted({row.album_id for row in fresh} - self._albums.keys()):
            self._albums[album_id] = await self._lidarr.album(album_id)
        appends = [lidarr_sight.of_history(self._instance, row, self._albums[row.album_id]) for row in fresh]
        async with self._pool.acquire() as conn, conn.transaction():
            found = await append_new(conn, appends)
            await conn.execute(_SAVE, self._instance, chunk[-1].date)
        return found

    async def _untold(self, rows: Sequence[HistoryRow]) -> list[HistoryRow]:
        """Return those of ``rows`` that nobody has told, oldest first.

        Numbers of grabs and failures count from the first one. Where they matter the whole history of the download is
        asked for, so that it does not matter where a chunk begins.
        """
        async with self._pool.acquire() as conn:
            seen = await _seen(conn, self._instance, rows)
        fresh = [row for row in rows if row.id not in seen]
        untold = {row.id for row in fresh if not row.download_id}
        for download_id in sorted({row.download_id for row in fresh if row.download_id}):
            async with self._pool.acquire() as conn:
                stream = stream_name(lidarr_sight.CATEGORY, download_id, UUID(int=0))
                by = lidarr_sight.told(await event_store.read_stream(conn, stream))
            all_rows = [row for row in rows if row.download_id == download_id]
            if by.grabs or by.failures:
                all_rows = [row async for row in self._lidarr.history(download_id=download_id)]
            async with self._pool.acquire() as conn:
                before = await _seen(conn, self._instance, all_rows)
            untold.update(row.id for row in lidarr_sight.untold(all_rows, before, by))
        return [row for row in fresh if row.id in untold]


async def append_new(conn: Connection, appends: Sequence[Append]) -> int:
    """Append what the log has not yet, each by itself in the order it was seen; return how many were new."""
    known = {ref.event_id for ref in await event_store.find_events(conn, [a.events[0].event_id for a in appends])}
    fresh = [append for append in appends if append.events[0].event_id not in known]
    for append in fresh:
        try:
            await event_store.append_many(conn, [append])
        except DuplicateEventError:
            continue  # another process sees the same
    return len(fresh)


# Each look begins before the cursor, which must not go back with it.
_SAVE: Final = """
    INSERT INTO polls (name, cursor_at) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE
       SET cursor_at = greatest(polls.cursor_at, excluded.cursor_at), polled_at = clock_timestamp()
"""


def _chunks(rows: Sequence[HistoryRow]) -> Iterator[Sequence[HistoryRow]]:
    """Yield ``rows`` by their time, a few at once: behind the cursor nothing may be left that is older."""
    ordered = sorted(rows, key=lambda row: (row.date, row.id))
    for begin in range(0, len(ordered), CHUNK_ROWS):
        yield ordered[begin : begin + CHUNK_ROWS]


async def _seen(conn: Connection, instance: str, rows: Sequence[HistoryRow]) -> set[int]:
    """Return the ids of the rows that are in the log."""
    ids = {lidarr_sight.history_id(instance, row): row.id for row in rows}
    return {ids[ref.event_id] for ref in await event_store.find_events(conn, list(ids))}
