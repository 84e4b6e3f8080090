"""What waits to be called, why, and since when: for people."""

from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from kima_stream.database import Connection
from kima_stream.effect_work import Progress

EffectState: TypeAlias = Literal["running", "blocked", "postponed", "ready"]


class WaitingEffect(msgspec.Struct, frozen=True, kw_only=True):
    """An effect that has no outcome yet.

    ``state``: running, somebody has its lease; blocked, its system's breaker is open; postponed, its next attempt
    comes at ``next_attempt_at``; ready. ``is_unknown``: an attempt began and nobody knows how it ended; the other
    side is asked first.
    """

    effect_id: UUID
    stream: str
    kind: str
    system: str
    target: str | None
    state: EffectState
    intended_at: datetime
    attempts: int
    is_unknown: bool
    holder: str | None
    next_attempt_at: datetime | None
    last_error: str | None
    progress: Progress | None


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last effect of a page; the next page begins after it."""

    intended_at: datetime
    effect_id: UUID


_LIST = """
    SELECT w.*
      FROM (SELECT e.effect_id, e.stream, e.kind, e.system, e.target, e.intended_at,
                   coalesce(l.attempts, 0) AS attempts, l.last_error, l.progress, r.is_running,
                   l.began_at IS NOT NULL AND NOT r.is_running AS is_unknown,
                   CASE WHEN r.is_running THEN l.holder END AS holder,
                   CASE WHEN NOT r.is_running AND l.next_attempt_at > clock_timestamp() THEN l.next_attempt_at
                        END AS next_attempt_at,
                   CASE WHEN r.is_running THEN 'running'
                        WHEN b.opened_at IS NOT NULL THEN 'blocked'
                        WHEN l.next_attempt_at > clock_timestamp() THEN 'postponed'
                        ELSE 'ready' END AS state
              FROM effects AS e
              LEFT JOIN effect_leases AS l ON l.effect_id = e.effect_id
              LEFT JOIN effect_breakers AS b ON b.system = e.system
             CROSS JOIN LATERAL (SELECT coalesce(l.expires_at > clock_timestamp(), false) AS is_running) AS r
             WHERE ($1::text IS NULL OR e.system = $1) AND ($2::text IS NULL OR e.stream = $2)
               AND ($3::timestamptz IS NULL OR (e.intended_at, e.effect_id) > ($3, $4::uuid))) AS w
     WHERE $5::text IS NULL OR w.state = $5
     ORDER BY w.intended_at, w.effect_id
     LIMIT $6
"""


async def list_page(
    conn: Connection,
    *,
    system: str | None = None,
    stream: str | None = None,
    state: EffectState | None = None,
    after: Cursor | None = None,
    limit: int = 100,
) -> list[WaitingEffect]:
    """Return at most ``limit`` open effects, those that wait longest first."""
    moment, effect_id = (None, None) if after is None else (after.intended_at, after.effect_id)
    rows = await conn.fetch(_LIST, system, stream, moment, effect_id, state, limit)
    return [_effect(row) for row in rows]


def _effect(row: asyncpg.Record) -> WaitingEffect:
    names = (name for name in WaitingEffect.__struct_fields__ if name != "progress")
    progress = None if row["progress"] is None else msgspec.json.decode(row["progress"], type=Progress)
    return WaitingEffect(**{name: row[name] for name in names}, progress=progress)


_COUNT_OPEN = "SELECT system, count(*) AS open FROM effects GROUP BY system"


async def count_open(conn: Connection) -> dict[str, int]:
    """Return how many effects are open, by system."""
    return {row["system"]: row["open"] for row in await conn.fetch(_COUNT_OPEN)}
