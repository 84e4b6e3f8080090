"""How much of a stream in Redis is taken, so that its oldest entries go before it is too much. Pure."""

from collections import deque

STREAM_BYTES = 4_000_000  # of entries in one stream, whatever anybody has read


class Occupancy:
    """What one stream holds, as far as this process added it; what another added before is older, and goes first."""

    def __init__(self, max_bytes: int = STREAM_BYTES) -> None:
        """Know of nothing yet."""
        self._max_bytes = max_bytes
        self._parts: deque[tuple[int, int]] = deque()  # added at once: the last position, and bytes
        self.size_bytes = 0

    def add(self, last: int, size_bytes: int) -> None:
        """Note entries up to position ``last``."""
        self._parts.append((last, size_bytes))
        self.size_bytes += size_bytes

    def make_room(self, size_bytes: int) -> int:
        """Forget the oldest until ``size_bytes`` fit in, too; return the first position to keep, 0 when all stay."""
        below = 0
        while self._parts and self.size_bytes + size_bytes > self._max_bytes:
            below = self._forget_oldest() + 1
        return below

    def forget(self, *, below: int) -> None:
        """Forget what is older than position ``below``."""
        while self._parts and self._parts[0][0] < below:
            self._forget_oldest()

    def _forget_oldest(self) -> int:
        last, size_bytes = self._parts.popleft()
        self.size_bytes -= size_bytes
        return last
