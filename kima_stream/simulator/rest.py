"""What the routes of Lidarr's REST API share: how it answers, how it reads, both shapes of its errors.

An error of validation is an array, all others are an object. Source: Lidarr ``src/Lidarr.Http``.
"""

from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web

from kima_stream.simulator import resources
from kima_stream.simulator.lidarr import Lidarr
from kima_stream.simulator.resources import Json

LIDARR: Final = web.AppKey("lidarr", Lidarr)
DEFAULT_PAGE_SIZE: Final = 10


class InvalidError(Exception):
    """What was sent does not do: 400 with an array, as FluentValidation writes it."""

    def __init__(self, name: str, message: str, *, code: str, attempted: object = None) -> None:
        """Name the property and what is wrong with it."""
        super().__init__(message)
        error = {"propertyName": name, "errorMessage": message, "attemptedValue": attempted, "severity": "error"}
        self.body = [resources.present({**error, "errorCode": code})]


class RefusedError(Exception):
    """Anything else that went wrong: ``status`` with an object."""

    def __init__(self, status: int, message: str) -> None:
        """Say what."""
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "description": f"NzbDrone.Core.Exceptions: {message}\n   at Lidarr"}


def answer(body: object, status: int = 200, *, location: str | None = None) -> web.Response:
    """Return ``body`` as Lidarr writes JSON."""
    headers = {"Location": location} if location else {}
    encoded = msgspec.json.encode(body)
    return web.Response(body=encoded, status=status, content_type="application/json", charset="utf-8", headers=headers)


async def body_of(request: web.Request) -> Json:
    """Return the JSON object that was sent.

    Raises:
        InvalidError: it is none.
    """
    try:
        return msgspec.json.decode(await request.read(), type=Json)
    except msgspec.DecodeError as error:
        raise InvalidError("$", f"The JSON value could not be converted: {error}", code="json") from None


def number_of(request: web.Request, name: str, default: int | None = None) -> int:
    """Return a parameter of the query or of the path.

    Raises:
        InvalidError: it is no number, or missing and has no default.
    """
    text = request.match_info.get(name) or request.query.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise InvalidError(name, f"The value '{text}' is not valid.", code="number", attempted=text) from None


def page_of(request: web.Request, records: list[Json], *, sort_key: str, direction: str) -> web.Response:
    """Return the page that was asked for: the first, of ten, unless the query says otherwise."""
    number = max(1, number_of(request, "page", 1))
    size = max(1, number_of(request, "pageSize", DEFAULT_PAGE_SIZE))
    return answer(resources.page(records, number=number, size=size, sort_key=sort_key, direction=direction))


def moment_of(text: str) -> datetime:
    """Return a time of a query; one without a zone is UTC.

    Raises:
        InvalidError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidError("date", f"The value '{text}' is not valid.", code="date", attempted=text) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
