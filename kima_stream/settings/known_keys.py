"""The keys in force, answered from memory that is at most a second old.

So a revoked key is refused everywhere within a second, and asking costs no query.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from hmac import compare_digest
from time import monotonic
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from kima_stream import database
from kima_stream.database import Pool
from kima_stream.settings.api_keys import Principal, hash_of

MAX_AGE_SECONDS: Final = 1.0  # a revoke is effective within this
RENEW_SECONDS: Final = 0.5  # who is in use is read again before anybody has to wait for it
MISS_AGE_SECONDS: Final = 0.05  # a key that is not known may be new: the table is read again, but not at any rate
MAX_FOUND: Final = 1_000  # senders of a second that are known without looking at all keys again
USED_EVERY_SECONDS: Final = 60.0  # how often last_used_at is written at most

log = structlog.get_logger(__name__)

_ACTIVE_KEYS: Final = "SELECT key_id, name, role, user_id, key_hash FROM api_keys WHERE revoked_at IS NULL"
_SET_USED: Final = """
    UPDATE api_keys SET last_used_at = clock_timestamp() WHERE key_id = ANY($1::uuid[]) AND revoked_at IS NULL
"""


class ApiKeys:
    """The keys in force, from memory at most a second old."""

    def __init__(
        self,
        pool: Pool,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Read nothing yet: the first ``verify`` does."""
        self._sleep = sleep
        self._begun = self._done = 0  # reads
        self._pool = pool
        self._clock = clock
        self._keys: dict[bytes, Principal] = {}
        self._found: dict[tuple[bytes, ...], tuple[Principal, ...]] = {}  # among _keys
        self._read_at = float("-inf")
        self._forgotten_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._used: set[UUID] = set()

    async def verify(self, candidates: Iterable[bytes]) -> tuple[Principal, ...]:
        """Return whom the candidate keys stand for, in order, strangers left out.

        Raises:
            OSError, asyncpg.PostgresError: the keys are too old and Postgres is away: answer 503.
        """
        asked = tuple(candidates)
        await self._refresh(MAX_AGE_SECONDS)
        found = self._find(asked)
        if asked and not found:
            await self._look_again()
            found = self._find(asked)
        return found

    def known(self, candidates: tuple[bytes, ...]) -> tuple[Principal, ...]:
        """Return what ``verify`` would, as far as that needs no waiting; strangers may have to be looked up again."""
        age_seconds = self._clock() - self._read_at
        if age_seconds > RENEW_SECONDS:
            _ = self._begin_reading()  # not awaited: what is known still holds
        if age_seconds > MAX_AGE_SECONDS or self._read_at < self._forgotten_at:
            return ()
        return self._find(candidates)

    def forget(self) -> None:
        """Read the table again before the next answer: a key was made or revoked here."""
        self._forgotten_at = self._clock()

    async def write_used(self) -> None:
        """Write ``last_used_at`` of the keys seen since the last call."""
        used, self._used = self._used, set()
        if used:
            await self._pool.execute(_SET_USED, sorted(used))

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Call ``write_used`` once a minute, for ever; a failure costs only a time stamp."""
        while True:
            await sleep(USED_EVERY_SECONDS)
            try:
                await self.write_used()
            except (*database.OUTAGE, asyncpg.PostgresError) as error:
                log.warning("key_use_not_written", error_type=type(error).__name__)

    def _find(self, candidates: tuple[bytes, ...]) -> tuple[Principal, ...]:
        found = self._found.get(candidates)
        if found is None:
            # Every known key is compared, in constant time: how long it takes says nothing about any of them.
            found = tuple(
                principal
                for asked in map(hash_of, candidates)
                for known, principal in self._keys.items()
                if compare_digest(asked, known)
            )
            self._used.update(principal.key_id for principal in found)
            if found and len(self._found) < MAX_FOUND:
                self._found[candidates] = found
        return found

    async def _look_again(self) -> None:
        """Return once the keys are those of a read that began after this call, the next one not before its time."""
        begun = self._begun
        early = self._read_at + MISS_AGE_SECONDS - self._clock()
        if early > 0:
            await self._sleep(early)
        while self._done <= begun:
            await asyncio.shield(self._begin_reading())

    async def _refresh(self, max_age_seconds: float) -> None:
        """Return once the keys are those of a read that began at most ``max_age_seconds`` before this call."""
        needed = self._needed(max_age_seconds)
        while self._read_at < needed:
            # Shielded: one caller that gives up must not fail those who wait with it.
            await asyncio.shield(self._begin_reading())

    def _needed(self, max_age_seconds: float) -> float:
        return max(self._clock() - max_age_seconds, self._forgotten_at)

    def _begin_reading(self) -> "asyncio.Task[None]":
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_heed)
        return self._reading

    async def _read(self) -> None:
        self._begun += 1
        number, began = self._begun, self._clock()
        rows = await self._pool.fetch(_ACTIVE_KEYS)
        self._keys = {
            row["key_hash"]: Principal(key_id=row["key_id"], name=row["name"], role=row["role"], user_id=row["user_id"])
            for row in rows
        }
        self._found = {}
        self._read_at, self._done = began, number


def _heed(reading: "asyncio.Task[None]") -> None:
    """Take note of a failure that nobody waited for: whoever needs the keys reads them again."""
    if not reading.cancelled():
        reading.exception()
