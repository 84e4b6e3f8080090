"""Webhooks over a real server into a real Postgres: what Lidarr sends is what the log has."""

import asyncio
import json
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from kima_stream.database import Pool
from kima_stream.http import app
from tests import front_door
from tests.front_door import FIXTURES, LIDARR, SLSKD, OpenDoor, webhook

FIXTURE_NAMES = sorted(path.stem for path in (FIXTURES / "webhooks").glob("*.json"))


@pytest.fixture(params=["short", "long"])
async def door(pool: Pool, request: pytest.FixtureRequest) -> AsyncIterator[OpenDoor]:
    """Open the door of this test, with the short way for webhooks (the key is known already) and without."""
    express = app.express_to if request.param == "short" else front_door.closed
    async with front_door.opened(pool, express=express) as opened:
        async with opened.client.get(f"{LIDARR}/verify") as answer:
            assert answer.status == 200
        yield opened


async def events(pool: Pool) -> int:
    """Return how many events the log has."""
    count: int = await pool.fetchval("SELECT count(*) FROM events")
    return count


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_every_fixture_is_kept_byte_for_byte(door: OpenDoor, pool: Pool, method: str) -> None:
    """All 13 types, by POST and by PUT, are acknowledged with an id under which exactly the body stands."""
    for name in FIXTURE_NAMES:
        async with door.client.request(method, LIDARR, data=webhook(name)) as answer:
            body = await answer.json()
            assert (answer.status, body["duplicate"]) == (200, False), name
        stored = await pool.fetchval("SELECT data::text FROM events WHERE event_id = $1::uuid", body["event_id"])
        assert stored.encode() == webhook(name)

    assert await events(pool) == len(FIXTURE_NAMES)


async def test_the_event_can_be_read_back(door: OpenDoor) -> None:
    """Type, stream, source and correlation are right; the data goes out as it came in."""
    async with door.client.post(LIDARR, data=webhook("grab"), headers={"X-Correlation-Id": "trace-7"}) as answer:
        event_id = (await answer.json())["event_id"]
        assert answer.headers["X-Correlation-Id"] == "trace-7"

    async with door.client.get(f"/api/events/{event_id}") as answer:
        raw = await answer.read()
    event = json.loads(raw)
    metadata = event.pop("metadata")
    assert webhook("grab") in raw
    assert event["type"] == "lidarr.grab"
    assert event["stream"] == "lidarr-3F2504E04F8911D39A0C0305E82C3301A1B2C3D4"
    assert (event["category"], event["source"], event["version"]) == ("lidarr", "lidarr", 0)
    assert event["correlation_id"] == "trace-7"
    assert (event["position"], event["chain_hash"]) == (None, None)
    assert metadata["route"] == LIDARR
    assert "aiohttp" in metadata["user_agent"]


async def test_fifty_at_once_are_one_event(door: OpenDoor, pool: Pool) -> None:
    """However many deliver the same fact at the same moment, all get the same id and one is first."""
    answers = await asyncio.gather(*(door.post(webhook("grab")) for _ in range(50)))

    assert {status for status, _ in answers} == {200}
    assert len({body["event_id"] for _, body in answers}) == 1
    assert Counter(body["duplicate"] for _, body in answers) == {False: 1, True: 49}
    assert await events(pool) == 1


async def test_two_albums_under_one_download_id_are_two_events(door: OpenDoor, pool: Pool) -> None:
    """A multi-album grab is imported album by album: each import counts."""
    other = json.loads(webhook("download")) | {"album": {"id": 318, "title": "Low Water Mark"}}

    await door.post(webhook("download"))
    await door.post(json.dumps(other).encode())

    assert await events(pool) == 2
    assert await pool.fetchval("SELECT count(DISTINCT stream) FROM events") == 1


@pytest.mark.parametrize("name", ["health", "test", "import-failure"])
async def test_ten_identical_posts_without_a_key_are_ten_events(door: OpenDoor, pool: Pool, name: str) -> None:
    """A body hash would merge them, and lose nine facts."""
    answers = await asyncio.gather(*(door.post(webhook(name)) for _ in range(10)))

    assert len({body["event_id"] for _, body in answers}) == 10
    assert await events(pool) == 10


