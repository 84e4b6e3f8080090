"""The live feed: one reader of the log per process, shared by all who watch it.

A tailer asks Postgres for what was numbered since, once per tick, woken by commits of this process;
each event is written down once and handed to every reader that wants it. A reader that comes with
an older position reads what it missed by itself, in pages, and joins when it has caught up. One
that is too slow is cut; it can come back with the last position it saw, here or elsewhere.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Self

import asyncpg
import msgspec
import structlog

from kima_stream import database, metrics
from kima_stream.database import Pool
from kima_stream.errors import RateLimitError
from kima_stream.http import event_views
from kima_stream.http.event_views import Filter, Numbered

POLL_SECONDS: Final = 0.04  # what other processes number is seen within this
PAUSE_SECONDS: Final = 0.01  # between two queries at least: under load each brings several events
PAUSE_PER_READER_SECONDS: Final = 0.0005  # a write to each costs the door's own time: the more, the rarer
EAGER_TICKS: Final = 5  # after a commit here: its number comes within some milliseconds
OUTAGE_SECONDS: Final = 0.5
BEAT_SECONDS: Final = 1.0  # a reader without news looks this often whether anybody listens
MAX_READERS: Final = 200
MAX_WAITING_BYTES: Final = 1024 * 1024  # per reader, behind what the connection itself holds
PAGE_EVENTS: Final = 200
SPAN_POSITIONS: Final = 10_000  # looked through at once for a rare event
CATCHING_UP_AT_ONCE: Final = 2  # readers: the others wait, so that the door keeps its connections
RETRY_AFTER_SECONDS: Final = 5

_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")  # JSON has line ends between its values only
_EVERYTHING: Final = Filter()
OUTAGE: Final = (*database.OUTAGE, asyncpg.PostgresError)

log = structlog.get_logger(__name__)


class Reader:
    """One who watches; ``position`` is the newest that was handed over or did not concern it."""

    def __init__(self, which: Filter, position: int) -> None:
        """Hold nothing yet; the tailer passes a reader by until it is live."""
        self.which = which
        self.position = position
        self.is_live = False
        self.is_over = False
        self.when_cut: Callable[[], None] = lambda: None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()

    def offer(self, events: Sequence[Numbered], chunk: bytes) -> None:
        """Take ``chunk``, which says ``events``; a reader that holds too much already is over."""
        if events[0].position <= self.position:  # it came from ahead of us
            events = [event for event in events if event.position > self.position]
            chunk = b"".join(map(frame, events))
        if self.is_over or not events:
            return
        if self._waiting and self._size + len(chunk) > MAX_WAITING_BYTES:
            log.warning("live_reader_cut", position=self.position)
            self.end()
            self.when_cut()
            return
        self._waiting.append(chunk)
        self._size += len(chunk)
        self._news.set()

    def end(self) -> None:
        """Let the reader come to its end after what it holds."""
        self.is_over = True
        self._news.set()

    async def take(self) -> bytes:
        """Return what came since, as soon as something did, or nothing after BEAT_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT_SECONDS):
                await self._news.wait()
        if not self.is_over:
            self._news.clear()
        chunk = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        return chunk


