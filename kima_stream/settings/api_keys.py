"""Table ``api_keys``: who may do what. A key is shown once; only its sha256 is kept.

A key has 256 random bits: a plain hash of it cannot be guessed back, and slow hashing would only slow the
door. ``known_keys`` answers the hot path from memory.
"""

import asyncio
import re
import secrets
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import msgspec
import structlog

from kima_stream.database import Connection
from kima_stream.errors import NotFoundError
from kima_stream.events import new_event_id
from kima_stream.settings import key_files

Role: TypeAlias = Literal["admin", "user", "webhook", "metrics"]

PREFIX: Final = "kima_"
KEY_BYTES: Final = 32
KEY_FILE: Final = "api_key"  # in the data directory, mode 0600: the first admin key, when none was given
FIRST_ADMIN: Final = "admin"  # the user id of the first admin key
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


async def create(
    conn: Connection, *, name: str, role: Role, user_id: str | None = None, key_id: UUID | None = None
) -> tuple[str, ApiKey]:
    """Create a key and return it, this once, with its row.

    Args:
        conn: joins the caller's transaction if one is open.
        name: as it is kept: that of a person comes sealed.
        role: what the key may do.
        user_id: whose it is; a fresh opaque id unless given.
        key_id: of the row, a fresh one unless given.
    """
    key = new_key()
    owner = user_id or new_user_id()
    row = await conn.fetchrow(_INSERT_KEY, key_id or new_event_id(), name, role, owner, hash_of(key.encode()))
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


_ROLE_OF: Final = "SELECT role FROM api_keys WHERE key_hash = $1 AND revoked_at IS NULL"


async def role_of(conn: Connection, key: str) -> Role | None:
    """Return what a key may do; None for one that opens nothing."""
    found: Role | None = await conn.fetchval(_ROLE_OF, hash_of(key.encode()))
    return found


_LOCK_ADMINS: Final = """
    SELECT user_id FROM api_keys WHERE role = 'admin' AND revoked_at IS NULL ORDER BY key_id FOR UPDATE
"""


async def lock_admins(conn: Connection, user_id: str) -> bool:
    """Return whether the user is an admin; until the transaction ends, nobody else asks this of anybody."""
    return any(row["user_id"] == user_id for row in await conn.fetch(_LOCK_ADMINS))


_BLANK_KEYS: Final = """
      WITH before AS (SELECT key_id, revoked_at FROM api_keys WHERE user_id = $1 ORDER BY key_id FOR UPDATE)
    UPDATE api_keys AS k
       SET name = '', last_used_at = NULL, revoked_at = coalesce(k.revoked_at, clock_timestamp())
      FROM before AS b
     WHERE k.key_id = b.key_id
    RETURNING b.revoked_at IS NULL AS was_in_force
"""


async def blank(conn: Connection, user_id: str) -> int:
    """Revoke every key of a user and forget its name and use; return how many were in force."""
    return sum(row["was_in_force"] for row in await conn.fetch(_BLANK_KEYS, user_id))


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
        await conn.fetchrow(
            _INSERT_KEY, new_event_id(), "KIMA_API_KEY", "admin", await _admin_id(conn), hash_of(given.encode())
        )
        return None
    key = await asyncio.to_thread(key_files.read, path)
    if key is None and await has_admin(conn):
        # Another start may have been faster: its file was there before its row.
        return path if await asyncio.to_thread(path.exists) else None
    if key is None:
        key = await asyncio.to_thread(key_files.write_once, path, new_key())
    await conn.fetchrow(
        _INSERT_KEY, new_event_id(), "first admin key", "admin", await _admin_id(conn), hash_of(key.encode())
    )
    return path


_IS_ERASED: Final = "SELECT EXISTS (SELECT FROM subject_keys WHERE subject = $1 AND erased_at IS NOT NULL)"


async def _admin_id(conn: Connection) -> str:
    """Return whose the first admin key is: who was erased does not come back, so then it is somebody new."""
    return new_user_id() if await conn.fetchval(_IS_ERASED, FIRST_ADMIN) else FIRST_ADMIN


def new_key() -> str:
    """Return a fresh key: ``kima_`` and 256 random bits in hex."""
    return PREFIX + secrets.token_hex(KEY_BYTES)


def new_user_id() -> str:
    """Return an id for somebody new, which says nothing about them."""
    return str(uuid4())


def is_made(candidate: bytes) -> bool:
    """Return whether ``candidate`` has the form of ``new_key``: then nobody thought it up, nor can guess it."""
    return _MADE.fullmatch(candidate) is not None


def hash_of(key: bytes) -> bytes:
    """Return what is kept of a key."""
    return sha256(key).digest()


def _api_key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(**dict(row))
