"""The Soulseek account over HTTP: whoever asks at whichever door, there is one login."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kima_stream import metrics
from kima_stream.cli.loop import together
from kima_stream.cli.soulseek import Pace, soulseek
from kima_stream.database import Pool
from kima_stream.integrations.soulseek import peers
from kima_stream.settings import config
from kima_stream.settings.store import SettingsStore, Sources
from tests import front_door, soulseek_server
from tests.integration.soulseek.conftest import PASSWORD, Starter, owning, until
from tests.polling import eventually
from tests.soulseek_peers import Offer, free_port, peer
from tests.soulseek_server import SoulseekServer


@pytest.fixture
async def server() -> AsyncIterator[SoulseekServer]:
    """Run a server that knows one password of ours."""
    async with soulseek_server.running() as running:
        running.passwords["kima"] = PASSWORD
        yield running


@pytest.fixture
def environment(server: SoulseekServer, dsn: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the settings of a process."""
    return {
        "KIMA_DATABASE_URL": dsn,
        "KIMA_REDIS_URL": redis_url,
        "KIMA_DATA_DIR": str(tmp_path / "data"),
        "KIMA_SOULSEEK_USERNAME": "kima",
        "KIMA_SOULSEEK_PASSWORD": PASSWORD,
        "KIMA_SOULSEEK_SERVER": f"127.0.0.1:{server.port}",
        "KIMA_SOULSEEK_LISTEN_HOST": "127.0.0.1",
        "KIMA_SOULSEEK_LISTEN_PORT": str(free_port()),
    }


@asynccontextmanager
async def opened(pool: Pool, environment: dict[str, str]) -> AsyncIterator[front_door.OpenDoor]:
    """Open a door with the settings."""
    async with front_door.opened(pool, settings=config.load(environment)) as door:
        yield door


async def ask(door: front_door.OpenDoor, what: str) -> tuple[int, dict[str, object]]:
    """Post to the account and return status and answer."""
    async with door.client.post(f"/api/soulseek/{what}") as answer:
        return answer.status, await answer.json(content_type=None)


