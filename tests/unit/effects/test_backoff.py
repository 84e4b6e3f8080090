"""Waiting longer each time, within bounds, and never all at once."""

from hypothesis import given, strategies as st

from kima_stream.effects.backoff import FIRST_SECONDS, LONGEST_SECONDS, delay_seconds


@given(st.integers(0, 100_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_within_its_bounds(failures: int, chance: float) -> None:
    """However often it failed."""
    assert FIRST_SECONDS / 2 <= delay_seconds(failures, chance) <= LONGEST_SECONDS


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_each_failure_waits_at_least_as_long_as_the_one_before(failures: int, chance: float) -> None:
    """With the same luck."""
    assert delay_seconds(failures, chance) <= delay_seconds(failures + 1, chance)


def test_it_doubles_and_is_spread_over_its_upper_half() -> None:
    """1, 2, 4 … 60 seconds at most, half of that at least."""
    assert [delay_seconds(failures, 0) for failures in (1, 2, 3, 7, 8)] == [0.5, 1, 2, 30, 30]
    assert delay_seconds(3, 0.5) == 3
