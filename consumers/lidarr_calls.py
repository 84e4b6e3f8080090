"""The calls that download jobs want of Lidarr. Each asks before it acts, so doing it again does no harm.

What Lidarr says later, it says by webhook, or ``reconcilers.lidarr_watch`` sees it. An outage fails no
job here: the call is made again until the job's own deadline ends the wish for it.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final

import aiohttp

from kima_stream import correlation_keys
from kima_stream.database import Connection, Pool
from kima_stream.effect_work import Executor, MayRepeat, Work
from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.events import (
    Event,
    JobAddedToLidarr,
    JobDownloadBlocked,
    JobDownloadRemoved,
    JobGrabbed,
    JobScanRequested,
    JobSearched,
)
from kima_stream.integrations.lidarr import Lidarr
from kima_stream.integrations.lidarr_albums import Choice, HiddenAlbumError, NotFoundAtLidarrError, Wanted, ensure_album
from kima_stream.integrations.lidarr_searches import search_album
from kima_stream.integrations.lidarr_types import QueueItem
from kima_stream.read_models import album_wishes, download_jobs
from kima_stream.settings import callbacks, definitions
from kima_stream.settings.callbacks import CallbackRefusedError
from kima_stream.settings.store import SettingsStore
from projections.correlation import derived_target
from projections.download_job import DownloadJob

ADD_SECONDS: Final = 360.0  # two refreshes of an artist, and what is around them
SEARCH_SECONDS: Final = 330.0  # all indexers, and what is around them
MISFIT_TRIES: Final = 8  # some minutes, by the pauses in between
SYSTEM: Final = "lidarr"
_COMING: Final = frozenset({"downloading", "importPending", "importing"})
_OFF: Final = "Lidarr is switched off in the settings."
_WANTED: Final = "Another job wants the album by now."
_GOES_ON: Final = "Nothing: the download goes on for others."
_MEND: Final = "An admin mends the settings; then ask again."


class LidarrCall(MayRepeat):
    """One kind of call: finds the job and the Lidarr of the settings, and says failures in our words."""

    def __init__(self, pool: Pool, settings: SettingsStore, connections: aiohttp.ClientSession) -> None:
        """Take what every call needs; nothing is asked yet."""
        self._pool = pool
        self._settings = settings
        self._connections = connections

    @abstractmethod
    async def ask(self, lidarr: Lidarr, job: DownloadJob, work: Work) -> Event:
        """Make the call and return the news."""

    async def perform(self, work: Work) -> Event:
        """Make the call for the job that wants it."""
        current = await self._settings.loaded()
        async with self._pool.acquire() as conn:
            row = await download_jobs.TABLE.find(conn, work.stream)
        if row is None:
            return work.failure("not_found", "The job is gone.")
        try:
            if not current.is_on(definitions.LIDARR_ENABLED):
                return work.failure("refused", _OFF, _MEND)
            lidarr = Lidarr.of(current, self._connections)
            lidarr.transport.before_change = work.check_lease
            return await self.ask(lidarr, row.state, work)
        except NotFoundAtLidarrError as error:
            return work.failure("not_found", str(error), "Give the album's MBID, or look for it in Lidarr.")
        except HiddenAlbumError as error:
            return work.failure("refused", str(error))
        except ConfigurationError as error:
            # What stands before Lidarr while it is serviced looks like this too: it is asked some more.
            if work.attempt < MISFIT_TRIES:
                raise IntegrationError(str(error), system=SYSTEM, retryable=True) from None
            return work.failure("refused", str(error), _MEND)


class Add(LidarrCall):
    """Sees that artist and album are in Lidarr, and that the album is watched."""

    kind = "lidarr.add"
    timeout_seconds = ADD_SECONDS

    async def ask(self, lidarr: Lidarr, job: DownloadJob, work: Work) -> Event:  # noqa: ARG002 - the class' shape
        """Add what is missing."""
        current = self._settings.current
        target = derived_target(job.artist, job.album)
        added = await ensure_album(
            lidarr,
            Wanted(artist=job.artist, title=job.album, mbid=None if job.target_is_derived else str(job.target_mbid)),
            lambda artist, title: derived_target(artist, title) == target,
            choice=Choice(
                quality_profile_id=current[definitions.LIDARR_QUALITY_PROFILE_ID],
                metadata_profile_id=current[definitions.LIDARR_METADATA_PROFILE_ID],
            ),
        )
        return JobAddedToLidarr(
            lidarr_instance=added.instance,
            lidarr_album_id=added.album_id,
            tracks_total=added.tracks_total,
            tracks_present=added.tracks_present,
        )


class Search(LidarrCall):
    """Lets Lidarr search for the album, once, and follows the search to its end."""

    kind = "lidarr.search"
    timeout_seconds = SEARCH_SECONDS

    async def ask(self, lidarr: Lidarr, job: DownloadJob, work: Work) -> Event:
        """Search, unless a release is on its way already: somebody else wants the album too."""
        instance = (await lidarr.status()).instance_name
        ids = [each.album_id for each in job.lidarr_albums if each.instance == instance]
        if not ids:
            return work.failure("not_found", f"{instance} does not have the album.", _MEND)
        if (coming := _coming(await lidarr.queue_of([ids[-1]]))) is not None:
            return JobGrabbed(
                download_id=coming.download_id,
                lidarr_instance=instance,
                lidarr_album_id=ids[-1],
                release_title=coming.title or None,
                indexer=coming.indexer,
                size_bytes=int(coming.size) or None,
            )
        # Only an attempt before this one can have begun a search: a user who tries again at once gets a new one.
        since = work.intended_at if work.attempt > 1 else None
        searched = await search_album(lidarr, ids[-1], since)
        return JobSearched(source="lidarr", found=searched.found)


class Remove(LidarrCall):
    """Takes a download out of Lidarr's queue and out of the client: nobody wants it any more."""

    kind = "lidarr.remove"

    async def ask(self, lidarr: Lidarr, job: DownloadJob, work: Work) -> Event:
        """Remove it, if it is there and nobody has asked for the album while Lidarr was away."""
        download_id = work.effect.target or ""
        lines = [item for item in await lidarr.queue() if item.download_id == download_id]
        if lines and await self._is_wanted_elsewhere(job, work.stream):
            return work.failure("refused", _WANTED, _GOES_ON)
        if lines:  # one stands for all of them
            await lidarr.remove_from_queue(lines[0].id, skip_redownload=True)
        return JobDownloadRemoved(download_id=download_id)

    async def _is_wanted_elsewhere(self, job: DownloadJob, stream: str) -> bool:
        async with self._pool.acquire() as conn, conn.transaction():
            found = await correlation_keys.lock(conn, album_wishes.keys_of_job(job))
            return await album_wishes.is_wanted_elsewhere(conn, job, stream, found)


