"""Audit and operation: any state as of any moment, the groups, and what they could not handle."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web

from kima_stream import audit, checkpoints, dead_letters, replay
from kima_stream.checkpoints import GroupStatus
from kima_stream.database import Connection
from kima_stream.dead_letters import DeadLetter
from kima_stream.errors import NotFoundError, UserFacingError
from kima_stream.http.requests import Text
from kima_stream.http.routes import ADMIN, Call, Nothing, Route, json_response
from kima_stream.projector import Projection
from kima_stream.read_models import PROJECTIONS

MAX_PAGE: Final = 1_000


class StateQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``at``: a position of the log, or a time; now when it is left out."""

    at: str | None = None


class StateView(msgspec.Struct, frozen=True, kw_only=True):
    """A state and the version of the stream that it is the fold of; ``at_position`` null means now."""

    stream: str
    version: int
    at_position: int | None
    updated_at: datetime
    state: Any  # of the projection's own shape


async def show_state(call: Call[StateQuery, Nothing]) -> web.Response:
    """Answer what one thing was at a moment: the fold of its events up to there."""
    projection: Projection[Any] | None = PROJECTIONS.get(call.parameter("projection"))
    if projection is None:
        raise NotFoundError(f"There is no such projection; there are: {', '.join(sorted(PROJECTIONS))}.")
    stream = f"{projection.category}-{call.parameter('id')}"
    async with call.door.pool.acquire() as conn:
        position = None if call.query.at is None else await _position(conn, call.query.at)
        row = await replay.state_at(conn, projection, stream, up_to=position)
    if row.version < 0:
        raise NotFoundError(f"{stream} had no event by then.")
    view = StateView(
        stream=stream, version=row.version, at_position=position, updated_at=row.updated_at, state=row.state
    )
    return json_response(view)


async def _position(conn: Connection, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 19:  # noqa: PLR2004 - digits of a bigint
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        detail = "`at` is neither a position nor a time like 2026-11-24T02:00:00Z."
        raise UserFacingError(detail, status=422, code="invalid_query") from None
    return await audit.position_at(conn, moment if moment.tzinfo else moment.replace(tzinfo=UTC))


class GroupList(msgspec.Struct, frozen=True):
    """Every consumer group that ever ran."""

    groups: tuple[GroupStatus, ...]


async def list_groups(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer how far each consumer group has come."""
    async with call.door.pool.acquire() as conn:
        return json_response(GroupList(tuple(await checkpoints.status(conn))))


class LetterQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters."""

    group: str | None = None
    stream: str | None = None
    status: Literal["retrying", "parked", "discarded"] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100


class LetterList(msgspec.Struct, frozen=True):
    """The latest failure first."""

    dead_letters: tuple[DeadLetter, ...]


async def list_letters(call: Call[LetterQuery, Nothing]) -> web.Response:
    """Answer what the groups could not handle."""
    query = call.query
    async with call.door.pool.acquire() as conn:
        found = await dead_letters.find(
            conn, group_name=query.group, stream=query.stream, status=query.status, limit=query.limit
        )
    return json_response(LetterList(tuple(found)))


class Revive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stream of a group; all that are parked when ``stream`` is left out."""

    group: Text
    stream: Text | None = None


class Revived(msgspec.Struct, frozen=True):
    """The streams that are handled again from where they stopped, within a second."""

    revived: tuple[str, ...]


async def revive(call: Call[Nothing, Revive]) -> web.Response:
    """Let parked streams be handled again."""
    async with call.door.pool.acquire() as conn:
        revived = await dead_letters.revive(conn, call.body.group, call.body.stream)
    if not revived:
        raise NotFoundError("Nothing is parked there.")
    return json_response(Revived(tuple(revived)), status=202)


class DiscardQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stream of a group whose next event is given up."""

    group: str
    stream: str


class Discarded(msgspec.Struct, frozen=True):
    """The version that is stepped over from now on, by a replay too."""

    stream: str
    version: int


async def discard(call: Call[DiscardQuery, Nothing]) -> web.Response:
    """Give up, for ever, the event at which a stream waits."""
    async with call.door.pool.acquire() as conn:
        version = await dead_letters.discard(conn, call.query.group, call.query.stream)
    if version is None:
        raise NotFoundError("Nothing waits there.")
    return json_response(Discarded(call.query.stream, version))


ROUTES: Final = (
    Route(
        method="GET", path="/api/state/{projection}/{id}", handler=show_state, roles=ADMIN, query=StateQuery,
        summary="What one thing was at a position or time", responses={200: StateView},
    ),
    Route(
        method="GET", path="/api/groups", handler=list_groups, roles=ADMIN,
        summary="How far each consumer group has come", responses={200: GroupList},
    ),
    Route(
        method="GET", path="/api/dead-letters", handler=list_letters, roles=ADMIN, query=LetterQuery,
        summary="What the groups could not handle", responses={200: LetterList},
    ),
    Route(
        method="POST", path="/api/dead-letters", handler=revive, roles=ADMIN, body=Revive,
        summary="Revive parked streams", responses={202: Revived}, problems=(404,),
    ),
    Route(
        method="DELETE", path="/api/dead-letters", handler=discard, roles=ADMIN, query=DiscardQuery,
        summary="Give up the event at which a stream waits", responses={200: Discarded}, problems=(404,),
    ),
)  # fmt: skip
