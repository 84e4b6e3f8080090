"""``POST /api/events``: anybody's facts as CloudEvents, durable before they are acknowledged.

Events of one request for one stream are appended all or none; different streams stand for
themselves. An event sent again is answered with where it stands; what else the request holds is
appended, so that a sender may send a batch again that has grown in between.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from kima_stream import event_store, metrics
from kima_stream.database import Connection, Pool
from kima_stream.errors import ConflictError, EventRef, TornAppendError, UserFacingError, WrongExpectedVersionError
from kima_stream.event_store import ANY
from kima_stream.events import NO_STREAM, NewEvent, RecordedEvent, stream_category
from kima_stream.group_commit import GroupCommit
from kima_stream.http import cloudevents, kept_cloudevents
from kima_stream.http.categories import Categories
from kima_stream.http.cloudevents import CloudEvent
from kima_stream.http.routes import USER, Call, Nothing, Route, json_response

TRIES: Final = 5  # a rival sends parts of the same batch
_ETAG: Final = re.compile(r'"([0-9]{1,18})"')


class AnyCloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON format of CloudEvents 1.0, for the description only: extension attributes may be added.

    ``stream`` is ``<category>-<id>``; ``causationid`` the id of the event that caused this one.
    """

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    stream: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    data: Any = None
    data_base64: str | None = None


class Submitted(msgspec.Struct, frozen=True):
    """Where one event stands; ``duplicate``: it stood there before."""

    event_id: UUID
    stream: str
    version: int
    duplicate: bool


class Submission(msgspec.Struct, frozen=True):
    """In the order of the request."""

    events: tuple[Submitted, ...]


async def submit(call: Call[Nothing, Nothing]) -> web.Response:
    """Append CloudEvents."""
    sent = _read(call)
    expected_version = _expected_version(call.request, sent)
    door = call.door
    submitted = await Submissions(door.pool, door.commit, door.categories).append(
        sent,
        expected_version=expected_version,
        correlation_id=call.correlation_id,
        submitted_by=call.user.user_id,
    )
    return json_response(submitted, status=202)


def _read(call: Call[Nothing, Nothing]) -> list[CloudEvent]:
    media = call.request.content_type.lower()
    if media == cloudevents.BATCH:
        return cloudevents.from_batch(call.raw)
    if media == cloudevents.STRUCTURED:
        return [cloudevents.from_structured(call.raw)]
    if cloudevents.is_binary(call.request.headers) and not media.startswith(cloudevents.FAMILY):
        return [cloudevents.from_binary(call.request.headers, call.raw)]
    detail = f"Send a CloudEvent: {cloudevents.STRUCTURED}, {cloudevents.BATCH}, or with headers ce-id, ce-source, …"
    raise UserFacingError(detail, status=415, code="unsupported_media_type")


def _expected_version(request: web.Request, sent: Sequence[CloudEvent]) -> int | None:
    match, none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if match is None and none_match is None:
        return ANY
    if len({event.stream for event in sent}) != 1:
        raise UserFacingError("If-Match and If-None-Match go with events of one stream.")
    if none_match == "*" and match is None:
        return NO_STREAM
    tag = _ETAG.fullmatch(match or "")
    if tag is None or none_match is not None:
        raise UserFacingError('Send If-Match: "<version>", or If-None-Match: *.')
    return int(tag[1])