class Block(LidarrCall):
    """Lets Lidarr forget a release that could not be imported, and take another one."""

    kind = "lidarr.blocklist"

    async def ask(self, lidarr: Lidarr, job: DownloadJob, work: Work) -> Event:  # noqa: ARG002 - the class' shape
        """Block it, if it is still in the queue; if not, it was blocked, or somebody has removed it."""
        download_id = work.effect.target or ""
        lines = [item for item in await lidarr.queue() if item.download_id == download_id]
        if lines:
            await lidarr.remove_from_queue(lines[0].id, blocklist=True)
        return JobDownloadBlocked(download_id=download_id)


class Scan(MayRepeat):
    """Tells Lidarr, and the music server if its address is set, that there are new files."""

    kind = "library.scan"

    def __init__(self, settings: SettingsStore, connections: aiohttp.ClientSession) -> None:
        """Tell nobody yet."""
        self._settings = settings
        self._connections = connections

    async def perform(self, work: Work) -> Event:
        """Tell whoever is set up."""
        current = await self._settings.loaded()
        address = current[definitions.LIBRARY_SCAN_URL]
        try:
            if current.is_on(definitions.LIDARR_ENABLED):
                await Lidarr.of(current, self._connections).start("RescanFolders")
            elif address is None:
                return work.failure("refused", "Neither Lidarr nor libraryScanUrl is set up.", _MEND)
            if address is not None:
                await callbacks.post_to(address, b"", {})
        except (ConfigurationError, CallbackRefusedError) as error:
            return work.failure("refused", str(error), _MEND)
        return JobScanRequested()


def executors(pool: Pool, settings: SettingsStore, connections: aiohttp.ClientSession) -> list[Executor]:
    """Return the calls; none needs to be in one process only."""
    calls = [kind(pool, settings, connections) for kind in (Add, Search, Remove, Block)]
    return [*calls, Scan(settings, connections)]


def _coming(queue: Sequence[QueueItem]) -> QueueItem | None:
    """Return a download that may still bring the album."""
    return next((item for item in queue if item.download_id and item.tracked_download_state in _COMING), None)


async def prepare(conn: Connection, stream: str, news: Event) -> None:
    """Let what Lidarr says of album and download from now on find the job; before the job's row is locked."""
    if isinstance(news, JobAddedToLidarr | JobGrabbed):
        keys = [correlation_keys.of_lidarr_album(news.lidarr_instance, news.lidarr_album_id)]
        if isinstance(news, JobGrabbed) and news.download_id:
            keys.append(correlation_keys.of_download(news.download_id))
        known = await correlation_keys.lock(conn, keys)
        await correlation_keys.add(conn, stream, keys, known=known)
