"""The parts that call and look at the outside: who makes the calls that states want, and who looks at Lidarr."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from consumers import acquisition
from consumers.reconcilers import search_ends
from consumers.reconcilers.lidarr_watch import LidarrWatch, Looked
from kima_stream.cli.loop import together
from kima_stream.database import Pool
from kima_stream.effects import AnyOwner, Executor, Worker
from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.integrations import lidarr
from kima_stream.settings.store import SettingsStore

CALLS: Final = "acquisition"  # what ``consume`` calls this part, as if it were a group
DRAIN_SECONDS: Final = 3.0  # for calls under way when the process stops; longer ones are asked about later
CONNECTIONS: Final = 8  # of the pool, for calls and looks


@asynccontextmanager
async def calls(
    connections: Pool, store: SettingsStore, *, name: str, wake_publisher: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """Make the calls that jobs, notifications and searches want."""
    async with (
        lidarr.session() as opened,
        effect_worker(
            connections,
            acquisition.executors(connections, store, opened),
            acquisition.OWNERS,
            name=name,
            wake_publisher=wake_publisher,
        ),
    ):
        yield


@asynccontextmanager
async def effect_worker(
    connections: Pool,
    executors: Sequence[Executor],
    owners: Sequence[AnyOwner],
    *,
    name: str,
    wake_publisher: Callable[[], None] = lambda: None,
) -> AsyncIterator[Worker]:
    """Make the calls that the owners' states want; leaving takes no new ones and lets those under way end for a while.

    What has not ended by then is cancelled, and asked about by the next worker.

    Raises:
        ConfigurationError: two executors of one kind.
    """
    worker = Worker(connections, executors, owners, holder=name, wake=wake_publisher)
    async with together(worker.run):
        try:
            yield worker
        finally:
            await worker.drain(DRAIN_SECONDS)


@asynccontextmanager
async def looks(connections: Pool, store: SettingsStore, *, name: str) -> AsyncIterator[None]:
    """Look at what nobody tells, and end what is over."""
    async with lidarr.session() as opened:
        watch = LidarrWatch(connections, store, opened, holder=name)
        async with together(watch.run, partial(search_ends.keep_ending, connections)):
            yield


async def look_once(connections: Pool, store: SettingsStore) -> Looked | str:
    """Look at Lidarr once and return what was new, or why it could not be looked at."""
    async with lidarr.session() as opened:
        try:
            return await LidarrWatch(connections, store, opened, holder="once").look_once()
        except (IntegrationError, ConfigurationError) as error:
            return str(error)
