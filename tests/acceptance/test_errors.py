"""Errors: one thing is wrong with a request, on every route of the table, and the answer is the one envelope.

Generated from the table; how a new route gets an honest body is said in ``tests/routes.py``.
"""

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import aiohttp
import msgspec
import pytest
from aiohttp import web

from kima_stream import database, logs
from kima_stream.database import Pool
from kima_stream.embedded.postgres import Postgres
from kima_stream.errors import (
    ConfigurationError,
    ConflictError,
    IntegrationError,
    NotFoundError,
    RateLimitError,
    UserFacingError,
)
from kima_stream.http.limits import Policies, Policy
from kima_stream.http.problems import Problem
from kima_stream.http.protection import PROTECTION
from kima_stream.http.requests import MAX_BODY_BYTES
from kima_stream.http.routes import WEBHOOK, AnyRoute, Call, Nothing
from kima_stream.http.table import ROUTES
from tests import front_door
from tests.acceptance.test_limits import speaking
from tests.front_door import OpenDoor
from tests.routes import address, body_of, documented, has_body, media_of, name_of

KEYED = [route for route in ROUTES if route.roles]
WITH_BODY = [route for route in ROUTES if has_body(route)]
TYPED = [route for route in ROUTES if route.body is not Nothing]
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"}
FIELDS = {"title", "status", "code", "detail", "faults", "retryable", "instance"}
REFUSALS = {401, 403, 405, 408, 413, 415, 417, 429, 431}
OUTSIDE = {"integration_unavailable", "integration_failed"}
PAGES = {"/", "/api/docs"}  # with a policy of their own


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open a door that turns nobody away for asking often."""
    async with front_door.opened(pool, policies=front_door.UNLIMITED) as opened:
        yield opened


@asynccontextmanager
async def asked(
    door: OpenDoor,
    route: AnyRoute,
    *,
    method: str | None = None,
    query: str = "",
    body: bytes | None = None,
    **headers: str,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send an honest request to a route, but for what is given; names of headers have underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if body is not None else body_of(route)
    path, mark, needed = address(route).partition("?")
    async with door.client.request(
        method or route.method,
        path + (f"?{query}" if query else mark + needed),
        data=io.BytesIO(content) if content is not None else None,
        headers={**media_of(route), **named},
    ) as answer:
        assert_protected(answer, is_page=route.path in PAGES and answer.status == 200)
        yield answer


def assert_protected(answer: aiohttp.ClientResponse, *, is_page: bool = False) -> None:
    """Check that an answer may not be framed, sniffed or run, and says nothing of what runs here."""
    for name, value in PROTECTION.items():
        if not (is_page and name == "Content-Security-Policy"):
            assert answer.headers[name] == value, answer.url
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Correlation-Id"]


async def assert_problem(answer: aiohttp.ClientResponse, status: int, where: str) -> Problem:
    """Return the problem in ``answer``, which must be of ``status`` and of the one envelope."""
    raw = await answer.read()
    if answer.method == "HEAD":
        raw = msgspec.json.encode(
            Problem(title="x", status=status, code="x", instance=answer.headers["X-Correlation-Id"])
        )
    assert (answer.status, answer.content_type) == (status, "application/problem+json"), (where, raw)
    assert json.loads(raw).keys() <= FIELDS, where
    problem = msgspec.json.decode(raw, type=Problem)
    assert (problem.status, problem.instance) == (status, answer.headers["X-Correlation-Id"]), where
    assert problem.title
    assert problem.code
    assert answer.headers["Cache-Control"] == "no-store"
    return problem


def allowed_at(route: AnyRoute) -> set[str]:
    """Return the methods of a route's path."""
    methods = {other.method for other in ROUTES if other.path == route.path}
    return {*methods, "HEAD"} if "GET" in methods else set(methods)


async def test_an_honest_request_is_answered_as_documented(door: OpenDoor) -> None:
    """Or else what follows proves nothing; when this fails of a new route, give it a body in ``tests/routes.py``."""
    for route in ROUTES:
        async with asked(door, route) as answer:
            assert answer.status in documented(route) - REFUSALS, name_of(route)
            if answer.status in {400, 422, 502, 503}:  # it was understood: what is needed is not configured or away
                problem = await assert_problem(answer, answer.status, name_of(route))
                assert problem.code in {"configuration", *OUTSIDE}, (name_of(route), problem)


