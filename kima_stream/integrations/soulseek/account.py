"""Table ``soulseek_account``: one row through which every process asks for the account and sees how it is.

Asking raises a number; the owner answers it once it has done what was asked, or cannot. Ten who ask at the same
time raise it ten times and get one answer. Only who holds the lease writes what the owner says, in one transaction
with the proof that it does.
"""

from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec

from kima_stream import leases
from kima_stream.database import Connection
from kima_stream.leases import Lease

LEASE: Final = "soulseek"

# off: by the settings · waiting: the server cannot be reached, tried again later · refused: by the server or the
# settings, a human must act · kicked: somebody else logged in with this account
State: TypeAlias = Literal["off", "disconnected", "connecting", "connected", "waiting", "refused", "kicked"]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The row: what is asked for, and what the owner last said."""

    is_wanted: bool
    asked: int
    answered: int
    kicked_at_ask: int | None
    state: State
    detail: str
    username: str | None
    changed_at: datetime
    is_owned: bool  # some process holds the lease at this moment


_READ: Final = """
    SELECT a.is_wanted, a.asked, a.answered, a.kicked_at_ask, a.state, a.detail, a.username, a.changed_at,
           coalesce(l.expires_at > clock_timestamp(), false) AS is_owned
      FROM soulseek_account AS a LEFT JOIN leases AS l ON l.name = $1
     WHERE a.is_the_one
"""


async def read(conn: Connection) -> Account:
    """Return the row."""
    row = await conn.fetchrow(_READ, LEASE)
    assert row is not None  # noqa: S101 - the migration makes it
    return Account(**dict(row))


_BEGIN: Final = """
    UPDATE soulseek_account
       SET state = 'waiting', detail = '', username = NULL, changed_at = clock_timestamp()
     WHERE is_the_one AND state IN ('connected', 'connecting')
"""


async def take(conn: Connection, *, holder: str, lease_seconds: float) -> Lease | None:
    """Become the owner if there is none; what the last one said of its connection is over. None: there is one."""
    async with conn.transaction():
        lease = await leases.acquire(conn, LEASE, holder=holder, seconds=lease_seconds)
        if lease is not None:
            await conn.execute(_BEGIN)
    return lease


_ASK: Final = "UPDATE soulseek_account SET is_wanted = $1, asked = asked + 1 WHERE is_the_one RETURNING asked"


async def ask(conn: Connection, *, wanted: bool) -> int:
    """Ask for the account to be connected, or not; return the number of this ask."""
    return int(await conn.fetchval(_ASK, wanted))


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner says: how it is, and up to which ask it is the answer."""

    state: State
    answered: int
    detail: str = ""
    username: str | None = None
    kicked_at_ask: int | None = None


_SAY: Final = """
    UPDATE soulseek_account
       SET state = $1, answered = greatest(answered, $2), detail = $3, username = $4,
           kicked_at_ask = greatest(kicked_at_ask, $5), changed_at = clock_timestamp()
     WHERE is_the_one
"""


async def say(conn: Connection, lease: Lease, said: Said, *, lease_seconds: float) -> None:
    """Write what the owner says, if it is the owner.

    Raises:
        FencedError: somebody else is; nothing was written.
    """
    async with conn.transaction():
        await leases.hold(conn, lease, seconds=lease_seconds)
        await conn.execute(_SAY, said.state, said.answered, said.detail, said.username, said.kicked_at_ask)