class Submissions:
    """Appends the CloudEvents of others, whichever way they came."""

    def __init__(self, pool: Pool, commit: GroupCommit, categories: Categories) -> None:
        """Share the commits of ``commit``."""
        self._pool = pool
        self._commit = commit
        self._categories = categories

    async def append(
        self, sent: Sequence[CloudEvent], *, expected_version: int | None, correlation_id: str | None, submitted_by: str
    ) -> Submission:
        """Append ``sent`` and say where each event stands.

        Args:
            sent: with ``expected_version`` all of one stream.
            expected_version: of that stream, NO_STREAM for a new one, ANY for whatever is next.
            correlation_id: of events that name none; None means each its own id.
            submitted_by: the user, kept in the metadata.

        Raises:
            UserFacingError: 403, 409, 412 or 422; streams before and after the faulty one may be written.
        """
        news: dict[str, dict[UUID, NewEvent]] = {}
        first: dict[UUID, CloudEvent] = {}
        for event in sent:
            new = kept_cloudevents.to_new_event(event, correlation_id=correlation_id, submitted_by=submitted_by)
            if not kept_cloudevents.is_same(first.setdefault(new.event_id, event), event):
                raise _conflict(new.event_id)
            news.setdefault(event.stream, {}).setdefault(new.event_id, new)
        async with self._categories.admitted({stream_category(stream) for stream in news}):
            appended = await asyncio.gather(
                *(self._append_stream(s, list(events.values()), first, expected_version) for s, events in news.items()),
                return_exceptions=True,  # when we answer, each stream has ended, one way or the other
            )
        stands: dict[UUID, Submitted] = {}
        for outcome in appended:
            if isinstance(outcome, BaseException):
                raise outcome
            stands |= outcome
        return Submission(tuple(_in_order(sent, stands)))

    async def _append_stream(
        self, stream: str, news: list[NewEvent], sent: Mapping[UUID, CloudEvent], expected_version: int | None
    ) -> dict[UUID, Submitted]:
        stands: dict[UUID, Submitted] = {}
        for _ in range(TRIES):
            try:
                receipt = await self._commit.append(stream, news, expected_version=expected_version)
            except WrongExpectedVersionError as error:
                detail = f"The stream is at version {error.actual_version}, not {error.expected_version}."
                raise UserFacingError(detail, status=412, code="wrong_version") from None
            except TornAppendError as error:
                metrics.duplicate_events.labels(category=stream_category(stream)).inc(len(error.known))
                stands |= await self._recognised(error.known, sent)
                news = [new for new in news if new.event_id not in stands]
                continue
            if receipt.duplicate:
                return stands | await self._recognised(receipt.events, sent)
            return stands | {ref.event_id: _submitted(ref, duplicate=False) for ref in receipt.events}
        raise ConflictError("Somebody else sends parts of the same batch; send it again.")

    async def _recognised(self, refs: Sequence[EventRef], sent: Mapping[UUID, CloudEvent]) -> dict[UUID, Submitted]:
        """Return where events stand that are in the log, once it is known that they are the same as those sent."""
        async with self._pool.acquire() as conn:
            stored = await find_recorded(conn, [ref.event_id for ref in refs])
        for event in stored:
            if not kept_cloudevents.is_same(kept_cloudevents.from_recorded(event), sent[event.event_id]):
                raise _conflict(event.event_id)
        return {ref.event_id: _submitted(ref, duplicate=True) for ref in refs}


_FIND_RECORDED: Final = f"""
    SELECT {event_store.COLUMNS}, NULL::bigint AS position FROM events AS e WHERE e.event_id = ANY($1::uuid[])
"""  # noqa: S608 - the columns are a constant


async def find_recorded(conn: Connection, event_ids: Sequence[UUID]) -> list[RecordedEvent]:
    """Return the events of these ids, without positions; what retention took is left out."""
    return [event_store.recorded(row) for row in await conn.fetch(_FIND_RECORDED, list(event_ids))]


def _in_order(sent: Sequence[CloudEvent], stands: dict[UUID, Submitted]) -> list[Submitted]:
    ordered = []
    for event in sent:
        event_id = kept_cloudevents.event_id(event.source, event.id)
        ordered.append(stands[event_id])
        stands[event_id] = msgspec.structs.replace(stands[event_id], duplicate=True)  # named again in this request
    return ordered


def _submitted(ref: EventRef, *, duplicate: bool) -> Submitted:
    return Submitted(ref.event_id, ref.stream, ref.version, duplicate)


def _conflict(event_id: UUID) -> ConflictError:
    return ConflictError(f"Event {event_id} is in the log, or in this request, with other attributes or other data.")


ROUTES: Final = (
    Route(
        method="POST", path="/api/events", handler=submit, roles=USER, raw_body=AnyCloudEvent | list[AnyCloudEvent],
        accepts=(cloudevents.STRUCTURED, cloudevents.BATCH, cloudevents.JSON),
        summary="Append CloudEvents: structured, binary or batch.", responses={202: Submission},
        request_headers=("If-Match", "If-None-Match"), problems=(409, 412, 415, 422),
    ),
)  # fmt: skip
