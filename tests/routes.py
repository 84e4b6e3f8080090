"""How a test calls any route of the table: an address, an honest body, and what it may answer.

A new route is picked up by itself: its address by its path, its body as the least that fits its schema. Where
the handler asks for more than a schema can say, add an honest body to ``EXAMPLES``, under ``METHOD /path``;
``tests/acceptance/test_errors.py`` says so when it is missing.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from kima_stream.http import openapi
from kima_stream.http.routes import AnyRoute, Nothing
from tests.front_door import FIXTURES

SOMEBODY = UUID("00000000-0000-4000-8000-000000000000")  # an id that nobody has
WORD = "x"

EXAMPLES: Mapping[str, bytes] = {
    "POST /api/webhooks/lidarr": (FIXTURES / "webhooks" / "grab.json").read_bytes(),
    "PUT /api/webhooks/lidarr": (FIXTURES / "webhooks" / "health.json").read_bytes(),
    "POST /api/webhooks/slskd": (FIXTURES / "slskd" / "webhook-DownloadFileComplete.json").read_bytes(),
    "POST /api/events": b'{"specversion": "1.0", "id": "1", "source": "test", "type": "test.happened", "data": {}}',
    "POST /api/searches": b'{"query": "nina simone pastel blues"}',
    "POST /api/dead-letters": b'{"group": "download_jobs"}',
    # Never beyond this machine: what a test would reach by default lies outside.
    "POST /api/settings/lidarr/test": b'{"lidarrUrl": "http://127.0.0.1:1", "lidarrApiKey": "0123456789"}',
    "POST /api/settings/soulseek/test": b'{"soulseekServer": "127.0.0.1:1"}',
    "POST /api/settings/lastfm/test": b'{"lastfmUrl": "http://127.0.0.1:1", "lastfmApiKey": "0123456789"}',
}


def name_of(route: AnyRoute) -> str:
    """Return how a person calls it."""
    return f"{route.method} {route.path}"


def address(route: AnyRoute, identity: object = SOMEBODY) -> str:
    """Return where the route is: every parameter of its path is ``identity``, and its query has what it needs."""
    path = re.sub(r"{\w+}", str(identity), route.path)
    schema = msgspec.json.schema(route.query)
    needed = _least(schema, schema["$defs"])
    return f"{path}?{urlencode(needed)}" if isinstance(needed, dict) and needed else path


def has_body(route: AnyRoute) -> bool:
    """Say whether the route reads a body."""
    return route.body is not Nothing or route.raw_body is not None


def body_of(route: AnyRoute) -> bytes | None:
    """Return an honest body, None for a route without one."""
    if not has_body(route):
        return None
    if name_of(route) in EXAMPLES:
        return EXAMPLES[name_of(route)]
    schema = msgspec.json.schema(route.raw_body or route.body)
    return json.dumps(_least(schema, schema.get("$defs", {}))).encode()


def media_of(route: AnyRoute) -> Mapping[str, str]:
    """Return the headers that belong to the body."""
    return {"Content-Type": route.accepts[0]} if has_body(route) else {}


def documented(route: AnyRoute) -> set[int]:
    """Return every status that the document names for the route; a 500 is never one."""
    return {*route.responses, *openapi.problems_of(route)}


def _least(schema: Mapping[str, Any], shapes: Mapping[str, Any]) -> object:  # noqa: PLR0911 - one per kind
    """Return the least value that fits a JSON schema of msgspec's making."""
    if "$ref" in schema:
        return _least(shapes[schema["$ref"].rpartition("/")[2]], shapes)
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return _least(schema["anyOf"][0], shapes)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _least(properties[name], shapes) for name in schema.get("required", ())}
        case "array":
            return [_least(schema["items"], shapes)] * int(schema.get("minItems", 0))
        case "string":
            return _text(schema)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return None


def _text(schema: Mapping[str, Any]) -> str:
    match schema.get("format"):
        case "uuid":
            return str(SOMEBODY)
        case "date-time":
            return "2026-11-24T02:00:00Z"
        case _:
            return WORD * int(schema.get("minLength", 1))
