"""Table ``users``: one row per person, the fold of ``user-<id>``; and how they get their keys and their name.

Names are sealed on their way in and opened where they are shown. ``erasure`` is how somebody is forgotten.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from kima_stream import projector
from kima_stream.database import Connection, Pool
from kima_stream.events import UserNamed, new_event, new_event_id
from kima_stream.projector import Projection, Row
from kima_stream.read_models.table import Table
from kima_stream.settings import api_keys, subject_keys
from kima_stream.settings.api_keys import ApiKey, Role
from kima_stream.settings.seals import ERASED, SubjectKey, seal_of
from kima_stream.settings.secrets import Roots
from kima_stream.settings.subject_keys import Reader
from projections import user
from projections.user import User, stream_of

PERSONS: Final[frozenset[Role]] = frozenset({"admin", "user"})  # the other roles are programs'
NAME: Final = "name"  # the field as which names are sealed, of users and of keys

TABLE: Final = Table("users", User, columns=("user_id", "is_erased"))
PROJECTION: Final = Projection(name="users", category="user", initial=user.INITIAL, apply=user.apply, read_model=TABLE)


async def create_key(
    conn: Connection,
    roots: Roots,
    *,
    name: str,
    role: Role,
    user_id: str | None,
    by: str,
    correlation_id: str | None = None,
) -> tuple[str, ApiKey]:
    """Create a key and return it, this once, with its row, the name in clear.

    Args:
        conn: a transaction is opened in it.
        roots: what the keys of persons hang on.
        name: of the key; a person without a name is called so as well. A program's is kept in clear.
        role: what the key may do.
        user_id: of somebody there already; a fresh opaque id unless given.
        by: who asks, an opaque id.
        correlation_id: that of the request.

    Raises:
        ErasedUserError: the user was erased.
        ConfigurationError: the root is not the one that the person's key hangs on.
    """
    async with conn.transaction():
        owner, key_id, kept = user_id or api_keys.new_user_id(), new_event_id(), name
        if role in PERSONS or user_id is not None:
            subject = await subject_keys.lock(conn, roots, owner)
            if role in PERSONS:
                kept = subject.seal(key_id, NAME, name)
                await _call(conn, subject, name, by, correlation_id)
        key, row = await api_keys.create(conn, name=kept, role=role, user_id=owner, key_id=key_id)
    return key, msgspec.structs.replace(row, name=name)


async def _call(conn: Connection, subject: SubjectKey, name: str, by: str, correlation_id: str | None) -> None:
    """Give somebody a name who has none."""
    row = await projector.load(conn, PROJECTION, stream_of(subject.subject))
    if row.state.name is None:
        event_id = new_event_id()
        fact = UserNamed(user_id=subject.subject, name=subject.seal(event_id, NAME, name), named_by=by)
        named = new_event(fact, event_id=event_id, correlation_id=correlation_id)
        await projector.decide(conn, PROJECTION, row, [named])


async def named_keys(conn: Connection, roots: Roots, keys: Sequence[ApiKey]) -> list[ApiKey]:
    """Return ``keys`` with their names in clear; those of an erased user say so."""
    shown = await _shown_names(conn, roots, [key.name for key in keys])
    return [msgspec.structs.replace(key, name=name) for key, name in zip(keys, shown, strict=True)]


async def shown_name(pool: Pool, roots: Roots, name: str) -> str:
    """Return the name of one key as it is shown; asks nothing when it was never sealed."""
    if name and seal_of(name) is None:
        return name
    async with pool.acquire() as conn:
        return (await _shown_names(conn, roots, [name]))[0]


async def _shown_names(conn: Connection, roots: Roots, names: Sequence[str]) -> list[str]:
    """Return names opened, or as they are when they were never sealed; a blank one was an erased user's."""
    reader = await subject_keys.reader(conn, roots, names)
    return [(reader.show(NAME, name) or name) if seal_of(name) else name or ERASED for name in names]


_LIST: Final = """
    SELECT stream, version, created_at, updated_at, state
      FROM users
     WHERE version >= 0 AND ($2::text IS NULL OR stream > $2)
     ORDER BY stream
     LIMIT $1
"""


async def list_page(conn: Connection, *, limit: int, after: str | None = None) -> list[Row[User]]:
    """Return at most ``limit`` users by id, beyond the user ``after``."""
    rows = await conn.fetch(_LIST, limit, None if after is None else stream_of(after))
    return [TABLE.row(row) for row in rows]


async def reader(conn: Connection, roots: Roots, rows: Sequence[Row[User]]) -> Reader:
    """Return what opens the names in ``rows``, with ``show(NAME, row.state.name)``."""
    return await subject_keys.reader(conn, roots, [row.state.name for row in rows])
