"""How the calls of one kind come on: which moved, and when somebody last held any, so that turns will come."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from kima_stream.database import Connection


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How one open call comes on: ``moved_at``, begun or its progress changed, None while it has not begun.

    ``held_at`` is up to when somebody held a call of its kind: None or long ago, nobody makes such calls.
    """

    moved_at: datetime | None
    held_at: datetime | None


_FIND = """
    WITH held AS MATERIALIZED (
        SELECT e.kind, max(l.expires_at) AS held_at
          FROM effects AS e
          JOIN effect_leases AS l ON l.effect_id = e.effect_id
         WHERE e.kind = $1 AND l.began_at IS NOT NULL
         GROUP BY e.kind
    )
    SELECT e.effect_id, h.held_at,
           CASE WHEN l.began_at IS NOT NULL THEN greatest(l.began_at, l.moved_at) END AS moved_at
      FROM effects AS e
      LEFT JOIN effect_leases AS l ON l.effect_id = e.effect_id
      LEFT JOIN held AS h ON h.kind = e.kind
     WHERE e.kind = $1 AND e.effect_id = ANY ($2::uuid[])
"""


async def find(conn: Connection, kind: str, effect_ids: Sequence[UUID]) -> dict[UUID, Turn]:
    """Return how the calls of these ids come on, as far as they are open."""
    rows = await conn.fetch(_FIND, kind, list(effect_ids))
    return {row["effect_id"]: Turn(moved_at=row["moved_at"], held_at=row["held_at"]) for row in rows}
