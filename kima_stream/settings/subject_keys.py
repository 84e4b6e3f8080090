"""Table ``subject_keys``: one key per person, wrapped by a data key. Destroyed, what it sealed is gone everywhere.

A row is never deleted: without its key it says who was erased, when and by whom, so that nobody comes back
under the same id. Lock it before anything else of that person.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import structlog

from kima_stream.database import Connection
from kima_stream.errors import ConfigurationError, ErasedUserError, SealError
from kima_stream.settings import keyring
from kima_stream.settings.seals import ERASED, UNREADABLE, SubjectKey, seal_of
from kima_stream.settings.secrets import Keyring, Roots, new_data_key

MAX_NAMED: Final = 5  # keys that do not open, in one complaint

log = structlog.get_logger(__name__)


class PlainText(NamedTuple):
    """What a person typed, on its way to be sealed, and the roots that their key hangs on."""

    text: str
    roots: Roots

    def __repr__(self) -> str:
        """Never show the text: this may end in a log."""
        return f"PlainText({len(self.text)} characters)"


async def seal(conn: Connection, subject: str, event_id: UUID, field: str, plain: PlainText) -> str:
    """Return what ``subject`` typed, sealed for the ``field`` of an event; inside a transaction the key outlives it.

    Raises:
        ErasedUserError: there is nobody of this id any more.
        ConfigurationError, SealError: their key cannot be opened.
    """
    return (await lock(conn, plain.roots, subject)).seal(event_id, field, plain.text)


async def seal_any(conn: Connection, subject: str, event_id: UUID, field: str, plain: PlainText | None) -> str | None:
    """Return what ``seal`` does, None when there is nothing to seal; who was erased is refused in either case."""
    if plain is not None:
        return await seal(conn, subject, event_id, field, plain)
    if await conn.fetchval(_IS_ERASED, subject):
        raise ErasedUserError
    return None


_IS_ERASED: Final = "SELECT erased_at IS NOT NULL FROM subject_keys WHERE subject = $1"
# In a queue, unlike the locks of rows: those who share one go on for ever past somebody who wants it alone (tested).
_USE: Final = "SELECT pg_advisory_xact_lock_shared(hashtextextended('subject_keys/' || $1, 0))"
_END: Final = "SELECT pg_advisory_xact_lock(hashtextextended('subject_keys/' || $1, 0))"
_SELECT_KEY: Final = "SELECT key_id, wrapped FROM subject_keys WHERE subject = $1"
_INSERT: Final = """
    INSERT INTO subject_keys (subject, key_id, wrapped) VALUES ($1, $2, $3) ON CONFLICT (subject) DO NOTHING
"""


async def lock(conn: Connection, roots: Roots, subject: str) -> SubjectKey:
    """Return the key of ``subject``, made if they are new; nobody destroys it until the transaction ends.

    Raises:
        ErasedUserError: it is destroyed.
        ConfigurationError: it hangs on another root.
        SealError: it was changed.
    """
    await conn.execute(_USE, subject)
    row = await conn.fetchrow(_SELECT_KEY, subject)
    if row is None:
        ring = await keyring.load_to_seal(conn, roots)
        key_id, key = new_data_key()
        await conn.execute(_INSERT, subject, key_id, ring.seal(_name(key_id), key.hex()))
        row = await conn.fetchrow(_SELECT_KEY, subject)
    if row is None or row["wrapped"] is None:
        raise ErasedUserError
    return _unwrapped(await keyring.load(conn, roots), subject, row["key_id"], row["wrapped"])


def _name(key_id: str) -> str:
    return f"subject_keys/{key_id}"


def _unwrapped(ring: Keyring, subject: str, key_id: str, wrapped: str) -> SubjectKey:
    return SubjectKey(subject, key_id, bytes.fromhex(ring.open(_name(key_id), wrapped)))


# Who had no key gets a row all the same: their id is taken.
_DESTROY: Final = """
    INSERT INTO subject_keys AS k (subject, key_id, wrapped, erased_at, erased_by)
    VALUES ($1, $2, NULL, clock_timestamp(), $3)
        ON CONFLICT (subject) DO UPDATE
       SET wrapped = NULL, erased_at = excluded.erased_at, erased_by = excluded.erased_by
     WHERE k.erased_at IS NULL
