"""The Soulseek account of this process: stands by until the account is free, then owns it and does what others want.

Any number of processes may have it; one owns the account. The calls of jobs and searches are made while it does.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from consumers import soulseek_calls
from consumers.soulseek_calls import QueryOf
from kima_stream.cache import Copies
from kima_stream.cli.loop import Role
from kima_stream.database import Pool
from kima_stream.effects import AnyOwner, Worker
from kima_stream.integrations.soulseek import ownership, searching
from kima_stream.integrations.soulseek.acquisition import Acquisition
from kima_stream.integrations.soulseek.gate import Gate
from kima_stream.integrations.soulseek.ownership import Owner
from kima_stream.integrations.soulseek.searching import Searches
from kima_stream.locks import Locks
from kima_stream.settings.store import SettingsStore


@asynccontextmanager
async def soulseek(  # what one process has for it
    connections: Pool,
    settings: SettingsStore,
    owners: Sequence[AnyOwner],
    *,
    name: str,
    redis_url: str | None = None,
    query_of: QueryOf = soulseek_calls.plain_query,
    wake_publisher: Callable[[], None] = lambda: None,
    lease_seconds: float = ownership.LEASE_SECONDS,
    search_seconds: float = searching.SEARCH_SECONDS,
) -> AsyncIterator[Role]:
    """Yield the role to run beside the others; without Redis the lease alone shows who owns the account.

    Args:
        connections: for the owner's rows, the gate and the effects.
        settings: followed by the caller.
        owners: of the categories that want calls to Soulseek.
        name: unlike that of any other process.
        redis_url: where the lock is shown.
        query_of: opens what somebody typed.
        wake_publisher: told after something was recorded.
        lease_seconds: of the account and of each call: so long another process waits for one that died.
        search_seconds: so long a search waits for answers.
    """
    async with AsyncExitStack() as stack:
        locks = None if redis_url is None else await stack.enter_async_context(Locks(redis_url))
        owner = Owner(connections, settings, holder=name, locks=locks, lease_seconds=lease_seconds)
        searches = Searches(Gate(connections), owner.client, seconds=search_seconds)
        copies = await stack.enter_async_context(Copies(redis_url))
        acquisition = Acquisition(connections, settings, searches, owner.client, copies=copies)
        calls = soulseek_calls.executors(connections, acquisition, searches, query_of=query_of)
        worker = Worker(connections, calls, owners, holder=name, wake=wake_publisher, lease_seconds=lease_seconds)
        owner.roles.append(worker.run)
        owner.on_round = acquisition.slots.look
        yield owner.run
