"""Whether this process lives, whether it can do its work, and its figures.

Ready means: webhooks and requests can be accepted. That needs Postgres and nothing else; without
Redis or behind with publishing the system is degraded and says so, with 200, because sending the
traffic elsewhere would not mend it.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final, Literal

import msgspec
from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

from kima_stream.http.access import admit
from kima_stream.http.app import DRAINING
from kima_stream.http.limits import LIMITS
from kima_stream.http.problems import RETRY_AFTER_SECONDS, UNAVAILABLE
from kima_stream.http.routes import Call, Door, Nothing, Route, json_response
from kima_stream.numbering import count_unnumbered
from kima_stream.settings.api_keys import Role

CHECK_SECONDS: Final = 2.0  # a part that answers no sooner is away
LAG_SECONDS: Final = 10.0  # an event that waits longer for its number: nobody publishes

_METRICS: Final[frozenset[Role]] = frozenset({"admin", "metrics"})
_serve_metrics: Final = make_aiohttp_handler()


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part; ``detail`` says why it is not ok, without internals."""

    status: Literal["ok", "degraded", "unavailable"]
    detail: str | None = None
    lag_events: int | None = None
    lag_seconds: float | None = None


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """The whole: unavailable (503) without Postgres or while stopping, degraded (200) without the rest."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Check]


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str = "ok"


async def show_alive(call: Call[Nothing, Nothing]) -> web.Response:  # noqa: ARG001 - the form of a handler
    """Answer as long as the process can."""
    return json_response(Alive())


async def show_ready(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer 200 while webhooks and requests can be accepted, else 503."""
    readiness = await check(call.door, is_draining=call.request.app[DRAINING].is_set())
    if readiness.status == "unavailable":
        return json_response(readiness, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    return json_response(readiness)


async def show_metrics(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    """Answer the figures for Prometheus; with ``KIMA_METRICS_KEYED`` only to a key of role metrics."""
    if call.door.settings.metrics_keyed:
        await admit(call.request, call.door.keys, call.request.app[LIMITS], _METRICS, None)
    return await _serve_metrics(call.request)


async def check(door: Door, *, is_draining: bool = False) -> Readiness:
    """Return how each part is, in at most ``CHECK_SECONDS``."""
    (postgres, publisher), redis = await asyncio.gather(_check_log(door), _check_redis(door))
    checks = {"postgres": postgres, "redis": redis, "publisher": publisher}
    if is_draining:
        checks["process"] = Check(status="unavailable", detail="stopping")
    if is_draining or postgres.status != "ok":
        return Readiness(status="unavailable", checks=checks)
    is_ok = all(part.status == "ok" for part in checks.values())
    return Readiness(status="ok" if is_ok else "degraded", checks=checks)


async def _check_log(door: Door) -> tuple[Check, Check]:
    """Return how Postgres and the publisher are; who counts slowly takes webhooks all the same."""
    postgres = Check(status="unavailable")
    try:
        async with asyncio.timeout(CHECK_SECONDS), door.pool.acquire() as conn:
            await conn.execute("SELECT")
            postgres = Check(status="ok")
            lag = await count_unnumbered(conn)
    except UNAVAILABLE as error:
        if postgres.status != "ok":
            postgres = Check(status="unavailable", detail=type(error).__name__)
        return postgres, Check(status="degraded", detail="unknown")
    status: Literal["ok", "degraded"] = "ok" if lag.oldest_seconds <= LAG_SECONDS else "degraded"
    return postgres, Check(status=status, lag_events=lag.events, lag_seconds=round(lag.oldest_seconds, 3))


async def _check_redis(door: Door) -> Check:
    if door.ping_redis is None:
        return Check(status="degraded", detail="this process has no Redis")
    return await _answers(door.ping_redis())


async def _answers(ping: Awaitable[object]) -> Check:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await ping
    except Exception as error:  # noqa: BLE001 - whatever the client raises, Redis does not answer
        return Check(status="degraded", detail=type(error).__name__)
    return Check(status="ok")


ROUTES: Final = (
    *(
        Route(
            method="GET",
            path=path,
            handler=show_alive,
            summary="Say that the process lives.",
            responses={200: Alive},
        )
        for path in ("/ping", "/livez")
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=show_ready,
        summary="Say whether webhooks and requests can be accepted, part by part.",
        responses={200: Readiness, 503: Readiness},
    ),
    *(
        Route(
            method="GET",
            path=path,
            handler=show_metrics,
            summary="Figures for Prometheus.",
            media_type="text/plain",
            problems=(401, 403, 503),
        )
        for path in ("/metrics", "/api/metrics")
    ),
)
