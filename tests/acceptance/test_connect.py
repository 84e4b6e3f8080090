"""``connect``: a real door, a simulated Lidarr, and the round trip between them."""

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest
import stamina
from aiohttp import web

from kima_stream.cli import doctor
from kima_stream.database import Pool
from kima_stream.integrations import lidarr_connection
from kima_stream.settings.config import Settings
from kima_stream.simulator import rest_notifications, server
from kima_stream.simulator.weather import Strike
from tests import front_door, lidarr
from tests.front_door import OpenDoor
from tests.lidarr import KEY, LidarrHouse

PATH = "/api/webhooks/lidarr"
DISCORD: dict[str, object] = {
    "name": "Discord",
    "implementation": "Discord",
    "configContract": "DiscordSettings",
    "fields": [{"order": 0, "name": "webHookUrl", "value": "https://discord.example.org/x", "privacy": "apiKey"}],
    "tags": [1, 2],
    "onGrab": True,
    "grabFields": [0, 1.5, None, "ü"],
}


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Test that does not arrive is not waited for."""
    monkeypatch.setattr(lidarr_connection, "ARRIVAL_SECONDS", 0.1)


@dataclass
class Both:
    """A Lidarr and our door."""

    house: LidarrHouse
    door: OpenDoor

    async def connect(self, url: str | None = None, status: int = 200) -> Mapping[str, Any]:
        """Connect by HTTP and return the answer, which has this status."""
        body = {} if url is None else {"url": url}
        async with self.door.client.post("/api/connect/lidarr", json=body) as answer:
            said: Mapping[str, Any] = await answer.json()
            assert answer.status == status, said
            return said

    async def registered(self) -> list[dict[str, Any]]:
        """Return the notifications as Lidarr shows them."""
        return [dict(each.body) for each in await self.house.client.notifications()]

    async def keys(self) -> list[dict[str, Any]]:
        """Return the keys for webhooks that are in force."""
        async with self.door.client.get("/api/keys") as answer:
            found = (await answer.json())["keys"]
        return [key for key in found if key["role"] == "webhook" and key["revoked_at"] is None]

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """Return what our log has of a type."""
        rows = await self.door.door.pool.fetch("SELECT event_id, stream FROM events WHERE type = $1", kind)
        return [dict(row) for row in rows]


@asynccontextmanager
async def opened(pool: Pool, **environment: object) -> AsyncIterator[Both]:
    """Run both; the door knows Lidarr from its environment."""
    with stamina.set_testing(True, attempts=1):
        async with lidarr.opened() as house:
            settings = Settings(environment={"lidarrUrl": house.url, "lidarrApiKey": KEY, **environment})
            async with front_door.opened(pool, settings=settings) as door:
                yield Both(house, door)


@pytest.fixture
async def both(pool: Pool) -> AsyncIterator[Both]:
    """Run a Lidarr and our door."""
    async with opened(pool) as found:
        yield found


def fields_of(notification: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a notification's fields."""
    return {field["name"]: field.get("value") for field in notification["fields"]}


async def test_a_webhook_is_registered_and_what_happens_arrives(both: Both) -> None:
    """With a key of its own in the header, on the first call, and the Test is in our log."""
    done = await both.connect()

    (ours,) = await both.registered()
    (key,) = await both.keys()
    assert (done["action"], done["key"], done["name"]) == ("registered", "made", "kima-stream")
    assert done["url"] == fields_of(ours)["url"] == f"{both.door.url}{PATH}"
    assert [header["key"] for header in fields_of(ours)["headers"]] == ["X-Webhook-Secret"]
    assert (key["name"], ours["onUpgrade"], ours["onImportFailure"]) == ("lidarr", True, True)
    assert done["test_event_id"] in {str(event["event_id"]) for event in await both.events("lidarr.test")}

    known = both.house.lidarr.catalogue.albums[0]
    album = both.house.lidarr.add_album(
        known, await both.house.lidarr.add_artist(both.house.lidarr.catalogue.artist_of(known))
    )
    await both.house.lidarr.grab([album], both.house.lidarr.releases(album)[0])
    await both.house.lidarr.postman.drain()
    assert len(await both.events("lidarr.grab")) == 1


async def test_connecting_again_changes_nothing(both: Both) -> None:
    """Same webhook, same key; the round trip is proved anew."""
    first = await both.connect()
    before = await both.registered()

    again = await both.connect()

    assert (again["action"], again["key"], again["notification_id"]) == ("unchanged", "kept", first["notification_id"])
    assert again["test_event_id"] != first["test_event_id"]
    assert await both.registered() == before
    assert len(await both.keys()) == 1


async def test_foreign_notifications_stay_byte_for_byte(both: Both) -> None:
    """Also a webhook with our path that leads to another machine: it may be another server's."""
    rest_notifications.add_other(both.house.app, DISCORD)
    fields = [{"name": "url", "value": f"http://elsewhere:3006{PATH}"}]
    kima = {**DISCORD, "name": "Kima", "implementation": "Webhook", "fields": fields}
    rest_notifications.add_other(both.house.app, kima)
    before = await raw_notifications(both.house)

    done = await both.connect()
    await both.connect()

    assert (await raw_notifications(both.house))[:2] == before
    assert not any(call.path.endswith(("/1", "/2")) for call in both.house.calls if call.method != "GET")
    assert "Kima leads to http://elsewhere:3006 with the same path" in done["notes"][0]