async def test_a_wrong_method_is_405(door: OpenDoor) -> None:
    """With what is allowed, on every path, with and without a trailing slash, whoever asks."""
    for route in ROUTES:
        for method in METHODS - allowed_at(route):
            for path in {address(route), address(route).rstrip("/") + "/"}:
                async with door.client.request(method, path, headers={"X-Api-Key": ""}) as answer:
                    await assert_problem(answer, 405, f"{method} {path}")
                    assert_protected(answer)
                    assert set(answer.headers["Allow"].split(", ")) == allowed_at(route)


async def test_a_wrong_key_is_401(door: OpenDoor, pool: Pool) -> None:
    """None, an unknown one, one of ours that is not, a revoked one; whatever else is wrong with the request."""
    revoked = await front_door.make_key(pool)
    await pool.execute("UPDATE api_keys SET revoked_at = now() WHERE key_hash = sha256($1)", revoked.encode())
    for route in KEYED:
        for key in ("", "wrong", "kima_" + "0" * 64, revoked):
            for body in (None, b"not json"):
                async with asked(door, route, X_Api_Key=key, body=body) as answer:
                    await assert_problem(answer, 401, name_of(route))
                    assert 401 in documented(route)
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_wrong_role_is_403(door: OpenDoor, pool: Pool) -> None:
    """A key of role metrics opens none of them."""
    key = await front_door.make_key(pool, "metrics")
    for route in KEYED:
        async with asked(door, route, X_Api_Key=key) as answer:
            await assert_problem(answer, 403, name_of(route))
            assert 403 in documented(route)


async def test_a_wrong_type_is_415(door: OpenDoor) -> None:
    """A form or a text, whatever it holds, so that no page of others can send one without asking."""
    for route in TYPED:
        for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "a"):
            async with asked(door, route, Content_Type=media) as answer:
                await assert_problem(answer, 415, f"{name_of(route)} {media}")
                assert 415 in documented(route)


async def test_a_wrong_body_is_400_or_422(door: OpenDoor) -> None:
    """Cut, of another kind, no text, nested without end; on a route that knows its fields also one more."""
    for route in WITH_BODY:
        honest = (body_of(route) or b"").rstrip()
        for body in (b"", honest[:-1], b"[1]", b"null", b'{"a": "\xff"}', b'{"a":' * 5_000 + b"1" + b"}" * 5_000):
            async with asked(door, route, body=body) as answer:
                assert answer.status in {400, 422}, (name_of(route), body[:20], answer.status)
                await assert_problem(answer, answer.status, f"{name_of(route)} {body[:20]!r}")
                assert answer.status in documented(route)
    for route in TYPED:
        more = {**json.loads(body_of(route) or b"{}"), "noSuchField": 1}
        async with asked(door, route, body=json.dumps(more).encode()) as answer:
            assert answer.status in {400, 422}, name_of(route)
            assert "noSuchField" in await answer.text()


async def test_a_wrong_length_is_refused(door: OpenDoor) -> None:
    """Too long is 413, announced or sent; less than was announced is no request."""
    for route in ROUTES:
        if route.method != "GET":
            honest = body_of(route) or b""
            async with asked(door, route, body=honest + b" " * (MAX_BODY_BYTES + 1 - len(honest))) as answer:
                await assert_problem(answer, 413, name_of(route))
                assert 413 in documented(route)
            assert await _status(door, route, announced=10**9) == 413, name_of(route)
            assert await _status(door, route, announced=len(honest) + 1, sent=honest) in {0, 400}, name_of(route)


async def _status(door: OpenDoor, route: AnyRoute, *, announced: int, sent: bytes = b"") -> int:
    """Send a body of another length than was announced, and no more; 0: the connection ended without a word."""
    head = f"{route.method} {address(route)} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {door.key}\r\n"
    async with speaking(door) as (reader, writer):
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {announced}\r\n\r\n".encode() + sent)
        if announced < MAX_BODY_BYTES:  # a body above it is refused before it comes
            writer.write_eof()
        line = await reader.readline()
        return int(line.split()[1]) if line else 0


async def test_a_wrong_query_is_422(door: OpenDoor) -> None:
    """An unknown parameter, a NUL, a number that is none."""
    for route in ROUTES:
        if route.query is not Nothing:
            for query in ("nonsense=1", "stream=%00", "limit=many", "limit=0", f"limit={10**20}"):
                async with asked(door, route, query=query) as answer:
                    await assert_problem(answer, 422, name_of(route) + query)
                    assert 422 in documented(route)


