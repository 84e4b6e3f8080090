"""The log, as it can be read from outside: pages by position, and one event by its id.

``data`` and ``metadata`` go out as the JSON that came in, byte for byte. Whoever accepts CloudEvents
gets those: an event that came as one goes out as it was sent.
"""

import re
from typing import Final, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from kima_stream.errors import NotFoundError
from kima_stream.events import RecordedEvent
from kima_stream.http import cloudevents, kept_cloudevents
from kima_stream.http.cloudevents import CloudEvent
from kima_stream.http.event_views import EventPage, EventQuery, EventView, read_event, read_page
from kima_stream.http.routes import ADMIN, Call, Nothing, Route, json_response

_QUALITY: Final = re.compile(r"[01](\.[0-9]{0,3})?")


class ShowQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``format``: as a CloudEvent in this mode; else ``Accept`` decides."""

    format: Literal["json", "structured", "binary"] | None = None


async def list_events(call: Call[EventQuery, Nothing]) -> web.Response:
    """Answer one page of the log."""
    async with call.door.pool.acquire() as conn:
        page = await read_page(conn, call.query)
    headers = {"Vary": "Accept"}
    if page.next is not None:
        following = call.request.rel_url.update_query(after=str(page.next))
        headers["Link"] = f'<{following}>; rel="next"'
    if preferred(call.request, cloudevents.JSON, cloudevents.BATCH) == cloudevents.BATCH:
        body = cloudevents.to_batch(_cloudevent(event) for event in page.events)
        return _as_is(body, headers | {"Content-Type": cloudevents.BATCH})
    return json_response(page, headers=headers)


async def show_event(call: Call[ShowQuery, Nothing]) -> web.Response:
    """Answer one event, numbered or not."""
    detail = "There is no such event."
    try:
        event_id = UUID(call.parameter("event_id"))
    except ValueError:
        raise NotFoundError(detail) from None
    async with call.door.pool.acquire() as conn:
        event = await read_event(conn, event_id)
    if event is None:
        raise NotFoundError(detail)
    accepted = preferred(call.request, cloudevents.JSON, cloudevents.STRUCTURED)
    match call.query.format or ("structured" if accepted == cloudevents.STRUCTURED else "json"):
        case "structured":
            body = cloudevents.to_structured(_cloudevent(event))
            return _as_is(body, {"Vary": "Accept", "Content-Type": cloudevents.STRUCTURED})
        case "binary":
            headers, body = cloudevents.to_binary(_cloudevent(event))
            return _as_is(body, headers)
        case _:
            return json_response(event, headers={"Vary": "Accept"})


def preferred(request: web.Request, *offered: str) -> str:
    """Return which of the media types ``offered`` the caller wants most by ``Accept``; by default the first."""
    wishes: dict[str, float] = {}
    for part in ",".join(request.headers.getall("Accept", ())).lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        wishes[media] = float(quality) if _QUALITY.fullmatch(quality) else 0.0
    return max(offered, key=lambda media: wishes.get(media, 0.0))


def _cloudevent(view: EventView) -> CloudEvent:
    values = {name: getattr(view, name) for name in RecordedEvent.__struct_fields__}
    texts = {name: bytes(values[name]).decode() for name in ("data", "metadata")}
    return kept_cloudevents.from_recorded(RecordedEvent(**values | texts))


def _as_is(body: bytes, headers: dict[str, str]) -> web.Response:
    """Answer what others sent: a browser that gets it saves it, whatever type they gave it."""
    protection = {"Content-Security-Policy": "sandbox; default-src 'none'", "Content-Disposition": "attachment"}
    return web.Response(body=body, headers={"Cache-Control": "no-store", **protection, **headers})


ROUTES: Final = (
    Route(
        method="GET",
        path="/api/events",
        handler=list_events,
        summary="Read the log by position; filters can be joined.",
        roles=ADMIN,
        query=EventQuery,
        responses={200: EventPage},
        response_headers=("Link", "Vary"),
        also_answers=(cloudevents.BATCH,),
    ),
    Route(
        method="GET",
        path="/api/events/{event_id}",
        handler=show_event,
        summary="Show one event with its position and chain hash.",
        roles=ADMIN,
        query=ShowQuery,
        responses={200: EventView},
        response_headers=("Vary",),
        also_answers=(cloudevents.STRUCTURED, "*/*"),
    ),
)
