"""What waits to be called, as the operator and a user see it."""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from kima_stream.database import Connection, Pool
from kima_stream.effects import Worker
from kima_stream.effects.breaker import OPEN_AFTER_FAILURES
from kima_stream.settings import api_keys
from tests import front_door, shop as shops
from tests.front_door import OpenDoor, make_key
from tests.integration.test_cli_keys_events import run
from tests.shop import OWNER, AskingExecutor, Shop, an_effect, order, stream_of

MOMENTS = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")  # that no page ends at
NOT_CLOSED = {"open", "half_open"}  # as time goes by


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    """A shop that is closed, after as many calls as open its breaker; one more and one of another system wait."""
    await shops.prepare(pool)
    async with shops.opened() as opened, pool.acquire() as conn:
        opened.is_open = False
        for number in range(OPEN_AFTER_FAILURES):
            await order(conn, number)
        executor = AskingExecutor(opened.url)
        executor.at_once = OPEN_AFTER_FAILURES
        await Worker(pool, [executor], [OWNER], holder=shops.unique()).run_once()
        await order(conn, 7)
        await order(conn, 8, an_effect(8, "till.ring", "a bell"))
        yield opened


async def get(door: OpenDoor, path: str, key: str | None = None) -> tuple[int, dict[str, object]]:
    """Ask and return status and answer."""
    headers = {"X-Api-Key": key} if key else {}
    async with door.client.get(path, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_what_waits_is_shown_with_its_reason(door: OpenDoor, shop: Shop) -> None:
    """Of all systems, with the breaker of the one that does not answer; the longest wait first."""
    status, body = await get(door, "/api/effects")
    assert status == 200
    effects = body["effects"]
    assert isinstance(effects, list)
    assert [effect["state"] for effect in effects] == ["blocked"] * (OPEN_AFTER_FAILURES + 1) + ["ready"]
    assert {(effect["attempts"], effect["last_error"]) for effect in effects} == {(1, "it is closed"), (0, None)}
    assert (effects[-1]["system"], effects[-1]["target"], effects[-1]["stream"]) == ("till", "a bell", stream_of(8))
    breakers = body["breakers"]
    assert isinstance(breakers, list)
    assert [(found["system"], found["last_error"]) for found in breakers] == [("shop", "it is closed")]
    assert breakers[0]["state"] in NOT_CLOSED


async def test_filters_and_pages(door: OpenDoor, shop: Shop) -> None:
    """By system, state and stream; pages meet without a gap."""

    async def streams(query: str) -> list[str]:
        _, body = await get(door, f"/api/effects?{query}")
        return [effect["stream"] for effect in body["effects"]]  # type: ignore[attr-defined]  # JSON

    assert await streams("system=till") == await streams("state=ready") == [stream_of(8)]
    assert await streams(f"stream={stream_of(7)}") == [stream_of(7)]
    assert await streams("system=nobody") == []
    walked, after = [], ""
    while True:
        _, body = await get(door, f"/api/effects?limit=3&after={after}")
        walked += [effect["stream"] for effect in body["effects"]]  # type: ignore[attr-defined]  # JSON
        if not body["next"]:
            break
        after = str(body["next"])
    assert walked == await streams("")
    cursors = [f'["{moment}","{UUID(int=1)}"]' for moment in MOMENTS]
    queries = [
        "after=x",
        "state=asleep",
        "limit=0",
        *(f"after={urlsafe_b64encode(text.encode()).decode()}" for text in cursors),
    ]
    assert [(await get(door, f"/api/effects?{query}"))[0] for query in queries] == [422] * len(queries)


async def test_a_user_sees_what_his_own_job_waits_for(door: OpenDoor, pool: Pool) -> None:
    """And not who makes the call; another's job does not exist."""
    ann = await make_key(pool, "user")
    async with pool.acquire() as conn:
        ben, _ = await api_keys.create(conn, name="ben", role="user")
    body = {"artist": "The Harbour Lights", "album": "Tidewater"}
    async with door.client.post("/api/downloads", json=body, headers={"X-Api-Key": ann}) as answer:
        job_id = UUID((await answer.json())["id"])
    async with pool.acquire() as conn:
        await conn.execute(
            "INSERT INTO effects VALUES (gen_random_uuid(), $1, 'download_job', 'lidarr.add', 'lidarr', NULL, now())",
            f"download_job-{job_id}",
        )
        await conn.execute(
            "INSERT INTO effect_leases SELECT effect_id, 1, 'a host', now() + interval '1 min' FROM effects"
        )

    for key, holders in ((ann, [None]), (door.key, [None])):
        status, found = await get(door, f"/api/downloads/{job_id}/effects", key)
        assert status == 200
        assert [effect["holder"] for effect in found["effects"]] == holders  # type: ignore[attr-defined]  # JSON
    for key, path in ((ben, f"/api/downloads/{job_id}/effects"), (ann, "/api/downloads/none/effects")):
        assert (await get(door, path, key))[0] == 404
    assert (await get(door, "/api/effects", ann))[0] == 403


async def test_the_terminal_shows_the_same(dsn: str, shop: Shop, conn: Connection) -> None:
    """A table, or JSON; exit 1 while a system does not answer."""
    out = await run(dsn, "effects", code=1)
    assert "shop does not answer for" in out
    assert len(re.findall("blocked", out)) == OPEN_AFTER_FAILURES + 1
    assert "till.ring" in await run(dsn, "effects", "--system", "till")
    listed = json.loads((await run(dsn, "effects", "--json", "--state", "ready", code=1)).splitlines()[0])
    assert [effect["stream"] for effect in listed["effects"]] == [stream_of(8)]
    assert listed["breakers"][0][1] in NOT_CLOSED

    await conn.execute("DELETE FROM effects; DELETE FROM effect_breakers")
    assert await run(dsn, "effects") == "nothing waits to be called\n"


async def test_doctor_names_a_system_that_keeps_calls_waiting(dsn: str, shop: Shop, conn: Connection) -> None:
    """And calls that nobody makes."""
    await conn.execute("UPDATE effect_breakers SET opened_at = opened_at - interval '2 min'")
    await conn.execute("UPDATE effects SET intended_at = intended_at - interval '2 min' WHERE system = 'till'")

    report = json.loads((await run(dsn, "doctor", "--json", code=1)).splitlines()[0])

    said = {finding["status"]: finding["says"] for finding in report["findings"] if finding["part"] == "effects"}
    assert re.match(r"shop does not answer for 12\d s, 6 calls wait for it: it is closed", said["warn"])
    assert re.match(r"1 calls to till wait and nobody makes them, for 12\d s", said["fault"])
