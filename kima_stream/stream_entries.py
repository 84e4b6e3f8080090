"""An entry of a Redis Stream: a CloudEvent in fields, there and back, and what it takes.

Above REFERENCE_BYTES it carries ``dataref`` instead of data. Pure.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from kima_stream.events import RecordedEvent

REFERENCE_BYTES = 64_000  # an event with more data than this travels as a reference
CHUNK_EVENTS, CHUNK_BYTES = 500, 1_000_000  # added at once
ENTRY_BYTES = 500  # of an entry without data and metadata: names, ids, times and Redis' own share


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry as delivered; ``event`` is None when it travels as a reference or cannot be read."""

    entry_id: bytes
    stream: str
    event: RecordedEvent | None


def size_bytes(event: RecordedEvent) -> int:
    """Return what its entry takes in Redis, about."""
    carried = _carried_bytes(event)
    return ENTRY_BYTES + (carried if carried <= REFERENCE_BYTES else 0)


def chunks(events: Sequence[RecordedEvent]) -> Iterator[Sequence[RecordedEvent]]:
    """Yield ``events`` in their order, each time as many as may be added at once: one at least."""
    start, taken_bytes = 0, 0
    for end, event in enumerate(events):
        more_bytes = size_bytes(event)
        if end > start and (end - start == CHUNK_EVENTS or taken_bytes + more_bytes > CHUNK_BYTES):
            yield events[start:end]
            start, taken_bytes = end, 0
        taken_bytes += more_bytes
    if start < len(events):
        yield events[start:]


def _carried_bytes(event: RecordedEvent) -> int:
    # Most are ASCII, where letters are bytes: to ask is a flag, to encode is a copy.
    return sum(len(text) if text.isascii() else len(text.encode()) for text in (event.data, event.metadata))


def with_length(event: RecordedEvent) -> list[str | int]:
    """Return an entry's id and fields, preceded by how many there are."""
    fields: list[str | int] = [
        f"{event.position}-0",
        "specversion", "1.0",
        "id", str(event.event_id),
        "source", event.source,
        "type", event.type,
        "stream", event.stream,
        "sequence", event.version,
        "schemaversion", event.schema_version,
        "correlationid", event.correlation_id,
        "time", event.occurred_at.isoformat(),
        "recordedtime", event.recorded_at.isoformat(),
        "datacontenttype", "application/json",
    ]  # fmt: skip
    if event.subject is not None:
        fields += ("subject", event.subject)
    if event.causation_id is not None:
        fields += ("causationid", str(event.causation_id))
    if _carried_bytes(event) > REFERENCE_BYTES:
        fields += ("dataref", f"/api/events/{event.event_id}")
    else:
        fields += ("data", event.data, "metadata", event.metadata)
    return [len(fields), *fields]


def entry(entry_id: bytes, flat: Sequence[bytes]) -> Entry:
    """Return the entry of these names and values; a deleted one has none and is only to be acknowledged."""
    if not flat:
        return Entry(entry_id, "", None)
    names_and_values = iter(flat)
    fields: dict[bytes, bytes] = dict(zip(names_and_values, names_and_values, strict=True))
    stream = fields.get(b"stream", b"").decode()
    if b"data" not in fields:
        return Entry(entry_id, stream, None)
    subject, causation = fields.get(b"subject"), fields.get(b"causationid")
    return Entry(
        entry_id,
        stream,
        RecordedEvent(  # in the order of its fields: by name it takes as long again
            UUID(fields[b"id"].decode()),
            stream,
            int(fields[b"sequence"]),
            stream.partition("-")[0],
            fields[b"type"].decode(),
            int(fields[b"schemaversion"]),
            fields[b"source"].decode(),
            None if subject is None else subject.decode(),
            fields[b"data"].decode(),
            fields[b"metadata"].decode(),
            fields[b"correlationid"].decode(),
            None if causation is None else UUID(causation.decode()),
            datetime.fromisoformat(fields[b"time"].decode()),
            datetime.fromisoformat(fields[b"recordedtime"].decode()),
            int(entry_id.partition(b"-")[0]),
        ),
    )
