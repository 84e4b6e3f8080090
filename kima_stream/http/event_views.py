"""An event as it is shown, wherever it is: how it reads as JSON, and the queries that find it.

``data`` and ``metadata`` go out as the JSON that came in, byte for byte.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import asyncpg
import msgspec

from kima_stream.database import Connection

MAX_PAGE: Final = 1_000


class EventQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events; ``after`` is the ``next`` of the page before."""

    stream: str | None = None
    category: str | None = None
    type: str | None = None
    correlation_id: str | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    order: Literal["asc", "desc"] = "asc"


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """An event; ``position`` and ``chain_hash`` (hex) are null until the publisher has numbered it."""

    event_id: UUID
    stream: str
    version: int
    category: str
    type: str
    schema_version: int
    source: str
    subject: str | None
    data: msgspec.Raw
    metadata: msgspec.Raw
    correlation_id: str
    causation_id: UUID | None
    occurred_at: datetime
    recorded_at: datetime
    position: int | None
    chain_hash: str | None


class Numbered(EventView, frozen=True, kw_only=True):
    """An event that has its place in the log."""

    position: int
    chain_hash: str


class EventPage(msgspec.Struct, frozen=True):
    """Events by position, then those not numbered yet; ``next`` is null when nothing more is numbered."""

    events: tuple[EventView, ...]
    next: int | None


_SELECT: Final = """
    SELECT e.event_id, e.stream, e.version, e.category, e.type, e.schema_version, e.source, e.subject,
           e.data, e.metadata, e.correlation_id, e.causation_id, e.occurred_at, e.recorded_at,
           p.position, encode(p.chain_hash, 'hex') AS chain_hash
"""
_NUMBERED: Final = " FROM event_positions AS p JOIN events AS e ON e.id = p.id"
# A stream or a correlation is short and indexed: what was just committed is shown too.
_COMMITTED: Final = " FROM events AS e LEFT JOIN event_positions AS p ON p.id = e.id"
_AFTER: Final = {
    "asc": "($1::bigint IS NULL OR p.position IS NULL OR p.position > $1)",
    "desc": "($1::bigint IS NULL OR p.position < $1)",
}
_FILTERS: Final = {
    "stream": "e.stream = ${}",
    "category": "e.category = ${}",
    "type": "e.type = ${}",
    "correlation_id": "e.correlation_id = ${}",
}
_ORDER: Final = {
    "asc": " ORDER BY p.position NULLS LAST, e.stream, e.version LIMIT $2",
    "desc": " ORDER BY p.position DESC NULLS FIRST, e.stream, e.version DESC LIMIT $2",
}


async def read_page(conn: Connection, query: EventQuery) -> EventPage:
    """Return at most ``query.limit`` events; only the filters asked for are in the statement, so each has its plan."""
    asked = {name: value for name in _FILTERS if (value := getattr(query, name)) is not None}
    table = _COMMITTED if {"stream", "correlation_id"} & asked.keys() else _NUMBERED
    conditions = [_AFTER[query.order], *(_FILTERS[name].format(n) for n, name in enumerate(asked, start=3))]
    statement = f"{_SELECT}{table} WHERE {' AND '.join(conditions)}{_ORDER[query.order]}"
    rows = await conn.fetch(statement, query.after, query.limit, *asked.values())
    events = tuple(_view(row) for row in rows)
    numbered = [event.position for event in events if event.position is not None]
    return EventPage(events=events, next=numbered[-1] if numbered and len(events) == query.limit else None)


async def read_event(conn: Connection, event_id: UUID) -> EventView | None:
    """Return the event of this id, or None."""
    row = await conn.fetchrow(f"{_SELECT}{_COMMITTED} WHERE e.event_id = $1", event_id)
    return None if row is None else _view(row)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of the log; what is None does not matter."""

    category: str | None = None
    type: str | None = None
    stream: str | None = None
    correlation_id: str | None = None

    def admits(self, event: EventView) -> bool:
        """Return whether ``event`` is one of them."""
        return all(
            wanted is None or wanted == found
            for wanted, found in (
                (self.category, event.category),
                (self.type, event.type),
                (self.stream, event.stream),
                (self.correlation_id, event.correlation_id),
            )
        )


# The sum makes a page of large events short: what is read is never more than max_bytes and one event.
_FOLLOW: Final = """
    SELECT {columns}
      FROM (SELECT n.*, sum(octet_length(n.data::text)) OVER (ORDER BY n.position)
                        - octet_length(n.data::text) AS before
              FROM ({select} {numbered}
                     WHERE p.position > $1 AND p.position <= $2 {conditions}
                     ORDER BY p.position LIMIT $3) AS n) AS page
     WHERE before < $4
     ORDER BY position
"""


async def read_log(
    conn: Connection, which: Filter, *, after: int, up_to: int, limit: int = MAX_PAGE, max_bytes: int = 4 * 1024 * 1024
) -> list[Numbered]:
    """Return the numbered events with ``after`` < position <= ``up_to``, by position: at least one if there is one."""
    asked = {name: value for name in _FILTERS if (value := getattr(which, name)) is not None}
    conditions = "".join(f" AND {_FILTERS[name].format(n)}" for n, name in enumerate(asked, start=5))
    statement = _FOLLOW.format(
        columns=", ".join(EventView.__struct_fields__), select=_SELECT, numbered=_NUMBERED, conditions=conditions
    )
    rows = await conn.fetch(statement, after, up_to, limit, max_bytes, *asked.values())
    return [Numbered(**_values(row)) for row in rows]


_HEAD: Final = "SELECT coalesce(max(position), 0) FROM event_positions"


async def read_head(conn: Connection) -> int:
    """Return the newest position, 0 when nothing is numbered."""
    head: int = await conn.fetchval(_HEAD)
    return head


def _view(row: asyncpg.Record) -> EventView:
    return EventView(**_values(row))


def _values(row: asyncpg.Record) -> dict[str, Any]:
    values = dict(row)
    for name in ("data", "metadata"):
        values[name] = msgspec.Raw(values[name].encode())
    return values
