"""Our webhook among Lidarr's notifications: where it leads, which one is ours, what it must say. Pure.

Of a notification that is there, only what we need is changed: where it leads, our header, and the events
that downloads are followed by. The rest is somebody's choice and stays, a password behind its mask too.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from kima_stream.errors import ConfigurationError
from kima_stream.integrations.lidarr_types import Json, Notification, Whole
from kima_stream.settings import kinds

PATH: Final = "/api/webhooks/lidarr"
NAME: Final = "kima-stream"
SECRET_HEADER: Final = "X-Webhook-Secret"  # noqa: S105 - the header's name
NEEDED: Final = ("onGrab", "onReleaseImport", "onUpgrade", "onDownloadFailure", "onImportFailure")
WELCOME: Final = (
    "onRename", "onArtistAdd", "onArtistDelete", "onAlbumDelete", "onHealthIssue", "onHealthRestored",
    "includeHealthWarnings", "onTrackRetag", "onApplicationUpdate",
)  # fmt: skip
_EMPTY: Final[Json] = {
    "implementation": "Webhook",
    "implementationName": "Webhook",
    "configContract": "WebhookSettings",
    "tags": [],
    "fields": [],
}
_STATUS: Final = re.compile(r"\[(\d{3})\b")


def address(given: str | None, public: str | None, lidarr_url: str, here: str | None) -> str:
    """Return where Lidarr posts its webhooks.

    Args:
        given: our address as somebody just said it, or the webhook's.
        public: our address by the settings.
        lidarr_url: where Lidarr is; on this machine it reaches us as we reach ourselves.
        here: our address on this machine, None when nobody knows.

    Raises:
        ConfigurationError: nobody said where we are, and Lidarr is not on this machine.
    """
    base = given or public or (here if _is_here(lidarr_url) else None)
    if base is None:
        remedy = "e.g. http://kima-stream:3006; give it as --url, as `url`, or as the setting publicUrl"
        raise ConfigurationError([f"publicUrl: missing; Lidarr must know how to reach this server, {remedy}"])
    try:
        checked = kinds.http_url(base)
    except ValueError as error:
        raise ConfigurationError([f"url: {error}"]) from None
    return checked if checked.endswith(PATH) else checked + PATH


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def secret_of(notification: Notification) -> str | None:
    """Return the key that a webhook carries in our header."""
    found = {name.lower(): value for name, value in notification.headers.items()}
    return found.get(SECRET_HEADER.lower())


def find(
    notifications: Sequence[Whole[Notification]], url: str, our_keys: Collection[str]
) -> Whole[Notification] | None:
    """Return our webhook: the one that leads to ``url``, else one that carries a key of ours.

    One that only has the same path may be that of another server, and is nobody's to take.
    """
    webhooks = [each for each in notifications if each.resource.url]
    exact = [each for each in webhooks if _same(each.resource.url, url)]
    keyed = [each for each in webhooks if secret_of(each.resource) in our_keys]
    return next(iter([*exact, *keyed]), None)


def has_our_path(url: str) -> bool:
    """Return whether a webhook leads to a server like this one."""
    return urlsplit(url).path.rstrip("/").endswith(PATH)


def _same(one: str, other: str) -> bool:
    first, second = urlsplit(one.strip()), urlsplit(other)
    return (first.scheme.lower(), first.netloc.lower(), first.path.rstrip("/")) == (
        second.scheme.lower(), second.netloc.lower(), second.path.rstrip("/"),
    )  # fmt: skip


def changed(body: Json, url: str, key: str) -> Json:
    """Return a webhook that is there with what we need of it."""
    return {**body, **dict.fromkeys(NEEDED, True), "fields": _fields(body, url, key)}


def new(schema: Json | None, taken: Collection[str], url: str, key: str) -> Json:
    """Return a webhook of ours from Lidarr's empty form, under a name that nobody has."""
    names = [NAME, *(f"{NAME} ({number})" for number in range(2, len(taken) + 3))]
    body = {name: value for name, value in (schema or _EMPTY).items() if name not in {"id", "presets"}}
    return {
        **body,
        "name": next(name for name in names if name.lower() not in {each.lower() for each in taken}),
        **dict.fromkeys((*NEEDED, *WELCOME), True),
        "fields": _fields(body, url, key),
    }


def with_header(body: Json, name: str, value: str) -> Json:
    """Return a webhook that carries one more header."""
    fields = [
        {**field, "value": [*_headers_but(field, name), {"key": name, "value": value}]}
        if field.get("name") == "headers"
        else field
        for field in _objects(body.get("fields"))
    ]
    return {**body, "fields": fields}


def _fields(body: Json, url: str, key: str) -> list[Json]:
    fields = {str(field.get("name")): field for field in _objects(body.get("fields"))}
    values: Mapping[str, object] = {
        "url": url,
        "method": fields.get("method", {}).get("value") or 1,
        "headers": [*_headers_but(fields.get("headers", {}), SECRET_HEADER), {"key": SECRET_HEADER, "value": key}],
    }
    for name, value in values.items():
        fields[name] = {"name": name, **fields.get(name, {}), "value": value}
    return list(fields.values())


def _headers_but(field: Json, name: str) -> list[Json]:
    """Return the headers of a field without the one of this name."""
    return [pair for pair in _objects(field.get("value")) if str(pair.get("key", "")).lower() != name.lower()]


def _objects(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def notes(ours: Notification, others: Sequence[Notification]) -> tuple[str, ...]:
    """Return what somebody should know about, though it is none of our business to change it."""
    found = []
    if ours.tags:
        found.append(
            f"{ours.name} has tags: Lidarr tells us only of artists that have one of them; "
            "remove the tags in Lidarr to hear of all"
        )
    found += [
        f"{other.name} leads to {host_of(other.url)} with the same path: if that is this server too, "
        "delete it in Lidarr, or everything comes twice"
        for other in others
        if other.id != ours.id and has_our_path(other.url)
    ]
    return tuple(found)


def host_of(url: str) -> str:
    """Return an address without anything that may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def refusal(url: str, said: str) -> str:
    """Return what it means that Lidarr's Test was refused, and what to do."""
    found = _STATUS.search(said)
    match found[1] if found else "":
        case "401" | "403":
            return f"what answers at {url} does not know our key: it is another kima-stream; give our own address"
        case "404" | "405":
            return f"there is nothing at {url}: give our address with its URL base, if it has one"
        case _:
            return f"Lidarr's Test to {url} was refused ({said}); see the log of what answers there"
