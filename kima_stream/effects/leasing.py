"""Table ``effect_leases``: who makes which call, since when, how often it was tried, what it waits for.

Postgres' clock decides about leases. A fence grows with each holder; whoever writes here names the one he
has. ``now`` is for waiting only, and None means Postgres' clock as well.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from kima_stream.database import Connection
from kima_stream.effect_work import Progress
from kima_stream.events import Effect

BUSY_SECONDS: Final = 30.0  # beyond what a side that was away and is back needs for a call that it had


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """An effect that is ours until its lease runs out; ``is_unknown``: somebody began it before us."""

    effect: Effect
    stream: str
    category: str
    intended_at: datetime
    fence: int
    attempts: int
    failures: int
    is_unknown: bool


class Held(msgspec.Struct, frozen=True):
    """What a heartbeat found: the lease is still ours, the effect still wanted."""

    is_ours: bool
    is_open: bool


# Who looked before us and has committed since is seen by the condition of the update, not by the snapshot.
_TAKE = """
    WITH due AS MATERIALIZED (
        SELECT d.*
          FROM unnest($1::text[], $2::int[]) AS k (kind, free)
         CROSS JOIN LATERAL (
               SELECT e.effect_id, e.stream, e.category, e.kind, e.target, e.intended_at
                 FROM effects AS e
                 LEFT JOIN effect_leases AS l ON l.effect_id = e.effect_id
                WHERE e.kind = k.kind AND e.category = ANY ($8::text[]) AND e.system <> ALL ($3::text[])
                  AND (l.effect_id IS NULL
                       OR (l.expires_at <= clock_timestamp()
                           AND (l.next_attempt_at <= coalesce($6, clock_timestamp())
                                OR ($7 AND (l.began_at IS NULL
                                            OR l.began_at < clock_timestamp() - make_interval(secs => $9))))))
                ORDER BY greatest(l.next_attempt_at, e.intended_at), e.effect_id
                LIMIT k.free
                  FOR UPDATE OF e SKIP LOCKED) AS d
    ), taken AS (
        INSERT INTO effect_leases AS l (effect_id, fence, holder, expires_at)
        SELECT effect_id, 1, $4, clock_timestamp() + make_interval(secs => $5) FROM due ORDER BY effect_id
            ON CONFLICT (effect_id) DO UPDATE
           SET fence = l.fence + 1, holder = excluded.holder, expires_at = excluded.expires_at
         WHERE l.expires_at <= clock_timestamp() AND ($7 OR l.next_attempt_at <= coalesce($6, clock_timestamp()))
        RETURNING effect_id, fence, attempts, failures, began_at IS NOT NULL AS is_unknown
    )
    SELECT t.*, d.stream, d.category, d.kind, d.target, d.intended_at
      FROM taken AS t
      JOIN due AS d ON d.effect_id = t.effect_id
     ORDER BY d.intended_at, t.effect_id
"""


async def take(
    conn: Connection,
    wanted: Mapping[str, int],
    *,
    categories: Sequence[str],
    closed: Sequence[str],
    holder: str,
    seconds: float,
    now: datetime | None,
    is_probe: bool = False,
) -> list[Taken]:
    """Lease what is due, at most as many of each kind as ``wanted`` says, for ``seconds``.

    Args:
        conn: a transaction of the caller's, or none.
        wanted: how many by kind.
        categories: of the streams.
        closed: systems that are not to be called.
        holder: unique to this process.
        seconds: how long, by Postgres' clock.
        now: what is due; None is Postgres' clock.
        is_probe: what waits for its next attempt is due as well, unless the other side may be busy with the last.
    """
    rows = await conn.fetch(
        _TAKE,
        list(wanted),
        list(wanted.values()),
        list(closed),
        holder,
        seconds,
        now,
        is_probe,
        list(categories),
        BUSY_SECONDS,
    )
    return [
        Taken(
            effect=Effect(effect_id=row["effect_id"], kind=row["kind"], target=row["target"]),
            stream=row["stream"],
            category=row["category"],
            intended_at=row["intended_at"],
            fence=row["fence"],
            attempts=row["attempts"],
            failures=row["failures"],
            is_unknown=row["is_unknown"],
        )
        for row in rows
    ]


_BEGIN = """
    UPDATE effect_leases AS l
       SET began_at = clock_timestamp(), attempts = attempts + 1, progress = NULL
     WHERE effect_id = $1 AND fence = $2 AND EXISTS (SELECT FROM effects AS e WHERE e.effect_id = l.effect_id)
    RETURNING effect_id
