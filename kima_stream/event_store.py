"""Table ``events`` and its skeleton: append, and read a stream or the log.

No lock, no counter row and no NOTIFY on the way in: the unique keys decide every race, and this
module translates what they say. The order of the log is the publisher's work.
"""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import asyncpg

from kima_stream.database import Connection
from kima_stream.errors import (
    DuplicateEventError,
    EventRef,
    TornAppendError,
    WrongExpectedVersionError,
)
from kima_stream.event_rows import ANY as ANY, Append as Append, Written as Written, insert as insert  # noqa: PLC0414 - callers find the verbs here
from kima_stream.events import NO_STREAM, NewEvent, RecordedEvent, stream_category

CONFLICT_TRIES = 200  # each try loses to a rival that has won; more rivals than this at once are a defect

COLUMNS = """
       e.event_id, e.stream, e.version, e.category, e.type, e.schema_version, e.source, e.subject,
       e.data, e.metadata, e.correlation_id, e.causation_id, e.occurred_at, e.recorded_at"""


async def append(
    conn: Connection, stream: str, events: Sequence[NewEvent], *, expected_version: int | None = ANY
) -> int:
    """Append ``events`` to ``stream``, all or none, and return its new version.

    Args:
        conn: joins the caller's transaction if one is open; a refusal leaves that usable.
        stream: ``<category>-<id>``, e.g. ``download_job-6f1c...``.
        events: n >= 0 facts, oldest first.
        expected_version: version of the newest event seen, -1 for a new stream, ANY for the next.

    Raises:
        WrongExpectedVersionError: someone else appended; nothing was written.
        DuplicateEventError: all ids are in the log already; treat it as done.
        TornAppendError: some ids are in the log already: a defect.

    Source: message-db ``write_message``; ADR-0004.
    """
    if not events:
        return await head_version(conn, stream)
    return (await append_many(conn, [Append(stream, events, expected_version)]))[-1].version


async def append_many(conn: Connection, appends: Sequence[Append]) -> list[RecordedEvent]:
    """Append to several streams at once, all or none; return the events as recorded, unnumbered.

    Raises as ``append`` does. Streams are inserted in name order, so that two such calls cannot
    wait for each other; within a stream the order given is kept.
    """
    ordered = sorted((a for a in appends if a.events), key=lambda a: a.stream)
    if not ordered:
        return []
    for _ in range(CONFLICT_TRIES):
        try:
            # Inside a caller's transaction this is a savepoint: a conflict must not spoil it.
            async with conn.transaction():
                recorded = _recorded(ordered, await insert(conn, ordered))
                if len(recorded) == sum(len(a.events) for a in ordered):
                    return recorded
                raise await _refusal(conn, ordered, {event.event_id for event in recorded})
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name not in {"events_event_id_key", "events_stream_version_key"}:
                raise
    message = f"{ordered[0].stream} has more than {CONFLICT_TRIES} rivals"
    raise RuntimeError(message)


def _recorded(appends: Iterable[Append], written: Mapping[UUID, Written]) -> list[RecordedEvent]:
    return [
        RecordedEvent(
            event.event_id,
            append.stream,
            row.version,
            stream_category(append.stream),
            event.type,
            event.schema_version,
            event.source,
            event.subject,
            event.data,
            event.metadata,
            event.correlation_id or str(event.event_id),
            event.causation_id,
            row.occurred_at,
            row.recorded_at,
        )
        for append in appends
        for event in append.events
        if (row := written.get(event.event_id))
    ]


async def _refusal(conn: Connection, appends: Sequence[Append], written: set[UUID]) -> Exception:
    """Return the error for the first of ``appends`` that was left out."""
    refused = next(a for a in appends if a.events[0].event_id not in written)
    known = await find_events(conn, [event.event_id for event in refused.events])
    if len(known) == len(refused.events):
        return DuplicateEventError(known)
    if known:
        return TornAppendError(known)
    return WrongExpectedVersionError(
        stream=refused.stream,
        expected_version=NO_STREAM if refused.expected_version is None else refused.expected_version,
        actual_version=await head_version(conn, refused.stream),
    )


_FIND_EVENTS = """
    SELECT event_id, stream, version FROM events WHERE event_id = ANY($1::uuid[])
     UNION
    SELECT event_id, stream, version FROM event_positions WHERE event_id = ANY($1::uuid[])
"""


