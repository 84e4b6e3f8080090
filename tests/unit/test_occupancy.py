"""What a stream in Redis holds, by bytes: the newest that fit."""

from hypothesis import given, strategies as st

from kima_stream.occupancy import STREAM_BYTES, Occupancy

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
