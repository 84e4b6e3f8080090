"""Notifications: register a webhook, which Lidarr tries at once with a Test event.

A receiver that refuses is a 400 with an array; one that is not there is a 500. A password comes back
as asterisks, which keep the stored one when they are sent; header values come back in clear text.
Kinds that are no webhook (``add_other``) are shown as they were given and tell nobody.
"""

from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import web

from kima_stream.simulator import payloads
from kima_stream.simulator.postman import Address
from kima_stream.simulator.records import Kind
from kima_stream.simulator.resources import Json
from kima_stream.simulator.rest import LIDARR, InvalidError, RefusedError, answer, body_of, number_of

_FLAGS: Final = (
    "onGrab", "onReleaseImport", "onUpgrade", "onRename", "onArtistAdd", "onArtistDelete", "onAlbumDelete",
    "onHealthIssue", "onHealthRestored", "onDownloadFailure", "onImportFailure", "onTrackRetag",
    "onApplicationUpdate",
)  # fmt: skip
_FLAG_OF: Final[Mapping[Kind, str]] = {
    "grab": "onGrab",
    "import": "onReleaseImport",
    "failure": "onDownloadFailure",
    "import_failure": "onImportFailure",
    "artist_add": "onArtistAdd",
}
_MASK: Final = "********"
_ERROR: Final = 400
_METHODS: Final = {1: "POST", 2: "PUT"}
_STORED: Final = web.AppKey("notifications", dict)
_OTHERS: Final = web.AppKey("other notifications", dict)


def _fields(values: Mapping[str, object]) -> list[Json]:
    described: tuple[tuple[str, str, str, Json], ...] = (
        ("url", "URL", "url", {}),
        ("method", "Method", "select", {"selectOptions": [
            {"value": number, "name": name, "order": number} for number, name in _METHODS.items()]}),
        ("username", "Username", "textbox", {"privacy": "userName"}),
        ("password", "Password", "password", {"privacy": "password"}),
        ("headers", "Headers", "keyValueList", {"advanced": True}),
    )  # fmt: skip
    fields: list[Json] = []
    for order, (name, label, kind, extra) in enumerate(described):
        value = values.get(name)
        shown = _MASK if name == "password" and value else value
        field = {"order": order, "name": name, "label": label, "value": shown, "type": kind}
        fields.append({**field, "advanced": False, "privacy": "normal", "isFloat": False, **extra})
    return fields


_DEFAULTS: Final[Json] = {"url": "", "method": 1, "username": "", "password": "", "headers": []}


def _resource(number: int | None, name: str, given: Mapping[str, object], values: Mapping[str, object]) -> Json:
    body: Json = {
        "name": name,
        "fields": _fields(values),
        "implementationName": "Webhook",
        "implementation": "Webhook",
        "configContract": "WebhookSettings",
        "infoLink": "https://wiki.servarr.com/lidarr/supported#webhook",
        "tags": given.get("tags") or [],
        **{flag: bool(given.get(flag)) for flag in (*_FLAGS, "includeHealthWarnings")},
        **{f"supports{flag[0].upper()}{flag[1:]}": True for flag in _FLAGS},
    }
    return body if number is None else {"id": number, **body}


class _Notification:
    """A webhook that was registered."""

    def __init__(self, number: int, name: str, given: Json, values: Json) -> None:
        self.number, self.name, self.given, self.values = number, name, given, values

    def shown(self) -> Json:
        """Return it without its password."""
        return _resource(self.number, self.name, self.given, self.values)


async def show_schema(request: web.Request) -> web.Response:  # noqa: ARG001 - the form of a handler
    """Answer the empty form of each kind; here there is one kind."""
    return answer([_resource(None, "", {}, _DEFAULTS)])


async def list_notifications(request: web.Request) -> web.Response:
    """Answer what is registered, in the order of its numbers."""
    shown = {number: each.shown() for number, each in _stored(request).items()}
    shown |= _others(request)
    return answer([shown[number] for number in sorted(shown)])


async def add_notification(request: web.Request) -> web.Response:
    """Register a webhook, once its Test has gone through."""
    stored = _stored(request)
    taken = await _take(request, max([*stored, *_others(request)], default=0) + 1)
    stored[taken.number] = taken
    _readdress(request)
    return answer(taken.shown(), 201, location=f"/api/v1/notification/{taken.number}")


async def change_notification(request: web.Request) -> web.Response:
    """Change a webhook; it is tested again if anything is different."""
    number = number_of(request, "id")
    if number not in _stored(request):
        raise RefusedError(404, f"Notification with ID {number} does not exist")
    taken = await _take(request, number)
    _stored(request)[number] = taken
    _readdress(request)
    return answer(taken.shown(), 202)


