"""``GET /api/trace/{id}``: the tree of causes and effects around an event, or of a correlation id.

An id of an event shows the tree that the event belongs to, up to its first cause and down to its
last effect; a correlation id shows the trees of all its events. Causes and effects are followed
over correlation ids. Payloads stay out: ``GET /api/events/{event_id}`` has them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from kima_stream.database import Connection
from kima_stream.errors import NotFoundError
from kima_stream.http.routes import ADMIN, Call, Nothing, Route, json_response

MAX_EVENTS: Final = 1_000


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """An event and its place in the tree: ``depth`` 0 has no cause here, ``effects`` follow it at once."""

    event_id: UUID
    type: str
    stream: str
    version: int
    source: str
    correlation_id: str
    causation_id: UUID | None
    occurred_at: datetime
    recorded_at: datetime
    position: int | None
    depth: int = 0
    effects: tuple[UUID, ...] = ()


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Trees one after the other, each cause before its effects; ``truncated``: there is more."""

    id: str
    events: tuple[Traced, ...]
    truncated: bool


async def show_trace(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer what led to what."""
    async with call.door.pool.acquire() as conn:
        return json_response(await trace(conn, call.parameter("id")))


async def trace(conn: Connection, id_: str, *, max_events: int = MAX_EVENTS) -> Trace:
    """Return the trees of an event id or a correlation id, at most ``max_events`` events of them.

    Raises:
        NotFoundError: no event has this id, as its own or as its correlation.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        found = await _read_start(conn, id_, max_events + 1)
        if not found:
            raise NotFoundError("No event has this id, as its own or as its correlation.")
        fresh = list(found.values())
        while fresh and len(found) <= max_events:
            news = await _read_neighbours(conn, found, fresh, max_events + 1 - len(found))
            fresh = [event for event in news if event.event_id not in found]
            found |= {event.event_id: event for event in fresh}
    kept = dict(list(found.items())[:max_events])
    return Trace(id=id_, events=tuple(_in_order(kept)), truncated=len(found) > max_events)


_TRACED: Final = """
    SELECT e.event_id, e.type, e.stream, e.version, e.source, e.correlation_id, e.causation_id,
           e.occurred_at, e.recorded_at, p.position
      FROM ({ids}) AS found
      JOIN events AS e ON e.id = found.id
      LEFT JOIN event_positions AS p ON p.id = e.id
     ORDER BY e.id
"""
# Each arm has its index; as one condition they would be a scan of the table. No ORDER BY before a LIMIT,
# for the planner may take it for a reason to walk the whole log; an index gives equal keys in order anyway.
_START: Final = _TRACED.format(
    ids="""SELECT id FROM events WHERE event_id = $1::uuid
            UNION
           (SELECT id FROM events WHERE correlation_id = $2 LIMIT $3)"""
)
_NEIGHBOURS: Final = _TRACED.format(
    ids="""SELECT id FROM events WHERE event_id = ANY($1::uuid[])
            UNION
           (SELECT id FROM events WHERE causation_id = ANY($2::uuid[]) AND event_id <> ALL($3::uuid[]) LIMIT $4)"""
)


async def _read_start(conn: Connection, id_: str, limit: int) -> dict[UUID, Traced]:
    try:
        event_id = UUID(id_)
    except ValueError:
        event_id = None
    rows = await conn.fetch(_START, event_id, id_, limit)
    return {row["event_id"]: Traced(**dict(row)) for row in rows}


async def _read_neighbours(
    conn: Connection, found: Mapping[UUID, Traced], fresh: Sequence[Traced], limit: int
) -> list[Traced]:
    """Return causes and effects of the ``fresh`` events that are not ``found`` yet."""
    causes = {event.causation_id for event in fresh if event.causation_id is not None} - found.keys()
    rows = await conn.fetch(_NEIGHBOURS, list(causes), [event.event_id for event in fresh], list(found), limit)
    return [Traced(**dict(row)) for row in rows]


def _in_order(found: Mapping[UUID, Traced]) -> Iterator[Traced]:
    """Yield each tree from its root down; what causes itself in a circle is begun at its oldest event."""
    oldest_first = sorted(found.values(), key=lambda event: (event.recorded_at, event.stream, event.version))
    effects: dict[UUID, list[Traced]] = {}
    for event in oldest_first:
        if event.causation_id is not None:
            effects.setdefault(event.causation_id, []).append(event)
    seen: set[UUID] = set()
    roots = [event for event in oldest_first if event.causation_id not in found]
    for root in (*roots, *oldest_first):
        yield from _tree(root, effects, seen)


def _tree(root: Traced, effects: Mapping[UUID, list[Traced]], seen: set[UUID]) -> Iterable[Traced]:
    waiting = [(root, 0)]
    while waiting:
        event, depth = waiting.pop()
        if event.event_id in seen:
            continue
        seen.add(event.event_id)
        caused = effects.get(event.event_id, [])
        yield msgspec.structs.replace(event, depth=depth, effects=tuple(effect.event_id for effect in caused))
        waiting += [(effect, depth + 1) for effect in reversed(caused)]


ROUTES: Final = (
    Route(
        method="GET",
        path="/api/trace/{id}",
        handler=show_trace,
        summary="Show the tree of causes and effects of an event id or a correlation id.",
        roles=ADMIN,
        responses={200: Trace},
    ),
)
