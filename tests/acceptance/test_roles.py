"""Who may do what: every route against every role, from the route table and from what was promised."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, get_args
from uuid import uuid4

import aiohttp
import pytest

from kima_stream.database import Pool
from kima_stream.http.routes import USER, AnyRoute
from kima_stream.http.table import ROUTES
from kima_stream.settings.api_keys import Role
from kima_stream.settings.config import Settings
from tests import front_door
from tests.front_door import LIDARR, OpenDoor
from tests.routes import address, body_of, documented, media_of, name_of

ROLES: tuple[Role, ...] = get_args(Role)
NOBODY = "nobody"
ANYBODY = {NOBODY, *ROLES}

# The promise, apart from the table: the longest beginning counts. What is not named is the admin's.
PROMISED: dict[str, set[str]] = {
    "GET /": {"admin"},
    "PUT /": {"admin"},
    "POST /": {"admin"},
    "DELETE /": {"admin"},
    "POST /api/webhooks/": {"admin", "webhook"},
    "PUT /api/webhooks/": {"admin", "webhook"},
    "GET /api/webhooks/": {"admin", "webhook"},
    "POST /api/events": {"admin", "user"},
    "GET /api/downloads": {"admin", "user"},
    "POST /api/downloads": {"admin", "user"},
    "GET /api/discovery/": {"admin", "user"},
    "POST /api/discovery/": {"admin", "user"},
    "GET /api/searches": {"admin", "user"},
    "POST /api/searches": {"admin", "user"},
    "GET /api/soulseek/status": {"admin", "user"},
}
OPEN = {
    "GET /",
    "GET /ping",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /api/metrics",
    "GET /api/openapi.json",
    "GET /api/asyncapi.json",
    "GET /api/docs",
}


def promised(route: AnyRoute) -> set[str]:
    """Return whose key opens a route."""
    name = name_of(route)
    if name in OPEN:
        return ANYBODY
    return PROMISED[max((beginning for beginning in PROMISED if name.startswith(beginning)), key=len)]


@asynccontextmanager
async def asked(door: OpenDoor, route: AnyRoute, key: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Call a route as somebody would, with an honest body and ids that nobody has."""
    headers = {"X-Api-Key": key, **media_of(route)}
    async with door.client.request(
        route.method, address(route), data=body_of(route), headers=headers, timeout=aiohttp.ClientTimeout(10)
    ) as answer:
        yield answer


async def test_exactly_the_promised_roles_open_each_route(pool: Pool) -> None:
    """Every route, every role and no key at all: 401 or 403 for those who may not, neither for those who may."""
    async with front_door.opened(pool) as door:
        keys = {NOBODY: ""} | {role: await front_door.make_key(pool, role) for role in ROLES}
        door.door.keys.forget()
        faults = []
        for route in ROUTES:
            for who, key in keys.items():
                async with asked(door, route, key) as answer:
                    refusal = 401 if who == NOBODY else 403
                    is_refused = answer.status in {401, 403}
                    if is_refused == (who in promised(route)) or (is_refused and answer.status != refusal):
                        faults.append(f"{name_of(route)} answers {answer.status} to {who}")
                    assert answer.status < 500 or answer.status in documented(route), name_of(route)
    assert not faults


def test_the_table_says_what_was_promised() -> None:
    """The matrix is not only what the table happens to say."""
    for route in ROUTES:
        assert (set(route.roles) or ANYBODY) == promised(route), name_of(route)
    assert {name_of(route) for route in ROUTES} >= OPEN


@pytest.mark.parametrize("key", ["", "wrong", "kima_" + "0" * 64])
async def test_a_refused_webhook_leaves_no_trace(pool: Pool, key: str) -> None:
    """Nothing is stored for a stranger, and it is counted."""
    async with front_door.opened(pool) as door:
        async with door.client.post(LIDARR, data=front_door.webhook("grab"), headers={"X-Api-Key": key}) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert await pool.fetchval("SELECT count(*) FROM events") == 0
        async with door.client.get("/metrics") as answer:
            assert 'kima_webhook_events_total{event_type="other",status="unauthorized"}' in await answer.text()


# How a thing is made that only its owner may see, by the beginning of its routes. A new kind of thing of users
# gets a line here; until it has one, the test below fails.
ABLE: Final = Settings(
    secret_key="Xo9-a-root-that-nobody-guesses-0451",
    environment={**front_door.NOWHERE, "soulseekUsername": "somebody", "soulseekPassword": "0123456789"},
)
OWNED: dict[str, tuple[str, dict[str, object]]] = {
    "/api/downloads/": ("/api/downloads", {"artist": "Nina Simone", "album": "Pastel Blues"}),
    "/api/searches/": ("/api/searches", {"query": "nina simone pastel blues"}),
}


async def test_anothers_thing_does_not_exist(pool: Pool) -> None:
    """On every route of users with an id in its path: 404 for another user, the same as for an id that nobody has."""
    async with front_door.opened(pool, settings=ABLE) as door:
        other = await front_door.make_key(pool, "user")
        door.door.keys.forget()
        of_users = [route for route in ROUTES if route.roles == USER and "{" in route.path]
        assert len(of_users) >= 2
        for route in of_users:
            (where, body), *_ = [OWNED[start] for start in OWNED if route.path.startswith(start)]
            async with door.client.post(where, json=body) as made:
                thing = (await made.json())["id"]
            answers = []
            for identity in (thing, uuid4()):
                headers = {"X-Api-Key": other, **media_of(route)}
                async with door.client.request(
                    route.method, address(route, identity), data=body_of(route), headers=headers
                ) as answer:
                    problem = await answer.json(content_type=None)
                    answers.append((answer.status, problem["code"], problem["detail"]))
            assert answers[0] == answers[1], name_of(route)
            assert answers[0][0] == 404
