"""What a user wants of a download job, decided in one transaction: keys locked, row locked, decided, appended, saved.

So the answer is final, and the job can be read when it is given. Whoever asks for the same album at
the same moment gets the same job; who cancels it and who asks for it again come one after the other.
"""

from datetime import UTC, datetime
from itertools import takewhile
from typing import Final
from uuid import UUID

import msgspec

from kima_stream import correlation_keys, event_store, projector, upcasters
from kima_stream.database import Connection
from kima_stream.errors import NotFoundError
from kima_stream.events import (
    JobCancelled,
    JobCancelRequested,
    JobRequested,
    JobRequestMerged,
    JobRetryRequested,
    Policy,
    RecordedEvent,
    event_type,
    new_event_id,
)
from kima_stream.http.user_requests import ReusedKeyError
from kima_stream.read_models import album_wishes
from kima_stream.read_models.download_jobs import PROJECTION, get
from kima_stream.settings import subject_keys
from kima_stream.settings.subject_keys import PlainText
from projections import correlation
from projections.correlation import Album
from projections.download_job_decider import decide

NO_SUCH_JOB: Final = "There is no such download job."


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """The job after the request; ``duplicate``: it was so before, under way or, for a cancel, over."""

    id: UUID
    status: str
    duplicate: bool
    event_id: UUID


async def request(
    conn: Connection,
    album: Album,
    *,
    user_id: str,
    correlation_id: str,
    policy: Policy,
    event_id: UUID | None = None,
    at: datetime | None = None,
    note: PlainText | None = None,
) -> Requested:
    """Append what follows from a user's request for an album, inside a transaction.

    ``event_id`` names the request: the second time it gets the answer of the first, and nothing is appended.
    ``at`` is when it came, None for now. A ``note`` is sealed for it, the same to the same bytes, so what was asked is
    compared without opening anything.

    Raises:
        ErasedUserError: the user was erased.
        ReusedKeyError: ``event_id`` named another request.
    """
    request_id = event_id or new_event_id()
    sealed = await subject_keys.seal_any(conn, user_id, request_id, "note", note)
    job_id = correlation.job_id(user_id, album.target)
    stream = correlation.stream_of(job_id)
    keys = album_wishes.keys_of(album)
    found = await correlation_keys.lock(conn, keys)
    row = await projector.load(conn, PROJECTION, stream)
    asked = JobRequested(
        job_id=job_id,
        user_id=user_id,
        artist=album.artist,
        album=album.title,
        target_mbid=album.target,
        target_is_derived=album.mbid is None,
        origin="user",
        correlation_id=correlation_id,
        note=sealed,
    )
    if event_id is not None and (recorded := await event_store.read_event(conn, event_id)):
        return await _answered(conn, recorded, asked)
    duplicate = row.state.is_active
    facts = decide(row.state, asked, at or datetime.now(UTC), policy=policy).facts
    events = projector.consequences(facts, correlation_id=correlation_id, event_id=request_id)
    row = await projector.decide(conn, PROJECTION, row, events)
    await correlation_keys.add(conn, stream, keys, known=found)
    return Requested(id=job_id, status=row.state.status, duplicate=duplicate, event_id=events[0].event_id)


async def change(
    conn: Connection,
    job_id: UUID,
    wish: JobCancelRequested | JobRetryRequested,
    *,
    policy: Policy,
    event_id: UUID | None = None,
    at: datetime | None = None,
) -> Requested:
    """Append what follows when a user cancels a job or wants it again, inside a transaction; arguments as above.

    Raises:
        NotFoundError: there is no such job.
    """
    known = await get(conn, job_id)
    if known is None:
        raise NotFoundError(NO_SUCH_JOB)
    found = await correlation_keys.lock(conn, album_wishes.keys_of_job(known.state))
    row = await projector.load(conn, PROJECTION, known.stream)
    if event_id is not None and (recorded := await event_store.read_event(conn, event_id)):
        return await _answered(conn, recorded, wish, stream=row.stream)
    is_wanted = await album_wishes.is_wanted_elsewhere(conn, row.state, row.stream, found)
    was_active = row.state.is_active
    facts = decide(row.state, wish, at or datetime.now(UTC), policy=policy, is_wanted_elsewhere=is_wanted).facts
    is_retry = isinstance(wish, JobRetryRequested)
    correlation_id = wish.correlation_id if isinstance(wish, JobRetryRequested) else row.state.correlation_id
    events = projector.consequences(facts, correlation_id=correlation_id, event_id=event_id or new_event_id())
    row = await projector.decide(conn, PROJECTION, row, events)
    duplicate = was_active if is_retry else not was_active
    return Requested(id=job_id, status=row.state.status, duplicate=duplicate, event_id=events[0].event_id)


async def _answered(
    conn: Connection,
    recorded: RecordedEvent,
    asked: JobRequested | JobCancelRequested | JobRetryRequested,
    *,
    stream: str | None = None,
) -> Requested:
    """Return what was answered to the request ``recorded``: the job as it was then.

    Raises:
        ReusedKeyError: something else was asked for, or of another job than that in ``stream``.
    """
    first = upcasters.decode(recorded)
    if isinstance(first, JobRequested | JobRetryRequested) and isinstance(asked, type(first)):
        asked = msgspec.structs.replace(asked, correlation_id=first.correlation_id)
    if asked != first or stream not in {None, recorded.stream}:
        raise ReusedKeyError
    history = await event_store.read_stream(conn, recorded.stream)
    before = [event for event in history if event.version <= recorded.version]
    after = history[len(before) :]
    consequences = list(takewhile(lambda event: event.causation_id == recorded.event_id, after))
    blank = projector.blank(PROJECTION, recorded.stream)
    job = projector.fold(PROJECTION, blank, [*before, *consequences]).state
    types = {event.type for event in consequences}
    if isinstance(first, JobCancelRequested):
        duplicate = event_type(JobCancelled) not in types
    else:
        duplicate = event_type(JobRequestMerged) in types
    return Requested(id=job.job_id, status=job.status, duplicate=duplicate, event_id=recorded.event_id)