async def test_a_grab_after_a_failure_is_the_next_one(door: OpenDoor, pool: Pool) -> None:
    """Grab, failure, grab, failure of the same torrent are four facts; each repeated at once stays one."""
    ids = []
    for name in ("grab", "download-failure", "grab", "download-failure"):
        (_, first), (_, again) = await door.post(webhook(name)), await door.post(webhook(name))
        assert (first["duplicate"], again["duplicate"]) == (False, True)
        assert first["event_id"] == again["event_id"]
        ids.append(first["event_id"])

    assert len(set(ids)) == 4
    types = await pool.fetch("SELECT type FROM events ORDER BY stream, version")
    assert [row["type"] for row in types] == ["lidarr.grab", "lidarr.download_failure"] * 2


async def test_the_same_fact_with_another_body_is_accepted(door: OpenDoor, pool: Pool) -> None:
    """Lidarr cannot mend a conflict and would back off: the first body stands, and it is flagged."""
    other = json.loads(webhook("grab")) | {"downloadClient": "Another"}

    _, first = await door.post(webhook("grab"))
    status, second = await door.post(json.dumps(other).encode())

    assert (status, second) == (200, {"event_id": first["event_id"], "duplicate": True})
    assert (await pool.fetchval("SELECT data::text FROM events")).encode() == webhook("grab")


@pytest.mark.parametrize(
    "body",
    [
        b'{"eventType": "Health", "level": "error", "message": "a\\u0000b", "type": "T"}',
        '{"eventType": "Health", "level": "error", "message": "Søvn, 夜 \U0001f3b5", "type": "T"}'.encode(),
        b'{"eventType":"Grab","albums":[],"release":{},"downloadId":"a\\u0000b","x":{"a":1,"a":2},"n":1.0e2}',
        json.dumps({"eventType": "Grab", "albums": [], "release": {}, "downloadId": "x" * 10_000}).encode(),
        b'{"eventType": "NeverHeardOf", "x": 1e999, "y": 123456789012345678901234567890}',
        b'{"eventType": "Grab", "instanceName": "\\u0000"}',
        b"{}",
    ],
)
async def test_odd_bodies_are_kept_byte_for_byte(door: OpenDoor, pool: Pool, body: bytes) -> None:
    """NUL, other scripts, doubled keys, endless ids, unknown types: stored as they are, and read back."""
    status, answer = await door.post(body)

    assert status == 200
    assert (await pool.fetchval("SELECT data::text FROM events")).encode() == body
    async with door.client.get(f"/api/events/{answer['event_id']}") as shown:
        assert body in await shown.read()


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"{", b'{"a": "\xff"}', b"[" * 200_000, b'{"a":' * 200 + b"1" + b"}" * 200]
)
async def test_what_cannot_be_kept_is_400(door: OpenDoor, pool: Pool, body: bytes) -> None:
    """Not JSON, not an object, not UTF-8, too deep: a problem, and nothing stored."""
    status, problem = await door.post(body)

    assert (status, problem["code"]) == (400, "malformed_body")
    assert await events(pool) == 0


