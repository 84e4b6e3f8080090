"""Looks at Lidarr every two minutes: what a webhook did not tell is found in its history and its queue.

Webhooks are sent once and forgotten, one kind names no album at all, and progress is told by none. What is seen is
appended as a fact of its own and goes the way of all facts. A Lidarr that does not answer proves nothing: its
breaker opens, and it is looked at again as soon as it answers.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import aiohttp
import msgspec
import structlog

from consumers.reconcilers import lidarr_sight
from consumers.reconcilers.lidarr_sight import WATCHED
from kima_stream import cancellation, correlation_keys, delivery, event_store, leases
from kima_stream.database import Connection, Pool
from kima_stream.effects import breaker
from kima_stream.errors import ConfigurationError, DuplicateEventError, FencedError
from kima_stream.event_store import Append
from kima_stream.integrations.lidarr import Lidarr, LidarrError
from kima_stream.integrations.lidarr_types import Album, HistoryRow
from kima_stream.integrations.received import stream_name
from kima_stream.leases import Lease
from kima_stream.settings import definitions
from kima_stream.settings.store import SettingsStore

NAME: Final = "lidarr_watch"  # of the lease and of the row in ``polls``
SYSTEM: Final = "lidarr"
EVERY_SECONDS: Final = 120.0
TICK_SECONDS: Final = 2.0  # how soon a hint is followed
AWAY_SECONDS: Final = 15.0  # the longest pause before one that does not answer is asked again
LEASE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 300.0  # a look that takes longer is given up; the lease is held meanwhile
FIRST_LOOK_BACK: Final = timedelta(days=1)
OVERLAP: Final = timedelta(minutes=5)  # Lidarr writes its history a moment after the time it gives it
MAX_ALBUMS: Final = 200  # whose tracks are counted at one look

log = structlog.get_logger(__name__)


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found: events that are new, by where they were seen."""

    history: int = 0
    queue: int = 0
    albums: int = 0


class LidarrWatch:
    """Looks at the Lidarr of the settings while this process holds the lease; ``holder`` is unique to it."""

    def __init__(self, pool: Pool, settings: SettingsStore, connections: aiohttp.ClientSession, *, holder: str) -> None:
        """Look at nothing yet."""
        self._pool = pool
        self._settings = settings
        self._connections = connections
        self._holder = holder
        self._lease: Lease | None = None
        self._look_at = 0.0
        self._read_to: int | None = None
        self._failures = 0
        self._fault: str | None = None

    async def run(self) -> None:
        """Look until cancelled; a look that fails is logged once, and the next one tries again."""
        await self._settings.loaded()
        while True:
            cancellation.heed()
            try:
                if await self._lead() and await self._is_due():
                    await self._look_and_hold()
            except FencedError:
                self._lease = None
            except delivery.OUTAGE as error:
                log.warning("look_interrupted", error_type=type(error).__name__)
            except Exception:
                log.exception("look_failed")
            await asyncio.sleep(TICK_SECONDS)

    async def look_once(self) -> Looked:
        """Look at history, queue and albums and append what is new.

        Raises:
            LidarrError: it does not answer; its breaker knows.
            ConfigurationError: the settings are wrong.
        """
        current = await self._settings.loaded()
        if not current.is_on(definitions.LIDARR_ENABLED):
            return Looked()
        lidarr = Lidarr.of(current, self._connections)
        try:
            instance = (await lidarr.status()).instance_name
            history = await self._history(lidarr, instance)
            queue = await self._queue(lidarr, instance)
            albums = await self._albums(lidarr, instance)
        except LidarrError as error:
            if error.retryable:
                async with self._pool.acquire() as conn:
                    await breaker.record_failure(conn, SYSTEM, error.detail, now=None)
            raise
        async with self._pool.acquire() as conn:
            await breaker.record_answer(conn, SYSTEM)
        return Looked(history=history, queue=queue, albums=albums)

    async def _history(self, lidarr: Lidarr, instance: str) -> int:
        async with self._pool.acquire() as conn:
            cursor = await conn.fetchval("SELECT cursor_at FROM polls WHERE name = $1", instance)
        theirs = datetime.now(UTC) + timedelta(seconds=lidarr.transport.ahead_seconds)
        since = (cursor or theirs - FIRST_LOOK_BACK) - OVERLAP
        rows = [row for row in await lidarr.history_since(since) if row.event_type in WATCHED and row.album_id]
        fresh = await self._untold(lidarr, instance, rows)
        albums: dict[int, Album | None] = {}
        for album_id in sorted({row.album_id for row in fresh}):
            albums[album_id] = await lidarr.album(album_id)
        appends = [lidarr_sight.of_history(instance, row, albums[row.album_id]) for row in fresh]
        async with self._pool.acquire() as conn:
            found = await _append_new(conn, appends)
            await conn.execute(_SAVE, instance, max([row.date for row in rows], default=cursor or theirs))
        return found

    async def _untold(self, lidarr: Lidarr, instance: str, rows: Sequence[HistoryRow]) -> list[HistoryRow]:
        """Return those of ``rows`` that nobody has told, oldest first."""
        async with self._pool.acquire() as conn:
            seen = await _seen(conn, instance, rows)
        fresh = [row for row in rows if row.id not in seen]
        untold = {row.id for row in fresh if not row.download_id}
        for download_id in sorted({row.download_id for row in fresh if row.download_id}):
            async with self._pool.acquire() as conn:
                stream = stream_name(lidarr_sight.CATEGORY, download_id, UUID(int=0))
                by = lidarr_sight.told(await event_store.read_stream(conn, stream))
            all_rows = [row for row in rows if row.download_id == download_id]
            if by.grabs or by.failures:  # numbers count from the first one
                all_rows = [row async for row in lidarr.history(download_id=download_id)]
            async with self._pool.acquire() as conn:
                before = await _seen(conn, instance, all_rows)
            untold.update(row.id for row in lidarr_sight.untold(all_rows, before, by))
        return [row for row in fresh if row.id in untold]

    async def _queue(self, lidarr: Lidarr, instance: str) -> int:
        """Append the lines of downloads that some job knows."""
        items = [item for item in await lidarr.queue() if item.download_id]
        async with self._pool.acquire() as conn:
            keys = {correlation_keys.of_download(item.download_id or ""): item.download_id for item in items}
            known = {keys[key] for key in await _known(conn, list(keys))}
            appends = [lidarr_sight.of_queue(instance, item) for item in items if item.download_id in known]
            return await _append_new(conn, appends)

    async def _albums(self, lidarr: Lidarr, instance: str) -> int:
        """Append how much Lidarr has of the albums that wait for tracks."""
        async with self._pool.acquire() as conn:
            states = [row["state"] for row in await conn.fetch(_IMPORTING, MAX_ALBUMS)]
        wanted = {
            each.album_id
            for state in states
            for each in msgspec.json.decode(state, type=_Importing).lidarr_albums
            if each.instance == instance
        }
        found = [await lidarr.album(album_id) for album_id in sorted(wanted)]
        async with self._pool.acquire() as conn:
            return await _append_new(conn, [lidarr_sight.of_album(instance, album) for album in found if album])

    async def _lead(self) -> bool:
        async with self._pool.acquire() as conn:
            if self._lease is None:
                self._lease = await leases.acquire(conn, NAME, holder=self._holder, seconds=LEASE_SECONDS)
            else:
                await leases.hold(conn, self._lease, seconds=LEASE_SECONDS)
        return self._lease is not None

    async def _is_due(self) -> bool:
        """Return whether to look: by the clock, after a failure, or since a webhook said that something is wrong."""
        async with self._pool.acquire() as conn:
            row = await conn.fetchrow(_HINTS, self._read_to)
        if row is not None and row["read_to"] is not None:
            if row["is_hint"] and self._read_to is not None:
                self._look_at = 0.0
            self._read_to = row["read_to"]
        return asyncio.get_running_loop().time() >= self._look_at

    async def _look_and_hold(self) -> None:
        """Look, holding the lease meanwhile; say a new fault once."""
        fault: str | None = None
        try:
            async with asyncio.timeout(LOOK_SECONDS), asyncio.TaskGroup() as group:
                holding = group.create_task(self._hold())
                looked = await self.look_once()
                holding.cancel()
            self._failures = 0
            log.info("lidarr_looked_at", history=looked.history, queue=looked.queue, albums=looked.albums)
            self._look_at = asyncio.get_running_loop().time() + EVERY_SECONDS
        except* (LidarrError, ConfigurationError, TimeoutError) as group_error:
            error = group_error.exceptions[0]
            fault = str(error) or type(error).__name__
            if fault != self._fault:
                log.warning("lidarr_not_looked_at", fault=fault)
            self._failures += 1
            pause = min(TICK_SECONDS * 2**self._failures, AWAY_SECONDS) if _may_heal(error) else EVERY_SECONDS
            self._look_at = asyncio.get_running_loop().time() + pause
        self._fault = fault

    async def _hold(self) -> None:
        while self._lease is not None:
            await asyncio.sleep(LEASE_SECONDS / 3)
            async with self._pool.acquire() as conn:
                await leases.hold(conn, self._lease, seconds=LEASE_SECONDS)


