"""What every request passes, whoever answers it: its id, its figures, and a problem when it fails.

It stands around aiohttp's application and not in it: middlewares and signals cost a request more
than what they would do here. What is no HTTP never comes this far; see ``connection``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from time import perf_counter
from typing import Final, TypeAlias

import structlog
from aiohttp import hdrs, web
from prometheus_client import Counter, Histogram
from structlog.typing import FilteringBoundLogger

from kima_stream import metrics
from kima_stream.errors import UserFacingError
from kima_stream.http import correlation, problems
from kima_stream.http.protection import protect
from kima_stream.http.routes import ROUTE

_LAST: Final = frozenset({408, 417})  # after these nobody knows whether a body is still to come

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger(__name__)


class Entrance:
    """Answers every request, with what ``handle`` gives or with a problem."""

    def __init__(self, handle: Handler, draining: asyncio.Event) -> None:
        """While ``draining`` is set, each answer ends its connection."""
        self._handle = handle
        self._draining = draining
        self._log = log.bind()  # here once, not with every request

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Return what to answer."""
        began = perf_counter()
        correlation_id = correlation.bind(request)
        # Each connection has a task, and so a context, of its own: the next request of it binds anew.
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        try:
            if hdrs.EXPECT in request.headers:
                _check_expectation(request)
            response = await self._handle(request)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets a problem
            problem, headers = problems.from_error(error)
            response = problems.response(problem, headers, correlation_id=correlation_id)
        if not response.prepared:
            protect(request, response)
        if self._draining.is_set() or response.status in _LAST:
            response.force_close()
        route, seconds = request.get(ROUTE), perf_counter() - began
        if route is None:
            count(self._log, metrics.OTHER, metrics.OTHER, response.status, seconds)
        else:
            count(self._log, request.method, route.path, response.status, seconds)
            if route.observe:
                route.observe(request, response.status, seconds)
        return response


def count(log: FilteringBoundLogger, method: str, path: str, status: int, seconds: float, **context: str) -> None:
    """Count an answer under the path of its route."""
    requests, durations = _figures(method, path, status)
    requests.inc()
    durations.observe(seconds)
    log.debug("request_answered", method=method, route=path, status=status, seconds=round(seconds, 6), **context)


@cache
def _figures(method: str, path: str, status: int) -> tuple[Counter, Histogram]:
    return (
        metrics.http_requests.labels(method=method, route=path, status=str(status)),
        metrics.http_request_seconds.labels(method=method, route=path),
    )


def _check_expectation(request: web.Request) -> None:
    """Refuse what nobody can expect; aiohttp would repeat the header's bytes, which need not be text."""
    if request.headers[hdrs.EXPECT].lower() not in ("", "100-continue"):
        raise UserFacingError("Only 100-continue can be expected.", status=417, code="expectation_failed")
