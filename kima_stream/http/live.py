"""``GET /api/live``: the log as it grows, as server-sent events.

``id`` is the position, so a reader that was cut goes on with ``Last-Event-ID`` at any process and
sees every position once, in order. Read from Postgres: whatever Redis has trimmed or lost, nobody
misses an event.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Final

import msgspec
from aiohttp import web
from aiohttp_sse import EventSourceResponse

from kima_stream.errors import UserFacingError
from kima_stream.http import access, problems
from kima_stream.http.event_views import Filter
from kima_stream.http.routes import ADMIN, Call, Nothing, Route

PING_SECONDS: Final = 15.0  # proxies drop what is silent for a minute
SEND_SECONDS: Final = 30.0  # a connection that takes nothing for so long is dead
MAX_POSITION: Final = 2**63 - 1
_POSITION: Final = re.compile(r"[0-9]{1,19}")


class LiveQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events, after which position: without it, and without ``Last-Event-ID``, from now on."""

    after: Annotated[int, msgspec.Meta(ge=0, le=MAX_POSITION)] | None = None
    category: str | None = None
    type: str | None = None
    stream: str | None = None
    correlation_id: str | None = None


async def follow(call: Call[LiveQuery, Nothing]) -> web.StreamResponse:
    """Send what is numbered, as long as the caller stays and this process does."""
    query = call.query
    which = Filter(category=query.category, type=query.type, stream=query.stream, correlation_id=query.correlation_id)
    after = _resumed(call)
    if call.request.method == "HEAD":
        return web.Response(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    with call.door.feed.reading(which, after) as reader:
        response = EventSourceResponse(ping_interval=PING_SECONDS, send_timeout=SEND_SECONDS)
        await call.begin(response)
        reader.when_cut = lambda: _abort(call.request)
        async with response, aclosing(call.door.feed.chunks(reader)) as chunks:
            await _send(call, response, chunks)
    return response


def _resumed(call: Call[LiveQuery, Nothing]) -> int | None:
    """Return the position after which to begin; what a browser remembers is newer than what its address says."""
    seen = call.request.headers.get("Last-Event-ID", "").strip()
    if not seen:
        return call.query.after
    if not _POSITION.fullmatch(seen) or int(seen) > MAX_POSITION:
        raise UserFacingError("Last-Event-ID is not a position of the log.", status=422, code="invalid")
    return int(seen)


async def _send(call: Call[LiveQuery, Nothing], response: EventSourceResponse, chunks: AsyncIterator[bytes]) -> None:
    """Write until there is nothing more to say or nobody to say it to; the answer has begun, so nothing is raised."""
    checked = asyncio.get_running_loop().time()
    try:
        async for chunk in chunks:
            transport = call.request.transport
            if transport is None or transport.is_closing():
                return
            now = asyncio.get_running_loop().time()
            if now - checked >= 1.0:  # as often as keys are read
                checked = now
                if not await _may_stay(call):
                    return
            if chunk:
                async with asyncio.timeout(SEND_SECONDS):
                    await response.write(chunk)
    except problems.UNAVAILABLE:  # the connection or Postgres: either way the reader comes back by itself
        _abort(call.request)


async def _may_stay(call: Call[LiveQuery, Nothing]) -> bool:
    """Return whether the key that opened the stream still opens it."""
    try:
        await access.authorize(call.request, call.door.keys, ADMIN)
    except UserFacingError:
        return False
    except problems.UNAVAILABLE:
        return True  # nothing is read either
    return True


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


ROUTES: Final = (
    Route(
        method="GET",
        path="/api/live",
        handler=follow,
        summary="Follow the log as server-sent events; filters can be joined.",
        roles=ADMIN,
        query=LiveQuery,
        responses={200: None},
        media_type="text/event-stream",
        request_headers=("Last-Event-ID",),
    ),
)
