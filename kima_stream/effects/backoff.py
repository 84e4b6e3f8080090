"""How long to wait before the next attempt: longer each time, never all at once. Pure."""

from typing import Final

FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 60.0
_MOST_DOUBLINGS: Final = 16  # far beyond the longest; a float overflows much later


def delay_seconds(failures: int, chance: float) -> float:
    """Return the wait after so many ``failures`` in a row; ``chance`` in [0, 1) spreads it over its upper half."""
    doublings = min(max(failures, 1) - 1, _MOST_DOUBLINGS)
    return min(FIRST_SECONDS * (1 << doublings), LONGEST_SECONDS) * (0.5 + chance / 2)
