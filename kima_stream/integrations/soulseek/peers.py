"""Table ``soulseek_peers``: who failed us, and whom we leave alone for a day.

Three failures within a day block a peer for a day; a success clears them. What fails on our side, a full disk for
one, is not the peer's doing and never comes here. Each call is one statement, so failures that come at the same
time all count.
"""

from datetime import datetime
from typing import Final

import msgspec

from kima_stream.database import Connection
from kima_stream.errors import NotFoundError

MAX_FAILURES: Final = 3
BLOCK_SECONDS: Final = 86_400.0
MAX_REASON_CHARACTERS: Final = 200


class BlockedPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that is not asked until ``blocked_until``, and why."""

    peer: str
    failures: int
    reason: str
    last_failed_at: datetime
    blocked_until: datetime


_FAILED: Final = """
    INSERT INTO soulseek_peers AS p (peer, failures, reason, last_failed_at, blocked_until)
    VALUES ($1, 1, $2, clock_timestamp(), CASE WHEN $3 <= 1 THEN clock_timestamp() + make_interval(secs => $4) END)
        ON CONFLICT (peer) DO UPDATE
       SET (failures, reason, last_failed_at, blocked_until) = (
           SELECT n.failures, excluded.reason, clock_timestamp(),
                  CASE WHEN n.failures >= $3 THEN clock_timestamp() + make_interval(secs => $4) END
             FROM (SELECT CASE WHEN p.last_failed_at > clock_timestamp() - make_interval(secs => $4)
                               THEN p.failures + 1 ELSE 1 END AS failures) AS n)
    RETURNING failures, blocked_until IS NOT NULL AS is_blocked
"""


async def failed(conn: Connection, peer: str, reason: str, *, block_seconds: float = BLOCK_SECONDS) -> bool:
    """Count a failure of ``peer``; return whether it is blocked now. ``reason`` is cut and cleaned."""
    clean = " ".join(reason.replace("\x00", " ").split())[:MAX_REASON_CHARACTERS]
    row = await conn.fetchrow(_FAILED, peer, clean, MAX_FAILURES, block_seconds)
    assert row is not None  # noqa: S101 - the statement always returns its row
    return bool(row["is_blocked"])


_FORGET: Final = "DELETE FROM soulseek_peers WHERE peer = $1 RETURNING blocked_until IS NOT NULL"


async def succeeded(conn: Connection, peer: str) -> bool:
    """Clear what a peer failed of before; return whether it was blocked."""
    return bool(await conn.fetchval(_FORGET, peer))


def copy_key(peer: str) -> str:
    """Return the key under which Redis shows that a peer is blocked: a copy that nobody here reads."""
    return f"kima:blocked-peer:{peer}"


_BLOCKED: Final = "SELECT peer FROM soulseek_peers WHERE blocked_until > clock_timestamp()"


async def blocked(conn: Connection) -> frozenset[str]:
    """Return whom not to ask."""
    return frozenset(row["peer"] for row in await conn.fetch(_BLOCKED))


_LIST: Final = """
    SELECT peer, failures, reason, last_failed_at, blocked_until
      FROM soulseek_peers
     WHERE blocked_until > clock_timestamp()
     ORDER BY blocked_until DESC, peer
     LIMIT $1
"""


async def list_blocked(conn: Connection, *, limit: int = 1_000) -> list[BlockedPeer]:
    """Return who is blocked, the latest first."""
    return [BlockedPeer(**dict(row)) for row in await conn.fetch(_LIST, limit)]


_UNBLOCK: Final = "DELETE FROM soulseek_peers WHERE peer = $1 AND blocked_until > clock_timestamp() RETURNING peer"


async def unblock(conn: Connection, peer: str) -> None:
    """Forget a peer's failures.

    Raises:
        NotFoundError: it is not blocked.
    """
    if await conn.fetchval(_UNBLOCK, peer) is None:
        raise NotFoundError("This peer is not blocked.")