async def test_too_large_is_413(door: OpenDoor, pool: Pool) -> None:
    """1.2 MB, announced or in chunks, is refused; 1 MB is kept."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"a": "'
        for _ in range(12):
            yield b"x" * 100_000
        yield b'"}'

    status, problem = await door.post(b'{"a": "' + b"x" * 1_200_000 + b'"}')
    assert (status, problem["code"]) == (413, "too_large")
    async with door.client.post(LIDARR, data=chunks()) as answer:
        assert (answer.status, answer.content_type) == (413, "application/problem+json")
    assert await events(pool) == 0

    status, _ = await door.post(b'{"a": "' + b"x" * 999_990 + b'"}')
    assert (status, await events(pool)) == (200, 1)


async def test_a_trailing_slash_is_no_redirect(door: OpenDoor, pool: Pool) -> None:
    """Lidarr takes a redirect for a success and never follows it."""
    async with door.client.post(f"{LIDARR}/", data=webhook("test"), allow_redirects=False) as answer:
        assert answer.status == 200

    assert await events(pool) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Webhook-Secret": ""},
        {"X-Webhook-Secret": "wrong"},
        {"X-Api-Key": "kima_" + "0" * 64},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic " + b64encode(b"lidarr:wrong").decode()},
        {"Authorization": "Basic not/base64!"},
        {"Authorization": "Basic"},
        {"X-Api-Key": "x" * 5_000},
    ],
)
async def test_a_wrong_key_is_401_and_nothing_is_stored(door: OpenDoor, pool: Pool, headers: dict[str, str]) -> None:
    """The key is checked before the body is looked at, so a broken body says nothing to a stranger."""
    for body in (webhook("grab"), b"not json"):
        async with door.client.post(LIDARR, data=body, headers={"X-Api-Key": "", **headers}) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    assert await events(pool) == 0


async def test_each_way_to_send_the_key_opens(door: OpenDoor, pool: Pool) -> None:
    """As Lidarr's header or password, as an API key or token; a proxy's own credentials do no harm."""
    key = await front_door.make_key(pool, "webhook")
    door.door.keys.forget()
    basic = b64encode(f"lidarr:{key}".encode("iso-8859-1")).decode()
    for headers in (
        {"X-Webhook-Secret": key},
        {"X-Api-Key": key},
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"Basic {basic}"},
        {"X-Webhook-Secret": key, "Authorization": "Basic " + b64encode(b"proxy:its own").decode()},
    ):
        async with door.client.get(f"{LIDARR}/verify", headers={"X-Api-Key": "", **headers}) as answer:
            assert (answer.status, (await answer.json())["role"]) == (200, "webhook")


async def test_a_password_with_umlauts_opens(pool: Pool) -> None:
    """Lidarr writes a Basic password in ISO-8859-1, others in UTF-8: both readings of one key open."""
    secret = "schlüssel-für-die-tür"
    async with front_door.opened(pool) as door:
        await pool.execute(
            "INSERT INTO api_keys (key_id, name, role, user_id, key_hash)"
            " VALUES (gen_random_uuid(), 'given', 'admin', 'admin', sha256(convert_to($1, 'UTF8')))",
            secret,
        )
        door.door.keys.forget()
        for encoding in ("iso-8859-1", "utf-8"):
            basic = b64encode(f"lidarr:{secret}".encode(encoding)).decode()
            headers = {"X-Api-Key": "", "Authorization": f"Basic {basic}"}
            async with door.client.get(f"{LIDARR}/verify", headers=headers) as answer:
                assert answer.status == 200, encoding


async def test_a_key_of_another_role_is_403(door: OpenDoor, pool: Pool) -> None:
    """A user's key brings no webhooks, and a sender's key does not read the log."""
    user, sender = await front_door.make_key(pool, "user"), await front_door.make_key(pool, "webhook")
    door.door.keys.forget()

    async with door.client.post(LIDARR, data=webhook("grab"), headers={"X-Api-Key": user}) as answer:
        assert answer.status == 403
    async with door.client.get("/api/events", headers={"X-Api-Key": sender}) as answer:
        assert answer.status == 403
    assert await events(pool) == 0


async def test_no_secret_ends_in_the_event(door: OpenDoor, pool: Pool) -> None:
    """What we note about the way of a webhook never holds what opened the door."""
    await door.post(webhook("grab"))

    row = await pool.fetchrow("SELECT * FROM events")
    assert row is not None
    assert door.key not in repr(dict(row))


async def test_slskd_retries_are_one_event(door: OpenDoor, pool: Pool) -> None:
    """Each of slskd's webhooks is kept byte for byte under its own id, however often it comes."""
    for path in sorted((FIXTURES / "slskd").glob("webhook-*.json")):
        (status, first), (_, again) = (
            await door.post(path.read_bytes(), SLSKD),
            await door.post(path.read_bytes(), SLSKD),
        )
        assert (status, first["event_id"]) == (200, json.loads(path.read_bytes())["id"])
        assert again == first | {"duplicate": True}
        stored = await pool.fetchval("SELECT data::text FROM events WHERE event_id = $1::uuid", first["event_id"])
        assert stored.encode() == path.read_bytes()
