"""Settings over HTTP: seen, changed and tried, by admins; a secret goes in and never comes out."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import web

from kima_stream.cli.doctor import examine
from kima_stream.database import Pool
from kima_stream.settings import definitions
from kima_stream.settings.config import Settings
from kima_stream.settings.definitions import DEFINITIONS
from tests import front_door
from tests.front_door import OpenDoor

ROOT = "Xo9-a-root-that-nobody-guesses-0451"
PATH = "/api/settings"
MASK = "********"
CONFIGURED = Settings(secret_key=ROOT, environment={"lidarrUrl": "http://of-the-environment:8686"})


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open a door with a root and an environment."""
    async with front_door.opened(pool, settings=CONFIGURED) as opened:
        yield opened


async def put(door: OpenDoor, _status: int = 200, _if_match: str = "*", **changes: object) -> dict[str, Any]:
    """Change settings; return the answer, which must be of ``_status``."""
    headers = {"If-Match": _if_match}
    async with door.client.put(PATH, json=changes, headers=headers) as answer:
        assert answer.status == _status, await answer.text()
        return dict(await answer.json(content_type=None))


async def shown(door: OpenDoor) -> dict[str, dict[str, Any]]:
    """Return the settings that are shown, by key."""
    async with door.client.get(PATH) as answer:
        assert answer.status == 200
        return {setting["key"]: setting for setting in (await answer.json())["settings"]}


async def test_each_setting_is_shown_with_its_source_and_who_changed_it_when(door: OpenDoor) -> None:
    """All of the table, those of the release notes among them; clearing falls back and is remembered too."""
    before = await shown(door)
    assert list(before) == list(DEFINITIONS)
    assert before.keys() >= {
        "soulseekEnabled", "soulseekDownloadPath", "lastfmEnabled", "lastfmApiSecret", "lastfmUserKey",
    }  # fmt: skip
    assert (before["lidarrUrl"]["value"], before["lidarrUrl"]["source"]) == (
        "http://of-the-environment:8686", "environment",
    )  # fmt: skip
    assert (before["soulseekEnabled"]["value"], before["soulseekEnabled"]["source"]) == (None, "default")
    assert before["lidarrUrl"]["environment"] == ["KIMA_LIDARR_URL", "LIDARR_URL"]

    await put(door, lidarrUrl="http://of-the-database", soulseekEnabled=False)
    after = await shown(door)
    assert (after["lidarrUrl"]["value"], after["lidarrUrl"]["source"]) == ("http://of-the-database", "database")
    assert (after["soulseekEnabled"]["value"], after["soulseekEnabled"]["source"]) == (False, "database")
    assert after["lidarrUrl"]["changed_by"] == "a admin"
    assert datetime.now(UTC) - datetime.fromisoformat(after["lidarrUrl"]["changed_at"]) < timedelta(minutes=1)

    await put(door, lidarrUrl=None)
    cleared = (await shown(door))["lidarrUrl"]
    assert (cleared["value"], cleared["source"]) == ("http://of-the-environment:8686", "environment")
    assert cleared["changed_by"] == "a admin"


async def test_a_change_is_an_event(door: OpenDoor) -> None:
    """With the caller's correlation id, and by whom; a form that is sent back as it came makes none."""
    headers = {"X-Correlation-Id": "of-the-admin"}
    async with door.client.put(PATH, json={"musicPath": "/music", "slskdApiKey": "0123"}, headers=headers) as answer:
        assert answer.headers["ETag"] == '"1"'
    await put(door, musicPath="/music", slskdApiKey=MASK)

    async with door.client.get("/api/events?stream=settings-global") as answer:
        (event,) = (await answer.json())["events"]
    assert (event["type"], event["correlation_id"]) == ("settings.changed", "of-the-admin")
    assert event["data"]["changes"]["musicPath"]["value"] == "/music"
    assert event["data"]["changes"]["musicPath"]["changed_by"] == "a admin"
    assert event["data"]["changes"]["slskdApiKey"].keys() == {"sealed", "changed_by", "changed_at"}


async def test_a_secret_is_masked_and_the_mask_keeps_it(door: OpenDoor) -> None:
    """Lists of secrets too; a new value replaces it, null clears it."""
    answer = await put(door, slskdApiKey="0123456789", webhookUrls=["https://a/token"], lidarrApiKey="k")
    for key in ("slskdApiKey", "webhookUrls", "lidarrApiKey"):
        (setting,) = (one for one in answer["settings"] if one["key"] == key)
        assert (setting["value"], setting["is_secret"]) == (MASK, True)
    await put(door, slskdApiKey=MASK, webhookUrls=[MASK], lidarrApiKey="l", musicPath="/music")

    current = await door.door.settings_store.refresh()
    assert current[definitions.SLSKD_API_KEY] == "0123456789"
    assert current[definitions.WEBHOOK_URLS] == ("https://a/token",)
    assert current[definitions.LIDARR_API_KEY] == "l"
    await put(door, slskdApiKey=None)
    assert (await shown(door))["slskdApiKey"]["value"] is None