async def find_events(conn: Connection, event_ids: Sequence[UUID]) -> list[EventRef]:
    """Return where the events of these ids stand, in the order asked, the unknown ones left out."""
    found = {row["event_id"]: row for row in await conn.fetch(_FIND_EVENTS, list(event_ids))}
    return [
        EventRef(event_id=event_id, stream=found[event_id]["stream"], version=found[event_id]["version"])
        for event_id in event_ids
        if event_id in found
    ]


_HEAD_VERSION = """
    SELECT greatest((SELECT max(version) FROM events WHERE stream = $1),
                    (SELECT max(version) FROM event_positions WHERE stream = $1), -1)
"""


async def head_version(conn: Connection, stream: str) -> int:
    """Return the version of the newest event of ``stream``, -1 when it has none."""
    version: int = await conn.fetchval(_HEAD_VERSION, stream)
    return version


_READ_STREAM = f"""
    SELECT {COLUMNS}, p.position
      FROM events AS e
      LEFT JOIN event_positions AS p ON p.id = e.id
     WHERE e.stream = $1 AND e.version > $2 AND ($3::bigint IS NULL OR e.version <= $3)
     ORDER BY e.version
     LIMIT $4
"""  # noqa: S608 - the columns are a constant


async def read_stream(
    conn: Connection, stream: str, *, after: int = NO_STREAM, up_to: int | None = None, limit: int | None = None
) -> list[RecordedEvent]:
    """Return the events of ``stream`` with ``after`` < version <= ``up_to``, oldest first."""
    rows = await conn.fetch(_READ_STREAM, stream, after, up_to, limit)
    return [recorded(row) for row in rows]


_READ_STREAMS = f"""
    SELECT {COLUMNS}, p.position
      FROM unnest((SELECT $1::text[]), (SELECT $2::bigint[])) AS s (stream, after)  -- planned once: see event_rows
      JOIN events AS e ON e.stream = s.stream AND e.version > s.after
      LEFT JOIN event_positions AS p ON p.id = e.id
     ORDER BY e.stream, e.version
"""  # noqa: S608 - the columns are a constant


async def read_streams(conn: Connection, after: Mapping[str, int]) -> dict[str, list[RecordedEvent]]:
    """Return, for each stream of ``after``, its events newer than the version given there."""
    rows = await conn.fetch(_READ_STREAMS, list(after), list(after.values()))
    streams: dict[str, list[RecordedEvent]] = {stream: [] for stream in after}
    for row in rows:
        streams[row["stream"]].append(recorded(row))
    return streams


_READ_LOG = f"""
    SELECT {COLUMNS}, p.position
      FROM event_positions AS p
      JOIN events AS e ON e.id = p.id
     WHERE p.position > $1 AND ($2::bigint IS NULL OR p.position <= $2)
       AND ($3::text IS NULL OR p.category = $3)
       AND ($4::text IS NULL OR e.type = $4)
       AND ($5::text IS NULL OR e.correlation_id = $5)
       AND ($6::text IS NULL OR p.stream = $6)
     ORDER BY p.position
     LIMIT $7
"""  # noqa: S608 - the columns are a constant


async def read_log(
    conn: Connection,
    *,
    after: int = 0,
    up_to: int | None = None,
    category: str | None = None,
    type: str | None = None,  # noqa: A002 - the field's name everywhere
    correlation_id: str | None = None,
    stream: str | None = None,
    limit: int = 1_000,
) -> list[RecordedEvent]:
    """Return at most ``limit`` numbered events with ``after`` < position <= ``up_to``, by position."""
    rows = await conn.fetch(_READ_LOG, after, up_to, category, type, correlation_id, stream, limit)
    return [recorded(row) for row in rows]


_READ_EVENT = f"""
    SELECT {COLUMNS}, p.position
      FROM events AS e
      LEFT JOIN event_positions AS p ON p.id = e.id
     WHERE e.event_id = $1
"""  # noqa: S608 - the columns are a constant


async def read_event(conn: Connection, event_id: UUID) -> RecordedEvent | None:
    """Return one event, numbered or not, or None when the log has no such id."""
    row = await conn.fetchrow(_READ_EVENT, event_id)
    return None if row is None else recorded(row)


def recorded(row: asyncpg.Record) -> RecordedEvent:
    """Return the event of a row that selects COLUMNS and the position, in this order."""
    return RecordedEvent(*row)
