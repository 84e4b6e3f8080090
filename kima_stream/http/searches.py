"""Search sessions: look into Soulseek, see what comes, take one of the results.

The search is made by the process that owns the Soulseek account; whoever asks, at whichever process, sees
the same. A session belongs to who began it: for all others it does not exist.
"""

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from aiohttp import web

from kima_stream.errors import ConfigurationError, NotFoundError, UserFacingError
from kima_stream.events import FoundFile, SearchDownloadRequested
from kima_stream.http import search_requests, user_requests
from kima_stream.http.requests import MAX_VALUE_CHARACTERS
from kima_stream.http.routes import USER, Call, Nothing, Route, json_response
from kima_stream.projector import Row
from kima_stream.read_models import search_sessions
from kima_stream.settings import definitions
from kima_stream.settings.subject_keys import PlainText, Reader
from projections.search_session import Download, SearchSession

SHORTEST_QUERY: Final = 3  # characters: peers ignore shorter ones
_NO_SUCH_SESSION: Final = "There is no such search, or its hour is over."
_NO_SUCH_RESULT: Final = "This search has no such result."

Words = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
PeerText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_VALUE_CHARACTERS)]


class NewSearch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to look for: ``query``, or ``artist`` and ``title``."""

    query: Words | None = None
    artist: Words | None = None
    title: Words | None = None


class Taken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the results, by its peer and path."""

    peer: PeerText
    path: PeerText


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The session; ``duplicate``: this request had begun it before."""

    id: UUID
    status: str
    duplicate: bool


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it stands; ``left_out`` counts the results over the cap.

    ``reason`` and ``next_step`` are for people.
    """

    id: UUID
    query: str
    status: str
    reason: str | None
    next_step: str | None
    results: tuple[FoundFile, ...]
    found: int
    left_out: int
    downloads: tuple[Download, ...]
    expires_at: datetime
    version: int
    created_at: datetime


async def start_search(call: Call[Nothing, NewSearch]) -> web.Response:
    """Record the request; the search is made by whoever owns the account."""
    query = PlainText(_query(call.body), call.door.settings_store.sources.roots)
    settings = await call.door.settings_store.fresh()
    if not settings.is_on(definitions.SOULSEEK_ENABLED):
        raise ConfigurationError(["soulseekEnabled: Soulseek is off; an admin sets soulseekUsername, soulseekPassword"])
    user_id = call.user.user_id
    event_id = user_requests.event_id(call.request, user_id=user_id, route="/api/searches")
    row, duplicate = await search_requests.start(
        call.door.pool, query, user_id=user_id, correlation_id=call.correlation_id, event_id=event_id
    )
    call.door.wake_publisher()
    started = Started(id=row.state.session_id, status=row.state.status, duplicate=duplicate)
    return json_response(started, status=202, headers={"Location": f"{call.request.path.rstrip('/')}/{started.id}"})


def _query(asked: NewSearch) -> str:
    if (asked.query is None) == (asked.artist is None and asked.title is None):
        raise UserFacingError("Body: send `query`, or `artist` and `title`.", status=422, code="invalid")
    query = " ".join(" ".join(filter(None, (asked.query, asked.artist, asked.title))).split())
    if len(query) < SHORTEST_QUERY or not query.isprintable():
        detail = f"Body: peers answer to {SHORTEST_QUERY} or more printable characters."
        raise UserFacingError(detail, status=422, code="invalid")
    return query


async def show_search(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer the caller's session; its version is the ETag."""
    row = await _own(call)
    etag = f'"{row.version}"'
    if etag in call.request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers={"ETag": etag})
    async with call.door.pool.acquire() as conn:
        reader = await search_sessions.reader(conn, call.door.settings_store.sources.roots, row)
    return json_response(_view(row, reader), headers={"ETag": etag})


async def take_result(call: Call[Nothing, Taken]) -> web.Response:
    """Let the file of one result be fetched into the library; asked again, it is the same download."""
    row = await _own(call)
    file = row.state.result(call.body.peer, call.body.path)
    if file is None:
        raise NotFoundError(_NO_SUCH_RESULT)
    route = f"/api/searches/{row.state.session_id}/download"
    row, _ = await search_requests.take(
        call.door.pool,
        row.stream,
        SearchDownloadRequested(file=file),
        correlation_id=call.correlation_id,
        event_id=user_requests.event_id(call.request, user_id=call.user.user_id, route=route),
    )
    call.door.wake_publisher()
    tries = [each for each in row.state.downloads if (each.peer, each.path) == (file.peer, file.path)]
    if not tries:
        raise UserFacingError("This search has as many downloads as one may have.", status=422, code="too_many")
    return json_response(tries[-1], status=202, headers={"Location": call.request.path.removesuffix("/download")})


async def _own(call: "Call[Nothing, Nothing] | Call[Nothing, Taken]") -> Row[SearchSession]:
    """Return the session in the path, while it lasts and if it is the caller's."""
    try:
        session_id = UUID(call.parameter("id"))
    except ValueError:
        raise NotFoundError(_NO_SUCH_SESSION) from None
    async with call.door.pool.acquire() as conn:
        row = await search_sessions.read(conn, call.door.copies, session_id)
    if row is None or row.state.user_id != call.user.user_id or _is_over(row.state):
        raise NotFoundError(_NO_SUCH_SESSION)
    return row


def _is_over(session: SearchSession) -> bool:
    return session.status == "expired" or session.expires_at is None or session.expires_at <= datetime.now(UTC)


def _view(row: Row[SearchSession], reader: Reader) -> SessionView:
    session = row.state
    return SessionView(
        id=session.session_id,
        query=reader.show(search_sessions.FIELD, session.query or None) or "",
        status=session.status,
        reason=session.reason,
        next_step=session.next_step,
        results=session.results,
        found=session.found,
        left_out=session.left_out,
        downloads=session.downloads,
        expires_at=session.expires_at or row.created_at,
        version=row.version,
        created_at=row.created_at,
    )


ROUTES: Final = (
    Route(
        method="POST",
        path="/api/searches",
        handler=start_search,
        summary="Look for something in Soulseek; results come in by and by.",
        roles=USER,
        body=NewSearch,
        responses={202: Started},
        request_headers=("Idempotency-Key",),
        response_headers=("Location",),
        problems=(409,),
    ),
    Route(
        method="GET",
        path="/api/searches/{id}",
        handler=show_search,
        summary="Show one of your searches, for an hour.",
        roles=USER,
        responses={200: SessionView, 304: None},
        request_headers=("If-None-Match",),
        response_headers=("ETag",),
    ),
    Route(
        method="POST",
        path="/api/searches/{id}/download",
        handler=take_result,
        summary="Fetch one of the results into the library.",
        roles=USER,
        body=Taken,
        responses={202: Download},
        request_headers=("Idempotency-Key",),
        response_headers=("Location",),
    ),
)