async def remove_notification(request: web.Request) -> web.Response:
    """Forget a webhook."""
    _stored(request).pop(number_of(request, "id"), None)
    _readdress(request)
    return answer({})


async def test_notification(request: web.Request) -> web.Response:
    """Send a Test and keep nothing."""
    await _take(request, int(str((await body_of(request)).get("id", 0))), is_test=True)
    return answer({})


async def _take(request: web.Request, number: int, *, is_test: bool = False) -> _Notification:
    """Return what the body asks for, tested.

    Raises:
        InvalidError: the receiver refused, or the body is no webhook.
        RefusedError: nobody is there.
    """
    body = await body_of(request)
    if body.get("implementation") != "Webhook":
        raise InvalidError("Implementation", "Sequence contains no matching element", code="implementation")
    given = body.get("fields")
    fields = {str(field["name"]): field.get("value") for field in given} if isinstance(given, list) else {}
    known = _stored(request).get(number)
    if known is not None and fields.get("password") == _MASK:
        fields["password"] = known.values["password"]
    values = {**_DEFAULTS, **{name: value for name, value in fields.items() if value is not None}}
    taken = _Notification(number, str(body.get("name", "")), body, values)
    if not values["url"]:
        raise InvalidError("Url", "'Url' must not be empty.", code="NotEmptyValidator")
    others = [each.name for each in _stored(request).values() if each.number != number]
    others += [str(each.get("name")) for each in _others(request).values()]
    if taken.name in others and not is_test:
        raise InvalidError("Name", "Should be unique", code="PredicateValidator", attempted=taken.name)
    is_same = known is not None and known.shown() == taken.shown() and known.values == taken.values
    if any(body.get(flag) for flag in _FLAGS) and (is_test or not is_same):
        await _try(request, _address(taken))
    return taken


async def _try(request: web.Request, address: Address) -> None:
    lidarr = request.app[LIDARR]
    body = payloads.encode(payloads.test(lidarr.sender))
    fact = lidarr.records.happened("test", lidarr.agenda.now, body)
    try:
        status, event_id = await lidarr.postman.send(address, body)
    except (aiohttp.ClientError, OSError) as error:
        lidarr.records.told(fact)
        raise RefusedError(500, f"Connection refused: {type(error).__name__}") from None
    lidarr.records.told(fact, status=status, event_id=event_id)
    if status >= _ERROR:
        failure = f"HTTP request failed: [{status}] [{address.method}] at [{address.url}]"
        raise InvalidError("Url", f"Unable to post to webhook: {failure}", code="test")


def _address(notification: _Notification) -> Address:
    values = notification.values
    headers = values["headers"]
    pairs = [pair for pair in headers if isinstance(pair, dict)] if isinstance(headers, list) else []
    return Address(
        url=str(values["url"]),
        wants=frozenset(kind for kind, flag in _FLAG_OF.items() if notification.given.get(flag)),
        method="PUT" if str(values["method"]) == "2" else "POST",
        username=str(values["username"]),
        password=str(values["password"]),
        headers={str(pair["key"]): str(pair["value"]) for pair in pairs},
    )


def _stored(request: web.Request) -> dict[int, _Notification]:
    stored: dict[int, _Notification] = request.app[_STORED]
    return stored


def _others(request: web.Request) -> dict[int, Json]:
    others: dict[int, Json] = request.app[_OTHERS]
    return others


def _readdress(request: web.Request) -> None:
    request.app[LIDARR].postman.addresses = [_address(each) for each in _stored(request).values()]


def prepare(app: web.Application) -> None:
    """Begin with nothing registered."""
    app[_STORED], app[_OTHERS] = {}, {}


def add_other(app: web.Application, body: Json) -> Json:
    """Register a notification of another kind, e.g. Discord, and return it as it is shown from now on."""
    number = max([*app[_STORED], *app[_OTHERS]], default=0) + 1
    app[_OTHERS][number] = {**body, "id": number}
    return dict(app[_OTHERS][number])


ROUTES: Final = (
    web.get("/api/v1/notification/schema", show_schema),
    web.get("/api/v1/notification", list_notifications),
    web.post("/api/v1/notification", add_notification),
    web.post("/api/v1/notification/test", test_notification),
    web.put(r"/api/v1/notification/{id:\d+}", change_notification),
    web.delete(r"/api/v1/notification/{id:\d+}", remove_notification),
)
