"""Forgetting a person: what would go and what would stay, and the one transaction that does it.

The event, the end of the key that opens their sealed strings, and the end of the API keys that open the door:
all of it or nothing. What they said stays in the log and in every row as it was sealed, so the chain holds and
a rebuild makes the same bytes.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
import structlog

from kima_stream import projector
from kima_stream.database import Connection
from kima_stream.errors import ConflictError, NotFoundError
from kima_stream.events import UserErased, derived_id, new_event
from kima_stream.read_models import users
from kima_stream.settings import api_keys, subject_keys
from kima_stream.settings.secrets import Roots
from projections.correlation import LIDARR_USER
from projections.user import stream_of

NAMESPACE: Final = UUID("c0a8f3f2-5f0e-5f5c-8a52-0b7a3c1d9e44")  # of the events that erase

log = structlog.get_logger(__name__)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What erasing a user means: ``name`` and ``key_names`` go, ``jobs`` stay with artist and album.

    ``id_is_opaque`` is false for an id that somebody chose: it stays too, and may say who it is.
    """

    user_id: str
    is_erased: bool
    name: str | None
    key_names: tuple[str, ...]
    jobs: int
    id_is_opaque: bool


_COUNT_JOBS: Final = "SELECT count(*) FROM download_jobs WHERE user_id = $1 AND version >= 0"


async def plan(conn: Connection, roots: Roots, user_id: str) -> Plan:
    """Return what erasing ``user_id`` means; changes nothing.

    Raises:
        NotFoundError: there was never such a user.
    """
    await _require(conn, user_id)
    row = await users.TABLE.find(conn, stream_of(user_id))
    state = users.PROJECTION.initial if row is None else row.state
    reader = await subject_keys.reader(conn, roots, [state.name])
    keys = [key for key in await api_keys.list_keys(conn) if key.user_id == user_id]
    return Plan(
        user_id=user_id,
        is_erased=state.is_erased,
        name=reader.show(users.NAME, state.name),
        key_names=tuple(key.name for key in await users.named_keys(conn, roots, keys)),
        jobs=await conn.fetchval(_COUNT_JOBS, user_id),
        id_is_opaque=_is_opaque(user_id),
    )


def _is_opaque(user_id: str) -> bool:
    try:
        return str(UUID(user_id)) == user_id
    except ValueError:
        return False


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a user; ``duplicate``: they had been erased before, and that is what is told."""

    user_id: str
    event_id: UUID
    erased_at: datetime
    erased_by: str
    keys_revoked: int
    duplicate: bool


async def erase(conn: Connection, user_id: str, *, by: str, correlation_id: str | None = None) -> Erased:
    """Erase ``user_id`` for ever: all of it or, if anything fails, nothing; a second time changes nothing.

    What they said stays in the log as it was sealed, and nobody can open it any more.

    Args:
        conn: a transaction is opened in it.
        user_id: whom.
        by: who asks, an opaque id.
        correlation_id: that of the request.

    Raises:
        NotFoundError: there was never such a user.
        ConflictError: nobody would have an admin key any more.
    """
    event_id = derived_id(NAMESPACE, user_id)
    async with conn.transaction():
        # First, so that whoever seals something of theirs right now comes before, or learns of it.
        tombstone = await subject_keys.destroy(conn, user_id, by=by)
        revoked = await _end_keys(conn, user_id)
        row = await projector.load(conn, users.PROJECTION, stream_of(user_id))
        duplicate = row.state.is_erased
        if not duplicate:
            fact = UserErased(user_id=user_id, erased_by=by)
            erased = new_event(fact, event_id=event_id, correlation_id=correlation_id)
            await projector.decide(conn, users.PROJECTION, row, [erased])
    log.info("user_erased", user_id=user_id, keys_revoked=revoked, duplicate=duplicate)
    return Erased(
        user_id=user_id,
        event_id=event_id,
        erased_at=tombstone.erased_at,
        erased_by=tombstone.erased_by,
        keys_revoked=revoked,
        duplicate=duplicate,
    )


async def _end_keys(conn: Connection, user_id: str) -> int:
    """Revoke the user's keys and blank their names; return how many were in force."""
    await _require(conn, user_id)
    was_admin = await api_keys.lock_admins(conn, user_id)
    revoked = await api_keys.blank(conn, user_id)
    if was_admin and not await api_keys.has_admin(conn):
        raise ConflictError("Nobody else has an admin key: create one for another user first.")
    return revoked


_IS_KNOWN: Final = """
    SELECT EXISTS (SELECT FROM api_keys WHERE user_id = $1)
        OR EXISTS (SELECT FROM users WHERE stream = $2 AND version >= 0)
        OR EXISTS (SELECT FROM download_jobs WHERE user_id = $1)
"""


async def _require(conn: Connection, user_id: str) -> None:
    if user_id == LIDARR_USER or not await conn.fetchval(_IS_KNOWN, user_id, stream_of(user_id)):
        raise NotFoundError("There is no such user.")
