"""Table ``effects``: the open effects of the states, kept with the read models in their transaction.

Only a row at the head of its stream has a say. One that is behind, as in a rebuild that comes in chunks, may
lack what it will intend and hold what has ended long ago: it opens nothing and closes nothing, and the save
that reaches the head does both.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from kima_stream.database import Connection
from kima_stream.events import Effect, stream_category


class Holder(NamedTuple):
    """A saved row of a read model, as far as it concerns effects."""

    stream: str
    version: int
    updated_at: datetime
    effects: Sequence[Effect]


# The version of the newest event; retention may have taken that, the skeleton still has it.
_HEAD = """greatest((SELECT v.version FROM events AS v WHERE v.stream = n.stream
                      ORDER BY v.version DESC LIMIT 1),
                    (SELECT p.version FROM event_positions AS p WHERE p.stream = n.stream
                      ORDER BY p.version DESC LIMIT 1), -1)"""

_CLOSE = f"""
    DELETE FROM effects AS e
     USING unnest($1::text[], $2::bigint[]) AS n (stream, version)
     WHERE e.stream = n.stream AND e.effect_id <> ALL ($3::uuid[]) AND n.version = {_HEAD}
"""  # noqa: S608 - a constant

# A discarded event may be an outcome: the state goes on without it, the call was made all the same.
_OPEN = f"""
    INSERT INTO effects (effect_id, stream, category, kind, system, target, intended_at)
    SELECT n.effect_id, n.stream, n.category, n.kind, n.system, n.target, n.updated_at
      FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::uuid[], $6::uuid[],
                  $7::text[], $8::text[], $9::text[])
        AS n (stream, version, updated_at, category, effect_id, outcome_id, kind, system, target)
     WHERE n.version = {_HEAD}
       AND NOT coalesce((SELECT true FROM events AS o WHERE o.event_id = n.outcome_id LIMIT 1),
                        (SELECT true FROM event_positions AS o WHERE o.event_id = n.outcome_id LIMIT 1), false)
     ORDER BY n.effect_id
        ON CONFLICT (effect_id) DO NOTHING
"""  # noqa: S608 - as above


async def keep(conn: Connection, holders: Sequence[Holder]) -> None:
    """Make ``effects`` what the rows at the heads of their streams have open; the caller holds their locks."""
    if not holders:
        return
    open_ids = [effect.effect_id for holder in holders for effect in holder.effects]
    await conn.execute(_CLOSE, [holder.stream for holder in holders], [holder.version for holder in holders], open_ids)
    if open_ids:
        rows = chain.from_iterable(map(_rows, holders))
        await conn.execute(_OPEN, *(list(column) for column in zip(*rows, strict=True)))


def _rows(holder: Holder) -> Iterable[tuple[object, ...]]:
    category = stream_category(holder.stream)
    for effect in holder.effects:
        yield (
            holder.stream, holder.version, holder.updated_at, category, effect.effect_id, effect.outcome_id,
            effect.kind, effect.system, effect.target,
        )  # fmt: skip
