"""What a stream in Redis holds, by bytes: the newest that fit."""

import itertools
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given, strategies as st

from kima_stream.events import RecordedEvent
from kima_stream.occupancy import STREAM_BYTES, Occupancy
from kima_stream.stream_entries import CHUNK_BYTES, CHUNK_EVENTS, ENTRY_BYTES, REFERENCE_BYTES, chunks, size_bytes

SIZES = st.lists(st.integers(1, STREAM_BYTES * 2 // 3), min_size=1, max_size=30)


@given(SIZES)
def test_what_is_kept_fits_and_is_the_most_that_does(sizes: list[int]) -> None:
    """Of parts added one by one, the newest that fit together stay."""
    occupancy, keep = Occupancy(), 0
    for last, size in enumerate(sizes, start=1):
        keep = occupancy.make_room(size) or keep
        occupancy.add(last, size)
        kept = sizes[max(keep - 1, 0) : last]
        assert occupancy.size_bytes == sum(kept) <= STREAM_BYTES
        assert keep <= 1 or sum(kept) + sizes[keep - 2] > STREAM_BYTES


def test_what_was_trimmed_makes_room() -> None:
    """What all groups have verified takes nothing."""
    occupancy = Occupancy()
    occupancy.add(10, STREAM_BYTES // 2)
    occupancy.add(20, STREAM_BYTES // 2)

    occupancy.forget(below=11)

    assert occupancy.size_bytes == STREAM_BYTES // 2
    assert occupancy.make_room(STREAM_BYTES // 2) == 0
    assert occupancy.make_room(STREAM_BYTES // 2 + 1) == 21


def test_one_part_may_be_larger_than_all() -> None:
    """It is let in, alone."""
    occupancy = Occupancy()
    occupancy.add(1, 10)

    assert occupancy.make_room(STREAM_BYTES * 2) == 2
    assert occupancy.size_bytes == 0


def an_event(data: str, position: int = 1) -> RecordedEvent:
    """Return an event with this data."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return RecordedEvent(
        event_id=UUID(int=position), stream="note-1", version=position, category="note", type="note.taken",
        schema_version=1, source="test", subject=None, data=data, metadata="{}", correlation_id="c",
        causation_id=None, occurred_at=moment, recorded_at=moment, position=position,
    )  # fmt: skip


def test_size_is_counted_in_bytes_and_a_reference_is_small() -> None:
    """Letters beyond ASCII take more than one, and what travels as a reference takes nothing of its data."""
    assert size_bytes(an_event('"abc"')) == ENTRY_BYTES + 5 + 2
    assert size_bytes(an_event('"海港灯"')) == ENTRY_BYTES + 11 + 2
    assert size_bytes(an_event("x" * REFERENCE_BYTES)) == ENTRY_BYTES
    assert size_bytes(an_event("海" * (REFERENCE_BYTES // 2))) == ENTRY_BYTES


@given(st.lists(st.integers(0, REFERENCE_BYTES + 10), max_size=60), st.integers(0, 3))
def test_chunks_are_all_in_order_and_within_both_bounds(sizes: list[int], more: int) -> None:
    """Nothing is left out or told twice; one that is larger than a chunk goes alone."""
    sizes += [1] * (more * CHUNK_EVENTS // 2)
    events = [an_event("x" * size, position) for position, size in enumerate(sizes, start=1)]
    found = list(chunks(events))

    assert [event for chunk in found for event in chunk] == events
    for chunk in found:
        assert 1 <= len(chunk) <= CHUNK_EVENTS
        assert len(chunk) == 1 or sum(map(size_bytes, chunk)) <= CHUNK_BYTES
    for chunk, following in itertools.pairwise(found):
        assert len(chunk) == CHUNK_EVENTS or sum(map(size_bytes, chunk)) + size_bytes(following[0]) > CHUNK_BYTES
