"""The hashes that make the log tamper-evident: one per event, and the chain over them.

Pure. ``event_hash`` covers every column of an event but ``id`` and ``xid``, which belong to one
cluster; ``chain_hash`` ties it to its position and to everything before it (ADR-0004).
"""

import struct
from datetime import UTC, datetime
from hashlib import sha256

from kima_stream.events import RecordedEvent

GENESIS = bytes(32)  # what stands before position 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NULL = b"\xff\xff\xff\xff"
_INTEGER = struct.Struct(">Iq")
_LENGTH = struct.Struct(">I")
_UUID_SIZE = _LENGTH.pack(16)
_POSITION = struct.Struct(">q")


def event_hash(event: RecordedEvent) -> bytes:
    """Return the sha256 (32 bytes) over the columns of ``event`` in table order.

    Each column is its length as 4 bytes big-endian (ffffffff for NULL) and its bytes: text as
    UTF-8, a uuid as 16 bytes, integers and times (microseconds since 1970) as 8 bytes big-endian.
    """
    size = _LENGTH.pack
    stream, category, type_ = event.stream.encode(), event.category.encode(), event.type.encode()
    source, data, metadata = event.source.encode(), event.data.encode(), event.metadata.encode()
    correlation_id = event.correlation_id.encode()
    return sha256(
        b"".join(
            (
                _UUID_SIZE, event.event_id.bytes,
                size(len(stream)), stream,
                _INTEGER.pack(8, event.version),
                size(len(category)), category,
                size(len(type_)), type_,
                _INTEGER.pack(8, event.schema_version),
                size(len(source)), source,
                _NULL if event.subject is None else _bytes(event.subject.encode()),
                size(len(data)), data,
                size(len(metadata)), metadata,
                size(len(correlation_id)), correlation_id,
                _NULL if event.causation_id is None else _bytes(event.causation_id.bytes),
                _INTEGER.pack(8, microseconds(event.occurred_at)),
                _INTEGER.pack(8, microseconds(event.recorded_at)),
            )
        )
    ).digest()  # fmt: skip


def chain_hash(previous: bytes, position: int, hashed: bytes) -> bytes:
    """Return sha256(``previous`` || ``position`` as 8 bytes big-endian || ``hashed``)."""
    return sha256(previous + _POSITION.pack(position) + hashed).digest()


def microseconds(moment: datetime) -> int:
    """Return whole microseconds since 1970, exactly (no float on the way)."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _bytes(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value
