"""Stopping under load: no acknowledged event is lost, and no request that was taken is cut."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from kima_stream import database
from kima_stream.database import Pool
from kima_stream.http import app, server
from kima_stream.http.table import ROUTES
from kima_stream.settings.config import Settings
from tests import front_door
from tests.front_door import LIDARR, webhook
from tests.polling import eventually

CLIENTS = 16
BEFORE_STOP = 200  # webhooks acknowledged before the stop begins


@dataclass
class Load:
    """What the senders saw."""

    acknowledged: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    goodbyes: int = 0


async def send(url: str, key: str, load: Load) -> None:
    """Send webhooks over one kept connection until nobody listens any more."""
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(url, headers={"X-Api-Key": key}, connector=connector) as client:
        while True:
            try:
                async with client.post(LIDARR, data=webhook("health")) as answer:
                    assert answer.status == 200
                    load.acknowledged.append(json.loads(await answer.read())["event_id"])
                    load.goodbyes += answer.headers.get("Connection") == "close"
            except aiohttp.ClientConnectorError:
                return
            except aiohttp.ClientError as error:
                load.cut.append(repr(error))
                return


@pytest.mark.parametrize("round_", range(3))
async def test_a_stop_under_load_loses_and_cuts_nothing(dsn: str, pool: Pool, round_: int) -> None:
    """Each sender is told to leave by its last answer; what was acknowledged is in the log."""
    load = Load()
    key = await front_door.make_key(pool)
    async with asyncio.TaskGroup() as senders:
        connections = await database.open_pool(dsn, role="serve", max_size=4)
        async with (
            app.opened(Settings(), connections) as door,
            server.serving(app.build(door, ROUTES), host="127.0.0.1", port=0) as port,
        ):
            for _ in range(CLIENTS):
                senders.create_task(send(f"http://127.0.0.1:{port}", key, load))
            await eventually(lambda: len(load.acknowledged) >= BEFORE_STOP)
        await connections.close()

    stored = {str(row["event_id"]) for row in await pool.fetch("SELECT event_id FROM events")}
    assert load.cut == []
    assert load.goodbyes == CLIENTS
    assert len(load.acknowledged) == len(set(load.acknowledged))
    assert set(load.acknowledged) == stored


async def test_a_slow_request_is_finished(dsn: str, pool: Pool) -> None:
    """A webhook that waits for its commit when the stop begins is committed and answered."""
    key = await front_door.make_key(pool)
    connections = await database.open_pool(dsn, role="serve", max_size=4)
    async with pool.acquire() as blocker, aiohttp.ClientSession(headers={"X-Api-Key": key}) as client:
        lock = blocker.transaction()
        await lock.start()
        await blocker.execute("LOCK TABLE events")
        async with app.opened(Settings(), connections) as door:
            application = app.build(door, ROUTES)
            async with server.serving(application, host="127.0.0.1", port=0, drain_seconds=0.1) as port:
                posted = asyncio.create_task(_post(client, f"http://127.0.0.1:{port}{LIDARR}"))
                await eventually(lambda: _waits(pool))
                freed = asyncio.create_task(_when_draining(application, lock.rollback))
            await freed
        await connections.close()

        status, event_id = await posted
    assert status == 200
    assert await pool.fetchval("SELECT count(*) FROM events WHERE event_id = $1::uuid", event_id) == 1


async def _post(client: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with client.post(url, data=webhook("grab")) as answer:
        return answer.status, (await answer.json())["event_id"]


async def _when_draining(application: web.Application, free: Callable[[], Awaitable[None]]) -> None:
    await application[app.DRAINING].wait()
    await free()


async def _waits(pool: Pool) -> bool:
    found: bool = await pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
    return found
