"""The correlation id of a request: the caller's own, or a fresh one; bound to the log, echoed in the answer.

Taken from ``X-Correlation-Id``, else the trace id of W3C ``traceparent``; anything that does not look
like an id is ignored, since it would end in logs and events.
"""

import re
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from uuid_utils import uuid7

HEADER: Final = "X-Correlation-Id"

_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_KEY: Final = web.RequestKey("correlation_id", str)


def bind(request: web.Request) -> str:
    """Settle the id of ``request`` and return it."""
    correlation_id = request[_KEY] = choose(request.headers)
    return correlation_id


def of(request: web.Request) -> str:
    """Return the id of ``request``, settling it when nobody did."""
    return request.get(_KEY) or bind(request)


def choose(headers: Mapping[str, str]) -> str:
    """Return the id that the caller gave, or a fresh one."""
    given = headers.get(HEADER)
    if given is not None and _ID.fullmatch(given):
        return given
    parent = headers.get("traceparent")
    trace = None if parent is None else _TRACEPARENT.fullmatch(parent)
    return trace[1] if trace and trace[1].strip("0") else str(uuid7())
