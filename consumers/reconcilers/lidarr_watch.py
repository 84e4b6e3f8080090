"""Looks at Lidarr every two minutes: what a webhook did not tell is found in its history and its queue.

Webhooks are sent once and forgotten, one kind names no album at all, and progress is told by none. What is seen is
appended as a fact of its own and goes the way of all facts. A Lidarr that does not answer proves nothing: its
breaker opens, and it is looked at again as soon as it answers.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec
import structlog

from consumers.reconcilers import lidarr_sight
from consumers.reconcilers.lidarr_history import History, Read, append_new
from kima_stream import cancellation, correlation_keys, delivery, leases
from kima_stream.database import Connection, Pool
from kima_stream.effects import breaker
from kima_stream.errors import ConfigurationError, FencedError
from kima_stream.integrations.lidarr import Lidarr, LidarrError
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
HISTORY_SECONDS: Final = 150.0  # of a look: queue and albums come after it, and the next look goes on
MAX_ALBUMS: Final = 200  # whose tracks are counted at one look

log = structlog.get_logger(__name__)


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found: events that are new, by where they were seen; ``is_whole``: there is no more history."""

    history: int = 0
    queue: int = 0
    albums: int = 0
    is_whole: bool = True


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

    async def look_once(self, *, history_seconds: float = math.inf) -> Looked:
        """Look at history, queue and albums and append what is new; after ``history_seconds`` some of it may be left.

        Raises:
            LidarrError: it does not answer, or not to all; its breaker knows.
            ConfigurationError: the settings are wrong.
        """
        current = await self._settings.loaded()
        if not current.is_on(definitions.LIDARR_ENABLED):
            return Looked()
        lidarr = Lidarr.of(current, self._connections)
        try:
            instance = (await lidarr.status()).instance_name
            history = await self._history(lidarr, instance, history_seconds)
            queue = await self._queue(lidarr, instance)
            albums = await self._albums(lidarr, instance)
            if isinstance(history, LidarrError):
                raise history
        except LidarrError as error:
            if error.retryable:
                async with self._pool.acquire() as conn:
                    await breaker.record_failure(conn, SYSTEM, error.detail, now=None)
            raise
        async with self._pool.acquire() as conn:
            await breaker.record_answer(conn, SYSTEM)
        return Looked(history=history.found, queue=queue, albums=albums, is_whole=history.is_whole)

    async def _history(self, lidarr: Lidarr, instance: str, seconds: float) -> Read | LidarrError:
        """Append what the history has; one that cannot be read is no reason not to look at the rest."""
        try:
            return await History(self._pool, lidarr, instance).read(seconds=seconds)
        except LidarrError as error:
            return error

    async def _queue(self, lidarr: Lidarr, instance: str) -> int:
        """Append the lines of downloads that some job knows."""
        items = [item for item in await lidarr.queue() if item.download_id]
        async with self._pool.acquire() as conn:
            keys = {correlation_keys.of_download(item.download_id or ""): item.download_id for item in items}
            known = {keys[key] for key in await _known(conn, list(keys))}
            appends = [lidarr_sight.of_queue(instance, item) for item in items if item.download_id in known]
            return await append_new(conn, appends)

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
            return await append_new(conn, [lidarr_sight.of_album(instance, album) for album in found if album])

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
                looked = await self.look_once(history_seconds=HISTORY_SECONDS)
                holding.cancel()
            self._failures = 0
            log.info("lidarr_looked_at", history=looked.history, queue=looked.queue, albums=looked.albums)
            self._look_at = asyncio.get_running_loop().time() + (EVERY_SECONDS if looked.is_whole else 0.0)
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
