"""Appending batches of 500 events, against COPY of the same rows into the same table."""

import statistics
import time
from datetime import UTC, datetime

from bench.house import House, connected
from bench.material import BATCH, batches
from bench.report import Figure
from kima_stream import event_store
from kima_stream.events import stream_category

EVENTS, ROUNDS = 20_000, 5
_COLUMNS = ("stream", "version", "event_id", "category", "type", "schema_version", "source", "subject",
            "data", "metadata", "correlation_id", "causation_id", "occurred_at")  # fmt: skip


async def run(built: House) -> list[Figure]:
    """Measure in interleaved rounds, each on as much as the other."""
    ours, copies = [], []
    async with connected(built) as conn:
        for _ in range(ROUNDS):
            material = list(batches(EVENTS))
            began = time.perf_counter()
            for batch in material:
                await event_store.insert(conn, batch)
            ours.append(EVENTS / (time.perf_counter() - began))

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
            began = time.perf_counter()
            for records in rows:
                await conn.copy_records_to_table("events", records=records, columns=_COLUMNS)
            copies.append(EVENTS / (time.perf_counter() - began))
    return [
        Figure(f"events per second in batches of {BATCH}, checked and versioned", statistics.median(ours), "/s"),
        Figure("  of COPY, unchecked", statistics.median(ours) / statistics.median(copies), "x", goal=">= 0.8"),
        Figure("COPY", statistics.median(copies), "/s"),
    ]
