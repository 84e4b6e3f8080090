"""``Idempotency-Key`` and ``Prefer``: a request that is sent again is the same request, for ever, everywhere."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kima_stream.database import Connection, Pool
from tests import front_door
from tests.front_door import OpenDoor

PATH = "/api/downloads"
TIDEWATER = {"artist": "The Harbour Lights", "album": "Tidewater"}
EBB = {"artist": "The Harbour Lights", "album": "Ebb"}


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


async def ask(
    door: OpenDoor, key: str | None, body: object = TIDEWATER, **headers: str
) -> tuple[int, dict[str, object]]:
    """Ask for an album under an idempotency key; return status and answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        named["Idempotency-Key"] = key
    async with door.client.post(PATH, json=body, headers=named) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_the_same_key_gets_the_same_answer(door: OpenDoor, pool: Pool, conn: Connection) -> None:
    """Word for word, though others have asked in between, at another process as well; nothing is appended."""
    first = await ask(door, "k-1")
    assert (first[0], first[1]["duplicate"]) == (202, False)
    merged = await ask(door, "k-2")
    assert (merged[0], merged[1]["duplicate"]) == (202, True)
    assert merged[1]["event_id"] != first[1]["event_id"]
    before = await conn.fetchval("SELECT count(*) FROM events")

    async with front_door.opened(pool) as other:
        key = {"X_Api_Key": door.key}
        assert await ask(other, "k-1", **key) == first
        assert await ask(other, "k-2", **key) == await ask(other, "k-2", {**TIDEWATER, "album": " Tidewater "}, **key)
        assert await ask(other, "k-2", **key) == merged
    assert await conn.fetchval("SELECT count(*) FROM events") == before


async def test_the_same_key_with_another_body_is_refused(door: OpenDoor, conn: Connection) -> None:
    """422, and nothing is appended, not even for a moment."""
    await ask(door, "k-1")
    before = await conn.fetchval("SELECT count(*) FROM events")
    status, problem = await ask(door, "k-1", EBB)
    assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert await conn.fetchval("SELECT count(*) FROM events") == before
    assert await conn.fetchval("SELECT count(*) FROM download_jobs") == 1


async def test_a_key_is_its_users(door: OpenDoor, pool: Pool) -> None:
    """Two users may use the same word."""
    other = await front_door.make_key(pool, "user")
    first, second = await ask(door, "k-1"), await ask(door, "k-1", X_Api_Key=other)
    assert (first[0], second[0]) == (202, 202)
    assert first[1]["id"] != second[1]["id"]


async def test_clicks_at_once_are_one_request(door: OpenDoor, conn: Connection) -> None:
    """Whoever is first, all get one answer; of two bodies one wins."""
    answers = await asyncio.gather(*(ask(door, "k-1", (TIDEWATER, EBB)[n % 2]) for n in range(20)))
    accepted = [answer for status, answer in answers if status == 202]
    assert len(accepted) == 10
    assert all(answer == accepted[0] for answer in accepted)
    assert {status for status, _ in answers} == {202, 422}
    assert await conn.fetchval("SELECT count(*) FROM events") == 3


async def test_what_follows_from_a_request_names_it(door: OpenDoor, conn: Connection) -> None:
    """The attempt and its deadline are consequences of the request."""
    _, answer = await ask(door, None)
    rows = await conn.fetch("SELECT event_id, causation_id FROM events ORDER BY version")
    assert str(rows[0]["event_id"]) == answer["event_id"]
    assert [row["causation_id"] for row in rows] == [None, rows[0]["event_id"], rows[0]["event_id"]]


@pytest.mark.parametrize("key", ["", " ", "é", "x" * 256, "a\tb"])
async def test_nonsense_is_no_key(door: OpenDoor, key: str) -> None:
    """400, as a problem."""
    assert (await ask(door, key))[0] == 400


@pytest.mark.parametrize(
    ("prefer", "applied"), [("wait=10", "wait=10"), ("respond-async, wait=5", "wait=5"), ("return=minimal", None)]
)
async def test_the_answer_needs_no_waiting(door: OpenDoor, prefer: str, applied: str | None) -> None:
    """It is final at once, and says that the wish was heard."""
    async with door.client.post(PATH, json=TIDEWATER, headers={"Prefer": prefer}) as answer:
        assert (answer.status, answer.headers.get("Preference-Applied")) == (202, applied)
