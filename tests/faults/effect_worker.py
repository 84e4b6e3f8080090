"""A worker as a process of its own, for ``test_effects``: it dies or stops at a named point of an attempt.

    python -m tests.faults.effect_worker DATABASE_URL SHOP_URL LEASE_SECONDS

KIMA_TEST_CRASH names the point, KIMA_TEST_SIGNAL what happens there (9: kill, 19: stop). At a point it says so on
stdout and sends the signal to itself. Without a point it works until it is killed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from kima_stream import database, logs, projector
from kima_stream.effects import Work, Worker, leasing
from kima_stream.events import Event
from tests.shop import OWNER, AskingExecutor, unique

P = ParamSpec("P")
T = TypeVar("T")

LEASED: Final = "leased"  # and nothing begun
BEGUN: Final = "begun"  # and nothing sent
CALLED: Final = "called"  # the answer is there
APPENDED: Final = "appended"  # in a transaction that is open
SETTLED: Final = "settled"  # and committed

POINTS: Final = (LEASED, BEGUN, CALLED, APPENDED, SETTLED)


def at(point: str) -> None:
    """Be struck here, once, if it is the point."""
    if os.environ.get("KIMA_TEST_CRASH") == point:
        del os.environ["KIMA_TEST_CRASH"]
        sys.stdout.write(f"{point}\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.Signals(int(os.environ.get("KIMA_TEST_SIGNAL", "9"))))


def struck(
    function: Callable[P, Awaitable[T]], *, before: str | None = None, after: str | None = None
) -> Callable[P, Awaitable[T]]:
    """Return ``function`` with a point before or after it."""

    @wraps(function)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        at(before or "")
        value = await function(*args, **kwargs)
        at(after or "")
        return value

    return wrapped


class Struck(AskingExecutor):
    """The executor, with points around its call."""

    async def perform(self, work: Work) -> Event:
        """Make the call."""
        at(BEGUN)
        news = await super().perform(work)
        at(CALLED)
        return news


async def main(dsn: str, url: str, lease_seconds: float) -> None:
    """Work until killed."""
    logs.configure("json", "info")  # to stderr: stdout is for the points
    leasing.begin = struck(leasing.begin, before=LEASED)  # type: ignore[assignment]  # a crash, not a mock
    projector.decide = struck(projector.decide, after=APPENDED)  # type: ignore[assignment]  # as above
    pool = await database.open_pool(dsn, role="effects", max_size=8)
    worker = Settling(pool, [Struck(url)], [OWNER], holder=unique(), lease_seconds=lease_seconds)
    await worker.run()


class Settling(Worker):
    """A worker, with a point after an attempt has ended."""

    def _done(self, task: asyncio.Task[None]) -> None:
        super()._done(task)
        at(SETTLED)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
