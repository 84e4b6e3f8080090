"""Started with Redis unreachable: the whole product runs, says so, and catches up when Redis comes."""

import json
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio as redis_client

from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey
from tests.faults.campaign import API_KEY, house
from tests.faults.test_campaign import free_port
from tests.front_door import LIDARR, webhook
from tests.polling import eventually

REQUESTS = 20


@pytest.mark.fault
async def test_the_product_runs_without_redis_and_catches_up(
    postgres: Postgres, valkey: Valkey, tmp_path: Path
) -> None:
    """Webhooks and requests are accepted and visible; /readyz is degraded; the backlog is published afterwards."""
    await valkey.stop()
    async with (
        house(postgres, valkey, free_port(), tmp_path) as built,
        aiohttp.ClientSession(built.url, headers={"X-Api-Key": API_KEY}) as client,
    ):

        async def get(path: str) -> dict[str, object]:
            async with client.get(path) as answer:
                assert answer.status == 200, await answer.text()
                return dict(await answer.json())

        async def statuses() -> list[str]:
            jobs = (await get("/api/downloads?limit=100"))["downloads"]
            assert isinstance(jobs, list)
            return sorted(job["status"] for job in jobs)

        for number in range(REQUESTS):
            body = json.dumps({"artist": "The Harbour Lights", "album": f"Album {number}"}).encode()
            async with client.post("/api/downloads", data=body, headers={"Content-Type": "application/json"}) as answer:
                assert answer.status == 202, await answer.text()
        for name in ("grab", "download"):
            async with client.post(LIDARR, data=webhook(name)) as answer:
                assert answer.status == 200, await answer.text()
        # Nobody delivers, so the sweep brings the webhooks to their job.
        await eventually(lambda: _equal(statuses(), ["completed"] + ["requested"] * REQUESTS), timeout=15)
        await eventually(lambda: _has(get("/readyz"), "status", "degraded"), timeout=10)

        await valkey.start()
        await eventually(lambda: _has(get("/readyz"), "status", "ok"), timeout=15)
        async with redis_client.Redis.from_url(valkey.url, protocol=3) as redis:
            await eventually(lambda: redis.exists("kima:events:{download_job}", "kima:events:{lidarr}"), timeout=10)
        async with client.post(LIDARR, data=webhook("download-failure")) as answer:
            assert answer.status == 200, await answer.text()
        assert built.ended() == []


async def _equal(answer: object, expected: object) -> bool:
    return bool(await answer == expected)  # type: ignore[misc]


async def _has(answer: object, name: str, expected: object) -> bool:
    return bool((await answer)[name] == expected)  # type: ignore[misc]
