"""The web page: one file of our own that asks the HTTP interface, and nothing from outside.

Its policy allows the one script and the one style that carry this answer's nonce, and no other.
"""

import secrets
from importlib.resources import files
from typing import Final

from aiohttp import web

from kima_stream.http.routes import Call, Nothing, Route

_PAGE: Final = files("kima_stream.http").joinpath("page.html").read_text(encoding="utf-8")
_POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def show_page(call: Call[Nothing, Nothing]) -> web.Response:  # noqa: ARG001 - the form of a handler
    """Answer the page."""
    nonce = secrets.token_urlsafe(16)
    return web.Response(
        text=_PAGE.replace("{{nonce}}", nonce),
        content_type="text/html",
        headers={"Content-Security-Policy": _POLICY.format(nonce=nonce), "Cache-Control": "no-store"},
    )


ROUTES: Final = (Route(method="GET", path="/", handler=show_page, summary="The web page.", media_type="text/html"),)