async def test_all_faults_come_at_once_and_nothing_is_changed(door: OpenDoor) -> None:
    """As one problem of class configuration, with a line per fault and none of the values."""
    wrong: dict[str, Any] = {
        "lidarrUrl": "secret-value", "soulseekEnabled": "secret-value", "soulseekConcurrentDownloads": 11,
        "noSuchThing": "secret-value", "lastfmEnabled": True, "musicPath": "/music",
    }  # fmt: skip

    problem = await put(door, 400, **wrong)

    assert problem["code"] == "configuration"
    assert {fault.partition(":")[0].strip("'") for fault in problem["faults"]} == wrong.keys() - {"musicPath"}
    assert "secret-value" not in str(problem)
    assert (await shown(door))["musicPath"]["value"] is None


async def test_a_version_that_has_passed_is_refused(door: OpenDoor) -> None:
    """412; nonsense is 400; a star is any."""
    await put(door, _if_match='"0"', musicPath="/a")
    await put(door, 412, _if_match='"0"', musicPath="/b")
    await put(door, 400, _if_match="W/nonsense", musicPath="/b")
    await put(door, _if_match="*", musicPath="/b")
    await put(door, _if_match='"2"', musicPath="/c")


async def test_what_was_tampered_with_is_an_error_that_is_shown(door: OpenDoor, dsn: str, pool: Pool) -> None:
    """GET names it beside the others, ``doctor`` finds it, a rotation stops at it; setting it anew mends it."""
    await put(door, slskdApiKey="0123456789", lastfmApiKey="abcdefghij")
    state = await pool.fetchval("SELECT state FROM settings")
    sealed = msgspec.json.decode(state)["values"]["slskdApiKey"]["sealed"]
    flipped = sealed[:-9] + ("A" if sealed[-9] != "A" else "B") + sealed[-8:]
    await pool.execute("UPDATE settings SET state = $1", state.replace(sealed, flipped))

    found = await shown(door)
    assert (
        found["slskdApiKey"]["fault"] == "cannot be opened: it was changed, or sealed under another name; set it again"
    )
    assert (found["slskdApiKey"]["value"], found["slskdApiKey"]["source"]) == (MASK, "database")
    assert found["lastfmApiKey"]["fault"] is None
    report = await examine(Settings(database_url=dsn, secret_key=ROOT))
    (fault,) = (finding for finding in report.findings if finding.part == "settings")
    assert (fault.status, fault.says.partition(":")[0], report.status) == ("fault", "slskdApiKey", "fault")
    assert fault.fix is not None
    async with door.client.post(f"{PATH}/rotate-key", json={}) as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"]) == (400, "configuration")
        assert [fault.partition(":")[0] for fault in problem["faults"]] == ["slskdApiKey"]

    await put(door, slskdApiKey="0123456789")
    assert (await shown(door))["slskdApiKey"]["fault"] is None


async def test_rotation_online_loses_nothing(pool: Pool, scaled: Callable[[int], int]) -> None:
    """Writers, readers and rotations at two doors: what was acknowledged is in force, sealed with the newest key."""
    turns, done = scaled(100), asyncio.Event()
    acknowledged: dict[str, str] = {}
    async with (
        front_door.opened(pool, settings=CONFIGURED, connections=20) as one,
        front_door.opened(pool, settings=CONFIGURED, connections=20) as other,
    ):

        async def write(door: OpenDoor, key: str) -> None:
            for turn in range(turns):
                await put(door, 200, "*", **{key: f"{key} {turn}"})
                acknowledged[key] = f"{key} {turn}"

        async def read(door: OpenDoor) -> int:
            reads = 0
            while not done.is_set():
                found = await shown(door)
                assert [key for key, setting in found.items() if setting["fault"]] == []
                reads += 1
            return reads

        async def rotate(door: OpenDoor) -> list[str]:
            used = []
            for _ in range(turns):
                async with door.client.post(f"{PATH}/rotate-key", json={}) as answer:
                    assert answer.status == 200, await answer.text()
                    used.append((await answer.json())["key_id"])
            return used

        readers = [asyncio.create_task(read(door)) for door in (one, other)]
        keys = ["lidarrApiKey", "slskdApiKey", "lastfmApiSecret", "soulseekPassword"]
        writers = [write((one, other)[number % 2], key) for number, key in enumerate(keys)]
        rotations = [asyncio.create_task(rotate(door)) for door in (one, other)]
        await asyncio.gather(*writers)
        used = {key for rotation in rotations for key in await rotation}
        done.set()
        assert all(reads > 0 for reads in await asyncio.gather(*readers))

        await put(one, lastfmUserKey="sealed last")
        current = await other.door.settings_store.refresh()
        assert {key: current.entries[key].value for key in keys} == acknowledged
        newest = await pool.fetchval("SELECT key_id FROM secret_keys ORDER BY number DESC LIMIT 1")
        state = await pool.fetchval("SELECT state FROM settings")
        assert len(used) == 2 * turns
        assert f"kima1.{newest}." in state
        assert [key for key in used - {newest} if key in state] == []


