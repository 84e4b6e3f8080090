"""Lidarr as a server: every route together, and the key that each asks for; a missing one is an empty 401."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import format_datetime
from typing import Final

from aiohttp import web

from kima_stream.simulator import facilities, rest_activity, rest_library, rest_notifications, weather
from kima_stream.simulator.library import ROOT
from kima_stream.simulator.lidarr import Lidarr
from kima_stream.simulator.records import ApiCall
from kima_stream.simulator.resources import Json
from kima_stream.simulator.rest import LIDARR, InvalidError, RefusedError, answer
from kima_stream.simulator.weather import Strike, Weather

_KEY: Final = web.AppKey("api_key", str)
WEATHER: Final = web.AppKey("weather", Weather)
_CLOSE_SECONDS: Final = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build(lidarr: Lidarr, api_key: str) -> web.Application:
    """Return the application: every route under ``/api/v1`` asks for ``api_key``."""
    app = web.Application(middlewares=[_weather, _guard])
    app[LIDARR], app[_KEY], app[WEATHER] = lidarr, api_key, Weather()
    rest_notifications.prepare(app)
    fixed: dict[str, Json | list[Json]] = {
        "/ping": {"status": "OK"},
        "/api/v1/system/status": facilities.system_status(lidarr.agenda.now),
        "/api/v1/qualityprofile": [facilities.quality_profile()],
        "/api/v1/metadataprofile": [facilities.metadata_profile()],
        "/api/v1/rootfolder": [facilities.root_folder(ROOT)],
        "/api/v1/health": [],
    }
    for path, body in fixed.items():
        app.router.add_get(path, _fixed(body))
    for routes in (rest_library.ROUTES, rest_activity.ROUTES, rest_notifications.ROUTES):
        app.add_routes(routes)
    return app


@asynccontextmanager
async def serving(app: web.Application, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve and yield the URL; port 0 takes a free one."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@web.middleware
async def _weather(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer by Lidarr's own clock, or as bad weather has it; write every call down."""
    body, lidarr = await request.read(), request.app[LIDARR]
    strike = request.app[WEATHER].befall(request)
    if strike is not None and strike.until is not None:
        await strike.until.wait()
    response = await _struck(request, strike, handler)
    kind = strike.kind if strike is not None else ""
    is_lost = kind in {"before", "after"}
    call = ApiCall(method=request.method, path=request.path, query=tuple(request.query.items()), body=body,
                   status=0 if kind == "before" else response.status, is_lost=is_lost)  # fmt: skip
    lidarr.records.calls.append(call)
    if is_lost:
        return weather.break_off(request)
    response.headers["Date"] = format_datetime(lidarr.agenda.now, usegmt=True)
    return response


async def _struck(request: web.Request, strike: Strike | None, handler: Handler) -> web.StreamResponse:
    match strike.kind if strike is not None else "":
        case "answer":
            assert strike is not None  # noqa: S101 - it has a kind
            return weather.answer(strike)
        case "before":
            return web.Response()
        case _:
            return await handler(request)


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path.startswith("/api/") and not _is_allowed(request):
        return web.Response(status=401)
    try:
        return await handler(request)
    except InvalidError as error:
        return answer(error.body, 400)
    except RefusedError as error:
        return answer(error.body, error.status)
    except web.HTTPNotFound:
        return answer({"message": "NotFound"}, 404)


def _is_allowed(request: web.Request) -> bool:
    given = (
        request.query.get("apikey")
        or request.headers.get("X-Api-Key")
        or request.headers.get("Authorization", "").removeprefix("Bearer ")
    )
    return hmac.compare_digest(given.encode(), request.app[_KEY].encode())


def _fixed(body: object) -> Handler:
    async def show(request: web.Request) -> web.Response:  # noqa: ARG001 - the form of a handler
        return answer(body)

    return show
