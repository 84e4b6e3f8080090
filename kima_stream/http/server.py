"""Serving an application, and stopping so that no request is cut and no acknowledged event lost.

Stop: readiness turns, nobody new is accepted, every answer from now on closes its connection, so
that a busy client leaves after its next answer; idle connections go when the drain is over; the
requests under way are finished. The group commit is flushed after that, by its own context.
"""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from kima_stream.errors import ConfigurationError
from kima_stream.http.app import DRAINING, entrance_to, express_to
from kima_stream.http.connection import (
    HEAD_SECONDS,
    LINGER_SECONDS,
    MAX_CONNECTIONS,
    MAX_FIELD_BYTES,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    Runner,
)
from kima_stream.http.express import Express
from kima_stream.http.routes import DOOR

DRAIN_SECONDS: Final = 1.0  # a client with a request on its way on an idle connection is answered within this
FINISH_SECONDS: Final = 8.0  # above what a commit waits for Postgres
KEEP_ALIVE_SECONDS: Final = 75.0  # above the 60 s after which common proxies drop a connection themselves
BACKLOG: Final = 1_024

_POLL_SECONDS: Final = 0.01

log = structlog.get_logger(__name__)


@asynccontextmanager
async def serving(
    app: web.Application,
    *,
    host: str,
    port: int,
    drain_seconds: float = DRAIN_SECONDS,
    head_seconds: float = HEAD_SECONDS,
    express: Express | None = None,
) -> AsyncIterator[int]:
    """Serve ``app`` and yield the port (the one taken when ``port`` is 0); leaving stops gracefully.

    ``express`` is the short way to its webhooks, unless it is another one.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    _allow_connections()
    runner = Runner(
        app,
        answer=entrance_to(app),
        express=express or express_to(app),
        head_seconds=head_seconds,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=FINISH_SECONDS,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        lingering_time=LINGER_SECONDS,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        max_headers=MAX_HEADERS,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
        await _start(site, host, port)
        taken = int(runner.addresses[0][1])
        log.info("door_opened", host=host, port=taken)
        try:
            yield taken
        finally:
            app[DRAINING].set()
            app[DOOR].feed.close()  # its readers would stay for ever
            await _drain(runner, site, drain_seconds)
    finally:
        await runner.cleanup()
        log.info("door_closed")


async def _start(site: web.TCPSite, host: str, port: int) -> None:
    try:
        await site.start()
    except OSError as error:
        fault = f"KIMA_HOST, KIMA_PORT: {host}:{port} cannot be had: {error.strerror}"
        raise ConfigurationError([fault]) from error


def _allow_connections() -> None:
    """Ask the system for as many open files as there may be connections, or as many as it gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _drain(runner: web.AppRunner, site: web.TCPSite, seconds: float) -> None:
    await asyncio.sleep(0)  # who has just been accepted by the kernel is accepted by us
    await site.stop()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    # aiohttp has no event for a connection that goes.
    while runner.server is not None and runner.server.connections and loop.time() < deadline:  # noqa: ASYNC110 - see above
        await asyncio.sleep(_POLL_SECONDS)
