"""Decode and fold in memory against decoding alone, and a whole rebuild into a table against reading the log."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bench.house import House, connected
from bench.material import fill, number
from bench.report import Figure
from bench.rounds import interleaved
from kima_stream import audit, event_store, projector, replay
from kima_stream.database import Connection
from kima_stream.events import RecordedEvent
from kima_stream.read_models.download_jobs import PROJECTION

EVENTS = 50_000


async def run(built: House) -> list[Figure]:
    """Fold what is in the log, again and again."""
    async with connected(built) as conn, connected(built) as reader:
        await fill(conn, EVENTS)
        await number(conn)
        events = await _read(conn)
        paces = await interleaved(
            {
                "folding": _ready(lambda: _fold(events)),
                "decoding": _ready(lambda: _decode(events)),
                "rebuilding": _ready(lambda: _rebuild(conn, reader)),
                "reading": _ready(lambda: _read_all(conn)),
                "verifying": _ready(lambda: _verify(conn)),
            }
        )
    rate = {name: pace.per_second for name, pace in paces.items()}
    return [
        Figure("decoded and folded per second", rate["folding"], "/s", goal=">= 100,000"),
        Figure("  of decoding to dictionaries", rate["folding"] / rate["decoding"], "x"),
        Figure("  of a core, here", paces["folding"].cpu_us, "µs each"),
        Figure("rebuilt into a table per second", rate["rebuilding"], "/s", goal=">= 40,000"),
        Figure("  of reading the log", rate["rebuilding"] / rate["reading"], "x"),
        Figure("  of a core, here", paces["rebuilding"].cpu_us, "µs each"),
        Figure("read from the log per second", rate["reading"], "/s"),
        Figure("verified per second", rate["verifying"], "/s"),
    ]


def _ready(work: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[Callable[[], Awaitable[int]]]]:
    async def get_ready() -> Callable[[], Awaitable[int]]:
        return work

    return get_ready


async def _read(conn: Connection) -> list[RecordedEvent]:
    events: list[RecordedEvent] = []
    while chunk := await event_store.read_log(conn, after=len(events), limit=5_000):
        events += chunk
    return events


async def _read_all(conn: Connection) -> int:
    return len(await _read(conn))


async def _fold(events: list[RecordedEvent]) -> int:
    streams: dict[str, list[RecordedEvent]] = defaultdict(list)
    for event in events:
        streams[event.stream].append(event)
    for stream, news in streams.items():
        projector.fold(PROJECTION, projector.blank(PROJECTION, stream), news)
    return len(events)


async def _decode(events: list[RecordedEvent]) -> int:
    decoder = msgspec.json.Decoder(dict[str, Any])
    for event in events:
        decoder.decode(event.data)
    return len(events)


async def _rebuild(conn: Connection, reader: Connection) -> int:
    return (await replay.replay(conn, PROJECTION, reader=reader)).events


async def _verify(conn: Connection) -> int:
    verified = await audit.verify(conn)
    assert verified.checked == EVENTS
    return verified.checked