async def answer_as_lidarr(request: web.Request) -> web.Response:
    """Be a Lidarr with one key; everything else of it is played by the simulator."""
    if request.headers.get("X-Api-Key") != "right":
        return web.Response(status=401)
    return web.json_response({"appName": "Lidarr", "version": "2.9.6.4552"})


async def answer_as_lastfm(request: web.Request) -> web.Response:
    """Be a Last.fm with one key; a wrong one is an error with status 200."""
    if request.query.get("api_key") != "right":
        return web.json_response({"error": 10, "message": "Invalid API key"})
    return web.json_response({"artists": {"artist": []}})


@pytest.fixture
async def outside() -> AsyncIterator[str]:
    """Run what there is outside; yield its address."""
    app = web.Application()
    app.router.add_get("/api/v1/system/status", answer_as_lidarr)
    app.router.add_get("/lastfm/", answer_as_lastfm)
    app.router.add_get("/elsewhere/api/v1/system/status", _redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def _redirect(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/api/v1/system/status"})


async def tried(door: OpenDoor, name: str, **values: object) -> tuple[int, bool | None, str]:
    """Try a connection; return status, whether it is well, and what is said."""
    async with door.client.post(f"{PATH}/{name}/test", json=values) as answer:
        said = await answer.json(content_type=None)
        return answer.status, said.get("ok"), said.get("detail") or str(said.get("faults"))


async def test_a_connection_is_tried_before_it_is_saved(door: OpenDoor, outside: str) -> None:
    """With the values of the body over those in force; nothing is kept, and no answer repeats a key."""
    assert await tried(door, "lidarr", lidarrUrl=outside, lidarrApiKey="right") == (
        200, True, "Lidarr 2.9.6.4552 takes the key.",
    )  # fmt: skip
    status, ok, said = await tried(door, "lidarr", lidarrUrl=outside, lidarrApiKey="wrong-key")
    assert (status, ok, "refuses the key" in said, "wrong-key" in said) == (200, False, True, False)
    status, ok, said = await tried(door, "lidarr", lidarrUrl=f"{outside}/elsewhere", lidarrApiKey="right")
    assert (status, ok, "sends us elsewhere" in said) == (200, False, True)
    assert (await tried(door, "lastfm", lastfmUrl=f"{outside}/lastfm", lastfmApiKey="right"))[:2] == (200, True)
    assert (await tried(door, "lastfm", lastfmUrl=f"{outside}/lastfm", lastfmApiKey="wrong"))[:2] == (200, False)
    port = outside.rpartition(":")[2]
    assert (await tried(door, "soulseek", soulseekServer=f"127.0.0.1:{port}"))[:2] == (200, True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()[1]
        assert (await tried(door, "soulseek", soulseekServer=f"127.0.0.1:{nobody}"))[:2] == (200, False)
    assert {setting["source"] for setting in (await shown(door)).values()} == {"default", "environment"}

    status, _, said = await tried(door, "lidarr", lidarrUrl="nonsense", lidarrApiKey=7)
    assert (status, "lidarrUrl" in said, "lidarrApiKey" in said) == (400, True, True)
    assert (await tried(door, "lidarr"))[0] == 400


async def test_a_stored_key_goes_to_the_stored_address_only(door: OpenDoor, outside: str) -> None:
    """Who tries another address must give the key again: no admin's browser is made to send it away."""
    await put(door, lidarrUrl=outside, lidarrApiKey="right")

    assert (await tried(door, "lidarr"))[:2] == (200, True)
    assert (await tried(door, "lidarr", lidarrApiKey=MASK))[:2] == (200, True)
    masked: dict[str, object] = {"lidarrApiKey": MASK}
    for key in (masked, dict[str, object]()):
        status, _, said = await tried(door, "lidarr", lidarrUrl="http://127.0.0.2:8686", **key)
        assert (status, "give it again" in said) == (400, True)
