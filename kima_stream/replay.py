"""Audit replay: fold the log again beside the live read model, show every difference, swap if asked.

The shadow is a temporary table of the same shape, filled by the same ``project`` that serves live
news; nothing is changed until ``apply``.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import asyncpg
import msgspec

from kima_stream import dead_letters, event_store, projector
from kima_stream.checkpoints import Batch
from kima_stream.database import Connection
from kima_stream.events import RecordedEvent
from kima_stream.projector import Projection, Row

CHUNK_EVENTS = 5_000
MAX_DIFFERENCES = 1_000  # shown; all are counted

S = TypeVar("S")
Progress = Callable[[int, int], None]  # (events done, events in all)


class Difference(msgspec.Struct, frozen=True):
    """One stream whose live row is not the fold of its events; values as JSON."""

    stream: str
    kind: str  # missing | unexpected | behind | different
    live_version: int | None
    replayed_version: int | None
    fields: dict[str, tuple[Any, Any]]  # name -> (live, replayed)


class Replayed(msgspec.Struct, frozen=True):
    """The outcome of a replay."""

    projection: str
    events: int
    streams: int
    up_to: int | None
    different: int
    differences: tuple[Difference, ...]
    applied: bool = False


async def replay(
    conn: Connection,
    projection: Projection[S],
    *,
    up_to: int | None = None,
    apply: bool = False,
    progress: Progress = lambda _done, _all: None,
    reader: "Connection | None" = None,
) -> Replayed:
    """Fold ``projection`` anew up to position ``up_to`` (the head) and compare it with the live rows.

    With ``apply`` the live rows are replaced by the replayed ones, in one transaction that
    writers wait for; that needs the head, so it excludes ``up_to``. With a ``reader``, a connection
    of its own, the log is read on while what was read is folded and written.
    """
    table = projection.read_model.table
    shadow = msgspec.structs.replace(projection, read_model=projection.read_model.renamed(f"replayed_{table}"))
    await conn.execute(f"DROP TABLE IF EXISTS pg_temp.replayed_{table}")
    await conn.execute(
        f"CREATE TEMPORARY TABLE replayed_{table} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
    )
    await conn.execute(f"CREATE UNIQUE INDEX ON pg_temp.replayed_{table} (stream)")
    try:
        fold = _Fold(conn, shadow, up_to, await _exceptions(conn, projection.name))
        await fold.run(progress, reader)
        async with conn.transaction(isolation=None if apply else "repeatable_read"):
            if apply:
                await conn.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
            if up_to is None:
                await fold.run(progress)
                await fold.run_unnumbered(table)
            different, differences = await _compare(conn, table)
            if apply:
                await _swap(conn, projection)
    finally:
        await conn.execute(f"DROP TABLE IF EXISTS pg_temp.replayed_{table}")
    return Replayed(
        projection=projection.name,
        events=fold.events,
        streams=len(fold.streams),
        up_to=up_to,
        different=different,
        differences=tuple(differences),
        applied=apply,
    )


async def state_at(conn: Connection, projection: Projection[S], stream: str, *, up_to: int | None = None) -> Row[S]:
    """Return the row of ``stream`` as of position ``up_to`` (now), folded anew; version -1 when it had no event."""
    events = [
        event
        for event in await event_store.read_stream(conn, stream)
        if up_to is None or (event.position is not None and event.position <= up_to)
    ]
    exceptions = await dead_letters.waiting(conn, projection.name, [stream])
    return projector.fold(projection, projector.blank(projection, stream), events, exceptions.discarded)


class _Exceptions(msgspec.Struct, frozen=True):
    discarded: frozenset[tuple[str, int]]
    parked: dict[str, int]  # stream -> the version at which it stops


_PARKED = "SELECT stream, version FROM dead_letters WHERE group_name = $1 AND status <> 'discarded'"


async def _exceptions(conn: Connection, group_name: str) -> _Exceptions:
    return _Exceptions(
        discarded=await dead_letters.all_discarded(conn, group_name),
        parked={row["stream"]: row["version"] for row in await conn.fetch(_PARKED, group_name)},
    )


class _Fold:
    """The log of one category on its way into the shadow table."""

    def __init__(self, conn: Connection, shadow: Projection[S], up_to: int | None, exceptions: _Exceptions) -> None:
        self._conn = conn
        self._shadow = shadow
        self._up_to = up_to
        self._exceptions = exceptions
        self._after = 0
        self.events = 0
        self.streams: set[str] = set()

    async def run(self, progress: Progress, reader: "Connection | None" = None) -> None:
        """Fold all numbered events from where the last run stopped."""
        total = self.events + await self._conn.fetchval(_COUNT, self._shadow.category, self._after, self._up_to)
        reading = asyncio.create_task(self._read(reader or self._conn, self._after))
        try:
            while chunk := await reading:
                after = chunk[-1].position or 0
                if reader is not None:
                    reading = asyncio.create_task(self._read(reader, after))
                await self._project(chunk)
                self._after = after
                progress(self.events, total)
                if reader is None:
                    reading = asyncio.create_task(self._read(self._conn, after))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)  # the connection is free again

    async def _read(self, conn: Connection, after: int) -> list[RecordedEvent]:
        return await event_store.read_log(
            conn, after=after, up_to=self._up_to, category=self._shadow.category, limit=CHUNK_EVENTS
        )

    async def run_unnumbered(self, table: str) -> None:
        """Fold what live rows have seen before the publisher numbered it."""
        rows = await self._conn.fetch(_AHEAD.format(table=table))
        after = {row["stream"]: row["version"] for row in rows}
        if after:
            streams = await event_store.read_streams(self._conn, after)
            await self._project([event for events in streams.values() for event in events])

    async def _project(self, events: Sequence[RecordedEvent]) -> None:
        entries: dict[str, list[RecordedEvent]] = {}
        parked = self._exceptions.parked
        for event in events:
            if event.version < parked.get(event.stream, event.version + 1):
                entries.setdefault(event.stream, []).append(event)
        batch = Batch(entries=entries, discarded=self._exceptions.discarded)
        await projector.project(self._conn, self._shadow, batch)
        self.events += sum(map(len, entries.values()))
        self.streams.update(entries)


_COUNT = """
    SELECT count(*) FROM event_positions
     WHERE category = $1 AND position > $2 AND ($3::bigint IS NULL OR position <= $3)
