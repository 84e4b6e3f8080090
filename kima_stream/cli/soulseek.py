"""The Soulseek account of this process: stands by until the account is free, then owns it and does what others want.

Any number of processes may have it; one owns the account. The calls of jobs and searches are made while it does.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import msgspec

from consumers import acquisition, soulseek_calls
from kima_stream.cache import Cache, Copies
from kima_stream.cli import parts
from kima_stream.cli.loop import Role
from kima_stream.database import Pool
from kima_stream.effects import Worker
from kima_stream.integrations.musicbrainz import MusicBrainz
from kima_stream.integrations.soulseek import ownership, searching
from kima_stream.integrations.soulseek.acquisition import Acquisition
from kima_stream.integrations.soulseek.gate import Gate
from kima_stream.integrations.soulseek.ownership import Owner
from kima_stream.integrations.soulseek.searching import Searches
from kima_stream.locks import Locks
from kima_stream.settings import definitions
from kima_stream.settings.store import SettingsStore


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long another process waits for an owner that died, and a search for answers."""

    lease_seconds: float = ownership.LEASE_SECONDS
    search_seconds: float = searching.SEARCH_SECONDS


@asynccontextmanager
async def soulseek(  # what one process has for it
    dsn: str,
    connections: Pool,
    settings: SettingsStore,
    *,
    name: str,
    redis_url: str | None = None,
    wake_publisher: Callable[[], None] = lambda: None,
    pace: Pace | None = None,
) -> AsyncIterator[Role]:
    """Yield the role to run beside the others; without Redis the lease alone shows who owns the account.

    Args:
        dsn: of Postgres; the owner has connections of its own, so that no other work delays the proof of its lease.
        connections: for the gate, the plans and the effects.
        settings: followed by the caller.
        name: unlike that of any other process.
        redis_url: where the lock is shown.
        wake_publisher: told after something was recorded.
        pace: see there.
    """
    pace = pace or Pace()
    async with AsyncExitStack() as stack:
        locks = None if redis_url is None else await stack.enter_async_context(Locks(redis_url))
        own = await stack.enter_async_context(parts.pool(dsn, "soulseek", max_size=3))
        owner = Owner(own, settings, holder=name, locks=locks, lease_seconds=pace.lease_seconds)
        searches = Searches(Gate(connections), owner.client, seconds=pace.search_seconds)
        copies = await stack.enter_async_context(Copies(redis_url))
        fetching = Acquisition(connections, settings, searches, owner.client, copies=copies)
        outside = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        known = MusicBrainz(lambda: settings.current[definitions.MUSICBRAINZ_URL], Cache(copies), outside)
        calls = soulseek_calls.executors(connections, fetching, searches, settings.sources.roots, known.tracks_of)
        worker = Worker(
            connections,
            calls,
            acquisition.OWNERS,
            holder=f"{name} soulseek",
            wake=wake_publisher,
            lease_seconds=pace.lease_seconds,
        )
        owner.roles.append(worker.run)
        owner.on_round = fetching.slots.look
        yield owner.run
