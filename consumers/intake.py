"""What was received from Lidarr becomes facts of download jobs.

A batch is one unit of work: lock the keys and the rows of everything that it may move, decide in
memory (``intake_desk``), append and save at once; the number of statements does not grow with the
batch. Ids derive from the webhook's event, so that handling it twice is harmless.

Locks, always in this order: keys by name, rows by stream. The row of a job that is not there needs
no lock: whoever may open it holds a key of its album.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog

from consumers import lidarr_news, lidarr_seen
from consumers.intake_desk import JOBS, UNMATCHED, Desk, Found, still_waiting
from consumers.news import Moved, News
from kima_stream import correlation_keys, event_store, projector, reaction
from kima_stream.database import Connection
from kima_stream.errors import DuplicateEventError, TornAppendError
from kima_stream.event_store import Append
from kima_stream.events import NO_STREAM, RecordedEvent, stream_category
from kima_stream.integrations import lidarr_webhooks
from kima_stream.projector import Row
from kima_stream.read_models.download_jobs import PROJECTION, TABLE
from projections.download_job import DownloadJob

NAME: Final = "intake"  # consumer group and key of its progress: renaming it reads all webhooks again

log = structlog.get_logger(__name__)


async def react(conn: Connection, events: Sequence[RecordedEvent]) -> None:
    """Append what follows from webhooks, in their order."""
    news = [each for event in events if (each := lidarr_news.read(event) or lidarr_seen.read(event))]
    if not news:
        return
    found = await _find(conn, news)
    known: set[UUID] = set()
    while True:
        desk = Desk(found, known)
        for each in news:
            desk.take(each)
        try:
            rows = await _write(conn, found, desk)
        except (DuplicateEventError, TornAppendError):
            # Handled before, but the progress was lost: decide again, without what is in the log.
            again = {event.event_id for event in await event_store.find_events(conn, desk.event_ids())}
            if again <= known:
                raise
            known |= again
        else:
            _tell(rows, desk)
            return


async def _find(conn: Connection, news: Sequence[News]) -> Found:
    """Lock the keys of all ``news``, then the rows of all jobs that they may move, and read what follows those."""
    keys = await correlation_keys.lock(conn, {key for each in news for key in each.keys})
    streams = {stream for streams in keys.values() for stream in streams}
    jobs = {stream for stream in streams if stream_category(stream) == JOBS}
    jobs.update(album.own_stream for each in news if isinstance(each, Moved) for album in each.albums)
    unmatched = [stream for stream in streams if stream_category(stream) == UNMATCHED]
    rows = await TABLE.lock(conn, sorted(jobs)) if jobs else {}
    rows |= {stream: projector.blank(PROJECTION, stream) for stream in jobs - rows.keys()}
    after = {stream: row.version for stream, row in rows.items()} | dict.fromkeys(unmatched, NO_STREAM)
    later = await event_store.read_streams(conn, after) if after else {}
    return Found(
        keys=keys,
        rows={stream: projector.fold(PROJECTION, row, later[stream]) for stream, row in rows.items()},
        waiting={stream: still_waiting(later[stream]) for stream in unmatched},
    )


async def _write(conn: Connection, found: Found, desk: Desk) -> list[Row[DownloadJob]]:
    """Append, save and add keys, all or nothing; return the rows of the jobs that moved."""
    moves = [Append(stream, events, found.rows[stream].version) for stream, events in desk.moved.items()]
    waits = [Append(stream, events) for stream, events in desk.unmatched.items()]
    if waits:
        async with conn.transaction():
            await event_store.append_many(conn, waits)  # first: they are causes of moves
            recorded = await event_store.append_many(conn, moves)
    else:
        recorded = await event_store.append_many(conn, moves)
    rows = _rows(found, desk, recorded)
    await TABLE.save(conn, rows)
    await correlation_keys.add_many(conn, desk.added)
    return rows


def _rows(found: Found, desk: Desk, recorded: Sequence[RecordedEvent]) -> list[Row[DownloadJob]]:
    """Return the rows of the jobs that moved, as a fold of ``recorded`` would leave them."""
    moved: dict[str, Row[DownloadJob]] = {}
    for event in recorded:
        row = moved.get(event.stream, found.rows[event.stream])
        moved[event.stream] = Row(
            stream=event.stream,
            version=event.version,
            state=desk.states[event.stream],
            created_at=event.recorded_at if row.version == NO_STREAM else row.created_at,
            updated_at=event.recorded_at,
        )
    return list(moved.values())


def _tell(rows: Sequence[Row[DownloadJob]], desk: Desk) -> None:
    for row in rows:
        log.debug("job_moved", stream=row.stream, status=row.state.status, attempt=row.state.attempt)
    if rows:
        log.info("jobs_moved", count=len(rows))
    for stream, events in desk.unmatched.items():
        log.info("unmatched_changed", stream=stream, types=[event.type for event in events])


GROUP: Final = reaction.consumer_group(NAME, lidarr_webhooks.SOURCE, react)
