"""The front door: one route table becomes one aiohttp application.

A request passes: correlation id, key, size, parameters, handler, answer; whatever is raised on the
way becomes a problem. Nothing here knows Postgres or Redis; the handlers get them in a ``Door``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from kima_stream.cache import Copies
from kima_stream.database import Pool
from kima_stream.group_commit import GroupCommit
from kima_stream.http import access, correlation, problems, requests
from kima_stream.http.categories import Categories
from kima_stream.http.entrance import Entrance, Handler
from kima_stream.http.express import Express
from kima_stream.http.feed import Feed
from kima_stream.http.limits import LIMITS, USAGE, Limits, Policies, Policy, address_of
from kima_stream.http.proxies import trusting
from kima_stream.http.requests import MAX_BODY_BYTES
from kima_stream.http.routes import DOOR, ROUTE, WEBHOOK, AnyRoute, Call, Door, Nothing
from kima_stream.settings.api_keys import Principal
from kima_stream.settings.config import Settings
from kima_stream.settings.known_keys import ApiKeys
from kima_stream.settings.store import SettingsStore, Sources

DRAINING: Final = web.AppKey("draining", asyncio.Event)
TABLE: Final = web.AppKey("table", tuple)
PREPARED: Final = web.AppKey("prepared", dict[str, bytes])  # answers that never change, made when first asked for


@asynccontextmanager
async def opened(
    settings: Settings,
    pool: Pool,
    *,
    settings_store: SettingsStore | None = None,
    redis_url: str | None = None,
    ping_redis: Callable[[], Awaitable[object]] | None = None,
    wake_publisher: Callable[[], None] = lambda: None,
) -> AsyncIterator[Door]:
    """Yield the door's parts over ``pool``; leaving flushes what is still being committed.

    Without the process's ``settings_store`` the door reads the settings when it is asked for them.
    """

    def committed() -> None:
        wake_publisher()
        feed.wake()

    async with (
        Feed(pool) as feed,
        Copies(redis_url) as copies,
        GroupCommit(pool, on_commit=committed) as commit,
    ):
        yield Door(
            settings=settings,
            pool=pool,
            commit=commit,
            keys=ApiKeys(pool),
            categories=Categories(pool),
            feed=feed,
            settings_store=settings_store or SettingsStore(pool, Sources.of(settings)),
            copies=copies,
            ping_redis=ping_redis,
            wake_publisher=committed,
        )


def build(
    door: Door,
    routes: Iterable[AnyRoute],
    *,
    policies: Policies | None = None,
    body_seconds: float = requests.BODY_SECONDS,
) -> web.Application:
    """Return the application of ``routes``; a trailing slash is served as well, never redirected."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[DOOR] = door
    app[LIMITS] = Limits(policies)
    app[requests.BODY_TIMEOUT] = body_seconds
    app[DRAINING] = asyncio.Event()
    app[TABLE] = table = tuple(routes)
    app[PREPARED] = {}
    for route in table:
        path = door.settings.url_base + route.path
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            for address in (path,) if path.endswith("/") else (path, f"{path}/"):
                app.router.add_route(method, address, _endpoint(route), expect_handler=_expect)
    app.cleanup_ctx.append(_keep_key_use)
    return app


def entrance_to(app: web.Application) -> Handler:
    """Return what answers in the place of ``app``."""
    entrance = Entrance(app._handle, app[DRAINING])  # noqa: SLF001 - what aiohttp's own runner calls
    proxies = app[DOOR].settings.trusted_proxies
    return partial(trusting(proxies), handler=entrance) if proxies else entrance


def express_to(app: web.Application) -> Express:
    """Return the short way to the webhooks of ``app``."""
    table: tuple[AnyRoute, ...] = app[TABLE]
    return Express(app[DOOR], app[LIMITS], table, app[DRAINING])


def _endpoint(route: AnyRoute) -> Handler:
    decoder = msgspec.json.Decoder(route.body)

    async def endpoint(request: web.Request) -> web.StreamResponse:
        request[ROUTE] = route
        principal = await _admitted(request, route)
        requests.check_path(request)
        raw = await requests.read(request)
        return await route.handler(
            Call(
                request=request,
                door=request.app[DOOR],
                principal=principal,
                query=requests.query(request, route.query),
                body=Nothing() if route.body is Nothing else requests.body(request, decoder, raw),
                raw=raw,
                correlation_id=correlation.of(request),
            )
        )

    return endpoint


async def _admitted(request: web.Request, route: AnyRoute) -> Principal | None:
    """Return who asks, None on a route that is open; whoever it is, his limits hold."""
    limits = request.app[LIMITS]
    if not route.roles:
        request[USAGE] = limits.take(limits.policies.address, address_of(request))
        return None
    return await access.admit(request, request.app[DOOR].keys, limits, route.roles, _policy(route, limits.policies))


def _policy(route: AnyRoute, policies: Policies) -> Policy | None:
    if route.roles == WEBHOOK:
        return None  # each comes once: refused is lost
    return policies.key if route.raw_body is None else policies.sender


async def _expect(request: web.Request) -> None:
    """Answer ``Expect: 100-continue`` as HTTP asks; ``connection`` has refused any other."""
    if request.transport is not None and (request.content_length or 0) <= MAX_BODY_BYTES:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _keep_key_use(app: web.Application) -> AsyncIterator[None]:
    keys = app[DOOR].keys
    task = asyncio.create_task(keys.run(), name="key-use")
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    with suppress(*problems.UNAVAILABLE):
        await keys.write_used()
