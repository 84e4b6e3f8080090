"""Golden vectors of the hashes: whoever holds a log from years ago must be able to check it.

The values were computed from the text of ADR-0004 by other code than ours; they never change.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from kima_stream import chain
from kima_stream.events import RecordedEvent

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

PLAIN = RecordedEvent(
    event_id=UUID(int=1),
    stream="note-a",
    version=0,
    category="note",
    type="note.taken",
    schema_version=1,
    source="test",
    subject=None,
    data="{}",
    metadata="{}",
    correlation_id="00000000-0000-0000-0000-000000000001",
    causation_id=None,
    occurred_at=EPOCH,
    recorded_at=EPOCH + timedelta(microseconds=1),
)
RICH = RecordedEvent(
    event_id=UUID("6f1c2a34-8b5d-4e7f-9a10-2b3c4d5e6f70"),
    stream="lidarr-ÄÖ",
    version=41,
    category="lidarr",
    type="lidarr.grab",
    schema_version=3,
    source="Lidarr",
    subject="ü",
    data='{"a":  "\\u0000"}',
    metadata='{"b":1}',
    correlation_id="c",
    causation_id=UUID(int=2**128 - 1),
    occurred_at=EPOCH + timedelta(microseconds=1_773_480_413_589_793),
    recorded_at=EPOCH - timedelta(microseconds=1),
)
PLAIN_HASH = "8da33e19456c3dbadd9514384b147634106b81da4142cf462fca1dd1e83e1c7d"
RICH_HASH = "2ecad9c83b2cc8368b8b3f0017b1ab47e3fe78aab839df054508c013ed52a053"
FIRST_LINK = "88a30dfd2fbbdb1d2eae4816b233d15d5be49e972fc6fab41b2d1d1215f1f0df"
SECOND_LINK = "0d4a086a1a1a9f5235031de2630d4d348a7e1cd097f3598373c4792add96654a"


def test_the_hash_of_an_event_never_changes() -> None:
    """NULLs, non-ASCII, odd spacing and times before 1970 included."""
    assert chain.event_hash(PLAIN).hex() == PLAIN_HASH
    assert chain.event_hash(RICH).hex() == RICH_HASH


def test_the_chain_never_changes() -> None:
    """From 32 zero bytes on."""
    first = chain.chain_hash(chain.GENESIS, 1, bytes.fromhex(PLAIN_HASH))
    second = chain.chain_hash(first, 2, bytes.fromhex(RICH_HASH))

    assert (first.hex(), second.hex()) == (FIRST_LINK, SECOND_LINK)


@pytest.mark.parametrize("field", [name for name in RecordedEvent.__struct_fields__ if name != "position"])
def test_every_column_is_covered(field: str) -> None:
    """Whatever column changes, the hash changes; NULL is not the empty text."""
    other = {
        "event_id": UUID(int=3), "version": 42, "schema_version": 4, "causation_id": None, "subject": None,
        "occurred_at": EPOCH, "recorded_at": EPOCH,
    }.get(field, "x")  # fmt: skip

    assert chain.event_hash(msgspec.structs.replace(RICH, **{field: other})) != bytes.fromhex(RICH_HASH)
    assert chain.event_hash(msgspec.structs.replace(PLAIN, subject="")) != bytes.fromhex(PLAIN_HASH)
