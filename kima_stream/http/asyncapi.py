"""The AsyncAPI 3.0 document of the events: in Redis, as server-sent events, and as CloudEvents on the way in.

Nothing here is written twice: shapes come from the structs, a new fact is in it by being defined.
What is not ours has no shape here: submitted events are as their senders made them.
"""

import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Final

import msgspec
from aiohttp import web

from kima_stream import event_stream, events, upcasters
from kima_stream.events import Event, event_type
from kima_stream.http import cloudevents
from kima_stream.http.app import PREPARED
from kima_stream.http.event_views import Numbered
from kima_stream.http.live import LiveQuery
from kima_stream.http.openapi import Json
from kima_stream.http.routes import Call, Nothing, Route
from kima_stream.http.submissions import AnyCloudEvent
from kima_stream.integrations import lidarr_webhooks, slskd_webhooks
from kima_stream.read_models import PROJECTIONS

EXTERNAL: Final = "external"  # the channel of all categories that others name
_REF: Final = "#/components/schemas/{name}"
_OF_ANY_STREAM: Final = "effect"  # these facts lie in the stream that wants the call


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a Redis stream: a CloudEvent, one field per attribute, all of them text.

    Its id is ``<position>-0``. Above 64 kB ``dataref`` stands for ``data`` and ``metadata``: ask the front door.
    """

    specversion: str
    id: str
    source: str
    type: str
    stream: str
    sequence: str  # the version in its stream, from 0
    schemaversion: str
    correlationid: str
    time: str
    recordedtime: str
    datacontenttype: str
    subject: str | msgspec.UnsetType = msgspec.UNSET
    causationid: str | msgspec.UnsetType = msgspec.UNSET
    data: str | msgspec.UnsetType = msgspec.UNSET
    metadata: str | msgspec.UnsetType = msgspec.UNSET
    dataref: str | msgspec.UnsetType = msgspec.UNSET


class Unknown(msgspec.Struct, frozen=True):
    """A webhook of no type that we know, kept as it came."""


def vocabulary() -> Mapping[str, Mapping[str, type[msgspec.Struct]]]:
    """Return the shape of the data of every type of event, by category."""
    found: dict[str, dict[str, type[msgspec.Struct]]] = {
        lidarr_webhooks.SOURCE: {name: shape for shape, name in lidarr_webhooks.TYPES.items()},
        slskd_webhooks.SOURCE: {
            slskd_webhooks.event_type(label): slskd_webhooks.SlskdWebhook for label in slskd_webhooks.TYPES
        },
    }
    for received in (lidarr_webhooks, slskd_webhooks):
        found[received.SOURCE][received.UNKNOWN] = Unknown
    effects = [p.category for p in PROJECTIONS.values() if "effects" in type(p.initial).__struct_fields__]
    for fact in own_facts():
        name = event_type(fact)
        category = name.partition(".")[0]
        for holder in effects if category == _OF_ANY_STREAM else [category]:
            found.setdefault(holder, {})[name] = fact
    return {category: dict(sorted(found[category].items())) for category in sorted(found)}


def own_facts() -> list[type[Event]]:
    """Return the facts that this package defines; whoever imports it may have made more."""
    return [fact for fact in upcasters.facts() if fact.__module__.startswith(f"{events.__name__}.")]


def document(*, url_base: str = "") -> Json:
    """Return the AsyncAPI 3.0 document."""
    words = vocabulary()
    named = {name: shape for types in words.values() for name, shape in types.items()}
    shown: list[type[msgspec.Struct]] = list(
        dict.fromkeys([*named.values(), Entry, Numbered, AnyCloudEvent, LiveQuery])
    )
    schemas, components = msgspec.json.schema_components(shown, ref_template=_REF)
    schema_of = dict(zip(shown, schemas, strict=True))
    typed = {name: schema_of[shape] for name, shape in named.items()}
    components["RecordedEvent"] = _recorded(schema_of[Numbered], typed)
    channels = {category: _channel(category, types) for category, types in words.items()}
    messages = {name: _message(name, shape, typed[name]) for name, shape in named.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "kima-stream",
            "version": version("kima-stream"),
            "description": "Every fact, in one order. Redis has a copy; the front door has them all.",
            "license": {"name": "GPL-3.0-or-later"},
        },
        "defaultContentType": cloudevents.JSON,
        "servers": _servers(url_base),
        "channels": channels | {EXTERNAL: _channel(EXTERNAL, {})} | _http_channels(),
        "operations": _operations(channels),
        "components": {"schemas": components, "messages": messages | _messages_of_others(schema_of)},
    }


def _messages_of_others(schema_of: Mapping[type[msgspec.Struct], Json]) -> Json:
    return {
        "entry": {"name": "entry", "summary": "An event of others.", "payload": schema_of[Entry]},
        "recorded": {
            "name": "recorded",
            "summary": "An event as GET /api/events shows it; the id of the message is its position.",
            "payload": {"$ref": _REF.format(name="RecordedEvent")},
        },
        "cloudevent": {
            "name": "cloudevent",
            "summary": "A CloudEvent 1.0 in structured mode; binary and batch are taken as well.",
            "contentType": cloudevents.STRUCTURED,
            "payload": schema_of[AnyCloudEvent],
        },
    }


def _servers(url_base: str) -> Json:
    door: Json = {"host": "127.0.0.1:3006", "protocol": "http", "description": "KIMA_HOST, KIMA_PORT"}
    return {
        "door": door | ({"pathname": url_base} if url_base else {}),
        "redis": {"host": "127.0.0.1:6379", "protocol": "redis", "description": "KIMA_REDIS_URL"},
    }


def _channel(category: str, types: Iterable[str]) -> Json:
    """Return the Redis stream of a category; braces of the key are literal, so they are part of the parameter."""
    address = event_stream.key("").replace("{}", "{slot}")
    if category == EXTERNAL:
        slot: Json = {"description": "The category in braces, e.g. {order}: at most 64 that others name."}
    else:
        slot = {"enum": [f"{{{category}}}"], "default": f"{{{category}}}"}
    names = list(types) or ["entry"]
    return {
        "address": address,
        "title": event_stream.key(category) if category != EXTERNAL else "The streams of others",
        "servers": [{"$ref": "#/servers/redis"}],
        "parameters": {"slot": slot},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _http_channels() -> Json:
    door = [{"$ref": "#/servers/door"}]
    return {
        "live": {
            "address": "/api/live",
            "title": "Server-sent events, resumed by Last-Event-ID",
            "servers": door,
            "messages": {"recorded": {"$ref": "#/components/messages/recorded"}},
        },
        "submissions": {
            "address": "/api/events",
            "title": "CloudEvents of others",
            "servers": door,
            "messages": {"cloudevent": {"$ref": "#/components/messages/cloudevent"}},
        },
    }


def _operations(channels: Iterable[str]) -> Json:
    """Return what kima-stream does with each channel."""
    operations: Json = {
        f"publish_{category}": {"action": "send", "channel": {"$ref": f"#/channels/{category}"}}
        for category in (*channels, EXTERNAL)
    }
    get = {"method": "GET", "query": {"$ref": _REF.format(name=LiveQuery.__name__)}}
    for name, action, channel, http in (
        ("follow", "send", "live", get),
        ("submit", "receive", "submissions", {"method": "POST"}),
    ):
        operations[name] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "bindings": {"http": http | {"bindingVersion": "0.3.0"}},
        }
    return operations


def _message(name: str, shape: type[msgspec.Struct], schema: Json) -> Json:
    """Return the entry in Redis that carries an event of type ``name``."""
    data = {"type": "string", "contentMediaType": cloudevents.JSON, "contentSchema": schema}
    return {
        "name": name,
        "summary": (inspect.getdoc(shape) or name).partition("\n")[0],
        "payload": {
            "allOf": [
                {"$ref": _REF.format(name=Entry.__name__)},
                {"properties": {"type": {"const": name}, "data": data}},
            ]
        },
    }


def _recorded(base: Json, typed: Mapping[str, Json]) -> Json:
    """Return the shape of any event of ours as it is shown: its type says what its data is."""
    return {
        "allOf": [
            base,
            *(
                {"if": {"properties": {"type": {"const": name}}}, "then": {"properties": {"data": schema}}}
                for name, schema in typed.items()
            ),
        ]
    }


async def show_document(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer the document, made once."""
    prepared = call.request.app[PREPARED]
    if "asyncapi" not in prepared:
        prepared["asyncapi"] = msgspec.json.encode(document(url_base=call.door.settings.url_base))
    return web.Response(body=prepared["asyncapi"], content_type="application/json")


ROUTES: Final = (
    Route(
        method="GET", path="/api/asyncapi.json", handler=show_document,
        summary="The events, as AsyncAPI 3.0: in Redis, live, and submitted.",
    ),
)  # fmt: skip
