"""One file from one peer: asked for, watched, checked and kept, or a reason why not.

What counts is idleness, not how long it takes: a slow peer that sends is a good one. A peer that is away, does not
begin, stops, or offers another size than it advertised has failed; our own disk or connection failing is not its
fault.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from kima_stream import metrics
from kima_stream.errors import IntegrationError, KimaStreamError
from kima_stream.integrations.soulseek import files
from kima_stream.integrations.soulseek.files import DiskError
from kima_stream.integrations.soulseek.found import FoundFile

if TYPE_CHECKING:
    from kima_stream.integrations.soulseek.library.client import Client
    from kima_stream.integrations.soulseek.library.incoming import Incoming

MAX_RESUMES: Final = 5  # of one file from one peer
_NOT_SHARED: Final = "not shared"

log = structlog.get_logger(__name__)


class PeerError(KimaStreamError):
    """The peer failed us; try another one. ``reason`` is for people; its own words are in it, cleaned.

    ``is_blamed``: it counts against the peer. Not having the file any more does not.
    """

    def __init__(self, reason: str, *, is_blamed: bool = True) -> None:
        """Keep why."""
        super().__init__(reason)
        self.reason = reason
        self.is_blamed = is_blamed


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How long, in seconds, we wait for what: a first byte, the next one, one who is away; and how often we look."""

    start_seconds: float = 120.0
    idle_seconds: float = 60.0
    offline_seconds: float = 10.0
    look_seconds: float = 0.25


class Slots:
    """So many downloads at once as the settings say at that moment; who waits is served in turn."""

    def __init__(self, limit: Callable[[], int]) -> None:
        """``limit`` is asked each time."""
        self._limit = limit
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self._taken < self._limit() and not self._waiting:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()
            with suppress(ValueError):  # it may be let in and cancelled at the same moment
                self._waiting.remove(turn)
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self._release()

    def _release(self) -> None:
        self._taken -= 1
        self.look()

    def look(self) -> None:
        """Let in who may come; call it too when the limit may have changed."""
        while self._waiting and self._taken < self._limit():
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)


class Download(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be fetched and where it goes: ``relative`` to the folder ``root``, made of safe names."""

    wanted: FoundFile
    root: Path
    relative: PurePosixPath


async def fetch(
    client: "Client",
    download: Download,
    *,
    bounds: Bounds,
    check_lease: Callable[[], None] = lambda: None,
    report: Callable[[int], None] = lambda _: None,
) -> PurePosixPath:
    """Bring one file here and return where it is, relative to the root; one that is there is not fetched again.

    Args:
        client: connected.
        download: what and where to.
        bounds: how long to wait.
        check_lease: raises if this process may not go on; asked before the file gets its name.
        report: told how many bytes of it are here.

    Raises:
        PeerError: it did not come, or not as it was advertised.
        DiskError: our disk fails.
        IntegrationError: our connection is gone; what came so far stays for the next time.
    """
    began_at = perf_counter()
    status = "failed"
    try:
        place = await _fetch(client, download, bounds, check_lease, report)
        status = "success"
    except DiskError:
        status = "local"
        raise
    except (asyncio.CancelledError, IntegrationError):
        status = ""
        raise
    finally:
        if status:
            metrics.soulseek_downloads.labels(status=status).inc()
            metrics.soulseek_download_seconds.labels(status=status).observe(perf_counter() - began_at)
    return place


async def _fetch(
    client: "Client",
    download: Download,
    bounds: Bounds,
    check_lease: Callable[[], None],
    report: Callable[[int], None],
) -> PurePosixPath:
    wanted = download.wanted
    there = await asyncio.to_thread(files.find_complete, download.root, download.relative, wanted.size_bytes)
    if there is not None:
        return there
    partial = await asyncio.to_thread(files.adopt, download.root, download.relative, wanted)
    if await asyncio.to_thread(files.size_of, partial) < wanted.size_bytes:
        check_lease()
        incoming = await client.fetch(wanted.peer, wanted.path, partial)
        try:
            await _Watch(client, incoming, wanted, partial, bounds, report).until_here()
        finally:
            await incoming.end()
    size_bytes = await asyncio.to_thread(files.size_of, partial)
    if size_bytes != wanted.size_bytes:
        await asyncio.to_thread(files.discard, partial)
        raise PeerError(f"sent {size_bytes} bytes instead of {wanted.size_bytes}")
    check_lease()
    place = await asyncio.to_thread(files.keep, download.root, download.relative, partial)
    log.info("soulseek_file_kept", peer=wanted.peer, size_bytes=size_bytes)
    return place


class _Watch:
    """Follows one file until it is here or has failed."""

    def __init__(  # what one file is about
        self,
        client: "Client",
        incoming: "Incoming",
        wanted: FoundFile,
        partial: Path,
        bounds: Bounds,
        report: Callable[[int], None],
    ) -> None:
        self._client = client
        self._incoming = incoming
        self._wanted = wanted
        self._partial = partial
        self._bounds = bounds
        self._report = report
        self._received = 0
        self._resumes = 0
        self._was_receiving = False
        self._moved_at = self._left_at = asyncio.get_running_loop().time()

    async def until_here(self) -> None:
        while True:
            self._incoming.changed.clear()
            if self._client.is_closed:
                raise IntegrationError("the connection was closed", system="soulseek", retryable=True)
            await self._check_size()
            if self._incoming.phase == "complete":
                return
            if self._incoming.phase == "failed":
                await self._failed()
            self._check_time()
            try:
                async with asyncio.timeout(self._bounds.look_seconds):
                    await self._incoming.changed.wait()
            except TimeoutError:
                continue

    async def _check_size(self) -> None:
        offered = self._incoming.offered_bytes
        if offered is not None and offered != self._wanted.size_bytes:
            await self._incoming.end()
            await asyncio.to_thread(files.discard, self._partial)
            raise PeerError(f"offers {offered} bytes instead of {self._wanted.size_bytes}")

    async def _failed(self) -> None:
        """Ask once more if it was cut off in the middle, else give up."""
        if self._incoming.may_be_local:
            await asyncio.to_thread(files.check_writable, self._partial, self._wanted.size_bytes)
        if self._incoming.is_cut_off and self._resumes < MAX_RESUMES and self._incoming.received_bytes > 0:
            self._resumes += 1
            await asyncio.sleep(self._bounds.look_seconds * 2**self._resumes)
            await self._incoming.again()
            return
        reason = " ".join("".join(x if x.isprintable() else " " for x in self._incoming.reason).split())[:100]
        raise PeerError(f"refused: {reason or 'no reason given'}", is_blamed=_NOT_SHARED not in reason.lower())

    def _check_time(self) -> None:
        now = asyncio.get_running_loop().time()
        receiving = self._incoming.phase == "receiving"
        if receiving != self._was_receiving or self._incoming.received_bytes != self._received:
            self._was_receiving, self._received, self._moved_at = receiving, self._incoming.received_bytes, now
            self._report(self._received)
        if not self._client.is_offline(self._wanted.peer):
            self._left_at = now
        if receiving and now - self._moved_at > self._bounds.idle_seconds:
            raise PeerError(f"sent nothing for {self._bounds.idle_seconds:g} s")
        if not receiving and now - self._left_at > self._bounds.offline_seconds:
            raise PeerError("is offline")
        if not receiving and now - self._moved_at > self._bounds.start_seconds:
            place = self._incoming.place_in_queue
            queue = f", place {place} in its queue" if place else ""
            raise PeerError(f"did not begin within {self._bounds.start_seconds:g} s{queue}")
