"""Ids that were drawn and are not visible yet: who must be looked at again, and when to forget them.

Pure. Postgres hands out ids before the commit, so an id below the newest one may still appear.
It is a hole until it appears, or until every transaction that could have drawn it has ended.
Kept as ranges: one long transaction can leave tens of thousands (ADR-0004).
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

UNBOUNDED: Final = 2**63 - 1  # of a hole just seen: it is not forgotten before it is bounded


class Hole(msgspec.Struct, frozen=True, gc=False):
    """Ids ``low`` to ``high``, both included, drawn by transactions that began to write before ``bound`` did."""

    low: int
    high: int
    bound: int


def after_reading(
    holes: Sequence[Hole], top: int, seen: Sequence[int], *, xmin: int, truncated: bool
) -> tuple[list[Hole], int]:
    """Return the holes and the highest id seen, after one snapshot showed the ids ``seen``.

    New holes are UNBOUNDED; bound them.

    Args:
        holes: the holes before, ascending and apart from each other.
        top: the highest id seen before.
        seen: every id of the holes or above ``top`` that the snapshot shows, ascending.
        xmin: no transaction below it runs any more.
        truncated: ``seen`` was cut off; nothing is known above its last id.
    """
    known_up_to = seen[-1] if truncated else None
    remaining = []
    for hole in holes:
        looked_at = known_up_to is None or hole.high <= known_up_to
        if not (looked_at and xmin >= hole.bound):
            remaining.append(hole)
    kept = list(_without(remaining, [number for number in seen if number <= top]))
    new = [number for number in seen if number > top]
    for number in new:
        if number > top + 1:
            kept.append(Hole(low=top + 1, high=number - 1, bound=UNBOUNDED))
        top = number
    return kept, top


def bounded(holes: Iterable[Hole], transaction_id: int) -> list[Hole]:
    """Return ``holes``, the unbounded ones bound by the id of a transaction that began to write after the reading.

    Whoever drew an id of a hole wrote already, so its transaction id is below. The ``xmax`` of the
    reading's snapshot is no such bound: it is one past the newest transaction that has ended, and
    those still running may be beyond it.
    """
    return [msgspec.structs.replace(hole, bound=transaction_id) if hole.bound == UNBOUNDED else hole for hole in holes]


def floor(holes: Sequence[Hole], top: int) -> int:
    """Return the id at and below which nothing is missing any more."""
    return holes[0].low - 1 if holes else top


def _without(holes: Iterable[Hole], seen: Sequence[int]) -> Iterable[Hole]:
    """Return ``holes`` split around the ids ``seen``, both ascending."""
    index = 0
    for hole in holes:
        low = hole.low
        while index < len(seen) and seen[index] < low:
            index += 1
        while index < len(seen) and seen[index] <= hole.high:
            if seen[index] > low:
                yield Hole(low=low, high=seen[index] - 1, bound=hole.bound)
            low = seen[index] + 1
            index += 1
        if low <= hole.high:
            yield Hole(low=low, high=hole.high, bound=hole.bound)