"""


async def begin(conn: Connection, taken: Taken) -> bool:
    """Write down that the call may be made from now on; False when it is not ours, or not wanted any more."""
    return await conn.fetchval(_BEGIN, taken.effect.effect_id, taken.fence) is not None


_RENEW = """
    WITH mine AS MATERIALIZED (
        SELECT l.effect_id, n.progress
          FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS n (effect_id, fence, progress)
          JOIN effect_leases AS l ON l.effect_id = n.effect_id AND l.fence = n.fence
         ORDER BY l.effect_id
           FOR UPDATE OF l
    ), renewed AS (
        UPDATE effect_leases AS l
           SET expires_at = clock_timestamp() + make_interval(secs => $4),
               progress = coalesce(mine.progress::json, l.progress),
               moved_at = CASE WHEN mine.progress <> coalesce(l.progress::text, '') THEN clock_timestamp()
                               ELSE l.moved_at END
          FROM mine
         WHERE l.effect_id = mine.effect_id
        RETURNING l.effect_id
    )
    SELECT n.effect_id, r.effect_id IS NOT NULL AS is_ours,
           EXISTS (SELECT FROM effects AS e WHERE e.effect_id = n.effect_id) AS is_open
      FROM unnest($1::uuid[]) AS n (effect_id)
      LEFT JOIN renewed AS r ON r.effect_id = n.effect_id
"""


async def renew(conn: Connection, held: Sequence[tuple[Taken, Progress | None]], *, seconds: float) -> dict[UUID, Held]:
    """Extend the leases that are still ours, keep their progress and when it changed, and say what became of each."""
    rows = await conn.fetch(
        _RENEW,
        [taken.effect.effect_id for taken, _ in held],
        [taken.fence for taken, _ in held],
        [None if progress is None else msgspec.json.encode(progress).decode() for _, progress in held],
        seconds,
    )
    return {row["effect_id"]: Held(row["is_ours"], row["is_open"]) for row in rows}


_POSTPONE = """
    UPDATE effect_leases
       SET expires_at = clock_timestamp(), failures = failures + $3::int,
           next_attempt_at = coalesce($4, clock_timestamp()) + make_interval(secs => $5), last_error = $6,
           began_at = CASE WHEN $7 THEN NULL ELSE began_at END, attempts = attempts - $8::int, is_outage = $9,
           progress = NULL
     WHERE effect_id = $1 AND fence = $2
"""


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt ended without an outcome, and when there is another one.

    ``nothing_done``: the other side surely did not have the call. ``is_outage``: its system is away, and when that
    is back nobody waits longer. ``counts``: the next delay is longer.
    """

    seconds: float
    error: str
    nothing_done: bool
    is_outage: bool = False
    counts: bool = True


async def postpone(conn: Connection, taken: Taken, delay: Delay, *, now: datetime | None) -> None:
    """Give the lease back until the delay is over."""
    was_no_attempt = delay.nothing_done and not delay.counts
    await conn.execute(
        _POSTPONE, taken.effect.effect_id, taken.fence, int(delay.counts), now, delay.seconds, delay.error,
        delay.nothing_done, int(was_no_attempt), delay.is_outage,
    )  # fmt: skip


_RELEASE = """
    UPDATE effect_leases
       SET expires_at = clock_timestamp(),
           next_attempt_at = coalesce($3, clock_timestamp()) + make_interval(secs => $4)
     WHERE effect_id = $1 AND fence = $2
"""


async def release(conn: Connection, taken: Taken, *, seconds: float, now: datetime | None) -> None:
    """Give the lease back as it is, to be taken again after ``seconds``: what was begun is asked about then."""
    await conn.execute(_RELEASE, taken.effect.effect_id, taken.fence, now, seconds)


_FORGET = "DELETE FROM effect_leases WHERE effect_id = $1"
_CLOSE = "DELETE FROM effects WHERE effect_id = $1"


async def forget(conn: Connection, effect_id: UUID) -> None:
    """Close an effect that has its outcome."""
    await conn.execute(_CLOSE, effect_id)
    await conn.execute(_FORGET, effect_id)


_HASTEN = """
    UPDATE effect_leases AS l
       SET next_attempt_at = CASE WHEN l.began_at IS NULL THEN '-infinity'
                                  ELSE least(l.next_attempt_at, l.began_at + make_interval(secs => $2)) END,
           is_outage = false
      FROM effects AS e
     WHERE e.effect_id = l.effect_id AND e.system = $1 AND l.is_outage
"""


async def hasten(conn: Connection, system: str) -> None:
    """Let what waited for ``system`` wait no longer, unless that may be busy with it."""
    await conn.execute(_HASTEN, system, BUSY_SECONDS)


# What is left of withdrawn effects. It stays for a while: where the table effects was lost, it is all that is known.
_SWEEP = """
    DELETE FROM effect_leases AS l
     WHERE l.expires_at < clock_timestamp() - make_interval(secs => $1)
       AND NOT EXISTS (SELECT FROM effects AS e WHERE e.effect_id = l.effect_id)
"""


async def sweep(conn: Connection, *, older_than_seconds: float) -> None:
    """Forget the leases of effects that are not open any more."""
    await conn.execute(_SWEEP, older_than_seconds)
