"""The worker of one process: takes what is due of the kinds it can make, keeps the leases, ends in order.

As many processes as you like: a row has one holder. Three loops of pace: look for what is due, renew what is
held each second, count what waits.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from kima_stream import cancellation, database, metrics
from kima_stream.database import Pool
from kima_stream.effect_work import Executor, uptime
from kima_stream.effects import breaker, leasing, waiting
from kima_stream.effects.attempt import Attempt, Ending, Tools
from kima_stream.effects.leasing import Taken
from kima_stream.effects.settling import AnyOwner
from kima_stream.errors import ConfigurationError

LEASE_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 1.0  # so a withdrawn call ends within about that
LOOK_EVERY_SECONDS: Final = 0.5
COUNT_EVERY_SECONDS: Final = 5.0
SWEEP_EVERY_SECONDS: Final = 3_600.0
FORGET_AFTER_SECONDS: Final = 7 * 86_400.0  # leases of withdrawn effects
RELEASE_SECONDS: Final = 3.0  # to give the leases back when the process stops

_chance: Final = random.SystemRandom().random
log = structlog.get_logger(__name__)


class Worker:
    """Makes the calls of ``executors`` for the streams of ``owners``; ``holder`` is unique to this process."""

    def __init__(
        self,
        pool: Pool,
        executors: Sequence[Executor],
        owners: Sequence[AnyOwner],
        *,
        holder: str,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], datetime] | None = None,
        chance: Callable[[], float] = _chance,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Take nothing yet.

        Args:
            pool: two connections besides one per call that settles.
            executors: one per kind.
            owners: one per category.
            holder: see the class.
            lease_seconds: how long it may be silent before another takes over, by Postgres' clock.
            clock: for waiting only, in tests; None is Postgres' own.
            chance: [0, 1), spreads the waiting.
            wake: called when something was settled, e.g. the publisher's; it must not block.

        Raises:
            ConfigurationError: two executors of one kind.
        """
        self._executors = {executor.kind: executor for executor in executors}
        if len(self._executors) < len(executors):
            raise ConfigurationError(["two executors make effects of one kind"])
        self._owners = {owner.projection.category: owner for owner in owners}
        self._categories = sorted(self._owners)
        self._systems = sorted({kind.partition(".")[0] for kind in self._executors})
        self._tools = Tools(pool=pool, chance=chance, clock=clock)
        self._pool = pool
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._wake_others = wake
        self._running: dict[asyncio.Task[None], Attempt] = {}
        self._woken = asyncio.Event()
        self._is_draining = False

    async def run(self) -> None:
        """Work until cancelled; then calls that run are cancelled and their leases given back."""
        self._is_draining = False
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renew_always())
                group.create_task(self._look_always())
        finally:
            await self._stop()

    async def run_once(self) -> int:
        """Take what is due, bring it to its end, and return how many were taken."""
        taken = await self.look()
        renewing = asyncio.create_task(self._renew_always())
        try:
            if self._running:
                await asyncio.wait(self._running)
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
        return taken

    async def drain(self, seconds: float) -> None:
        """Take nothing new, and give what runs ``seconds`` to end by itself."""
        self._is_draining = True
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def look(self) -> int:
        """Lease what is due as far as there are slots, begin with it, and return how many there were."""
        busy = Counter(attempt.kind for attempt in self._running.values())
        wanted = {
            kind: executor.at_once - busy[kind]
            for kind, executor in self._executors.items()
            if executor.at_once > busy[kind]
        }
        if not wanted or self._is_draining:
            return 0
        asked = uptime()
        async with self._pool.acquire() as conn:
            taken = await self._take(conn, wanted)
        for each in taken:
            self._start(each, asked + self._lease_seconds)
        return len(taken)

    async def _take(self, conn: database.Connection, wanted: Mapping[str, int]) -> list[Taken]:
        states = await breaker.read(conn, self._systems, now=self._tools.now())
        closed = [found.system for found, state in states if state != "closed"]
        taken = await self._lease(conn, wanted, closed=closed)
        for system in (found.system for found, state in states if state == "half_open"):
            taken += await self._probe(conn, system, [kind for kind in wanted if kind.partition(".")[0] == system])
        return taken

    async def _probe(self, conn: database.Connection, system: str, kinds: Sequence[str]) -> list[Taken]:
        """Take one effect of a system that did not answer: of its kind the one that was tried longest ago."""
        now = self._tools.now()
        async with conn.transaction():
            if await breaker.lock_for_probe(conn, system, now=now):
                for kind in kinds:
                    if taken := await self._lease(conn, {kind: 1}, is_probe=True):
                        await breaker.record_probe(conn, system, now=now)
                        return taken
        return []

    async def _lease(
        self,
        conn: database.Connection,
        wanted: Mapping[str, int],
        *,
        closed: Sequence[str] = (),
        is_probe: bool = False,
    ) -> list[Taken]:
        return await leasing.take(
            conn,
            wanted,
            categories=self._categories,
            closed=closed,
            holder=self._holder,
            seconds=self._lease_seconds,
            now=self._tools.now(),
            is_probe=is_probe,
        )

    def _start(self, taken: Taken, held_until: float) -> None:
        owner = self._owners[taken.category]
        attempt = Attempt(self._tools, taken, self._executors[taken.effect.kind], owner, held_until)
        task = asyncio.create_task(attempt.run())
        self._running[task] = attempt
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._woken.set()  # its slot is free, and what it led to may be ours
        self._wake_others()

    async def _look_always(self) -> None:
        count_at = sweep_at = 0.0
        is_away = False
        while True:
            cancellation.heed()
            try:
                await self.look()
                if uptime() >= count_at:
                    await self._count()
                    count_at = uptime() + COUNT_EVERY_SECONDS
                if uptime() >= sweep_at:
                    async with self._pool.acquire() as conn:
                        await leasing.sweep(conn, older_than_seconds=FORGET_AFTER_SECONDS)
                    sweep_at = uptime() + SWEEP_EVERY_SECONDS
                is_away = False
            except database.OUTAGE as error:
                if not is_away:
                    log.warning("effects_interrupted", error_type=type(error).__name__)
                is_away = True
            except Exception:
                log.exception("look_failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_SECONDS):
                    await self._woken.wait()
            self._woken.clear()

    async def _renew_always(self) -> None:
        while True:
            cancellation.heed()
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                await self.renew()
            except database.OUTAGE:
                log.debug("renew_interrupted")  # told by the other loop; who cannot renew makes no further call
            except Exception:
                log.exception("renew_failed")

    async def renew(self) -> None:
        """Extend the leases that are held; end the calls that are not wanted any more, or not ours."""
        held = list(self._running.values())
        if not held:
            return
        asked = uptime()
        async with self._pool.acquire() as conn:
            found = await leasing.renew(
                conn, [(attempt.taken, attempt.work.progress) for attempt in held], seconds=self._lease_seconds
            )
        for attempt in held:
            lease = found[attempt.taken.effect.effect_id]
            if not lease.is_open:
                attempt.end("withdrawn")
            elif not lease.is_ours:
                attempt.end("fenced")
            else:
                attempt.hold_until(asked + self._lease_seconds)

    async def _count(self) -> None:
        async with self._pool.acquire() as conn:
            counts = await waiting.count_open(conn)
            breakers = {found.system: state for found, state in await breaker.read(conn)}
        for system in {*self._systems, *counts, *breakers}:
            metrics.effects_open.labels(system=system).set(counts.get(system, 0))
            metrics.breaker_open.labels(system=system).set(breakers.get(system, "closed") != "closed")

    async def _stop(self) -> None:
        """Cancel what runs and give it time to give its lease back, however often we are cancelled meanwhile."""
        self._end_all("stopped")
        deadline = uptime() + RELEASE_SECONDS
        while self._running and (left := deadline - uptime()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(self._running, timeout=left)
        for task in self._running:
            task.cancel()

    def _end_all(self, ending: Ending) -> None:
        for attempt in self._running.values():
            attempt.end(ending)
