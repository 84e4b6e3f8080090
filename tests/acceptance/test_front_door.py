"""The door as a whole: every route answers as the table says, and every failure is a problem."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import aiohttp
import msgspec
import pytest
from aiohttp import web
from openapi_spec_validator import validate

from kima_stream import database, events
from kima_stream.database import Connection, Pool
from kima_stream.embedded.postgres import Postgres
from kima_stream.http import openapi
from kima_stream.http.routes import Call, Nothing, Route, json_response
from kima_stream.http.table import ROUTES
from kima_stream.settings.config import Settings
from tests import front_door
from tests.front_door import LIDARR, OpenDoor, webhook
from tests.polling import eventually
from tests.routes import name_of


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


async def assert_problem(answer: aiohttp.ClientResponse, status: int) -> dict[str, object]:
    """Return the problem in ``answer``, which must be one of ``status``."""
    problem: dict[str, object] = await answer.json(content_type=None)
    assert (answer.status, answer.content_type) == (status, "application/problem+json"), problem
    assert problem["status"] == status
    assert problem["title"]
    assert problem["instance"] == answer.headers["X-Correlation-Id"]
    return problem


async def test_every_query_and_path_is_bounded(door: OpenDoor) -> None:
    """A text longer than anything is called, a parameter twice, a word for nothing: refused."""
    for query in ("stream=" + "x" * 1_025, "stream=a&stream=b", "after=null", "order=null"):
        async with door.client.get(f"/api/events?{query}") as answer:
            await assert_problem(answer, 422)
    async with door.client.get("/api/trace/" + "x" * 1_025) as answer:
        await assert_problem(answer, 404)


async def test_every_route_has_a_template_for_its_figures(door: OpenDoor) -> None:
    """Requests are counted under the route's template, so that ids never become labels."""
    event_id = uuid4()
    async with door.client.get(f"/api/events/{event_id}") as answer:
        await assert_problem(answer, 404)

    async with door.client.get("/metrics") as answer:
        figures = await answer.text()
    assert 'kima_http_requests_total{method="GET",route="/api/events/{event_id}",status="404"}' in figures
    assert str(event_id) not in figures


async def test_our_pages_refer_to_nothing_outside(door: OpenDoor) -> None:
    """The pages work without the internet and tell nobody that they are read."""
    for path in ("/", "/api/docs"):
        async with door.client.get(path, headers={"X-Api-Key": ""}) as answer:
            page = await answer.text()
            assert (answer.status, answer.content_type) == (200, "text/html")
            assert "http://" not in page
            assert "https://" not in page
            assert "//cdn" not in page


async def test_the_pages_policy_allows_only_its_own_script(door: OpenDoor) -> None:
    """The nonce is fresh for each answer."""
    nonces = set()
    for _ in range(2):
        async with door.client.get("/") as answer:
            policy = answer.headers["Content-Security-Policy"]
            nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
            assert f'<script nonce="{nonce}">' in await answer.text()
            nonces.add(nonce)
    assert len(nonces) == 2


async def test_the_openapi_document_is_valid_and_complete(door: OpenDoor) -> None:
    """It is what the table says: valid OpenAPI 3.1, each route with its roles."""
    async with door.client.get("/api/openapi.json", headers={"X-Api-Key": ""}) as answer:
        document = await answer.json()

    validate(document)
    assert document["openapi"].startswith("3.1")
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert bool(operation.get("security")) == bool(route.roles), name_of(route)
    lidarr = document["paths"][LIDARR]["post"]["requestBody"]["content"]["application/json"]["schema"]
    known, anything = lidarr["anyOf"]
    assert len(known["discriminator"]["mapping"]) == 13
    assert anything == {"type": "object"}


async def test_the_page_of_the_document_names_every_route(door: OpenDoor) -> None:
    """The page is made from the document."""
    page = openapi.render(openapi.document(ROUTES))

    assert all(f"<code>{route.path}</code>" in page for route in ROUTES)


async def test_the_correlation_id_is_the_callers(door: OpenDoor) -> None:
    """X-Correlation-Id, else the trace of traceparent, else a fresh one; nonsense is not echoed."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for headers, expected in (
        ({"X-Correlation-Id": "abc-1"}, "abc-1"),
        ({"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}, trace),
        ({"X-Correlation-Id": "<script>"}, None),
        ({}, None),
    ):
        async with door.client.get("/ping", headers=headers) as answer:
            echoed = answer.headers["X-Correlation-Id"]
            assert echoed == expected if expected else UUID(echoed).version == 7


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body of a test."""

    count: int


