"""Table ``secret_keys``: the data keys, each wrapped by a root. The newest seals; none ever goes."""

from collections.abc import Mapping
from typing import Final

from kima_stream.database import Connection
from kima_stream.errors import ConfigurationError, SealError
from kima_stream.settings.secrets import WRONG_ROOT, Keyring, Root, Roots, SealingKey, new_data_key

_SELECT_KEYS: Final = "SELECT key_id, root_id, wrapped FROM secret_keys ORDER BY number"


async def load(conn: Connection, roots: Roots) -> Keyring:
    """Return the data keys; read after what they sealed, they are all there.

    Raises:
        ConfigurationError: the file of the root cannot be used.
    """
    rows = await conn.fetch(_SELECT_KEYS)
    known = roots.known() if rows else {}
    keys = {row["key_id"]: _unwrapped(known, row["root_id"], row["key_id"], row["wrapped"]) for row in rows}
    return Keyring(keys, rows[-1]["key_id"] if rows else None)


def _unwrapped(known: Mapping[str, Root], root_id: str, key_id: str, wrapped: str) -> SealingKey | None:
    if root_id not in known:
        return None
    try:
        return SealingKey(key_id, known[root_id].unwrap(key_id, wrapped))
    except SealError:  # whoever changed it has not the key: its values say so when they are opened
        return None


_INSERT_KEY: Final = "INSERT INTO secret_keys (key_id, root_id, wrapped) VALUES ($1, $2, $3)"


async def add(conn: Connection, roots: Roots) -> Keyring:
    """Make a new data key, which seals from here on, and return all; it is there when the transaction commits."""
    key_id, key = new_data_key()
    root = roots.primary()
    await conn.execute(_INSERT_KEY, key_id, root.id, root.wrap(key_id, key))
    return await load(conn, roots)


async def load_to_seal(conn: Connection, roots: Roots) -> Keyring:
    """Return the data keys, the first one made when there is none.

    Raises:
        ConfigurationError: the root is not the one that they hang on.
    """
    ring = await load(conn, roots)
    return ring if ring.current is not None else await add(conn, roots)


GIVEN_UP: Final = "given-up"  # instead of a root's id: nobody asks for that root any more
_SELECT_OTHERS: Final = """
    SELECT key_id, root_id, wrapped FROM secret_keys WHERE root_id NOT IN ($1, $2) ORDER BY number FOR UPDATE
"""
_SET_WRAPPED: Final = "UPDATE secret_keys SET root_id = $2, wrapped = $3 WHERE key_id = $1"


async def rewrap(conn: Connection, roots: Roots, *, give_up_lost: bool = False) -> int:
    """Wrap every data key with the root in force; return how many hung on another.

    ``give_up_lost`` leaves alone what no root of ours opens, from now on.

    Raises:
        ConfigurationError: one hangs on a root that is not given.
        SealError: one was changed.
    """
    root, known = roots.primary(), roots.known()
    rows = await conn.fetch(_SELECT_OTHERS, root.id, GIVEN_UP)
    ours = [row for row in rows if row["root_id"] in known]
    if len(ours) < len(rows) and not give_up_lost:
        raise ConfigurationError([WRONG_ROOT])
    for row in rows:
        if row["root_id"] not in known:
            await conn.execute(_SET_WRAPPED, row["key_id"], GIVEN_UP, row["wrapped"])
    for row in ours:
        key = known[row["root_id"]].unwrap(row["key_id"], row["wrapped"])
        await conn.execute(_SET_WRAPPED, row["key_id"], root.id, root.wrap(row["key_id"], key))
    return len(ours)
