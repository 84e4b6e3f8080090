"""Who owns the account: one process, under a lease that Postgres gives and a lock in Redis that shows it.

The library does not reconnect when the server closes the connection, so we do, with growing delays; never after a
kick, until somebody asks to connect. An owner that cannot prove its lease in time closes the connection by itself,
before another one can have it; what it writes is fenced all the same.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from kima_stream import cancellation, leases, locks, metrics
from kima_stream.database import OUTAGE, Pool
from kima_stream.effect_work import uptime
from kima_stream.errors import ConfigurationError, FencedError, IntegrationError
from kima_stream.integrations.soulseek import account, library, rules
from kima_stream.integrations.soulseek.account import Account, Said
from kima_stream.integrations.soulseek.rules import Credentials, Situation
from kima_stream.leases import Lease
from kima_stream.locks import Lock, Locks
from kima_stream.settings.store import SettingsStore

if TYPE_CHECKING:
    from kima_stream.integrations.soulseek.library.client import Client

LEASE_SECONDS: Final = 15.0
STANDBY_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.25
END_SECONDS: Final = 1.5
CONNECTED_SECONDS: Final = 20.0  # who needs the connection waits for one that is being made
STABLE_SECONDS: Final = 60.0  # a session that lasted so long was a good one: delays begin anew
_RENEWALS: Final = 5  # per lease
_GIVE_UP: Final = 0.6  # of the lease without a renewal, and the connection is closed

Role: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
log = structlog.get_logger(__name__)


class Owner:
    """Stands by until the account is free, then owns it until cancelled. Any process may run one."""

    def __init__(  # the parts of one process, then its bounds
        self,
        pool: Pool,
        settings: SettingsStore,
        *,
        holder: str,
        locks: Locks | None = None,
        roles: Sequence[Role] = (),
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """``roles`` run while this process owns the account; ``holder`` is unique among all processes."""
        self._pool = pool
        self._settings = settings
        self._holder = holder
        self._locks = locks
        self._lock: Lock | None = None
        self.roles = list(roles)
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._client: Client | None = None
        self._said: Said | None = None
        self._refused: tuple[Credentials, int] | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._connected_at = 0.0
        self._tried_at_ask = -1
        self.on_round: Callable[[], None] = lambda: None  # told often while this process is the owner

    async def client(self) -> "Client":
        """Return the connected client; one that is about to be is waited for.

        Raises:
            ConfigurationError: it is off, or the server refuses the login: a human must act.
            IntegrationError: there is none; may heal.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + CONNECTED_SECONDS
        while self._client is None or not self._client.is_connected:
            state = "standing by" if self._said is None else self._said.state
            if self._said is not None and state in {"off", "refused"}:
                raise ConfigurationError([self._said.detail or f"Soulseek is {state}"])
            if state not in {"connecting", "waiting"} or loop.time() > end:
                raise IntegrationError(f"not connected: {state}", system="soulseek", retryable=True, nothing_done=True)
            await asyncio.sleep(self._poll_seconds)
        return self._client

    async def run(self) -> None:
        """Run until cancelled; leaves in order, so that another need not wait for the lease to run out."""
        await self._settings.loaded()
        while True:
            cancellation.heed()
            try:
                async with self._pool.acquire() as conn:
                    lease = await account.take(conn, holder=self._holder, lease_seconds=self._lease_seconds)
                if lease is not None:
                    await self._own(lease)
            except FencedError:
                log.warning("soulseek_ownership_lost")
            except OUTAGE as error:
                log.warning("soulseek_ownership_interrupted", error_type=type(error).__name__)
            await asyncio.sleep(min(STANDBY_SECONDS, self._lease_seconds / _RENEWALS))

    async def _own(self, lease: Lease) -> None:
        log.info("soulseek_owned", epoch=lease.epoch)
        self._said = self._refused = None
        self._failures, self._retry_at, self._tried_at_ask = 0, 0.0, -1
        works = (self._keep(lease), self._serve(lease), *(role() for role in self.roles))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=END_SECONDS)  # what is fetched is laid down in order
            await self._hang_up()  # before the lease can be another's
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._give_back(lease)

    async def _give_back(self, lease: Lease) -> None:
        with suppress(*OUTAGE):
            async with asyncio.timeout(self._lease_seconds / _RENEWALS), self._pool.acquire() as conn:
                await leases.release(conn, lease)
        if self._lock is not None:
            with suppress(*locks.OUTAGE):
                await self._lock.release()

    async def _keep(self, lease: Lease) -> None:
        """Renew lease and lock; raise FencedError when the lease cannot be proved in time."""
        proved_at = uptime()
        while True:
            began_at = uptime()
            try:
                async with asyncio.timeout(self._lease_seconds / _RENEWALS), self._pool.acquire() as conn:
                    await leases.hold(conn, lease, seconds=self._lease_seconds)
                proved_at = began_at
            except OUTAGE as error:  # a time-out is one
                log.warning("soulseek_lease_not_renewed", error_type=type(error).__name__)
            if uptime() - proved_at > self._lease_seconds * _GIVE_UP:
                raise FencedError(lease=lease.name, epoch=lease.epoch)
            await self._keep_lock()
            await asyncio.sleep(self._lease_seconds / _RENEWALS)

    async def _keep_lock(self) -> None:
        """Show in Redis that the account is in use; what Redis says to it changes nothing."""
        if self._locks is None:
            return
        with suppress(*locks.OUTAGE):
            if self._lock is None or not await self._lock.renew():
                self._lock = await self._locks.acquire(account.LEASE) or await self._locks.take_over(account.LEASE)

    async def _serve(self, lease: Lease) -> None:
        while True:
            self.on_round()
            try:
                async with self._pool.acquire() as conn:
                    row = await account.read(conn)
                await self._step(lease, row)
            except OUTAGE as error:  # how long we may go on without Postgres is for the lease to say
                log.debug("soulseek_account_not_read", error_type=type(error).__name__)
            await self._wait()

    async def _wait(self) -> None:
        """Wait for the next round, or for the end of the session."""
        ended = self._client.ended.wait() if self._client is not None else asyncio.Event().wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds):
                await ended

    async def _step(self, lease: Lease, row: Account) -> None:
        if self._client is not None and self._client.ended.is_set():
            await self._lost(lease, row)
            return
        fault, configured = "", None
        try:
            configured = rules.credentials(self._settings.current)
        except ConfigurationError as error:
            fault = str(error)
        now = self._situation(row, configured)
        match rules.next_step(now):
            case "disconnect":
                await self._hang_up()
            case "connect":
                assert configured is not None  # noqa: S101 - there is nothing to connect as otherwise
                await self._connect(lease, row, configured)
            case "stay" if now.connected_as is not None:
                await self._say(lease, row, state="connected", username=now.connected_as.username)
            case "stay" if fault:
                await self._say(lease, row, state="refused", detail=fault)
            case "stay":
                await self._stay_away(lease, row, now)

    async def _stay_away(self, lease: Lease, row: Account, now: Situation) -> None:
        """Say why there is no connection; the detail is what was said when it came to that."""
        state = rules.idle_state(now)
        detail = {"off": "Soulseek is off in the settings.", "disconnected": "Somebody asked to disconnect."}.get(state)
        if detail is None:
            detail = self._said.detail if self._said is not None and self._said.state == state else row.detail
        await self._say(lease, row, state=state, detail=detail)

    def _situation(self, row: Account, configured: Credentials | None) -> Situation:
        return Situation(
            account=row,
            configured=configured,
            connected_as=self._client.credentials if self._client is not None and self._client.is_connected else None,
            refused=self._refused,
            is_waiting=asyncio.get_running_loop().time() < self._retry_at,
            tried_at_ask=self._tried_at_ask,
        )

    async def _connect(self, lease: Lease, row: Account, configured: Credentials) -> None:
        """Log in, once; the lease is proved just before."""
        await self._say(lease, row, state="connecting", is_answer=False)
        self._tried_at_ask = row.asked
        loop = asyncio.get_running_loop()
        try:
            if self._client is not None and self._client.credentials != configured:
                await self._hang_up()
            self._client = self._client or library.open_client(configured)
            await self._client.connect()
        except ConfigurationError as error:
            await self._hang_up()
            self._refused = (configured, row.asked)
            await self._say(lease, row, state="refused", detail=str(error))
        except IntegrationError as error:
            self._failures += 1
            delay = rules.delay_seconds(self._failures, random.random())  # noqa: S311 - spreads, hides nothing
            self._retry_at = loop.time() + delay
            log.warning("soulseek_not_connected", detail=error.detail, failures=self._failures, retry_seconds=delay)
            detail = f"{error.detail}; next try in {delay:.0f} s"
            await self._say(lease, row, state="waiting", detail=detail)
        else:
            self._connected_at = loop.time()
            metrics.soulseek_connection_status.set(1)
            log.info("soulseek_connected", username=configured.username)
            await self._say(lease, row, state="connected", username=configured.username)

    async def _lost(self, lease: Lease, row: Account) -> None:
        """The server ended the session: after a kick stay away, else come back after a while."""
        assert self._client is not None  # noqa: S101 - the caller looked
        metrics.soulseek_connection_status.set(0)
        loop = asyncio.get_running_loop()
        if self._client.was_kicked:
            await self._hang_up()
            log.warning("soulseek_kicked")
            detail = "Somebody else logged in with this account; POST /api/soulseek/connect takes it back."
            await self._say(lease, row, state="kicked", detail=detail, kicked_at_ask=row.asked)
            return
        if loop.time() - self._connected_at > STABLE_SECONDS:
            self._failures = 0
        self._failures += 1
        self._retry_at = loop.time() + rules.delay_seconds(self._failures, random.random())  # noqa: S311 - as above
        self._tried_at_ask = row.asked
        self._client.ended.clear()  # seen; without a session it is not connected all the same
        log.warning("soulseek_connection_lost", failures=self._failures)
        await self._say(lease, row, state="waiting", detail="the server closed the connection", is_answer=False)

    async def _say(
        self,
        lease: Lease,
        row: Account,
        *,
        state: account.State,
        detail: str = "",
        username: str | None = None,
        kicked_at_ask: int | None = None,
        is_answer: bool = True,
    ) -> None:
        answered = row.asked if is_answer else row.answered
        said = Said(state=state, answered=answered, detail=detail, username=username, kicked_at_ask=kicked_at_ask)
        if said == self._said and is_answer:
            return
        async with self._pool.acquire() as conn:
            await account.say(conn, lease, said, lease_seconds=self._lease_seconds)
        self._said = said

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        metrics.soulseek_connection_status.set(0)
        if client is not None:
            await client.close()
