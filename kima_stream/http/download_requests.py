"""A user's request for an album, decided in one transaction: keys locked, row locked, decided, appended, saved.

So the answer is final, and the job can be read when it is given. Whoever asks for the same album at
the same moment gets the same job.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from kima_stream import correlation_keys, event_store, projector, upcasters
from kima_stream.database import Connection, Pool
from kima_stream.errors import DuplicateEventError, TornAppendError, WrongExpectedVersionError
from kima_stream.events import (
    Event,
    JobRequested,
    JobRequestMerged,
    NewEvent,
    RecordedEvent,
    derived_id,
    event_type,
    new_event,
    new_event_id,
)
from kima_stream.http.user_requests import ReusedKeyError
from kima_stream.read_models.download_jobs import PROJECTION
from kima_stream.settings import subject_keys
from kima_stream.settings.subject_keys import PlainText
from projections import correlation
from projections.correlation import Album
from projections.download_job_decider import decide

TRIES: Final = 5  # somebody appended without the row's lock, used the same key at once, or a deadlock: decide again
_RIVALRY: Final = (
    WrongExpectedVersionError,
    DuplicateEventError,
    TornAppendError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    """The job that will get the album; ``duplicate``: it was under way before this request."""

    id: UUID
    status: str
    duplicate: bool
    event_id: UUID


async def decided(
    pool: Pool,
    album: Album,
    *,
    user_id: str,
    correlation_id: str,
    event_id: UUID | None,
    note: PlainText | None = None,
) -> tuple[Requested, int]:
    """Run ``request`` in a transaction, again when a rival was in the way."""
    for attempt in range(1, TRIES + 1):
        try:
            async with pool.acquire() as conn, conn.transaction():
                return await request(
                    conn, album, user_id=user_id, correlation_id=correlation_id, event_id=event_id, note=note
                )
        except _RIVALRY:
            if attempt == TRIES:
                raise
    raise AssertionError  # the last try has returned or raised


async def request(
    conn: Connection,
    album: Album,
    *,
    user_id: str,
    correlation_id: str,
    event_id: UUID | None = None,
    note: PlainText | None = None,
) -> tuple[Requested, int]:
    """Append what follows from a user's request, inside a transaction; return the answer and how many events.

    ``event_id`` names the request: the second time it gets the answer of the first, and nothing is appended. A
    ``note`` is sealed for it, the same to the same bytes, so what was asked is compared without opening anything.

    Raises:
        ErasedUserError: the user was erased.
        ReusedKeyError: ``event_id`` named another request.
    """
    request_id = event_id or new_event_id()
    sealed = await subject_keys.seal_any(conn, user_id, request_id, "note", note)
    job_id = correlation.job_id(user_id, album.target)
    stream = correlation.stream_of(job_id)
    keys = [correlation_keys.of_names(correlation.derived_target(album.artist, album.title))]
    if album.mbid is not None:
        keys.append(correlation_keys.of_mbid(album.mbid))
    found = await correlation_keys.lock(conn, keys)
    row = await projector.load(conn, PROJECTION, stream)
    duplicate = row.state.is_active
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
        return await _answered(conn, recorded, asked), 0
    facts = _facts(decide(row.state, asked), correlation_id=correlation_id, event_id=request_id)
    row = await projector.decide(conn, PROJECTION, row, facts)
    await correlation_keys.add(conn, stream, keys, known=found)
    requested = Requested(id=job_id, status=row.state.status, duplicate=duplicate, event_id=facts[0].event_id)
    return requested, len(facts)


def _facts(decided: Sequence[Event], *, correlation_id: str, event_id: UUID) -> list[NewEvent]:
    """Return the request under its id, and what follows from it as its effects."""
    asked, *effects = (new_event(fact, correlation_id=correlation_id) for fact in decided)
    return [
        msgspec.structs.replace(asked, event_id=event_id),
        *(msgspec.structs.replace(e, event_id=derived_id(event_id, e.type), causation_id=event_id) for e in effects),
    ]


async def _answered(conn: Connection, recorded: RecordedEvent, asked: JobRequested) -> Requested:
    """Return what was answered to the request ``recorded``: the job as it was then.

    Raises:
        ReusedKeyError: something else was asked for.
    """
    first = upcasters.decode(recorded)
    if (
        not isinstance(first, JobRequested)
        or msgspec.structs.replace(asked, correlation_id=first.correlation_id) != first
    ):
        raise ReusedKeyError
    history = await event_store.read_stream(conn, recorded.stream, up_to=recorded.version + 1)
    job = projector.fold(PROJECTION, projector.blank(PROJECTION, recorded.stream), history).state
    duplicate = history[-1].type == event_type(JobRequestMerged)
    return Requested(id=job.job_id, status=job.status, duplicate=duplicate, event_id=recorded.event_id)
