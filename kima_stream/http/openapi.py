"""The OpenAPI 3.1 document of the route table, and a page that shows it.

Nothing here is written twice: shapes come from the structs, roles, parameters and answers from the
routes. The page has no script and refers to nothing outside.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

import msgspec
from aiohttp import web

from kima_stream.http import correlation
from kima_stream.http.app import PREPARED, TABLE
from kima_stream.http.problems import CONTENT_TYPE, Problem
from kima_stream.http.requests import MAX_VALUE_CHARACTERS
from kima_stream.http.routes import WEBHOOK, AnyRoute, Call, Nothing, Route

_PARAMETER: Final = re.compile(r"{(\w+)}")
_REF: Final = "#/components/schemas/{name}"
_SECURITY_SCHEMES: Final = {
    "api_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "webhook_secret": {"type": "apiKey", "in": "header", "name": "X-Webhook-Secret"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "Any user name, the key as password."},
}
_TEXT: Final = {"type": "string", "maxLength": MAX_VALUE_CHARACTERS, "pattern": "^[^\\u0000]*$"}
_REQUEST_HEADERS: Final = {
    name: {"description": description, "schema": schema}
    for name, description, schema in (
        ("If-Match", "The version that the stream must have.", {"type": "string", "pattern": '^"[0-9]{1,18}"$'}),
        ("If-None-Match", "A version that is known already, or `*`.", {"type": "string"}),
        ("Idempotency-Key", "Names the request.", {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"}),
        ("Prefer", "`wait=N`: the answer is final in any case.", {"type": "string"}),
        ("Last-Event-ID", "The last position seen.", {"type": "string", "pattern": "^[0-9]{1,18}$"}),
    )
}
_RESPONSE_HEADERS: Final = {
    name: {"description": description, "schema": {"type": kind}}
    for name, description, kind in (
        ("X-Correlation-Id", "The caller's id of the request, or a fresh one.", "string"),
        ("RateLimit", "What is left, and in how many seconds there is more.", "string"),
        ("RateLimit-Policy", "How many requests in how many seconds.", "string"),
        ("Retry-After", "When to ask again, in seconds.", "integer"),
        ("WWW-Authenticate", "How to send a key.", "string"),
        ("ETag", "The version.", "string"),
        ("Link", "The next page.", "string"),
        ("Location", "Where it can be read.", "string"),
        ("Preference-Applied", "The preference that was honoured.", "string"),
        ("Vary", "What the answer depends on.", "string"),
    )
}
_PROBLEM_HEADERS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
h2 { font-size: 1.1rem; margin: 2rem 0 .25rem } code { font-size: .95em }
.method { font-weight: 700; display: inline-block; min-width: 4.5rem } .muted { color: #57606a }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117 } .muted { color: #9198a1 } }
"""

Json = dict[str, Any]  # a JSON object of OpenAPI's making, too varied to be worth structs


def document(routes: Iterable[AnyRoute], *, url_base: str = "") -> Json:
    """Return the OpenAPI 3.1 document of ``routes``."""
    table = tuple(routes)
    schemas, components = _schemas(table)
    paths: dict[str, Json] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kima-stream",
            "version": version("kima-stream"),
            "description": "Every webhook and every request, kept before it is answered.",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "servers": [{"url": url_base or "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": _problem_responses(table, schemas[Problem]),
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _schemas(routes: Sequence[AnyRoute]) -> tuple[Mapping[Any, Json], Json]:
    """Return the schema of each type that the routes name, and the components they refer to."""
    types: list[Any] = [Problem]
    for route in routes:
        types += [route.query, route.body, *(shape for shape in route.responses.values() if shape)]
        types += [route.raw_body] if route.raw_body else []
    distinct = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(distinct, ref_template=_REF)
    return dict(zip(distinct, schemas, strict=True)), components


def _operation(route: AnyRoute, schemas: Mapping[Any, Json], components: Json) -> Json:
    operation: Json = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_') or 'page'}",
        "parameters": [
            *_path_parameters(route),
            *_query_parameters(schemas[route.query], components),
            *({"name": name, "in": "header", **_REQUEST_HEADERS[name]} for name in route.request_headers),
        ],
        "responses": _responses(route, schemas),
    }
    if route.roles:
        operation["description"] = f"Needs a key of role {' or '.join(sorted(route.roles))}."
        operation["security"] = [{name: []} for name in _SECURITY_SCHEMES]
    body = route.raw_body or (None if route.body is Nothing else route.body)
    if body is not None:
        schema = {"anyOf": [schemas[body], {"type": "object"}]} if route.takes_any_object else schemas[body]
        content = {media: {"schema": schema} for media in route.accepts}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(route: AnyRoute) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}
        for name in _PARAMETER.findall(route.path)
    ]


