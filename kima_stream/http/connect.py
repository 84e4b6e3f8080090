"""Connect an outside system over HTTP, for admins: register our webhook there and prove that it arrives."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from kima_stream.http.requests import Text
from kima_stream.http.routes import ADMIN, AnyRoute, Call, Nothing, Route, json_response
from kima_stream.integrations import lidarr_connection, lidarr_registration
from kima_stream.integrations.lidarr import Lidarr, session
from kima_stream.integrations.lidarr_connection import Connected
from kima_stream.settings import definitions

_URL: Final = "Our address as the other system reaches it; else the setting publicUrl."


class ConnectRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where we are; needed only while the settings do not say it."""

    url: Annotated[Text, msgspec.Meta(description=_URL)] | None = None


async def connect_lidarr(call: Call[Nothing, ConnectRequest]) -> web.Response:
    """Register the webhook, or set right what is there, and answer what was done."""
    settings = await call.door.settings_store.refresh()
    async with session() as connections:
        lidarr = Lidarr.of(settings, connections)
        url = lidarr_registration.address(
            call.body.url,
            settings[definitions.PUBLIC_URL],
            lidarr.transport.base_url,
            _here(call.request, call.door.settings.url_base),
        )
        connected = await lidarr_connection.connect(call.door.pool, lidarr, url)
    return json_response(connected)


def _here(request: web.Request, url_base: str) -> str | None:
    """Return where this machine reaches the door: where this request came in."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not isinstance(name, tuple):
        return None
    host, port = name[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{url_base}"


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="POST",
        path="/api/connect/lidarr",
        handler=connect_lidarr,
        summary="Register our webhook in Lidarr, with a key made for it, and prove that its Test arrives here.",
        roles=ADMIN,
        body=ConnectRequest,
        responses={200: Connected},
        problems=(409, 502),
    ),
)