"""
_SELECT_TOMBSTONE: Final = "SELECT erased_at, erased_by FROM subject_keys WHERE subject = $1"


class Tombstone(NamedTuple):
    """When somebody was erased, and by whom."""

    erased_at: datetime
    erased_by: str


async def destroy(conn: Connection, subject: str, *, by: str) -> Tombstone:
    """Destroy the key of ``subject`` for ever, if it is there, and return what is left of the row.

    Who uses the key in a transaction of their own is waited for.
    """
    await conn.execute(_END, subject)
    await conn.execute(_DESTROY, subject, new_data_key()[0], by)
    row = await conn.fetchrow(_SELECT_TOMBSTONE, subject)
    assert row is not None  # noqa: S101 - no row is ever deleted
    return Tombstone(row["erased_at"], row["erased_by"])


_SELECT_WRAPPED: Final = """
    SELECT subject, key_id, wrapped FROM subject_keys WHERE wrapped IS NOT NULL ORDER BY subject FOR UPDATE
"""
_SET_WRAPPED: Final = """
    UPDATE subject_keys AS k SET wrapped = n.wrapped
      FROM unnest($1::text[], $2::text[]) AS n (subject, wrapped)
     WHERE k.subject = n.subject
"""


async def rewrap(conn: Connection, ring: Keyring, *, give_up_lost: bool = False) -> int:
    """Wrap every key with the newest data key; return how many were given up.

    ``give_up_lost`` gives a new key to whose key cannot be opened: what the old one sealed stays unreadable.

    Raises:
        ConfigurationError: keys cannot be opened, or the newest data key cannot be used.
    """
    rows = await conn.fetch(_SELECT_WRAPPED)
    wrapped, lost = [], []
    for row in rows:
        name = _name(row["key_id"])
        try:
            key = ring.open(name, row["wrapped"])
        except SealError as error:
            lost.append(str(error))
            key = new_data_key()[1].hex()
        wrapped.append(ring.seal(name, key))
    if lost and not give_up_lost:
        more = [f"and {len(lost) - MAX_NAMED} more"] if len(lost) > MAX_NAMED else []
        raise ConfigurationError([*lost[:MAX_NAMED], *more])
    await conn.execute(_SET_WRAPPED, [row["subject"] for row in rows], wrapped)
    return len(lost)


class Reader:
    """Opens sealed strings at the edge, with the keys as a moment found them."""

    def __init__(self, keys: Mapping[str, SubjectKey | SealError | None]) -> None:
        """Take keys by id: None for one that is destroyed, the reason for one that does not open."""
        self._keys = keys
        self._has_complained = False

    def open(self, field: str, sealed: str, *, event_id: UUID | None = None) -> str:
        """Return the text of a sealed string, ``ERASED`` when its key is destroyed.

        Args:
            field: what it was sealed as.
            sealed: the string.
            event_id: of the event where it was found, None when that is not known, as in a read model.

        Raises:
            SealError: it was changed or is another's, or its key cannot be opened.
        """
        seal = seal_of(sealed)
        if seal is None or seal.key_id not in self._keys:
            raise SealError(field, "it was changed: no key of ours sealed this")
        key = self._keys[seal.key_id]
        if isinstance(key, SealError):
            raise key
        return ERASED if key is None else key.open(field, sealed, event_id=event_id)

    def show(self, field: str, sealed: str | None, *, event_id: UUID | None = None) -> str | None:
        """Return what to show for a sealed string; one that does not open is said so, here and in the log."""
        if sealed is None:
            return None
        try:
            return self.open(field, sealed, event_id=event_id)
        except SealError as error:
            if not self._has_complained:  # once a page, not once a line
                log.error("sealed_not_opened", field=field, reason=error.reason)  # noqa: TRY400 - the reason says it all
            self._has_complained = True
            return UNREADABLE


_SELECT_KEYS: Final = "SELECT subject, key_id, wrapped FROM subject_keys WHERE key_id = ANY($1::text[])"


async def reader(conn: Connection, roots: Roots, sealed: Iterable[str | None]) -> Reader:
    """Return what opens all of ``sealed``; asks nothing when there is nothing to open.

    Raises:
        ConfigurationError: the file of the root cannot be used.
    """
    key_ids = {seal.key_id for text in sealed if text is not None and (seal := seal_of(text)) is not None}
    if not key_ids:
        return Reader({})
    rows = await conn.fetch(_SELECT_KEYS, sorted(key_ids))
    # Read after the keys that it wraps: it has them all.
    ring = await keyring.load(conn, roots) if any(row["wrapped"] is not None for row in rows) else Keyring({})
    return Reader({row["key_id"]: _readable(ring, row["subject"], row["key_id"], row["wrapped"]) for row in rows})


def _readable(ring: Keyring, subject: str, key_id: str, wrapped: str | None) -> SubjectKey | SealError | None:
    if wrapped is None:
        return None
    try:
        return _unwrapped(ring, subject, key_id, wrapped)
    except (SealError, ValueError) as error:
        return error if isinstance(error, SealError) else SealError(_name(key_id), "it is no key")