def _query_parameters(schema: Json, components: Json) -> list[Json]:
    shape: Json = components[schema["$ref"].rpartition("/")[2]]
    required = shape.get("required", ())
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": _in_query(value) | ({"minLength": 1} if name in required else {}),
        }
        for name, value in shape.get("properties", {}).items()
    ]


def _in_query(schema: Json) -> Json:
    """Return a parameter's schema: a query has no null, and every text has an end."""
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
    bounded = [_TEXT | choice if choice.get("type") == "string" else choice for choice in choices]
    only = {name: value for name, value in bounded[0].items() if not (name == "default" and value is None)}
    if len(bounded) == 1:
        return {**only, "enum": [value for value in only["enum"] if value is not None]} if "enum" in only else only
    return {"anyOf": bounded}


def _responses(route: AnyRoute, schemas: Mapping[Any, Json]) -> Json:
    responses: Json = {}
    for status, shape in sorted(route.responses.items()):
        answer: Json = {"description": HTTPStatus(status).phrase, "headers": _headers(route, status)}
        if status != HTTPStatus.NOT_MODIFIED:
            content: Json = {"application/json": {"schema": schemas[shape]}} if shape else {route.media_type: {}}
            answer["content"] = content | {media: {} for media in route.also_answers}
        responses[str(status)] = answer
    for status in sorted(problems_of(route) - route.responses.keys()):
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return responses


def problems_of(route: AnyRoute) -> set[int]:
    """Return the statuses of the problems that ``route`` may answer; a 500 is a defect and never one of them."""
    found = {400, 408, 413, 417, 429, 431, *route.problems}
    if route.roles:
        found |= {401, 403, 503}
    if route.query is not Nothing:
        found.add(422)
    if "{" in route.path:
        found.add(404)
    if route.body is not Nothing:
        found |= {415, 422}
    return found


def _headers(route: AnyRoute, status: int) -> Json:
    limited = () if route.roles == WEBHOOK else ("RateLimit", "RateLimit-Policy")
    retry = ("Retry-After",) if status == HTTPStatus.SERVICE_UNAVAILABLE else ()
    return {name: _RESPONSE_HEADERS[name] for name in (correlation.HEADER, *limited, *retry, *route.response_headers)}


def _problem_responses(table: Sequence[AnyRoute], schema: Json) -> Json:
    """Return every problem once, for the operations to refer to."""
    answers: Json = {}
    for status in sorted({status for route in table for status in problems_of(route)}):
        names = (correlation.HEADER, *_PROBLEM_HEADERS.get(status, ()))
        answers[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}, as a problem (RFC 9457).",
            "headers": {name: _RESPONSE_HEADERS[name] for name in names},
            "content": {CONTENT_TYPE: {"schema": schema}},
        }
    return answers


async def show_document(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer the document."""
    return web.Response(body=_prepared(call, "document"), content_type="application/json")


async def show_page(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer the page made from the document."""
    headers = {"Content-Security-Policy": _PAGE_POLICY}
    return web.Response(body=_prepared(call, "page"), content_type="text/html", charset="utf-8", headers=headers)


def _prepared(call: Call[Nothing, Nothing], name: str) -> bytes:
    """Return the document or its page, made once: nobody can keep us busy with asking."""
    prepared = call.request.app[PREPARED]
    if name not in prepared:
        table: tuple[AnyRoute, ...] = call.request.app[TABLE]
        made = document(table, url_base=call.door.settings.url_base)
        prepared |= {"document": msgspec.json.encode(made), "page": render(made).encode()}
    return prepared[name]


def render(openapi: Json) -> str:
    """Return ``openapi`` as a page: one section per operation."""
    sections = "".join(
        _section(method, path, operation)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    )
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}: HTTP</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><main><h1>{escape(title)}</h1><p>{escape(openapi['info']['description'])} "
        f'The same as <a href="openapi.json">OpenAPI 3.1</a>.</p>{sections}</main></html>'
    )


def _section(method: str, path: str, operation: Json) -> str:
    queries = [p["name"] for p in operation["parameters"] if p["in"] == "query"]
    parameters = f"<p>Query: {', '.join(f'<code>{escape(name)}</code>' for name in queries)}</p>" if queries else ""
    access = escape(operation.get("description", "Open."))
    answers = ", ".join(f"<code>{escape(status)}</code>" for status in operation["responses"])
    return (
        f'<h2><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code></h2>'
        f'<p>{escape(operation["summary"])} <span class="muted">{access}</span></p>'
        f"{parameters}<p>Answers: {answers}</p>"
    )


ROUTES: Final = (
    Route(method="GET", path="/api/openapi.json", handler=show_document, summary="This document."),
    Route(
        method="GET",
        path="/api/docs",
        handler=show_page,
        summary="The routes on a page.",
        media_type="text/html",
    ),
)