async def raw_notifications(house: LidarrHouse) -> list[bytes]:
    """Return each notification as it comes over the wire."""
    content = await house.client.transport.read("/notification")
    return [bytes(each) for each in msgspec.json.decode(content, type=list[msgspec.Raw])]


async def test_what_somebody_chose_in_our_webhook_stays(both: Both) -> None:
    """Name, tags, method, user and password, other headers, other events; only what we need is set right."""
    await both.connect()
    (ours,) = await both.registered()
    values = {"method": 2, "username": "lidarr", "password": "pässword"}
    fields = [{**field, "value": values.get(field["name"], field.get("value"))} for field in ours["fields"]]
    headers = next(field for field in fields if field["name"] == "headers")
    headers["value"] = [{"key": "X-Proxy", "value": "let me in"}, *headers["value"]]
    theirs = {**ours, "name": "mine", "tags": [7], "onRename": False, "onGrab": False, "fields": fields}
    await both.house.client.change_notification(ours["id"], theirs)

    done = await both.connect()

    (now,) = await both.registered()
    stored = both.house.app[rest_notifications._STORED][ours["id"]].values
    assert (done["action"], done["key"]) == ("updated", "kept")
    assert (now["name"], now["tags"], now["onRename"], now["onGrab"]) == ("mine", [7], False, True)
    assert (stored["method"], stored["username"], stored["password"]) == (2, "lidarr", "pässword")
    assert [header["key"] for header in stored["headers"]] == ["X-Proxy", "X-Webhook-Secret"]
    assert "mine has tags" in done["notes"][0]


async def test_a_webhook_made_by_hand_is_taken_over_by_its_address(both: Both) -> None:
    """No second one beside it; the password that it had is kept behind its mask."""
    await both.house.client.register({
        "name": "by hand", "implementation": "Webhook", "configContract": "WebhookSettings", "onGrab": True,
        "fields": [
            {"name": "url", "value": f"{both.door.url}{PATH}/"}, {"name": "username", "value": ""},
            {"name": "password", "value": both.door.key},
        ],
    })  # fmt: skip

    done = await both.connect()

    (now,) = await both.registered()
    assert (done["action"], done["key"], now["name"]) == ("updated", "made", "by hand")
    assert both.house.app[rest_notifications._STORED][now["id"]].values["password"] == both.door.key


async def test_our_webhook_is_known_by_its_key_when_we_have_moved(both: Both) -> None:
    """Another address of this server: the webhook moves along."""
    first = await both.connect()
    port = urlsplit(both.door.url).port

    moved = await both.connect(f"http://localhost:{port}")

    assert (moved["action"], moved["notification_id"]) == ("updated", first["notification_id"])
    assert [fields_of(each)["url"] for each in await both.registered()] == [f"http://localhost:{port}{PATH}"]


async def test_a_revoked_key_is_replaced(both: Both) -> None:
    """The webhook was dead; it lives again."""
    await both.connect()
    (key,) = await both.keys()
    async with both.door.client.delete(f"/api/keys/{key['key_id']}"):
        pass

    assert (await both.connect())["key"] == "made"
    assert len(await both.keys()) == len(await both.registered()) == 1


