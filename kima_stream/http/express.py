"""The short way of a webhook: from the parser to the shared commit and back, and nothing in between (ADR 010).

Only what is plain in every way takes it: a whole request for the address of a webhook, with a key
that has opened the door in the last second, and nothing odd about it. All others go the long way, by
``entrance`` and aiohttp. Both ways use the same functions: ``access``, ``Delivery``, ``problems``,
``protection``; neither is answered before the commit, and nobody can tell the answers apart.
"""

import asyncio
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter, time
from typing import Final

import msgspec
import structlog
from aiohttp import HttpVersion11, StreamReader, hdrs
from aiohttp.http_parser import RawRequestMessage

from kima_stream.group_commit import Receipt
from kima_stream.http import access, correlation, problems, webhooks
from kima_stream.http.entrance import count
from kima_stream.http.limits import Limits
from kima_stream.http.protection import PROTECTION
from kima_stream.http.routes import JSON_HEADERS, AnyRoute, Door
from kima_stream.http.webhooks import Delivery

MAX_BYTES: Final = 32_768  # a larger body comes in several pieces, and is no webhook of every day

log = structlog.get_logger(__name__)


class Express:
    """The addresses that have a short way, and what it needs of the process."""

    def __init__(self, door: Door, limits: Limits, routes: Iterable[AnyRoute], draining: asyncio.Event) -> None:
        """Take the webhooks among ``routes``; while ``draining`` is set, all go the long way."""
        self.door = door
        self.draining = draining
        self.log = log.bind()  # here once, not with every request
        self._limits = limits
        self._routes: dict[tuple[str, str], AnyRoute] = {
            (route.method, f"{door.settings.url_base}{route.path}{slash}"): route
            for route in routes
            if route.path in webhooks.SOURCES
            for slash in ("", "/")
        }

    def accept(self, message: RawRequestMessage, payload: StreamReader) -> "Parcel | None":
        """Return the webhook in a request, its append begun; None for what has to go the long way, not read."""
        route = self._routes.get((message.method, message.path))
        if (
            route is None
            or not payload.is_eof()
            or payload.exception() is not None
            or payload.total_bytes > MAX_BYTES
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or hdrs.EXPECT in message.headers
            or self.draining.is_set()
            or not access.is_known(message.headers, self.door.keys, self._limits, route.roles)
        ):
            return None
        return Parcel(self, route, message, payload.read_nowait())


class Parcel:
    """One webhook on its short way.

    ``first`` is its first append: once done, it says all (``answer``), or there is more to do (``rest``).
    After an answer that ``is_last`` the connection ends.
    """

    __slots__ = ("_began", "_correlation_id", "_delivery", "_express", "_method", "_route", "first", "is_last")

    def __init__(self, express: Express, route: AnyRoute, message: RawRequestMessage, raw: bytes) -> None:
        """Read it and begin its append; a body that cannot be kept makes a ``first`` that has failed."""
        self._began = perf_counter()
        self._express, self._route, self._method = express, route, message.method
        self._correlation_id = correlation.choose(message.headers)
        self._delivery: Delivery | None = None
        self.is_last = False
        try:
            self._delivery = Delivery(
                express.door,
                webhooks.SOURCES[route.path],
                raw,
                path=message.path,
                user_agent=message.headers.get(hdrs.USER_AGENT, ""),
                correlation_id=self._correlation_id,
            )
            self.first = self._delivery.begin()
        except Exception as error:  # noqa: BLE001 - ``rest`` raises it again
            self.first = asyncio.get_running_loop().create_future()
            self.first.set_exception(error)

    def answer(self) -> bytes | None:
        """Return the whole answer if ``first`` was committed as something new, else None."""
        if self._delivery is None or self.first.cancelled() or self.first.exception() is not None:
            return None
        receipt = self.first.result()
        return None if receipt.duplicate else self._accepted(self._delivery, receipt)

    async def rest(self) -> bytes:
        """Return the answer, whatever it takes."""
        structlog.contextvars.bind_contextvars(correlation_id=self._correlation_id)
        try:
            receipt = await (self.first if self._delivery is None else self._delivery.settle(self.first))
            assert self._delivery is not None  # noqa: S101 - without one, ``first`` has raised
            return self._accepted(self._delivery, receipt)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the caller gets a problem
            problem, headers = problems.from_error(error)
            headers, body = problems.written(problem, headers, correlation_id=self._correlation_id)
            return self._written(problem.status, headers, body)

    def _accepted(self, delivery: Delivery, receipt: Receipt) -> bytes:
        return self._written(200, JSON_HEADERS, msgspec.json.encode(delivery.accepted(receipt)))

    def _written(self, status: int, headers: Mapping[str, str], body: bytes) -> bytes:
        seconds = perf_counter() - self._began
        count(self._express.log, self._method, self._route.path, status, seconds, correlation_id=self._correlation_id)
        webhooks.observe(self._delivery, status, seconds)
        self.is_last = self._express.draining.is_set()
        return b"%bContent-Length: %d\r\nDate: %b\r\n%b: %b\r\n%b\r\n%b" % (
            _head(status, tuple(headers.items())),
            len(body),
            _date(int(time())),
            correlation.HEADER.encode(),
            self._correlation_id.encode(),
            b"Connection: close\r\n" if self.is_last else b"",
            body,
        )


@lru_cache(maxsize=100)
def _head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return the part of a head that is the same with every such answer; nothing in it is a sender's word."""
    fields = {**PROTECTION, **dict(headers)}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in lines).encode()


@lru_cache(maxsize=2)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()
