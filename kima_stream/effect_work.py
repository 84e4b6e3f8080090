"""What who calls the outside is given, and what it must be able to do; the engine itself is ``effects``.

An executor makes the calls of one kind. It is a class like this::

    class Remove(Executor):
        kind = "lidarr.remove"

        async def perform(self, work: Work) -> Event:
            work.check_lease()  # before every call that changes something
            await self._lidarr.delete_queue_item(work.effect.target)
            return JobDownloadRemoved(download_id=work.effect.target)

        async def resolve(self, work: Work) -> Event | None:
            if await self._lidarr.find_queue_item(work.effect.target) is None:
                return JobDownloadRemoved(download_id=work.effect.target)
            return None  # it is still there: perform

What it returns is the *news*: what was brought about, a fact for the stream's decider, or an ``EffectFailed``
when it is certain that nothing will come of it. What it raises:

* ``IntegrationError(retryable=True)``: it may heal. It is tried again, later and later, and ``resolve`` is asked
  first, because the call may have arrived; ``nothing_done=True`` says that it surely has not (no connection,
  refused before it was looked at), then nobody asks.
* ``IntegrationError(retryable=False)``: the effect fails, code ``refused``.
* ``RateLimitError``: nothing was done; it is tried again after its time, which counts as no failure.
* ``asyncio.CancelledError``: is raised *in* it when the effect was withdrawn or the process ends: clean up and let
  it pass, or return the news if the call had been made already.
* anything else is a defect: logged with its traceback and tried again, later and later.

``effect.effect_id`` is the same in every attempt: a side that takes an idempotency key is given that.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from kima_stream.errors import FencedError
from kima_stream.events import Effect, EffectFailed, Event

TIMEOUT_SECONDS: Final = 120.0  # one attempt, unless its class says otherwise
ASK_AFTER_SECONDS: Final = 5.0

# Goes on while the machine sleeps, where there is such a clock: a lease runs out meanwhile.
uptime: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a long call is; ``text`` is for people."""

    text: str
    done_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(kw_only=True, eq=False)
class Work:
    """One attempt at an effect.

    ``attempt`` counts from 1, ``intended_at`` is the recorded time of the intention, ``correlation_id`` that of the
    request which led here. ``is_unknown``: an attempt before this one began, and nobody knows how it ended.
    """

    effect: Effect
    stream: str
    attempt: int
    intended_at: datetime
    is_unknown: bool = False
    correlation_id: str | None = None
    fence: int = 0
    held_until: float = math.inf  # by ``uptime``
    progress: Progress | None = None

    def report(self, progress: Progress) -> None:
        """Show how far it is; kept within about a second, and as cheap as an assignment."""
        self.progress = progress

    def failure(
        self, code: str, reason: str, next_step: str | None = None, *, was_unknown: bool = False
    ) -> EffectFailed:
        """Return the news that nothing will come of it; both texts are for people."""
        return EffectFailed(
            effect_id=self.effect.effect_id,
            kind=self.effect.kind,
            code=code,
            reason=reason,
            next_step=next_step,
            was_unknown=was_unknown,
        )

    def check_lease(self) -> None:
        """Call this right before every call that changes something outside: a paused process must not go on.

        Raises:
            FencedError: the lease may be somebody else's by now; let it pass.
        """
        if uptime() >= self.held_until:
            raise FencedError(lease=f"effect {self.effect.effect_id}", epoch=self.fence)


class Executor(ABC):
    """Makes the calls of one kind; the module says how one is written.

    Args of the class:
        kind: ``<system>.<verb>``.
        max_attempts: performed so often without an end it fails; None: as long as it is wanted.
        timeout_seconds: of one attempt; one that takes longer is cancelled, and may have been heard.
            None: it keeps bounds of its own.
        ask_after_seconds: how long the other side may still be busy with a call that was cut off; it is not asked
            before that what became of it.
        at_once: calls of this kind that one process makes at the same time.
        can_ask: ``resolve`` asks the other side: what it says, also nothing, shows that it is there.
    """

    kind: str
    max_attempts: int | None = None
    timeout_seconds: float | None = TIMEOUT_SECONDS
    ask_after_seconds: float = ASK_AFTER_SECONDS
    at_once: int = 4
    can_ask: bool = True

    @abstractmethod
    async def perform(self, work: Work) -> Event:
        """Make the call and return the news."""

    @abstractmethod
    async def resolve(self, work: Work) -> Event | None:
        """Ask the other side what became of an attempt that began: the news, or None when it never happened.

        It changes nothing outside. ``IntegrationError(retryable=True)`` says that it cannot be asked now.
        """


class MayRepeat(Executor):
    """Of a call that does no harm when it is made twice: nobody is asked."""

    can_ask = False

    async def resolve(self, work: Work) -> Event | None:  # noqa: ARG002 - nobody is asked
        """Say that it never happened."""
        return None


class CannotAsk(Executor):
    """Of a call that must not be made twice, to a side that takes no key and answers no question.

    When in doubt it is given up.
    """

    can_ask = False

    async def resolve(self, work: Work) -> Event | None:
        """Give it up: a person has to look."""
        return work.failure(
            "gave_up",
            f"It is not known whether {work.effect.system} was reached, and it cannot be asked.",
            f"See what {work.effect.system} has, then ask again if it is still wanted.",
            was_unknown=True,
        )
