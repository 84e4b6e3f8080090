"""What goes wrong between a client and Lidarr: answers that are errors, late, lost, or no answer at all.

A ``Strike`` is planned for calls to come; ``is_down`` is an outage. Whatever was struck is in the records
as well: a call whose answer was lost has happened.
"""

import asyncio
from typing import Literal

import msgspec
from aiohttp import web


class Strike(msgspec.Struct, kw_only=True):
    """What befalls the next ``times`` calls that fit; empty fits all.

    ``answer``: this status and body come instead of the call; ``before``: the connection breaks and nothing
    has happened; ``after``: it has happened, and the connection breaks; ``hold``: the call waits for ``until``.
    """

    kind: Literal["answer", "before", "after", "hold"] = "answer"
    method: str = ""
    path: str = ""  # what the path begins with, from /api/v1 on
    times: int = 1
    status: int = 503
    body: bytes = b""
    content_type: str = "text/html"
    headers: dict[str, str] = {}
    until: asyncio.Event | None = None

    def fits(self, request: web.Request) -> bool:
        """Return whether it befalls this call."""
        return self.times > 0 and self.method in {"", request.method} and request.path.startswith(self.path)


class Weather:
    """What is planned to go wrong."""

    def __init__(self) -> None:
        """All is well."""
        self.is_down = False
        self.strikes: list[Strike] = []

    def befall(self, request: web.Request) -> Strike | None:
        """Return what befalls this call, and count it."""
        if self.is_down:
            return Strike(kind="before")
        strike = next((each for each in self.strikes if each.fits(request)), None)
        if strike is not None:
            strike.times -= 1
        return strike


def answer(strike: Strike) -> web.Response:
    """Return the answer that comes instead."""
    return web.Response(
        body=strike.body, status=strike.status, content_type=strike.content_type, headers=strike.headers
    )


def break_off(request: web.Request) -> web.Response:
    """Break the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