@asynccontextmanager
async def stranger(status: int) -> AsyncIterator[str]:
    """Run something that takes webhooks and is not our door."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_route("*", PATH, answer)
    async with server.serving(app) as url:
        yield url


@pytest.mark.parametrize(
    ("status", "said"),
    [(200, "they do not arrive here"), (401, "does not know our key"), (404, "URL base"), (500, "was refused")],
)
async def test_an_address_that_is_not_this_server_changes_nothing(both: Both, status: int, said: str) -> None:
    """The Test comes first: neither a webhook nor a key is left over."""
    async with stranger(status) as url:
        problem = await both.connect(url, 400)

    assert said in problem["faults"][0]
    assert await both.registered() == await both.keys() == []
    assert not both.house.happened("POST", "/notification")


async def test_an_address_where_nobody_is_changes_nothing(both: Both, unused_tcp_port: int) -> None:
    """Lidarr runs elsewhere and sees another network."""
    problem = await both.connect(f"http://127.0.0.1:{unused_tcp_port}", 400)

    assert "cannot reach" in problem["faults"][0]
    assert await both.registered() == await both.keys() == []


async def test_an_address_that_is_none_is_said_so(both: Both) -> None:
    """Before anybody is asked."""
    problem = await both.connect("ftp://kima", 400)

    assert problem["faults"][0].startswith("url: expected a URL")
    assert both.house.calls == []


async def test_without_lidarr_s_address_and_key_it_says_which_settings(pool: Pool) -> None:
    """Both at once."""
    async with front_door.opened(pool) as door, door.client.post("/api/connect/lidarr", json={}) as answer:
        assert (answer.status, [fault.split(":")[0] for fault in (await answer.json())["faults"]]) == (
            400,
            ["lidarrUrl", "lidarrApiKey"],
        )


async def test_a_lidarr_elsewhere_needs_to_be_told_where_we_are(pool: Pool) -> None:
    """It does not know 127.0.0.1 as we do."""
    async with opened(pool, lidarrUrl="http://lidarr.example.org:8686") as both:
        assert "publicUrl: missing" in (await both.connect(status=400))["faults"][0]


async def test_the_public_address_of_the_settings_is_taken(pool: Pool) -> None:
    """``url`` goes over it, once."""
    async with stranger(200) as url, opened(pool, publicUrl=url) as both:
        assert url in (await both.connect(status=400))["faults"][0]
        assert (await both.connect(both.door.url))["action"] == "registered"


async def test_a_lidarr_that_is_away_may_come_back(both: Both) -> None:
    """503, and nothing is left over."""
    both.house.weather.is_down = True

    problem = await both.connect(status=503)

    assert problem["retryable"]
    assert await both.keys() == []


async def test_an_answer_that_was_lost_after_registering_is_mended_by_doing_it_again(both: Both) -> None:
    """The webhook may be there already, so its key stays good."""
    both.house.strike(Strike(kind="hold", path="/api/v1/notification/test"))  # passes
    strike = both.house.strike(Strike(kind="after", method="POST", path="/api/v1/notification"))

    await both.connect(status=503)
    again = await both.connect()

    assert strike.times == 0
    assert (again["action"], again["key"]) == ("unchanged", "kept")
    assert len(await both.registered()) == len(await both.keys()) == 1


async def test_two_at_once_make_one_webhook(both: Both) -> None:
    """The second one is told to wait."""

    async def connect() -> int:
        async with both.door.client.post("/api/connect/lidarr", json={}) as answer:
            return answer.status

    statuses = sorted(await asyncio.gather(connect(), connect()))

    assert statuses in ([200, 200], [200, 409])
    assert len(await both.registered()) == len(await both.keys()) == 1


async def test_no_secret_is_in_an_answer(both: Both) -> None:
    """Neither the key that was made nor Lidarr's."""
    said = msgspec.json.encode(await both.connect()).decode()

    assert "kima_" not in said
    assert KEY not in said


async def command(both: Both, dsn: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the program beside the door and return code, stdout and stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KIMA_", "LIDARR_"))}
    place = {"KIMA_DATABASE_URL": dsn, "KIMA_PORT": str(urlsplit(both.door.url).port), "KIMA_DATA_DIR": "/nowhere"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kima_stream", "connect", *arguments,
        env={**kept, **place, "LIDARR_URL": both.house.url, "LIDARR_API_KEY": KEY, **environment},
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def test_the_command_does_the_same(both: Both, dsn: str) -> None:
    """From a terminal on this machine, for people and in JSON."""
    code, out, errors = await command(both, dsn, "lidarr")
    again, as_json, _ = await command(both, dsn, "lidarr", "--json")

    assert (code, again) == (0, 0), errors
    assert "webhook kima-stream registered" in out
    assert msgspec.json.decode(as_json)["action"] == "unchanged"
    assert len(await both.registered()) == 1


async def test_doctor_says_whether_lidarr_is_connected(both: Both, dsn: str, tmp_path: Path) -> None:
    """Before: what to run; after: where it leads."""
    environment = {"lidarrUrl": both.house.url, "lidarrApiKey": KEY}
    loaded = Settings(database_url=dsn, data_dir=tmp_path, environment=environment)

    before, _, after = await doctor.examine(loaded), await both.connect(), await doctor.examine(loaded)

    found = [finding for report in (before, after) for finding in report.findings if finding.part == "lidarr webhook"]
    assert [finding.status for finding in found] == ["warn", "ok"]
    assert found[0].fix == "run: kima-stream connect lidarr"
    assert found[1].says == f"kima-stream leads to {both.door.url}"


async def test_the_command_wants_the_door_open_first(both: Both, dsn: str, unused_tcp_port: int) -> None:
    """Exit 3, and what to start."""
    code, _, errors = await command(both, dsn, "lidarr", KIMA_PORT=str(unused_tcp_port))

    assert code == 3
    assert "start kima-stream up" in errors


async def test_what_slskd_needs_is_printed_with_a_key_that_opens(both: Both, dsn: str) -> None:
    """Slskd is told by its own configuration file."""
    code, out, _ = await command(both, dsn, "slskd", "--url", both.door.url, "--json")
    made = msgspec.json.decode(out)

    body = io.BytesIO((front_door.FIXTURES / "slskd" / "webhook-DownloadFileComplete.json").read_bytes())
    headers = {"X-Webhook-Secret": made["key"], "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession() as anybody,
        anybody.post(f"{both.door.url}/api/webhooks/slskd", data=body, headers=headers) as answer,
    ):
        assert (code, answer.status) == (0, 200)
    assert f"url: {both.door.url}/api/webhooks/slskd" in made["yaml"]
    assert made["key"] in made["yaml"]
