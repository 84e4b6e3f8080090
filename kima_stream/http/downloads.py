"""Download jobs: ask for an album, and see what became of it.

A request is decided before it is answered (``download_requests``), so the answer is final, and the
job can be read when it is given.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from kima_stream.database import Connection
from kima_stream.errors import NotFoundError, UserFacingError
from kima_stream.events import JobCancelRequested, JobRetryRequested, Policy
from kima_stream.http import cursors, download_requests, download_views, event_views, user_requests
from kima_stream.http.download_requests import NO_SUCH_JOB, Requested
from kima_stream.http.download_views import JobView
from kima_stream.http.event_views import EventPage, EventQuery
from kima_stream.http.routes import USER, Call, Nothing, Route, json_response
from kima_stream.projector import Row
from kima_stream.read_models import download_jobs
from kima_stream.read_models.download_jobs import Cursor, Filter
from kima_stream.settings import subject_keys
from kima_stream.settings.api_keys import Principal
from kima_stream.settings.policies import policy_of
from kima_stream.settings.subject_keys import PlainText, Reader
from projections import correlation
from projections.correlation import Album
from projections.download_job import DownloadJob

MAX_PAGE: Final = 200

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
Note = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Shown = Literal["requested", "searching", "downloading", "importing", "completed", "failed", "cancelled"]


class NewDownload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An album; ``mbid`` is its MusicBrainz release group, without it the names decide.

    ``note`` is for people, unreadable once its user is erased; the names are those of a published work and stay.
    """

    artist: Name
    album: Name
    mbid: UUID | None = None
    note: Note | None = None


class JobPage(msgspec.Struct, frozen=True):
    """Jobs, those that moved last first; ``next`` is null on the last page."""

    downloads: tuple[JobView, ...]
    next: str | None


class JobQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs; ``q`` is part of artist or album, ``after`` the ``next`` of the page before."""

    status: Shown | None = None
    artist: str | None = None
    album: str | None = None
    q: str | None = None
    user_id: str | None = None
    after: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 50


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``after`` is the ``next`` of the page before."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100


async def request_download(call: Call[Nothing, NewDownload]) -> web.Response:
    """Record the request and answer with the one job for it."""
    wanted = call.body
    album = Album(artist=_name(wanted.artist, "artist"), title=_name(wanted.album, "album"), mbid=wanted.mbid)
    user_id = call.user.user_id
    policy = await _policy(call)
    event_id = user_requests.event_id(call.request, user_id=user_id, route="/api/downloads")

    note = None if wanted.note is None else PlainText(wanted.note, call.door.settings_store.sources.roots)

    async def work(conn: Connection) -> Requested:
        return await download_requests.request(
            conn, album, user_id=user_id, correlation_id=call.correlation_id, policy=policy, event_id=event_id,
            note=note,
        )  # fmt: skip

    requested = await user_requests.decided(call.door.pool, work)
    return _accepted(call, requested, location=f"{call.request.path.rstrip('/')}/{requested.id}")


async def cancel_download(call: Call[Nothing, Nothing]) -> web.Response:
    """Cancel the attempt that is under way: what is queued and what runs; answer with the job as it is then."""
    return await _change(call, JobCancelRequested(user_id=call.user.user_id), "cancel")


async def retry_download(call: Call[Nothing, Nothing]) -> web.Response:
    """Open the next attempt of a job that is over; answer with the job as it is then."""
    wish = JobRetryRequested(user_id=call.user.user_id, correlation_id=call.correlation_id)
    return await _change(call, wish, "retry")


async def _change(
    call: Call[Nothing, Nothing], wish: JobCancelRequested | JobRetryRequested, verb: str
) -> web.Response:
    job_id = (await _own(call)).state.job_id
    policy = await _policy(call)
    route = f"/api/downloads/{job_id}/{verb}"
    event_id = user_requests.event_id(call.request, user_id=call.user.user_id, route=route)

    async def work(conn: Connection) -> Requested:
        return await download_requests.change(conn, job_id, wish, policy=policy, event_id=event_id)

    requested = await user_requests.decided(call.door.pool, work)
    return _accepted(call, requested, location=call.request.path.rstrip("/").removesuffix(f"/{verb}"))


async def _policy(call: Call[Any, Any]) -> Policy:
    """Return what an attempt may do that opens now.

    Raises:
        ConfigurationError: a setting cannot be used; nothing is recorded.
    """
    return policy_of(await call.door.settings_store.fresh())


def _accepted(call: Call[Any, Any], requested: Requested, *, location: str) -> web.Response:
    call.door.wake_publisher()
    headers = {"Location": location} | user_requests.preference_applied(call.request)
    return json_response(requested, status=202, headers=headers)


def _name(text: str, field: str) -> str:
    name = correlation.clean(text)
    if not name:
        raise UserFacingError(f"Body: `{field}` is empty.", status=422, code="invalid")
    return name


async def list_downloads(call: Call[JobQuery, Nothing]) -> web.Response:
    """Answer one page of the caller's jobs; an admin sees those of all users."""
    query = call.query
    which = Filter(
        user_id=query.user_id if call.user.role == "admin" else call.user.user_id,
        status=query.status,
        artist=query.artist,
        album=query.album,
        q=query.q,
    )
    async with call.door.pool.acquire() as conn:
        rows = await download_jobs.list_page(
            conn, which, limit=query.limit + 1, after=cursors.decode(query.after, Cursor)
        )
        page = rows[: query.limit]
        reader = await _reader(call, conn, page)
    following = cursors.encode(Cursor(page[-1].updated_at, page[-1].stream)) if len(rows) > len(page) else None
    return json_response(JobPage(tuple(download_views.view(row, reader) for row in page), following))


