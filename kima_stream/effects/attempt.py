"""One attempt at an effect: ask what became of the one before, write down that it begins, call, settle.

    leased -> [asked] -> begun -> called -> settled
                                         -> postponed, by a failure that may heal
                                         -> ended: withdrawn, fenced, or the process stops

It may die between any two of these. What is leased only was not begun; from begun on nobody knows, and the next
holder asks first. The call is made outside of any transaction, in a task of its own that can be cancelled; an
outcome that is there is settled even when the lease was lost, because it is true whoever tells it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import structlog
from msgspec.structs import replace

from kima_stream import database, metrics
from kima_stream.database import Pool
from kima_stream.effect_work import Executor, Work, uptime
from kima_stream.effects import backoff, breaker, leasing, settling
from kima_stream.effects.leasing import Delay, Taken
from kima_stream.effects.settling import AnyOwner, Settled
from kima_stream.errors import FencedError, IntegrationError, RateLimitError
from kima_stream.events import EffectFailed, Event, RecordedEvent

SETTLE_AGAIN_SECONDS: Final = (0.1, 0.2, 0.5, 1.0)  # while Postgres is away; the outcome stays true meanwhile
MAX_ERROR_CHARACTERS: Final = 500

Ending: TypeAlias = Literal["withdrawn", "fenced", "stopped"]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What all attempts of a worker share; ``clock`` None is that of Postgres, ``chance`` returns [0, 1)."""

    pool: Pool
    chance: Callable[[], float]
    clock: Callable[[], datetime] | None

    def now(self) -> datetime | None:
        """Return what it is by an injected clock, None for that of Postgres."""
        return None if self.clock is None else self.clock()


class EndedError(Exception):
    """The attempt ends here without an outcome: ``ending`` says why."""

    def __init__(self, ending: Ending) -> None:
        """Keep why."""
        super().__init__(ending)
        self.ending = ending


class PostponedError(Exception):
    """The attempt ends here, and there will be another one."""

    def __init__(self, delay: Delay) -> None:
        """Keep when, and why."""
        super().__init__(delay.error)
        self.delay = delay