async def test_an_odd_expectation_is_417(door: OpenDoor) -> None:
    """On every route."""
    for route in ROUTES:
        async with asked(door, route, Expect="miracles") as answer:
            await assert_problem(answer, 417, name_of(route))
            assert 417 in documented(route)


NONE_LEFT = Policies(
    key=Policy("key", 1, 3_600), sender=Policy("sender", 1, 3_600), address=Policy("address", 1, 3_600),
    refused=Policy("refused", 1, 3_600),
)  # fmt: skip


async def test_too_many_requests_are_429(pool: Pool) -> None:
    """On every route but those of webhooks, which are never refused for it."""
    async with front_door.opened(pool, policies=NONE_LEFT) as door:
        for route in ROUTES:
            async with asked(door, route) as answer:
                assert answer.status != 429 or route.roles != WEBHOOK, name_of(route)
        for route in ROUTES:
            if route.roles != WEBHOOK:
                async with asked(door, route) as answer:
                    await assert_problem(answer, 429, name_of(route))
                    assert 1 <= int(answer.headers["Retry-After"]) <= 3_600
                    assert 429 in documented(route)


async def test_without_postgres_every_keyed_route_is_503(postgres: Postgres) -> None:
    """With Retry-After; nobody is let in or turned away by a door that cannot know."""
    pool = await database.open_pool(postgres.url, role="test")
    async with front_door.opened(pool) as door:
        await postgres.stop()
        door.door.keys.forget()
        for route in KEYED:
            async with asked(door, route) as answer:
                problem = await assert_problem(answer, 503, name_of(route))
                assert (problem.code, answer.headers["Retry-After"]) == ("unavailable", "5")
                assert 503 in documented(route)
    pool.terminate()


LONG_BYTES = 40_000
SECRET = "postgresql://user:password@host"
ERRORS: Mapping[str, tuple[Exception, int, str, dict[str, str]]] = {
    "user": (UserFacingError("Mend it.", status=409, code="of_its_own"), 409, "of_its_own", {}),
    "not found": (NotFoundError("There is none."), 404, "not_found", {}),
    "conflict": (ConflictError("It is there already."), 409, "conflict", {}),
    "outage": (IntegrationError("x", system="s", retryable=True), 503, "integration_unavailable", {"Retry-After": "5"}),
    "refusal": (IntegrationError("x", system="lidarr", retryable=False), 502, "integration_failed", {}),
    "configuration": (ConfigurationError(["KIMA_A: wrong", "KIMA_B: wrong"]), 400, "configuration", {}),
    "rate": (RateLimitError(retry_after_seconds=7), 429, "rate_limited", {"Retry-After": "7"}),
    "defect": (RuntimeError(SECRET), 500, "internal", {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ERRORS)
async def test_each_class_has_its_answer_on_every_route(pool: Pool, kind: str) -> None:
    """The same whoever raises it; a defect of ours shows no internals."""
    error, status, code, headers = ERRORS[kind]
    logs.configure("json", "error")  # as the program does: a pretty traceback takes seconds

    async def fail(call: Call[Nothing, Nothing]) -> web.Response:
        raise error

    routes = [replace(route, handler=fail) for route in ROUTES]
    async with front_door.opened(pool, routes=routes) as door:
        for route in routes:
            # A webhook so long takes the way of all requests, through the handler; see ``express``.
            async with asked(door, route, body=(body_of(route) or b"") + b" " * LONG_BYTES) as answer:
                problem = await assert_problem(answer, status, name_of(route))
                assert problem.code == code
                assert answer.headers.get("Retry-After") == headers.get("Retry-After")
                assert problem.retryable == {"outage": True, "refusal": False}.get(kind)
                assert problem.faults == getattr(error, "faults", ())
                assert "password" not in await answer.text()


async def test_nothing_there_is_404(door: OpenDoor) -> None:
    """As a problem, whatever the method."""
    for method in METHODS - {"HEAD"}:
        for path in ("/nothing", "/api/webhooks", f"/api/events/{uuid4()}/more", "/%00", "/api/../etc"):
            async with door.client.request(method, path) as answer:
                await assert_problem(answer, 404, f"{method} {path}")
                assert_protected(answer)
