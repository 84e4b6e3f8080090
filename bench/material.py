"""Events to measure with: download jobs as they are in the log, about 300 bytes each."""

from collections.abc import Iterator
from uuid import uuid4

from kima_stream import event_store
from kima_stream.database import Connection
from kima_stream.event_store import Append
from kima_stream.events import (
    Event,
    JobAttemptOpened,
    JobCompleted,
    JobGrabbed,
    JobImported,
    JobRequested,
    NewEvent,
    new_event,
)
from kima_stream.numbering import Numberer
from projections import correlation

BATCH = 500


def job(number: int) -> tuple[str, list[NewEvent]]:
    """Return the stream and the five events of one job from request to completion."""
    target = uuid4()
    job_id = correlation.job_id("bench", target)
    facts: list[Event] = [
        JobRequested(
            job_id=job_id, user_id="bench", artist="The Harbour Lights", album=f"Album {number}", target_mbid=target,
            target_is_derived=False, origin="user",
            correlation_id=str(job_id),
        ),
        JobAttemptOpened(attempt=1),
        JobGrabbed(
            download_id=target.hex, lidarr_instance="Lidarr", lidarr_album_id=number,
            release_title="The Harbour Lights-Tidewater-WEB-FLAC-2019-WEBGRP", indexer="MyIndexer (Prowlarr)",
            quality="FLAC", size_bytes=312_475_648,
        ),
        JobImported(
            download_id=target.hex, lidarr_instance="Lidarr", lidarr_album_id=number,
            track_file_ids=(number, number + 1, number + 2), tracks=3, is_upgrade=False,
        ),
        JobCompleted(reason="Lidarr imported 3 tracks."),
    ]  # fmt: skip
    return correlation.stream_of(job_id), [new_event(fact, source="bench") for fact in facts]


def batches(events: int) -> Iterator[list[Append]]:
    """Yield appends of whole jobs, BATCH events at a time, ``events`` in all."""
    for start in range(0, events, BATCH):
        yield [Append(*job(start + number)) for number in range(BATCH // 5)]


async def fill(conn: Connection, events: int) -> None:
    """Append ``events`` events."""
    for batch in batches(events):
        await event_store.insert(conn, batch)


async def number(conn: Connection) -> int:
    """Number all that was appended; return the head position."""
    numberer = Numberer(conn, holder="bench")
    await numberer.lead()
    while await numberer.number_once():
        pass
    await numberer.resign()
    return numberer.position or int(await conn.fetchval("SELECT max(position) FROM event_positions"))
