"""One connection of a client: how long it may take, and what it hears when it speaks no HTTP.

A request's head must have come within ``head_seconds`` of the connection, or of its own first byte
on one that is kept alive; its body is watched by ``app``. Who does not take an answer is dropped by
the kernel. A webhook that is plain in every way is taken from the parser before aiohttp sees it; see ``express``.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

import structlog
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_request import BaseRequest

from kima_stream.group_commit import Receipt
from kima_stream.http import correlation, problems
from kima_stream.http.express import Express, Parcel
from kima_stream.http.protection import PROTECTION

HEAD_SECONDS: Final = 10.0
UNREAD_SECONDS: Final = 60.0  # for how long a client may take nothing of what we send
LINGER_SECONDS: Final = 5.0  # in which a client may finish what was refused already, to hear why
MAX_CONNECTIONS: Final = 4_096  # at one process; below what the system lets us open
MAX_LINE_BYTES: Final = 8_190  # the request line, with the path and the query
MAX_FIELD_BYTES: Final = 8_190  # one header
MAX_HEADERS: Final = 128

Answer: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """aiohttp's connection, with a time for the head, with problems for answers, and with a short way for webhooks."""

    __slots__ = ("_early", "_express", "_finished", "_head_due", "_head_seconds", "_is_under_way", "_rest")

    def __init__(self, server: "Server", *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        """Take what aiohttp takes."""
        super().__init__(server, loop=loop, **options)
        self._head_seconds = server.head_seconds
        self._head_due: asyncio.TimerHandle | None = None
        self._express = server.express
        self._is_under_way = False  # a webhook on its short way; what comes meanwhile waits in _early
        self._early = b""
        self._rest: asyncio.Task[None] | None = None
        self._finished: asyncio.Future[None] | None = None
        self._parser = _Tap(self._parser, self._take)  # type: ignore[assignment]  # for all that it does not do itself

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        opened = transport.get_extra_info("socket")
        if opened is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNREAD_SECONDS * 1_000))
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that is complete is waited for no more."""
        if self._is_under_way:
            if data:
                self._early += data
                self._pause_transport_reading()
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count > before or self._is_under_way:
            self._stop_waiting()
        elif self._is_idle():
            self._await_head()

    def _take(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        """Send a webhook its short way, if it has one and nothing else is going on here."""
        if not self._is_idle() or self._messages or self._close or self._force_close or self._paused:
            return False
        self._is_under_way = True
        parcel: Parcel | None = None
        try:
            parcel = self._express.accept(message, payload)
        finally:
            self._is_under_way = parcel is not None
        if parcel is None:
            return False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        parcel.first.add_done_callback(partial(self._go_on, parcel))
        return True

    def _go_on(self, parcel: Parcel, _: "asyncio.Future[Receipt]") -> None:
        answer = parcel.answer()
        if answer is None:
            self._rest = self._loop.create_task(self._see_through(parcel))
        else:
            self._send(answer, is_last=parcel.is_last)

    async def _see_through(self, parcel: Parcel) -> None:
        answer = await parcel.rest()
        self._send(answer, is_last=parcel.is_last)

    def _send(self, answer: bytes, *, is_last: bool) -> None:
        """Answer, and go on with what came meanwhile."""
        self._is_under_way = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(answer)
        if is_last or self._close:
            self.force_close()
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)
        if self._early:
            early, self._early = self._early, b""
            self._resume_transport_reading()
            self.data_received(early)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Answer what is under way before all ends."""
        if self._is_under_way:
            self._finished = self._loop.create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._finished
        await super().shutdown(timeout)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's words may hold what was sent
    ) -> web.StreamResponse:
        """Answer a problem to what never became a request, or failed outside the application."""
        if request.writer.output_size > 0:
            raise ConnectionError  # the answer has begun: the connection is all that is left to end
        headers: Mapping[str, str] = {}
        if status == web.HTTPInternalServerError.status_code and isinstance(exc, Exception):
            problem, headers = problems.from_error(exc)
        elif isinstance(exc, LineTooLong):
            problem = problems.of(431, "head_too_large", f"A header or the address is above {MAX_FIELD_BYTES} bytes.")
        else:
            problem = problems.of(status, "malformed_request", "This is not HTTP.")
        correlation_id = correlation.of(request) if isinstance(request, web.Request) else ""
        log.info("request_refused", status=problem.status, error_type=type(exc).__name__)
        headers = {**PROTECTION, correlation.HEADER: correlation_id, **headers}
        response = problems.response(problem, headers, correlation_id=correlation_id)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:  # noqa: ANN401, ARG002 - aiohttp's; its words may hold what was sent
        """Say what aiohttp stumbled over while it read on after an answer; a defect of ours with its trace."""
        error = options.get("exc_info")
        if isinstance(error, HttpProcessingError | web.RequestPayloadError | OSError):
            log.info("connection_broken", error_type=type(error).__name__)
        else:
            log.error("connection_failed", error_type=type(error).__name__, exc_info=error)

    def _is_idle(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _await_head(self) -> None:
        if self._head_due is None and not self._force_close:
            self._head_due = self._loop.call_later(self._head_seconds, self._refuse_late_head)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _refuse_late_head(self) -> None:
        self._head_due = None
        if self._is_idle():
            log.info("head_awaited_in_vain")
            self.force_close()


class _Tap:
    """A parser that offers each request that came alone to ``take``, and does not hand on what was taken."""

    __slots__ = ("_parser", "_take")

    def __init__(self, parser: Any, take: Callable[[RawRequestMessage, StreamReader], bool]) -> None:  # noqa: ANN401 - aiohttp's, compiled
        self._parser = parser
        self._take = take

    def feed_data(self, data: bytes) -> Any:  # noqa: ANN401 - as the parser gives it
        messages, upgraded, tail = fed = self._parser.feed_data(data)
        if len(messages) == 1 and not upgraded and self._take(*messages[0]):
            self._parser.message_consumed()
            return (), upgraded, tail
        return fed

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the parser has it
        return getattr(self._parser, name)


class Server(web.Server):
    """Makes such connections, and no more than ``MAX_CONNECTIONS``."""

    express: Express
    head_seconds: float = HEAD_SECONDS

    def __call__(self) -> web.RequestHandler:
        """Return the handler of a connection that was accepted."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Drop a connection on top of those that we can hold."""
        super().connection_made(handler, transport)
        if len(self._connections) > MAX_CONNECTIONS:
            log.warning("connection_dropped", connections=len(self._connections))
            transport.abort()


class Runner(web.AppRunner):
    """aiohttp's runner, with our connections and our entrance."""

    def __init__(
        self,
        app: web.Application,
        *,
        answer: Answer,
        express: Express,
        head_seconds: float,
        **options: Any,  # noqa: ANN401 - aiohttp's
    ) -> None:
        """Let ``answer``, or ``express``, answer in the place of ``app``; take the options of a connection."""
        super().__init__(app, **options)
        self._answer = answer
        self._express = express
        self._head_seconds = head_seconds

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        server = Server(
            self._answer,  # type: ignore[arg-type]  # its factory makes a Request of each
            request_factory=made.request_factory,
            **self._kwargs,
        )
        server.express = self._express
        server.head_seconds = self._head_seconds
        return server
