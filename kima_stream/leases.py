"""Table ``leases``: who leads, who owns. Rows, not session locks, so a pooler in between does no harm.

A lease has an epoch that grows with each holder. Whoever writes under a lease checks the epoch in
the same transaction: a holder that was paused beyond its lease is fenced, not trusted.
"""

import msgspec

from kima_stream.database import Connection
from kima_stream.errors import FencedError


class Lease(msgspec.Struct, frozen=True):
    """A lease that was taken: its name, our epoch, and the floor that the last holder left."""

    name: str
    epoch: int
    floor: int


class Holding(msgspec.Struct, frozen=True):
    """A lease as anybody sees it; ``left_seconds`` is negative once it has run out."""

    holder: str
    epoch: int
    left_seconds: float


_FIND = """
    SELECT holder, epoch, extract(epoch FROM expires_at - clock_timestamp())::float8 AS left_seconds
      FROM leases
     WHERE name = $1
"""


async def find(conn: Connection, name: str) -> Holding | None:
    """Return who has the lease, or had it last; None when nobody ever had it."""
    row = await conn.fetchrow(_FIND, name)
    return None if row is None else Holding(**dict(row))


_ACQUIRE = """
    INSERT INTO leases AS l (name, epoch, holder, expires_at)
    VALUES ($1, 1, $2, clock_timestamp() + make_interval(secs => $3))
        ON CONFLICT (name) DO UPDATE
       SET epoch = l.epoch + 1, holder = excluded.holder, expires_at = excluded.expires_at
     WHERE l.expires_at <= clock_timestamp()
    RETURNING name, epoch, floor
"""


async def acquire(conn: Connection, name: str, *, holder: str, seconds: float) -> Lease | None:
    """Take the lease for ``seconds`` if nobody holds it; None when somebody does."""
    row = await conn.fetchrow(_ACQUIRE, name, holder, seconds)
    return None if row is None else Lease(**dict(row))


_HOLD = """
    UPDATE leases
       SET expires_at = clock_timestamp() + make_interval(secs => $3), floor = greatest(floor, $4)
     WHERE name = $1 AND epoch = $2
    RETURNING epoch
"""


async def hold(conn: Connection, lease: Lease, *, seconds: float, floor: int = 0) -> None:
    """Prove that the lease is still ours and extend it; inside a transaction nobody can take it until that ends.

    Raises:
        FencedError: somebody else has it; stop.
    """
    if await conn.fetchval(_HOLD, lease.name, lease.epoch, seconds, floor) is None:
        raise FencedError(lease=lease.name, epoch=lease.epoch)


_RELEASE = "UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND epoch = $2"


async def release(conn: Connection, lease: Lease) -> None:
    """Give the lease back, so that another need not wait for it to run out."""
    await conn.execute(_RELEASE, lease.name, lease.epoch)