class _Album(msgspec.Struct, frozen=True):
    instance: str
    album_id: int


class _Importing(msgspec.Struct, frozen=True):
    lidarr_albums: tuple[_Album, ...] = ()


_SAVE: Final = """
    INSERT INTO polls (name, cursor_at) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET cursor_at = excluded.cursor_at, polled_at = clock_timestamp()
"""
_IMPORTING: Final = "SELECT state FROM download_jobs WHERE status = 'importing' ORDER BY updated_at DESC LIMIT $1"
_KNOWN: Final = "SELECT key FROM correlation_keys WHERE key = ANY($1::text[]) AND streams <> '{}'"
# Without a position to begin after, only the newest one is read: the first look needs no hint.
_HINTS: Final = """
    SELECT max(p.position) AS read_to, bool_or(e.type = 'lidarr.import_failure') AS is_hint
      FROM event_positions AS p
      JOIN events AS e ON e.id = p.id
     WHERE p.category = 'lidarr'
       AND p.position > coalesce($1, (SELECT max(position) - 1 FROM event_positions WHERE category = 'lidarr'))
"""


def _may_heal(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or (isinstance(error, LidarrError) and error.retryable)


async def _known(conn: Connection, keys: Sequence[str]) -> list[str]:
    return [row["key"] for row in await conn.fetch(_KNOWN, keys)]


async def _seen(conn: Connection, instance: str, rows: Sequence[HistoryRow]) -> set[int]:
    """Return the ids of the rows that are in the log."""
    ids = {lidarr_sight.history_id(instance, row): row.id for row in rows}
    return {ids[ref.event_id] for ref in await event_store.find_events(conn, list(ids))}


async def _append_new(conn: Connection, appends: Sequence[Append]) -> int:
    """Append what the log has not yet, each by itself in the order it was seen; return how many were new."""
    known = {ref.event_id for ref in await event_store.find_events(conn, [a.events[0].event_id for a in appends])}
    fresh = [append for append in appends if append.events[0].event_id not in known]
    for append in fresh:
        try:
            await event_store.append_many(conn, [append])
        except DuplicateEventError:
            continue  # another process sees the same
    return len(fresh)