async def test_ten_connects_at_two_doors_are_one_login(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Two owners stand by as processes: all ten are told that it is connected; one connection, one login, no kick."""
    start = Starter(environment, tmp_path)
    try:
        async with opened(pool, environment) as one, opened(pool, environment) as two:
            assert (await ask(one, "disconnect"))[0] == 200
            start(30.0), start(30.0)
            await until(pool, "disconnected", timeout=30)

            answers = await asyncio.gather(*(ask(door, "connect") for door in (one, two) * 5))

            assert [status for status, _ in answers] == [200] * 10
            assert {str(answer["username"]) for _, answer in answers} == {"kima"}
            assert (server.connections, server.logins, server.kicks) == (1, ["kima"], [])
            _, answer = await ask(two, "disconnect")
            assert (answer["connected"], answer["state"]) == (False, "disconnected")
            assert not server.online
    finally:
        for process in start.processes:
            process.kill()
            process.wait()


async def test_what_cannot_be_connected_says_why(
    pool: Pool, server: SoulseekServer, environment: dict[str, str]
) -> None:
    """Nobody to own it: asked for, not yet there. A wrong password: 400. A server that is away: not yet."""
    async with opened(pool, environment) as door:
        status, answer = await ask(door, "connect")
        assert (status, answer["state"], answer["connected"]) == (202, "unowned", False)
        async with owning(pool, environment | {"KIMA_SOULSEEK_PASSWORD": "wrong"}):
            status, answer = await ask(door, "connect")
            assert (status, answer["code"]) == (400, "configuration")
            assert "INVALIDPASS" in str(answer["faults"])
            assert "wrong" not in str(answer)
        await server.stop()
        async with owning(pool, environment):
            status, answer = await ask(door, "connect")
            assert (status, answer["state"]) == (202, "waiting")
            assert "next try in" in str(answer["detail"])
        async with owning(pool, environment | {"KIMA_SOULSEEK_ENABLED": "no"}):
            status, answer = await ask(door, "connect")
            assert (status, answer["code"]) == (400, "configuration")


async def test_the_status_shows_how_it_is(pool: Pool, server: SoulseekServer, environment: dict[str, str]) -> None:
    """Of the account, at any door; the gauge is of the owner's process."""
    async with opened(pool, environment) as door, owning(pool, environment):
        await until(pool, "connected")
        async with door.client.get("/api/soulseek/status") as answer:
            status = await answer.json()
        assert metrics.soulseek_connection_status._value.get() == 1
    assert {name: status[name] for name in ("enabled", "connected", "state", "username", "is_wanted")} == {
        "enabled": True, "connected": True, "state": "connected", "username": "kima", "is_wanted": True,
    }  # fmt: skip
    assert metrics.soulseek_connection_status._value.get() == 0
    assert server.logins == ["kima"]


async def test_blocked_peers_are_listed_and_given_another_chance(pool: Pool) -> None:
    """By an admin; a name may have any sign."""
    name = "who is/this?"
    async with pool.acquire() as conn:
        for _ in range(3):
            await peers.failed(conn, name, "sent nothing")
        await peers.failed(conn, "only once", "slow")
    async with front_door.opened(pool) as door:
        async with door.client.get("/api/blocklist") as answer:
            (blocked,) = (await answer.json())["peers"]
        assert (blocked["peer"], blocked["failures"], blocked["reason"]) == (name, 3, "sent nothing")
        async with door.client.delete("/api/blocklist/who%20is%2Fthis%3F") as answer:
            assert answer.status == 204
        async with door.client.delete("/api/blocklist/who%20is%2Fthis%3F") as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
        async with door.client.get("/api/blocklist") as answer:
            assert await answer.json() == {"peers": []}


async def test_a_search_shows_its_results_and_one_is_fetched(
    dsn: str, pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """From the form to the file: the session's results come by and by, and what is taken lies in the library."""
    (tmp_path / "music").mkdir()
    content = bytes(range(256)) * 100
    offers = [Offer(path=f"music\\Some Artist - An Album\\0{n}.flac", content=content) for n in (1, 2)]
    root = {"KIMA_SECRET_KEY": front_door.ROOT}  # what somebody types is sealed, and opened by the owner
    loaded = config.load(environment | root | {"KIMA_MUSIC_PATH": str(tmp_path / "music")})
    store = SettingsStore(pool, Sources.of(loaded))
    async with (
        peer(server, tmp_path / "peer", offers),
        store.following(),
        soulseek(dsn, pool, store, name="a test", pace=Pace(search_seconds=1)) as role,
        together(role),
        front_door.opened(pool, settings=loaded) as door,
    ):
        await until(pool, "connected")
        async with door.client.post("/api/searches", json={"query": "an album"}) as answer:
            assert answer.status == 202
            session = f"/api/searches/{(await answer.json())['id']}"

        async def shown(status: str) -> dict[str, Any]:
            async with door.client.get(session) as answer:
                body: dict[str, Any] = await answer.json()
            assert body["status"] == status, body
            return body

        found = await eventually(lambda: shown("completed"), 10)
        assert sorted(result["path"] for result in found["results"]) == [offer.path for offer in offers]
        async with door.client.post(f"{session}/download", json={"peer": "peer", "path": offers[0].path}) as answer:
            assert answer.status == 202

        async def fetched() -> dict[str, Any]:
            download: dict[str, Any] = (await shown("completed"))["downloads"][0]
            assert download["status"] == "completed", download
            return download

        download = await eventually(fetched, 10)
    assert download["saved_as"] == "Some Artist - An Album/01.flac"
    assert (tmp_path / "music" / download["saved_as"]).read_bytes() == content
    assert [query for _, _, query in server.searches] == ["an album"]
