"""The headers of every answer: what a browser must not do with it, what is left to ask for, and its id."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from kima_stream.http import correlation
from kima_stream.http.limits import USAGE

# A page of ours says more; an API answer must never run, frame or refer to anything.
PROTECTION: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Server": "kima-stream",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def protect(request: web.Request, response: web.StreamResponse) -> None:
    """Give ``response`` the headers that every answer has; what it says itself stands."""
    headers = response.headers
    for name, value in PROTECTION.items():
        headers.setdefault(name, value)
    usage = request.get(USAGE)
    if usage is not None:
        headers.update(usage.headers())
    headers[correlation.HEADER] = correlation.of(request)