async def show_download(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer one job; its version is the ETag."""
    row = await _own(call)
    etag = f'"{row.version}"'
    if etag in call.request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers={"ETag": etag})
    async with call.door.pool.acquire() as conn:
        reader = await _reader(call, conn, [row])
    return json_response(download_views.view(row, reader), headers={"ETag": etag})


async def show_history(call: Call[HistoryQuery, Nothing]) -> web.Response:
    """Answer what happened to one job: the events of its stream."""
    row = await _own(call)
    query = EventQuery(stream=row.stream, after=call.query.after, limit=call.query.limit)
    async with call.door.pool.acquire() as conn:
        return json_response(await event_views.read_page(conn, query))


async def _own(call: Call[Any, Nothing]) -> Row[DownloadJob]:
    """Return the job in the path, if it is the caller's to see: another's does not exist for them."""
    try:
        job_id = UUID(call.parameter("id"))
    except ValueError:
        raise NotFoundError(NO_SUCH_JOB) from None
    async with call.door.pool.acquire() as conn:
        row = await download_jobs.get(conn, job_id)
    if row is None or not _may_see(call.user, row.state):
        raise NotFoundError(NO_SUCH_JOB)
    return row


def _may_see(user: Principal, job: DownloadJob) -> bool:
    return user.role == "admin" or job.user_id == user.user_id


async def _reader(call: Call[Any, Nothing], conn: Connection, rows: Sequence[Row[DownloadJob]]) -> Reader:
    """Return what opens the notes of ``rows``."""
    return await subject_keys.reader(conn, call.door.settings_store.sources.roots, [row.state.note for row in rows])


def _changing(
    verb: str, handler: Callable[[Call[Nothing, Nothing]], Awaitable[web.Response]], summary: str
) -> Route[Nothing, Nothing]:
    return Route(
        method="POST",
        path=f"/api/downloads/{{id}}/{verb}",
        handler=handler,
        summary=summary,
        roles=USER,
        responses={202: Requested},
        request_headers=("Idempotency-Key", "Prefer"),
        response_headers=("Location", "Preference-Applied"),
        problems=(409,),
    )


ROUTES: Final = (
    Route(
        method="POST",
        path="/api/downloads",
        handler=request_download,
        summary="Ask for an album.",
        roles=USER,
        body=NewDownload,
        responses={202: Requested},
        request_headers=("Idempotency-Key", "Prefer"),
        response_headers=("Location", "Preference-Applied"),
        problems=(409,),
    ),
    Route(
        method="GET",
        path="/api/downloads",
        handler=list_downloads,
        summary="List download jobs; filters can be joined.",
        roles=USER,
        query=JobQuery,
        responses={200: JobPage},
    ),
    Route(
        method="GET",
        path="/api/downloads/{id}",
        handler=show_download,
        summary="Show one download job.",
        roles=USER,
        responses={200: JobView, 304: None},
        request_headers=("If-None-Match",),
        response_headers=("ETag",),
    ),
    Route(
        method="GET",
        path="/api/downloads/{id}/events",
        handler=show_history,
        summary="Show what happened to one download job.",
        roles=USER,
        query=HistoryQuery,
        responses={200: EventPage},
    ),
    _changing("cancel", cancel_download, "Cancel a download job."),
    _changing("retry", retry_download, "Open the next attempt of a download job."),
)