async def echo(call: Call[Nothing, Order]) -> web.Response:
    """Answer what was understood."""
    return json_response({"count": call.body.count, "user": call.user.user_id})


async def test_a_typed_body_is_checked(pool: Pool) -> None:
    """A route with a body struct gets it decoded, or the caller gets a 422 that names the field."""
    table = [
        Route(
            method="POST", path="/echo", handler=echo, summary="Echo.", body=Order, roles=frozenset({"admin"}),
        )
    ]  # fmt: skip
    async with front_door.opened(pool, routes=table) as door:
        assert await door.post(b'{"count": 3}', "/echo") == (200, {"count": 3, "user": "a admin"})
        for body in (b'{"count": "3"}', b'{"count": 3, "more": 1}', b"{}"):
            status, problem = await door.post(body, "/echo")
            assert status == 422
            assert "count" in str(problem["detail"]) or "more" in str(problem["detail"])


async def test_an_url_base_moves_every_route(pool: Pool) -> None:
    """Behind a proxy that keeps its prefix."""
    async with front_door.opened(pool, settings=Settings(url_base="/kima")) as door:
        assert (await door.post(webhook("test"), f"/kima{LIDARR}"))[0] == 200
        async with door.client.get("/ping") as answer:
            await assert_problem(answer, 404)


async def test_pages_of_the_log(door: OpenDoor, pool: Pool) -> None:
    """Pages follow each other without a gap, in both directions; filters join."""
    for _ in range(5):
        await door.post(webhook("health"))
    await door.post(webhook("grab"))
    await number_all(pool)

    async def pages(query: str) -> list[int]:
        found: list[int] = []
        after = ""
        while True:
            async with door.client.get(f"/api/events?limit=2&{query}{after}") as answer:
                assert answer.status == 200
                page = await answer.json()
            found += [event["position"] for event in page["events"]]
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    assert await pages("") == [1, 2, 3, 4, 5, 6]
    assert await pages("order=desc") == [6, 5, 4, 3, 2, 1]
    assert await pages("type=lidarr.health") == [1, 2, 3, 4, 5]
    assert await pages("category=lidarr&type=lidarr.grab") == [6]
    assert await pages("category=slskd") == []
    assert await pages("stream=lidarr-3F2504E04F8911D39A0C0305E82C3301A1B2C3D4") == [6]


async def test_a_stream_shows_what_has_no_number_yet(door: OpenDoor, pool: Pool) -> None:
    """What was acknowledged can be seen at once, before any publisher has come by."""
    await door.post(webhook("grab"))

    async with door.client.get("/api/events?stream=lidarr-3F2504E04F8911D39A0C0305E82C3301A1B2C3D4") as answer:
        page = await answer.json()
    assert [(event["type"], event["position"]) for event in page["events"]] == [("lidarr.grab", None)]
    assert page["next"] is None


async def number_all(pool: Pool) -> None:
    """Number what is in the log as a publisher would, with chain hashes that nobody checks here."""
    await pool.execute(
        "INSERT INTO event_positions (position, id, event_id, category, stream, version, event_hash, chain_hash)"
        " SELECT row_number() OVER (ORDER BY id), id, event_id, category, stream, version, $1, $1 FROM events",
        bytes(32),
    )


async def test_ready_says_what_is_missing(pool: Pool) -> None:
    """Ready with everything; degraded, and still 200, without Redis or when nobody publishes."""
    redis_is_up = True

    async def ping() -> None:
        if not redis_is_up:
            raise ConnectionRefusedError

    async with front_door.opened(pool, ping_redis=ping) as door:

        async def readiness() -> tuple[int, str, str, str]:
            async with door.client.get("/readyz", headers={"X-Api-Key": ""}) as answer:
                body = await answer.json()
                checks = body["checks"]
                return answer.status, body["status"], checks["redis"]["status"], checks["publisher"]["status"]

        assert await readiness() == (200, "ok", "ok", "ok")

        redis_is_up = False
        assert await readiness() == (200, "degraded", "degraded", "ok")

        redis_is_up = True
        late = events.NewEvent(event_id=uuid4(), type="t", data="{}", source="test")
        await door.door.commit.append("test-1", [late])
        await pool.execute("ALTER TABLE events DISABLE TRIGGER events_are_immutable")
        await pool.execute("UPDATE events SET recorded_at = recorded_at - interval '1 minute'")
        assert await readiness() == (200, "degraded", "ok", "degraded")