"""
_AHEAD = """
    SELECT l.stream, coalesce(r.version, -1) AS version
      FROM {table} AS l
      LEFT JOIN pg_temp.replayed_{table} AS r ON r.stream = l.stream
     WHERE l.version > coalesce(r.version, -1)
"""
# A row as text compares byte by byte, json columns included.
_COMPARE = """
    SELECT stream, l.version AS live_version, r.version AS replayed_version,
           to_json(l)::text AS live, to_json(r)::text AS replayed, count(*) OVER () AS different
      FROM (SELECT * FROM {table} WHERE version >= 0) AS l
      FULL JOIN pg_temp.replayed_{table} AS r USING (stream)
     WHERE l::text IS DISTINCT FROM r::text
     ORDER BY stream
     LIMIT $1
"""


async def _compare(conn: Connection, table: str) -> tuple[int, list[Difference]]:
    rows = await conn.fetch(_COMPARE.format(table=table), MAX_DIFFERENCES)
    return (rows[0]["different"] if rows else 0), [_difference(row) for row in rows]


def _difference(row: asyncpg.Record) -> Difference:
    live = msgspec.json.decode(row["live"] or "{}", type=dict[str, Any])
    replayed = msgspec.json.decode(row["replayed"] or "{}", type=dict[str, Any])
    if row["live"] is None:
        kind = "missing"
    elif row["replayed"] is None:
        kind = "unexpected"
    else:
        kind = "behind" if row["live_version"] < row["replayed_version"] else "different"
    return Difference(
        stream=row["stream"],
        kind=kind,
        live_version=row["live_version"],
        replayed_version=row["replayed_version"],
        fields={
            name: (live.get(name), replayed.get(name))
            for name in sorted(live | replayed)
            if live.get(name) != replayed.get(name)
        },
    )


_SWAP_OUT = """
    DELETE FROM {table} AS l
     WHERE NOT EXISTS (SELECT FROM pg_temp.replayed_{table} AS r WHERE r.stream = l.stream AND r::text = l::text)
    RETURNING stream
"""
_SWAP_IN = """
    INSERT INTO {table}
    SELECT r.* FROM pg_temp.replayed_{table} AS r
     WHERE NOT EXISTS (SELECT FROM {table} AS l WHERE l.stream = r.stream)
    RETURNING stream
"""


async def _swap(conn: Connection, projection: Projection[S]) -> None:
    """Replace the rows that differ, and make the effects those of the new ones."""
    read_model = projection.read_model
    swapped = await conn.fetch(_SWAP_OUT.format(table=read_model.table))
    swapped += await conn.fetch(_SWAP_IN.format(table=read_model.table))
    streams = sorted({row["stream"] for row in swapped})
    for start in range(0, len(streams), CHUNK_EVENTS):
        some = streams[start : start + CHUNK_EVENTS]
        rows = await read_model.lock(conn, some)
        await read_model.keep_effects(conn, [rows.get(name, projector.blank(projection, name)) for name in some])