class Feed:
    """The readers of this process and their tailer; use as a context manager."""

    def __init__(self, pool: Pool, *, max_readers: int = MAX_READERS) -> None:
        """Ask nothing as long as nobody reads."""
        self._pool = pool
        self._max_readers = max_readers
        self._readers: set[Reader] = set()
        self._position = -1
        self._eager = 0
        self._occupied = asyncio.Event()
        self._tailing = asyncio.Event()
        self._woken = asyncio.Event()
        self._turn = asyncio.Semaphore(CATCHING_UP_AT_ONCE)
        self._closed = False
        self._tailer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._tailer = asyncio.create_task(self._run(), name="live-feed")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
        if self._tailer is not None:
            self._tailer.cancel()
            with suppress(asyncio.CancelledError):
                await self._tailer

    def wake(self) -> None:
        """Look soon: something was committed."""
        self._woken.set()

    def close(self) -> None:
        """Let every reader come to its end, and take no more."""
        self._closed = True
        for reader in self._readers:
            reader.end()

    @contextmanager
    def reading(self, which: Filter, after: int | None) -> Iterator[Reader]:
        """Hold a place for a reader of what comes after position ``after``; None means: from now on.

        Raises:
            RateLimitError: there are too many; or the process is about to stop.
        """
        if self._closed or len(self._readers) >= self._max_readers:
            raise RateLimitError(retry_after_seconds=RETRY_AFTER_SECONDS)
        reader = Reader(which, -1 if after is None else after)
        self._readers.add(reader)
        self._occupied.set()
        metrics.live_readers.set(len(self._readers))
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            metrics.live_readers.set(len(self._readers))
            if not self._readers:
                self._occupied.clear()

    async def chunks(self, reader: Reader) -> AsyncGenerator[bytes, None]:
        """Yield what ``reader`` shall send, frames by position; an empty chunk is a beat of the heart.

        The first chunk says where it begins, so that a reader that is cut before its first event
        knows from where to go on.
        """
        while not self._tailing.is_set():
            if reader.is_over:
                return
            yield b""
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._tailing.wait()
        if reader.position < 0:
            reader.position = self._position
            reader.is_live = True
        yield b"retry: 1000\nid: %d\n\n" % reader.position
        while not reader.is_live and not reader.is_over:
            if reader.position >= self._position:
                reader.is_live = True  # nothing is awaited in between: the tailer hands over all that follows
                break
            until = min(reader.position + SPAN_POSITIONS, self._position)
            events = await self._missed(reader, until)
            reader.position = events[-1].position if events else until
            yield b"".join(map(frame, events))
        while True:
            chunk = await reader.take()
            if reader.is_over and not chunk:
                return
            yield chunk

    async def _missed(self, reader: Reader, until: int) -> list[Numbered]:
        async with self._turn, self._pool.acquire() as conn:
            return await event_views.read_log(conn, reader.which, after=reader.position, up_to=until, limit=PAGE_EVENTS)

    async def _run(self) -> None:
        while True:
            await self._occupied.wait()
            self._position = -1
            while self._readers:
                try:
                    await self._tick()
                except OUTAGE as error:
                    # The readers stay: what they wait for is in the log when Postgres is back.
                    log.warning("live_feed_interrupted", error_type=type(error).__name__)
                    await asyncio.sleep(OUTAGE_SECONDS)
            self._tailing.clear()

    async def _tick(self) -> None:
        async with self._pool.acquire() as conn:
            if self._position < 0:
                self._position = await event_views.read_head(conn)
                self._tailing.set()
            events = await event_views.read_log(conn, _EVERYTHING, after=self._position, up_to=2**63 - 1)
        pause = min(POLL_SECONDS, PAUSE_SECONDS + PAUSE_PER_READER_SECONDS * len(self._readers))
        if events:
            self._hand_over(events)
        elif self._eager:
            self._eager -= 1
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS - pause):
                    await self._woken.wait()
        if self._woken.is_set():
            self._woken.clear()
            self._eager = EAGER_TICKS
        await asyncio.sleep(pause)

    def _hand_over(self, events: Sequence[Numbered]) -> None:
        """Give the live readers what is theirs; those with the same filter share the same bytes."""
        self._position = events[-1].position
        readers: dict[Filter, list[Reader]] = {}
        for reader in self._readers:
            if reader.is_live:
                readers.setdefault(reader.which, []).append(reader)
        frames: dict[int, bytes] = {}
        for which, alike in readers.items():
            admitted = [event for event in events if which.admits(event)]
            for event in admitted:
                if event.position not in frames:
                    frames[event.position] = frame(event)
            chunk = b"".join(frames[event.position] for event in admitted)
            for reader in alike:
                if admitted:
                    reader.offer(admitted, chunk)
                reader.position = max(reader.position, self._position)


def frame(event: Numbered) -> bytes:
    """Return ``event`` as a server-sent event: its position as the id, its JSON on one line."""
    return b"id: %d\ndata: %b\n\n" % (event.position, msgspec.json.encode(event).translate(_ONE_LINE))