class Attempt:
    """A leased effect in the hands of its executor; run it once."""

    def __init__(self, tools: Tools, taken: Taken, executor: Executor, owner: AnyOwner, held_until: float) -> None:
        """``held_until`` is when the lease ends, by ``uptime`` and surely not later."""
        self.taken = taken
        self.kind = taken.effect.kind
        self.work = Work(
            effect=taken.effect,
            stream=taken.stream,
            attempt=taken.attempts + 1,
            intended_at=taken.intended_at,
            is_unknown=taken.is_unknown,
            fence=taken.fence,
            held_until=held_until,
        )
        self._tools = tools
        self._executor = executor
        self._owner = owner
        self._cause: RecordedEvent | None = None
        self._call: asyncio.Task[Event | None] | None = None
        self._ending: Ending | None = None
        self._has_begun = False
        self._log = log.bind(effect_id=str(taken.effect.effect_id), kind=self.kind, stream=taken.stream)

    def end(self, ending: Ending) -> None:
        """Make no further call, and cancel the one that is under way; an outcome that is there is settled."""
        if self._ending is None:
            self._ending = ending
            self.work.held_until = 0.0
            if self._call is not None:
                self._call.cancel()

    def hold_until(self, moment: float) -> None:
        """Note that the lease was renewed."""
        if self._ending is None:
            self.work.held_until = moment

    async def run(self) -> None:
        """Bring it to an outcome or put it off; whatever happens is logged and counted, nothing is raised."""
        try:
            await self._run()
        except database.OUTAGE as error:  # the lease runs out, and the next holder asks
            self._log.warning("effect_interrupted", error_type=type(error).__name__)
        except Exception:  # noqa: BLE001 - logged with its traceback; the lease runs out, and the next holder asks
            self._log.exception("effect_left")

    async def _run(self) -> None:
        started = uptime()
        try:
            news = await self._news()
            metrics.effect_seconds.labels(kind=self.kind).observe(uptime() - started)
            await self._settle(news)
        except PostponedError as postponed:
            await self._postpone(postponed.delay)
        except EndedError as ended:
            await self._end(ended.ending)

    async def _news(self) -> Event:
        """Return what became of the effect."""
        async with self._tools.pool.acquire() as conn:
            self._cause = await settling.find_intention(conn, self.taken.stream, self.taken.effect.effect_id)
        if self._cause is not None:
            self.work.intended_at = self._cause.recorded_at
            self.work.correlation_id = self._cause.correlation_id
        news = await self._asked() if self.taken.is_unknown else None
        if news is not None:
            self._log.info("effect_resolved")
            return news
        limit = self._executor.max_attempts
        if limit is not None and self.taken.attempts >= limit:
            return self._failure("gave_up", f"It was tried {self.taken.attempts} times.")
        await self._begin()
        return await self._performed()

    async def _asked(self) -> Event | None:
        return await self._answer(self._executor.resolve(self.work), is_asked=self._executor.can_ask)

    async def _begin(self) -> None:
        if self._ending is None:
            async with self._tools.pool.acquire() as conn:
                self._has_begun = await leasing.begin(conn, self.taken)
        if not self._has_begun:
            raise EndedError(self._ending or "fenced")

    async def _performed(self) -> Event:
        news = await self._answer(self._executor.perform(self.work))
        if news is None:
            raise TypeError(f"{type(self._executor).__name__}.perform returned no news")
        return news

    async def _answer(self, call: Coroutine[Any, Any, Event | None], *, is_asked: bool = True) -> Event | None:
        """Return what the executor says, and sort what it raises; ``is_asked``: it says what the other side answers."""
        try:
            news = await self._called(call)
        except (EndedError, PostponedError):
            raise
        except FencedError:
            raise EndedError(self._ending or "fenced") from None
        except RateLimitError as error:
            raise PostponedError(
                Delay(
                    seconds=error.retry_after_seconds,
                    error=str(error),
                    nothing_done=self._has_begun,
                    counts=False,
                )
            ) from None
        except IntegrationError as error:
            return await self._refusal(error)
        except Exception as error:  # noqa: BLE001 - a defect of the executor; it is told, and may be mended by a restart
            self._log.exception("effect_defective", attempt=self.work.attempt)
            return self._later(f"defect: {type(error).__name__}")
        if is_asked:
            await self._note_answer()
        return news

    async def _called(self, call: Coroutine[Any, Any, Event | None]) -> Event | None:
        """Run ``call`` in a task that ``end`` can cancel, within the bounds of the executor."""
        if self._ending is not None:
            call.close()
            raise EndedError(self._ending)
        self._call = asyncio.create_task(call)
        bounds = self._executor.timeout_seconds
        bound = asyncio.timeout(bounds)
        try:
            async with bound:
                return await self._call
        except asyncio.CancelledError:
            if self._ending is None or not self._call.cancelled():
                raise
            raise EndedError(self._ending) from None
        except TimeoutError:
            if not bound.expired():
                raise
            detail = f"did not end within {bounds:.0f} s"
            raise IntegrationError(detail, system=self.taken.effect.system, retryable=True) from None
        finally:
            self._call = None

    async def _refusal(self, error: IntegrationError) -> Event:
        """Return the failure that ``error`` means, or put the effect off."""
        if not error.retryable:
            await self._note_answer()
            return self._failure("refused", error.detail, was_unknown=not self._has_begun)
        # Whatever failed behind it, the effect's own system is what waits: the error may name it otherwise.
        async with self._tools.pool.acquire() as conn:
            await breaker.record_failure(conn, self.taken.effect.system, _cut(error.detail), now=self._tools.now())
        nothing_done = self._has_begun and error.nothing_done
        return self._later(error.detail, code="unreachable", nothing_done=nothing_done, is_outage=True)

    def _later(
        self, error: str, *, code: str = "gave_up", nothing_done: bool = False, is_outage: bool = False
    ) -> Event:
        limit = self._executor.max_attempts
        if self._has_begun and limit is not None and self.work.attempt >= limit:
            reason = f"It was tried {self.work.attempt} times; the last time: {error}"
            return self._failure(code, reason, was_unknown=not nothing_done)
        seconds = backoff.delay_seconds(self.taken.failures + 1, self._tools.chance())
        if self._has_begun and not nothing_done:
            seconds = max(seconds, self._executor.ask_after_seconds)
        raise PostponedError(Delay(seconds=seconds, error=error, nothing_done=nothing_done, is_outage=is_outage))

    def _failure(self, code: str, reason: str, *, was_unknown: bool = False) -> EffectFailed:
        return EffectFailed(
            effect_id=self.taken.effect.effect_id,
            kind=self.kind,
            code=code,
            reason=_cut(reason),
            was_unknown=was_unknown,
        )

    async def _note_answer(self) -> None:
        """Close the breaker if it was open; then nobody waits for the system any longer."""
        async with self._tools.pool.acquire() as conn:
            if await breaker.record_answer(conn, self.taken.effect.system):
                await leasing.hasten(conn, self.taken.effect.system)

    async def _settle(self, news: Event) -> None:
        """Record the outcome; while Postgres is away nobody else can, and it stays true."""
        effect = self.taken.effect
        if isinstance(news, EffectFailed):
            news = replace(news, effect_id=effect.effect_id, kind=effect.kind)
        try:
            settled = await self._settled(news)
        except Exception as error:
            self._log.exception("settle_failed")
            raise PostponedError(self._undecided(error)) from error
        metrics.effect_outcomes.labels(kind=self.kind, outcome=settled).inc()
        code = news.code if isinstance(news, EffectFailed) else None
        self._log.info("effect_settled", outcome=settled, attempt=self.work.attempt, code=code)

    async def _settled(self, news: Event) -> Settled:
        failures = 0
        while True:
            try:
                return await settling.settle(
                    self._tools.pool, self._owner, self.taken.stream, self.taken.effect, news,
                    cause=self._cause, at=self._tools.now(),
                )  # fmt: skip
            except database.OUTAGE as error:
                if not failures:
                    self._log.warning("settle_interrupted", error_type=type(error).__name__)
            await asyncio.sleep(SETTLE_AGAIN_SECONDS[min(failures, len(SETTLE_AGAIN_SECONDS) - 1)])
            failures += 1

    def _undecided(self, error: Exception) -> Delay:
        """Return when to settle again what the stream's owner cannot take: a poison event, a defect of its decider."""
        seconds = backoff.delay_seconds(self.taken.failures + 1, self._tools.chance())
        return Delay(
            seconds=seconds, error=f"its outcome cannot be recorded: {type(error).__name__}", nothing_done=False
        )

    async def _postpone(self, delay: Delay) -> None:
        delay = replace(delay, error=_cut(delay.error))
        async with self._tools.pool.acquire() as conn:
            await leasing.postpone(conn, self.taken, delay, now=self._tools.now())
        metrics.effect_outcomes.labels(kind=self.kind, outcome="postponed").inc()
        self._log.info(
            "effect_postponed", seconds=round(delay.seconds, 1), attempt=self.work.attempt, error=delay.error
        )

    async def _end(self, ending: Ending) -> None:
        """Give back what is still ours: what was begun is asked about by the next holder."""
        seconds = self._executor.ask_after_seconds if self._has_begun else 0.0
        async with self._tools.pool.acquire() as conn:
            await leasing.release(conn, self.taken, seconds=seconds, now=self._tools.now())
        metrics.effect_outcomes.labels(kind=self.kind, outcome=ending).inc()
        self._log.info("effect_ended", ending=ending, has_begun=self._has_begun)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ERROR_CHARACTERS else text[:MAX_ERROR_CHARACTERS] + "…"
