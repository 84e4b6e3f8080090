"""Waiting for something at Lidarr, by looking: at once, then after pauses that grow, within a bound."""

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain, repeat
from time import monotonic
from typing import Final, TypeAlias

PAUSES: Final = (0.5, 1.0, 2.0, 3.0, 5.0)  # between two looks, in seconds; the last one again and again

Pause: TypeAlias = Callable[[float], Awaitable[object]]


async def looks(seconds: float, pause: Pause) -> AsyncIterator[None]:
    """Look at once, then after pauses, until ``seconds`` have gone by."""
    until, left = monotonic() + seconds, seconds
    for each in chain(PAUSES, repeat(PAUSES[-1])):
        yield
        left -= each
        if left < 0 or monotonic() > until:
            return
        await pause(each)
