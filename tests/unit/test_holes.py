"""Holes: ids that were drawn and are not visible yet, against a simulated Postgres."""

from itertools import pairwise

from hypothesis import given, settings, strategies as st

from kima_stream import holes
from kima_stream.holes import Hole


def test_an_id_below_the_top_that_is_not_visible_is_a_hole() -> None:
    """Ids 1 and 4 are visible, 2 and 3 are not yet."""
    kept, top = holes.after_reading([], 0, [1, 4], xmin=5, truncated=False)

    assert (kept, top) == ([Hole(2, 3, holes.UNBOUNDED)], 4)
    assert holes.bounded(kept, 9) == [Hole(2, 3, 9)]
    assert holes.floor(kept, top) == 1


def test_a_hole_that_appears_is_split_around_it() -> None:
    """Of 2 to 6, 4 has committed."""
    kept, top = holes.after_reading([Hole(2, 6, 9)], 7, [4], xmin=5, truncated=False)

    assert (kept, top) == ([Hole(2, 3, 9), Hole(5, 6, 9)], 7)


def test_a_hole_is_forgotten_when_everybody_who_could_fill_it_has_ended() -> None:
    """A transaction that was running when the hole was seen may still commit; later ones draw higher ids."""
    assert holes.after_reading([Hole(2, 3, 9)], 4, [], xmin=8, truncated=False)[0] == [Hole(2, 3, 9)]
    assert holes.after_reading([Hole(2, 3, 9)], 4, [], xmin=9, truncated=False)[0] == []


def test_a_reading_that_was_cut_off_forgets_nothing_above_its_end() -> None:
    """What lies above the last id seen was not looked at."""
    kept, top = holes.after_reading([Hole(2, 3, 9), Hole(6, 7, 9)], 8, [2], xmin=20, truncated=True)

    assert (kept, top) == ([Hole(3, 3, 9), Hole(6, 7, 9)], 8)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_every_committed_id_is_seen_exactly_once(data: st.DataObject) -> None:
    """Transactions draw ids early and commit late, roll back, or stay open; readings are cut off at random."""
    draw = data.draw
    next_xid, next_id = 100, 1
    running: dict[int, list[int]] = {}
    visible: set[int] = set()
    numbered: list[int] = []
    state: list[Hole] = []
    top = 0
    for _ in range(draw(st.integers(1, 40))):
        action = draw(st.sampled_from(["begin", "draw", "commit", "rollback", "read", "read"]))
        if action == "begin":
            running[next_xid] = []
            next_xid += 1
        elif action == "draw" and running:
            running[draw(st.sampled_from(sorted(running)))].append(next_id)
            next_id += 1
        elif action in {"commit", "rollback"} and running:
            ids = running.pop(draw(st.sampled_from(sorted(running))))
            visible |= set(ids) if action == "commit" else set()
        elif action == "read":
            limit = draw(st.sampled_from([1, 3, 1_000]))
            state, top, seen = _read(state, top, visible, min(running, default=next_xid), next_xid, limit)
            next_xid += 1  # of the transaction that saved the numbers
            numbered += seen
    for _ in range(100):
        state, top, seen = _read(state, top, visible, min(running, default=next_xid), next_xid, 7)
        numbered += seen

    assert sorted(numbered) == sorted(visible)
    assert all(one.high < other.low for one, other in pairwise(state))
    assert not any(hole.low <= number <= hole.high for hole in state for number in visible)


def _read(
    state: list[Hole], top: int, visible: set[int], xmin: int, saved: int, limit: int
) -> tuple[list[Hole], int, list[int]]:
    """Read as the publisher does: what is above the top or in a hole, by id."""
    shown = sorted(n for n in visible if n > top or any(hole.low <= n <= hole.high for hole in state))
    seen = shown[:limit]
    state, top = holes.after_reading(state, top, seen, xmin=xmin, truncated=len(seen) == limit)
    return holes.bounded(state, saved), top, seen
