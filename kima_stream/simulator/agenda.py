"""The simulator's time: a clock that moves when it is told to, and what is due by then."""

import heapq
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import count

Action = Callable[[], Awaitable[None]]


class Agenda:
    """What will happen, in order of time, then of planning; nothing happens while nobody moves the clock."""

    def __init__(self, now: datetime) -> None:
        """Begin at ``now``, an aware time."""
        self.now = now
        self._numbers = count()
        self._due: list[tuple[datetime, int, Action]] = []

    def plan(self, seconds: float, action: Action) -> None:
        """Let ``action`` happen in ``seconds`` from now."""
        heapq.heappush(self._due, (self.now + timedelta(seconds=seconds), next(self._numbers), action))

    @property
    def is_empty(self) -> bool:
        """Whether nothing more will happen by itself."""
        return not self._due

    async def advance(self, seconds: float) -> None:
        """Move the clock; whatever falls due on the way happens at its own time."""
        end = self.now + timedelta(seconds=seconds)
        while self._due and self._due[0][0] <= end:
            self.now, _, action = heapq.heappop(self._due)
            await action()
        self.now = end

    async def finish(self) -> None:
        """Move the clock to the last thing that is due."""
        while self._due:
            await self.advance((self._due[0][0] - self.now).total_seconds())
