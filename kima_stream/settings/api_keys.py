"""Table ``api_keys``: who may do what. A key is shown once; only its sha256 is kept.

``ApiKeys`` answers the hot path from memory that is at most a second old, so a revoked key is
refused everywhere within a second, and asking costs no query. A key has 256 random bits: a plain
hash of it cannot be guessed back, and slow hashing would only slow the door.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from time import monotonic
from typing import Final, Literal, TypeAlias
from uuid import UUID

import asyncpg
import msgspec
import structlog

from kima_stream.database import Connection, Pool
from kima_stream.errors import NotFoundError
from kima_stream.events import new_event_id
from kima_stream.settings import key_files

Role: TypeAlias = Literal["admin", "user", "webhook", "metrics"]

PREFIX: Final = "kima_"
KEY_BYTES: Final = 32
KEY_FILE: Final = "api_key"  # in the data directory, mode 0600: the first admin key, when none was given
MAX_AGE_SECONDS: Final = 1.0  # a revoke is effective within this
RENEW_SECONDS: Final = 0.5  # who is in use is read again before anybody has to wait for it
MISS_AGE_SECONDS: Final = 0.05  # a key that is not known yet may be new: look again, but not at any rate
MAX_FOUND: Final = 1_000  # senders of a second that are known without looking at all keys again
USED_EVERY_SECONDS: Final = 60.0  # how often last_used_at is written at most
_MADE: Final = re.compile(rb"kima_[0-9a-f]{64}")

log = structlog.get_logger(__name__)


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a key stands for; ``user_id`` owns what it asks for."""

    key_id: UUID
    name: str
    role: Role
    user_id: str


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table, without the hash."""

    key_id: UUID
    name: str
    role: Role
    user_id: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


_INSERT_KEY: Final = """
    INSERT INTO api_keys (key_id, name, role, user_id, key_hash)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT ON CONSTRAINT api_keys_key_hash_key DO NOTHING
    RETURNING key_id, name, role, user_id, created_at, last_used_at, revoked_at
"""


async def create(conn: Connection, *, name: str, role: Role, user_id: str | None = None) -> tuple[str, ApiKey]:
    """Create a key and return it, this once, with its row; ``user_id`` is the name unless given."""
    key = new_key()
    row = await conn.fetchrow(_INSERT_KEY, new_event_id(), name, role, user_id or name, _hash(key.encode()))
    if row is None:
        message = "a random key came twice"
        raise RuntimeError(message)
    return key, _api_key(row)


_LIST_KEYS: Final = """
    SELECT key_id, name, role, user_id, created_at, last_used_at, revoked_at FROM api_keys ORDER BY created_at, key_id
"""


async def list_keys(conn: Connection) -> list[ApiKey]:
    """Return all keys, the revoked ones too, oldest first."""
    return [_api_key(row) for row in await conn.fetch(_LIST_KEYS)]


_REVOKE_KEY: Final = """
       UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE key_id = $1
    RETURNING key_id, name, role, user_id, created_at, last_used_at, revoked_at
"""


async def revoke(conn: Connection, key_id: UUID) -> ApiKey:
    """Revoke a key for ever; doing it twice changes nothing.

    Raises:
        NotFoundError: there is no such key.
    """
    row = await conn.fetchrow(_REVOKE_KEY, key_id)
    if row is None:
        detail = f"There is no key {key_id}."
        raise NotFoundError(detail)
    return _api_key(row)


_HAS_ADMIN: Final = "SELECT EXISTS (SELECT FROM api_keys WHERE role = 'admin' AND revoked_at IS NULL)"


async def has_admin(conn: Connection) -> bool:
    """Return whether somebody could open the door as admin."""
    return bool(await conn.fetchval(_HAS_ADMIN))


async def ensure_admin(conn: Connection, *, given: str | None, data_dir: Path) -> Path | None:
    """See that there is a first admin key; return the file that holds it, if there is one.

    ``given`` (``KIMA_API_KEY``) is taken as it is. Otherwise, and only while no admin key exists, one
    is made and kept in ``data_dir``; the file is written before the row, so that a crash in between
    loses nothing. A revoked key stays revoked, also when it is given again.
    """
    path = data_dir / KEY_FILE
    if given is not None:
        await conn.fetchrow(_INSERT_KEY, new_event_id(), "KIMA_API_KEY", "admin", "admin", _hash(given.encode()))
        return None
    key = await asyncio.to_thread(key_files.read, path)
    if key is None and await has_admin(conn):
        # Another start may have been faster: its file was there before its row.
        return path if await asyncio.to_thread(path.exists) else None
    if key is None:
        key = await asyncio.to_thread(key_files.write_once, path, new_key())
    await conn.fetchrow(_INSERT_KEY, new_event_id(), "first admin key", "admin", "admin", _hash(key.encode()))
    return path


def new_key() -> str:
    """Return a fresh key: ``kima_`` and 256 random bits in hex."""
    return PREFIX + secrets.token_hex(KEY_BYTES)


def is_made(candidate: bytes) -> bool:
    """Return whether ``candidate`` has the form of ``new_key``: then nobody thought it up, nor can guess it."""
    return _MADE.fullmatch(candidate) is not None


_ACTIVE_KEYS: Final = "SELECT key_id, name, role, user_id, key_hash FROM api_keys WHERE revoked_at IS NULL"
_SET_USED: Final = "UPDATE api_keys SET last_used_at = clock_timestamp() WHERE key_id = ANY($1::uuid[])"


class ApiKeys:
    """The keys in force, from memory at most a second old."""

    def __init__(self, pool: Pool, *, clock: Callable[[], float] = monotonic) -> None:
        """Read nothing yet: the first ``verify`` does."""
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
            await self._refresh(MISS_AGE_SECONDS)
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
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("key_use_not_written", error_type=type(error).__name__)

    def _find(self, candidates: tuple[bytes, ...]) -> tuple[Principal, ...]:
        found = self._found.get(candidates)
        if found is None:
            # Every known key is compared, in constant time: how long it takes says nothing about any of them.
            found = tuple(
                principal
                for asked in map(_hash, candidates)
                for known, principal in self._keys.items()
                if compare_digest(asked, known)
            )
            self._used.update(principal.key_id for principal in found)
            if found and len(self._found) < MAX_FOUND:
                self._found[candidates] = found
        return found

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
        began = self._clock()
        rows = await self._pool.fetch(_ACTIVE_KEYS)
        self._keys = {
            row["key_hash"]: Principal(key_id=row["key_id"], name=row["name"], role=row["role"], user_id=row["user_id"])
            for row in rows
        }
        self._found = {}
        self._read_at = began


def _heed(reading: "asyncio.Task[None]") -> None:
    """Take note of a failure that nobody waited for: whoever needs the keys reads them again."""
    if not reading.cancelled():
        reading.exception()


def _hash(key: bytes) -> bytes:
    return sha256(key).digest()


def _api_key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(**dict(row))
