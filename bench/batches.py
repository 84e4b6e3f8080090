"""Appending batches of 500 events, against COPY of the same rows into the same table."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from bench.house import House, connected
from bench.material import BATCH, batches
from bench.report import Figure
from bench.rounds import interleaved
from kima_stream import event_store
from kima_stream.database import Connection
from kima_stream.events import stream_category

EVENTS = 20_000
_COLUMNS = ("stream", "version", "event_id", "category", "type", "schema_version", "source", "subject",
            "data", "metadata", "correlation_id", "causation_id", "occurred_at")  # fmt: skip


async def run(built: House) -> list[Figure]:
    """Measure each on as much as the other."""
    async with connected(built) as conn:
        paces = await interleaved({"ours": lambda: _ours(conn), "copy": lambda: _copy(conn)})
    ours, copy = paces["ours"], paces["copy"]
    return [
        Figure(f"events per second in batches of {BATCH}, checked and versioned", ours.per_second, "/s"),
        Figure("  of COPY, unchecked", ours.per_second / copy.per_second, "x", goal=">= 0.8"),
        Figure("  of a core, here", ours.cpu_us, "µs each"),
        Figure("COPY", copy.per_second, "/s"),
        Figure("  of a core, here", copy.cpu_us, "µs each"),
    ]


async def _ours(conn: Connection) -> Callable[[], Awaitable[int]]:
    material = list(batches(EVENTS))

    async def append() -> int:
        for batch in material:
            await event_store.insert(conn, batch)
        return EVENTS

    return append


async def _copy(conn: Connection) -> Callable[[], Awaitable[int]]:
    rows = [
        [
            (append.stream, version, event.event_id, stream_category(append.stream), event.type,
             event.schema_version, event.source, event.subject, event.data, event.metadata,
             str(event.event_id), event.causation_id, datetime.now(UTC))
            for append in batch
            for version, event in enumerate(append.events)
        ]
        for batch in batches(EVENTS)
    ]  # fmt: skip

    async def copy() -> int:
        for records in rows:
            await conn.copy_records_to_table("events", records=records, columns=_COLUMNS)
        return EVENTS

    return copy
