"""What a request brings, bounded and checked before any handler sees it: body, query, path.

Raises ``UserFacingError`` for all that does not fit: 400 it cannot be read, 408 it comes too slowly,
413 it is too large, 415 it is no JSON, 422 it does not say what is asked here.
"""

import asyncio
from typing import Annotated, Final, TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from kima_stream.errors import NotFoundError, UserFacingError
from kima_stream.integrations.received import MAX_DEPTH, is_too_deep

MAX_BODY_BYTES: Final = 1024 * 1024  # also after it was unpacked
MAX_VALUE_CHARACTERS: Final = 1_024  # one parameter of a query or a path; all of them fit the request line
BODY_SECONDS: Final = 30.0  # 1 MB in this time is a slow line; a body that takes longer is given up

BODY_TIMEOUT: Final = web.AppKey("body_timeout", float)

Text = Annotated[str, msgspec.Meta(max_length=MAX_VALUE_CHARACTERS, pattern=r"^[^\x00]*$")]  # as in a parameter
S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


async def read(request: web.Request) -> bytes:
    """Return the body, unpacked if it was packed."""
    content = request.content
    if content.is_eof() and content.exception() is None:  # it came with the head: there is nothing to wait for
        raw = content.read_nowait()
        if len(raw) > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(raw))
        return raw
    announced = request.content_length or 0
    if announced > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, announced)
    try:
        async with asyncio.timeout(request.app[BODY_TIMEOUT]):
            return await request.read()
    except TimeoutError:
        detail = "The body did not come in time; nothing was stored."
        raise UserFacingError(detail, status=408, code="request_timeout") from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        detail = "The body broke off or does not fit its encoding."
        raise UserFacingError(detail, status=400, code="malformed_body") from error


def query(request: web.Request, shape: type[S]) -> S:
    """Return the query as ``shape``; an empty value is no value."""
    given = [(name, value) for name, value in request.query.items() if value] if request.query_string else []
    for name, value in given:
        if not _is_bounded(name, value):
            raise _invalid(f"Query: a parameter has at most {MAX_VALUE_CHARACTERS} characters, and no NUL.")
    values = dict(given)
    if len(values) < len(given):
        raise _invalid("Query: a parameter comes twice.")
    try:
        converted = msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(f"Query: {error}.") from None
    for name in values:
        if getattr(converted, name, values) is None:
            raise _invalid(f"Query: `{name}` is not null; leave it out.")  # msgspec reads the word as none
    return converted


def check_path(request: web.Request) -> None:
    """See that the parameters of the path could be the name of anything."""
    if request.match_info and not _is_bounded(*request.match_info.values()):
        raise NotFoundError("There is nothing at this address.")


def body(request: web.Request, decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    """Return the body as the decoder's type."""
    if not _is_json(request):
        raise UserFacingError("Send JSON, as application/json.", status=415, code="unsupported_media_type")
    if is_too_deep(raw):
        raise UserFacingError(f"The body nests deeper than {MAX_DEPTH}.", status=400, code="malformed_body")
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _invalid(f"Body: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserFacingError(f"The body is not JSON: {error}.", status=400, code="malformed_body") from None


def _is_json(request: web.Request) -> bool:
    media = request.content_type.lower()
    return hdrs.CONTENT_TYPE not in request.headers or media == "application/json" or media.endswith("+json")


def _is_bounded(*texts: str) -> bool:
    return all(len(text) <= MAX_VALUE_CHARACTERS and "\0" not in text and _is_text(text) for text in texts)


def _is_text(text: str) -> bool:
    """Return whether it is Unicode: bytes that are not come as halves of surrogate pairs, which cannot be stored."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _invalid(detail: str) -> UserFacingError:
    return UserFacingError(detail, status=422, code="invalid")
