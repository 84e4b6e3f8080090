"""An album or a single file, from the search to the library's folder: the owner's work for a job.

The plan is kept before the first byte, so a crash costs neither a search nor what is here already. Peers are tried
one after the other, each for what is still missing; a peer that fails too often is left at once, and the whole has
an end: so many folders, so many searches, no more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import structlog

from kima_stream.cache import Copies
from kima_stream.database import Pool
from kima_stream.errors import ConfigurationError, KimaStreamError
from kima_stream.integrations.soulseek import downloads, files, names, peers, plans, queries, ranking
from kima_stream.integrations.soulseek.album_work import Acquired, Album, AlbumWork, Hand, Kept, Place
from kima_stream.integrations.soulseek.downloads import Bounds, Download, PeerError, Slots
from kima_stream.integrations.soulseek.found import FoundFile
from kima_stream.integrations.soulseek.plans import Plan
from kima_stream.integrations.soulseek.ranking import Candidate
from kima_stream.integrations.soulseek.searching import Searches
from kima_stream.settings import definitions
from kima_stream.settings.store import SettingsStore

if TYPE_CHECKING:
    from kima_stream.integrations.soulseek.library.client import Client

MAX_TRACK_SEARCHES: Final = 5  # of one album: the gate is everybody's
MAX_TRACK_PEERS: Final = 3

log = structlog.get_logger(__name__)


class NothingFoundError(KimaStreamError):
    """Nobody has it, or nobody who is not blocked."""


class Acquisition:
    """Brings albums here. One per owner; albums of one folder come one after the other."""

    def __init__(
        self,
        pool: Pool,
        settings: SettingsStore,
        searches: Searches,
        client: Callable[[], Awaitable["Client"]],
        *,
        bounds: Bounds | None = None,
        copies: Copies | None = None,
    ) -> None:
        """``client`` returns the connected one or raises; ``copies`` show in Redis who is blocked."""
        self._pool = pool
        self._settings = settings
        self._searches = searches
        self._client = client
        self._bounds = bounds or Bounds()
        self._copies = copies or Copies()
        self.slots = Slots(lambda: settings.current[definitions.SOULSEEK_CONCURRENT_DOWNLOADS])
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}

    def root(self) -> Path:
        """Return the folder that everything goes to.

        Raises:
            ConfigurationError: nobody said which.
        """
        current = self._settings.current
        folder = current[definitions.SOULSEEK_DOWNLOAD_PATH] or current[definitions.MUSIC_PATH]
        if folder is None:
            raise ConfigurationError([f"{definitions.MUSIC_PATH.key}: missing; Soulseek's files need a folder"])
        return Path(folder)

    async def album(self, album: Album, hand: Hand) -> Acquired:
        """Bring an album here, as much of it as there is.

        Raises:
            NothingFoundError: nobody has it.
            DiskError: our disk fails.
            ConfigurationError: a setting is missing.
            RateLimitError: the gate is full; later.
            IntegrationError: not connected, or no more; what is here stays, go on later.
        """
        root, folder = self.root(), names.album_folder(album.artist, album.title)
        async with self._alone(str(folder)):
            async with self._pool.acquire() as conn:
                plan = await plans.find(conn, folder)
            if plan is None:
                plan = await self._planned(album, folder, hand)
            work = AlbumWork(self.fetch, album, plan, Place(root, folder), hand)
            await work.find_what_is_here()
            for candidate in plan.candidates:
                if candidate.peer not in await self.blocked():  # of a plan that was kept, and of this very album
                    await work.take_from(candidate)
            if work.is_begun or album.tracks:  # else a search per track would find the same that failed
                for key in work.missing()[:MAX_TRACK_SEARCHES]:
                    await self._track(work, key)
            return await self._ended(work, root, folder)

    async def file(self, wanted: FoundFile, folder: PurePosixPath, hand: Hand) -> Acquired:
        """Bring one file that somebody chose into ``folder``, made of safe names; errors as above, and PeerError."""
        root = self.root()
        async with self._alone(str(folder)):
            async with self._pool.acquire() as conn:
                if await plans.find(conn, folder) is None:
                    await plans.close(conn, folder)  # its partial file is not to be there for ever
            place = await self.fetch(wanted, root, folder / names.safe(wanted.name), hand, lambda _: None)
        kept = Kept(path=str(place), size_bytes=wanted.size_bytes, peer=wanted.peer)
        return Acquired(files=(kept,), tracks_wanted=1, peers=(wanted.peer,))

    async def is_here(self, album: Album) -> Acquired | None:
        """Return what there is of an album if it is complete by the plan that is kept; asks nobody."""
        root, folder = self.root(), names.album_folder(album.artist, album.title)
        async with self._pool.acquire() as conn:
            plan = await plans.find(conn, folder)
        if plan is None:
            return None
        work = AlbumWork(self.fetch, album, plan, Place(root, folder), Hand(asker=""))
        await work.find_what_is_here()
        return None if work.missing() else work.result()

    async def fetch(
        self, wanted: FoundFile, root: Path, relative: PurePosixPath, hand: Hand, report: Callable[[int], None]
    ) -> PurePosixPath:
        """Fetch one file in its turn and remember how its peer did."""
        async with self._alone(f"{wanted.peer}\0{wanted.path}"), self.slots:
            client = await self._client()
            try:
                place = await downloads.fetch(
                    client,
                    Download(wanted=wanted, root=root, relative=relative),
                    bounds=self._bounds,
                    check_lease=hand.check_lease,
                    report=report,
                )
            except PeerError as error:
                log.info("soulseek_peer_failed", peer=wanted.peer, reason=error.reason)
                if error.is_blamed:
                    await self._blame(wanted.peer, error.reason)
                raise
        async with self._pool.acquire() as conn:
            was_blocked = await peers.succeeded(conn, wanted.peer)
        if was_blocked:
            await self._copies.drop(peers.copy_key(wanted.peer))
        return place

    async def _blame(self, peer: str, reason: str) -> None:
        async with self._pool.acquire() as conn:
            is_blocked = await peers.failed(conn, peer, reason)
        if is_blocked:
            await self._copies.put(peers.copy_key(peer), reason.encode(), seconds=round(peers.BLOCK_SECONDS))

    async def blocked(self) -> frozenset[str]:
        """Return the peers to leave alone."""
        async with self._pool.acquire() as conn:
            return await peers.blocked(conn)

    async def _planned(self, album: Album, folder: PurePosixPath, hand: Hand) -> Plan:
        blocked = await self.blocked()
        candidates: list[Candidate] = []
        for query in queries.album_queries(album.artist, album.title):
            hand.report(f"searching for {query!r}", 0, 0)
            candidates = ranking.rank_albums(
                await self._search(query, hand),
                artist=album.artist,
                album=album.title,
                tracks=album.tracks,
                blocked=blocked,
            )
            if candidates:
                break
        keys = [ranking.track_key(title, album.artist, album.title) for title in album.tracks]
        plan = Plan(tracks=tuple(keys or (candidates[0].tracks if candidates else ())), candidates=tuple(candidates))
        if not plan.tracks:
            raise NothingFoundError(f"nobody on Soulseek offers {album.artist} - {album.title}")
        async with self._pool.acquire() as conn:
            await plans.save(conn, folder, plan)
            old = await plans.forget_old(conn)
        for each in old:
            await asyncio.to_thread(files.discard_all, self.root() / each)
        return plan

    async def _search(self, query: str, hand: Hand) -> list[FoundFile]:
        found: list[FoundFile] = []
        async with aclosing(self._searches.search(query, asker=hand.asker)) as answers:
            async for some in answers:
                found += some
        return found

    async def _track(self, work: AlbumWork, key: str) -> None:
        """Look for a track by itself, where no folder had it."""
        album, title = work.album, work.title_of(key)
        query = next(iter(queries.track_queries(album.artist, title, album.title)), None)
        if query is None:
            return
        found = ranking.rank_tracks(
            await self._search(query, work.hand),
            artist=album.artist,
            title=title,
            album=album.title,
            blocked=await self.blocked() | work.failed,
            limit=MAX_TRACK_PEERS,
        )
        for file in found:
            if await work.take(key, file):
                return

    async def _ended(self, work: AlbumWork, root: Path, folder: PurePosixPath) -> Acquired:
        result = work.result()
        if work.missing():
            async with self._pool.acquire() as conn:
                await plans.close(conn, folder)  # another time, other peers
        else:
            await asyncio.to_thread(files.discard_all, root / folder)
        return result

    @asynccontextmanager
    async def _alone(self, folder: str) -> AsyncIterator[None]:
        """Let in one at a time: two jobs of one album do not fetch it twice."""
        lock, users = self._busy.get(folder, (asyncio.Lock(), 0))
        self._busy[folder] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._busy[folder]
            if users == 1:
                del self._busy[folder]
            else:
                self._busy[folder] = (lock, users - 1)
