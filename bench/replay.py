"""Reading the log: decode and fold in memory, and a whole rebuild into a table beside the live one."""

import time
from collections import defaultdict

from bench.house import House, connected
from bench.material import fill, number
from bench.report import Figure
from kima_stream import audit, event_store, projector, replay, upcasters
from kima_stream.events import RecordedEvent
from kima_stream.read_models.download_jobs import PROJECTION

EVENTS = 100_000


async def run(built: House) -> list[Figure]:
    """Fold what is in the log."""
    async with connected(built) as conn:
        await fill(conn, EVENTS)
        await number(conn)
        began = time.perf_counter()
        events: list[RecordedEvent] = []
        while chunk := await event_store.read_log(conn, after=len(events), limit=5_000):
            events += chunk
        reading = EVENTS / (time.perf_counter() - began)
        streams: dict[str, list[RecordedEvent]] = defaultdict(list)
        began = time.perf_counter()
        for event in events:
            streams[event.stream].append(event)
        for stream, news in streams.items():
            projector.fold(PROJECTION, projector.blank(PROJECTION, stream), news)
        folding = EVENTS / (time.perf_counter() - began)
        assert upcasters.decode(events[0])
        began = time.perf_counter()
        await replay.replay(conn, PROJECTION)
        rebuilding = EVENTS / (time.perf_counter() - began)
        began = time.perf_counter()
        verified = await audit.verify(conn)
        verifying = EVENTS / (time.perf_counter() - began)
        assert verified.checked == EVENTS
    return [
        Figure("read from the log per second", reading, "/s"),
        Figure("decoded and folded per second", folding, "/s", goal=">= 100,000"),
        Figure("rebuilt into a table per second", rebuilding, "/s", goal=">= 40,000"),
        Figure("verified per second", verifying, "/s"),
    ]