async def test_a_slow_count_of_what_waits_keeps_no_webhook_out(
    pool: Pool, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres answers, so it is ready; of the publisher nobody knows."""
    monkeypatch.setattr("kima_stream.http.health.CHECK_SECONDS", 0.3)
    async with front_door.opened(pool) as door, conn.transaction():
        await conn.execute("LOCK TABLE event_positions IN ACCESS EXCLUSIVE MODE")
        async with door.client.get("/readyz") as answer:
            body = await answer.json()

    assert (answer.status, body["status"]) == (200, "degraded")
    assert body["checks"]["postgres"]["status"] == "ok"
    assert body["checks"]["publisher"]["detail"] == "unknown"


async def test_without_postgres_nothing_is_acknowledged(postgres: Postgres) -> None:
    """503 with Retry-After, as a problem; alive but not ready; and all is well when Postgres is back."""
    pool = await database.open_pool(postgres.url, role="test")
    async with front_door.opened(pool) as door:
        assert (await door.post(webhook("health")))[0] == 200
        await postgres.stop()

        async with door.client.post(LIDARR, data=webhook("health")) as answer:
            await assert_problem(answer, 503)
            assert int(answer.headers["Retry-After"]) >= 1
        async with door.client.get("/livez") as answer:
            assert answer.status == 200
        async with door.client.get("/readyz") as answer:
            assert (answer.status, (await answer.json())["status"]) == (503, "unavailable")

        await postgres.start()
        await eventually(lambda: _is_accepted(door), timeout=10)
        assert await pool.fetchval("SELECT count(*) FROM events") >= 2
    await pool.close()


async def _is_accepted(door: OpenDoor) -> bool:
    return (await door.post(webhook("health")))[0] == 200


async def test_a_key_lives_and_ends_over_http(door: OpenDoor) -> None:
    """Made, it opens at once; listed, its secret is not shown; revoked, it is refused at once."""
    status, made = await door.post(b'{"name": "Lidarr", "role": "webhook"}', "/api/keys")
    assert status == 201
    as_lidarr = {"X-Api-Key": str(made["key"])}
    async with door.client.get(f"{LIDARR}/verify", headers=as_lidarr) as answer:
        assert answer.status == 200

    async with door.client.get("/api/keys") as answer:
        listed = await answer.text()
    assert str(made["key_id"]) in listed
    assert str(made["key"]) not in listed

    async with door.client.delete(f"/api/keys/{made['key_id']}") as answer:
        assert (answer.status, (await answer.json())["revoked_at"] is not None) == (200, True)
    async with door.client.get(f"{LIDARR}/verify", headers=as_lidarr) as answer:
        await assert_problem(answer, 401)
    assert (await door.post(b'{"name": "a\\u0000b", "role": "user"}', "/api/keys"))[0] == 422


async def test_metrics_can_be_keyed(pool: Pool) -> None:
    """Open by default; with the setting, a key of role metrics or admin."""
    key = await front_door.make_key(pool, "metrics")
    async with front_door.opened(pool, settings=Settings(metrics_keyed=True)) as door:
        for path in ("/metrics", "/api/metrics"):
            async with door.client.get(path, headers={"X-Api-Key": ""}) as answer:
                await assert_problem(answer, 401)
            async with door.client.get(path, headers={"X-Api-Key": key}) as answer:
                assert (answer.status, answer.content_type) == (200, "text/plain")


async def test_webhooks_are_counted_by_known_type(door: OpenDoor) -> None:
    """What a sender calls its event never becomes a label of its own."""
    await door.post(webhook("grab"))
    await door.post(webhook("grab"))
    await door.post(b'{"eventType": "Surprise"}')

    async with door.client.get("/metrics") as answer:
        figures = await answer.text()
    for line in (
        'kima_webhook_events_total{event_type="Grab",status="accepted"}',
        'kima_webhook_events_total{event_type="Grab",status="duplicate"}',
        'kima_webhook_events_total{event_type="other",status="accepted"}',
        'kima_webhook_processing_duration_seconds_count{event_type="Grab"}',
    ):
        assert line in figures
    assert "Surprise" not in figures


async def test_many_requests_at_once_share_commits(door: OpenDoor, pool: Pool) -> None:
    """Two hundred different facts at once are all acknowledged and all there."""
    answers = await asyncio.gather(*(door.post(webhook("health")) for _ in range(200)))

    assert {status for status, _ in answers} == {200}
    stored = {str(row["event_id"]) for row in await pool.fetch("SELECT event_id FROM events")}
    assert {body["event_id"] for _, body in answers} == stored
