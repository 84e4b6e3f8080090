"""The simulated Lidarr over HTTP: what a client of the real one would see; every answer fits its own description."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kima_stream.simulator import server
from kima_stream.simulator.agenda import Agenda
from kima_stream.simulator.catalogue import invent
from kima_stream.simulator.lidarr import Lidarr, Luck
from kima_stream.simulator.postman import Faults, Postman
from kima_stream.simulator.records import Records
from tests.lidarr import check_answer, require_description

KEY = "a key of Lidarr"
BEGIN = datetime(2026, 3, 14, 9, tzinfo=UTC)


@dataclass
class Receiver:
    """Takes webhooks; ``status`` is what it answers, ``drops`` how often it hangs up first."""

    url: str = ""
    status: int = 200
    drops: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def events(self) -> list[str]:
        """Return the types of what came, in order."""
        return [body["eventType"] for body in self.bodies]

    async def take(self, request: web.Request) -> web.Response:
        """Keep one webhook."""
        if self.drops:
            self.drops -= 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))
        return web.Response(status=self.status)


@dataclass
class World:
    """A Lidarr that serves, a receiver, and a client of the REST API."""

    lidarr: Lidarr
    receiver: Receiver
    client: aiohttp.ClientSession
    said: list[tuple[str, str, int, Any]] = field(default_factory=list)

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and answer, once the answer fits what Lidarr says of itself."""
        async with self.client.request(method, f"/api/v1{path}", json=body) as answer:
            content = await answer.json(content_type=None)
            check_answer(method, f"/api/v1{path}", answer.status, content)
            return answer.status, content

    async def register(self, **fields: object) -> tuple[int, Any]:
        """Register the receiver."""
        return await self.call("POST", "/notification", notification(url=self.receiver.url, **fields))

    async def add(self, count: int) -> list[dict[str, Any]]:
        """Add ``count`` albums by REST and let Lidarr search them."""
        added = []
        for known in self.lidarr.catalogue.albums[:count]:
            _, found = await self.call("GET", f"/album/lookup?term=lidarr:{known.mbid}")
            artist = found[0]["artist"] | {"qualityProfileId": 1, "metadataProfileId": 1, "rootFolderPath": "/music"}
            body = found[0] | {"artist": artist, "monitored": True, "addOptions": {"searchForNewAlbum": True}}
            status, album = await self.call("POST", "/album", body)
            assert status == HTTPStatus.CREATED, album
            added.append(album)
        await self.lidarr.agenda.advance(3)
        return added


def notification(*, url: str, **fields: object) -> dict[str, Any]:
    """Return the body that registers a webhook."""
    values = {"url": url, "method": 1, "username": "", "password": "", "headers": [], **fields}
    return {
        "name": "kima-stream",
        "implementation": "Webhook",
        "configContract": "WebhookSettings",
        **dict.fromkeys(("onGrab", "onReleaseImport", "onDownloadFailure", "onArtistAdd"), True),
        "fields": [{"name": name, "value": value} for name, value in values.items()],
    }


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver."""
    found = Receiver()
    app = web.Application()
    app.router.add_route("*", "/hook", found.take)
    async with server.serving(app) as url:
        found.url = f"{url}/hook"
        yield found


@asynccontextmanager
async def opened(
    receiver: Receiver, *, faults: Faults | None = None, luck: Luck | None = None, seed: int = 1
) -> AsyncIterator[World]:
    """Run a Lidarr of 30 albums."""
    rng, records, agenda = random.Random(seed), Records(), Agenda(BEGIN)

    async def no_wait(seconds: float) -> None:
        pass

    postman = Postman(records, rng, faults=faults, wait=no_wait)
    lidarr = Lidarr(invent(rng, 30), agenda, rng, records, postman, luck=luck)
    async with (
        postman.working(),
        server.serving(server.build(lidarr, KEY)) as url,
        aiohttp.ClientSession(url, headers={"X-Api-Key": KEY}) as client,
    ):
        yield World(lidarr, receiver, client)


@pytest.fixture
async def world(receiver: Receiver) -> AsyncIterator[World]:
    """Run a Lidarr without faults whose downloads all end well."""
    async with opened(receiver, luck=Luck(imports=1.0)) as found:
        yield found


@pytest.mark.parametrize(
    "path",
    [
        "/system/status", "/qualityprofile", "/metadataprofile", "/rootfolder", "/artist", "/album", "/queue",
        "/history", "/history/since?date=2026-03-14T08:00:00Z", "/notification", "/notification/schema",
        "/artist/lookup?term=a", "/album/lookup?term=a", "/release?albumId=1", "/album/1", "/command/1", "/tag",
        "/command", "/queue/details?albumIds=1&albumIds=2",
    ],
)  # fmt: skip
async def test_every_answer_fits_lidarrs_own_description(world: World, path: str) -> None:
    """The OpenAPI document of Lidarr forbids any field that Lidarr does not have."""
    require_description()
    await world.add(2)
    assert (await world.call("GET", path))[0] == HTTPStatus.OK


async def test_a_missing_or_wrong_key_is_an_empty_401(world: World) -> None:
    """Lidarr says nothing to strangers."""
    for headers in ({"X-Api-Key": ""}, {"X-Api-Key": "another"}, {"X-Api-Key": "", "Authorization": "Bearer x"}):
        async with world.client.get("/api/v1/system/status", headers=headers) as answer:
            assert (answer.status, await answer.read()) == (HTTPStatus.UNAUTHORIZED, b"")


async def test_a_key_may_come_in_three_ways(world: World) -> None:
    """Query, header and bearer open the same door."""
    for path, headers in (
        (f"/api/v1/tag?apikey={KEY}", {"X-Api-Key": ""}),
        ("/api/v1/tag", {"X-Api-Key": "", "Authorization": f"Bearer {KEY}"}),
        ("/api/v1/tag", {}),
    ):
        async with world.client.get(path, headers=headers) as answer:
            assert answer.status == HTTPStatus.OK


async def test_the_queue_comes_in_pages_of_ten(world: World) -> None:
    """Who reads one page and believes it is all misses what is on its way."""
    await world.add(13)

    pages = [(await world.call("GET", f"/queue?page={number}"))[1] for number in (1, 2, 3)]

    assert [len(page["records"]) for page in pages] == [10, 3, 0]
    assert {page["totalRecords"] for page in pages} == {13}
    assert len({line["downloadId"] for page in pages for line in page["records"]}) == 13
    assert len((await world.call("GET", "/queue?pageSize=50"))[1]["records"]) == 13


async def test_an_artist_twice_is_an_array_of_faults_with_400(world: World) -> None:
    """What exists already is a fault of validation at Lidarr, not a conflict."""
    known = world.lidarr.catalogue.artist_of(world.lidarr.catalogue.albums[0])
    body = {"foreignArtistId": str(known.mbid), "artistName": known.name, "qualityProfileId": 1}
    body |= {"metadataProfileId": 1, "rootFolderPath": "/music"}

    assert (await world.call("POST", "/artist", body))[0] == HTTPStatus.CREATED
    status, faults = await world.call("POST", "/artist", body)

    assert status == HTTPStatus.BAD_REQUEST
    assert faults[0]["errorMessage"] == "This artist has already been added."
    assert faults[0]["errorCode"] == "ArtistExistsValidator"


async def test_albums_of_a_new_artist_appear_after_the_refresh(world: World) -> None:
    """Adding is not done when it is answered."""
    known = world.lidarr.catalogue.artist_of(world.lidarr.catalogue.albums[0])
    body = {"foreignArtistId": str(known.mbid), "qualityProfileId": 1, "metadataProfileId": 1}
    await world.call("POST", "/artist", body | {"rootFolderPath": "/music"})

    assert (await world.call("GET", "/album"))[1] == []
    await world.lidarr.agenda.advance(2)
    assert len((await world.call("GET", "/album"))[1]) == len(known.albums)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/album/999", HTTPStatus.NOT_FOUND),
        ("GET", "/command/999", HTTPStatus.NOT_FOUND),
        ("DELETE", "/queue/999", HTTPStatus.NOT_FOUND),
        ("POST", "/release", HTTPStatus.NOT_FOUND),
        ("POST", "/command", HTTPStatus.INTERNAL_SERVER_ERROR),
        ("GET", "/nowhere", HTTPStatus.NOT_FOUND),
    ],
)
async def test_other_errors_are_an_object(world: World, method: str, path: str, status: int) -> None:
    """So a client has to read both shapes."""
    body = {"name": "Nonsense", "guid": "none"} if method == "POST" else None
    answered, content = await world.call(method, path, body)

    assert (answered, type(content)) == (status, dict)
    assert content["message"]


async def test_a_search_becomes_a_grab_then_an_import_in_queue_history_and_webhooks(world: World) -> None:
    """The same story three times: what a reconciler reads and what a webhook tells agree."""
    await world.register()
    album = (await world.add(1))[0]

    assert [line["albumId"] for line in (await world.call("GET", "/queue"))[1]["records"]] == [album["id"]]
    await world.lidarr.agenda.finish()
    await world.lidarr.postman.drain()

    assert (await world.call("GET", "/queue"))[1]["totalRecords"] == 0
    assert [event for event in world.receiver.events() if event != "ArtistAdd"] == ["Test", "Grab", "Download"]
    _, rows = await world.call("GET", "/history/since?date=2026-03-14T09:00:00Z")
    kinds = [row["eventType"] for row in rows]
    assert (kinds[0], kinds[-1]) == ("grabbed", "downloadImported")
    assert {row["downloadId"] for row in rows} == {world.receiver.bodies[-1]["downloadId"]}
    assert kinds.count("trackFileImported") == len(world.receiver.bodies[-1]["trackFiles"])
    _, found = await world.call("GET", f"/album/{album['id']}")
    assert found["statistics"]["percentOfTracks"] == 100


async def test_a_download_that_is_blocklisted_fails_with_its_reason_in_the_history(world: World) -> None:
    """The webhook has only the download id; the history says why."""
    await world.register()
    await world.add(1)
    line = (await world.call("GET", "/queue"))[1]["records"][0]

    assert (await world.call("DELETE", f"/queue/{line['id']}?blocklist=true"))[0] == HTTPStatus.OK
    await world.lidarr.postman.drain()

    assert world.receiver.bodies[-1]["eventType"] == "DownloadFailure"
    assert "artist" not in world.receiver.bodies[-1]
    _, page = await world.call("GET", f"/history?eventType=4&downloadId={line['downloadId']}")
    assert page["records"][0]["data"]["message"] == "Manually marked as failed"


async def test_a_multi_album_download_is_one_webhook_per_album(world: World) -> None:
    """They share a download id and nothing else."""
    await world.register()
    await world.add(2)
    first, second = list(world.lidarr.albums.values())[:2]

    await world.lidarr.grab([first, second], world.lidarr.releases(first)[0], will_import=True)
    download = world.lidarr.downloads[-1]
    await world.lidarr.agenda.finish()
    await world.lidarr.postman.drain()

    told = [body for body in world.receiver.bodies if body.get("downloadId") == download.id]
    assert [body["eventType"] for body in told] == ["Grab", "Download", "Download"]
    assert [body["album"]["id"] for body in told[1:]] == [first.id, second.id]


async def test_registering_sends_a_test_and_a_refusal_is_an_array(world: World) -> None:
    """Serve first, register second."""
    world.receiver.status = 401
    status, faults = await world.register()

    assert (status, faults[0]["propertyName"]) == (HTTPStatus.BAD_REQUEST, "Url")
    assert world.receiver.events() == ["Test"]
    assert (await world.call("GET", "/notification"))[1] == []


async def test_registering_where_nobody_listens_is_a_500(world: World, unused_tcp_port: int) -> None:
    """Lidarr does not wrap that error."""
    body = notification(url=f"http://127.0.0.1:{unused_tcp_port}/")
    status, content = await world.call("POST", "/notification", body)

    assert (status, type(content)) == (HTTPStatus.INTERNAL_SERVER_ERROR, dict)


async def test_a_password_comes_back_masked_and_the_mask_keeps_it(world: World) -> None:
    """Whoever saves the form again does not lose the password; a header's value is shown to all."""
    _, made = await world.register(username="lidarr", password="pässword", headers=[{"key": "X-K", "value": "v"}])
    values = {each["name"]: each.get("value") for each in made["fields"]}
    await world.call("PUT", f"/notification/{made['id']}", made)
    await world.call("PUT", f"/notification/{made['id']}", made | {"name": "another"})

    assert (values["password"], values["headers"]) == ("********", [{"key": "X-K", "value": "v"}])
    first, second = world.receiver.headers
    assert first["Authorization"] == second["Authorization"] == "Basic bGlkYXJyOnDkc3N3b3Jk"
    assert first["Content-Type"] == "application/json"
    assert first["X-K"] == "v"


async def test_lidarr_sends_what_was_ticked(world: World) -> None:
    """A notification without onArtistAdd hears of no artist, though it happened."""
    body = notification(url=world.receiver.url) | {"onArtistAdd": False}
    await world.call("POST", "/notification", body)
    await world.add(1)
    await world.lidarr.postman.drain()

    assert world.receiver.events() == ["Test", "Grab"]
    assert [fact.kind for fact in world.lidarr.records.facts] == ["test", "artist_add", "grab"]


async def test_lidarr_sends_once_and_forgets(world: World) -> None:
    """A receiver that was away is told nothing later: the records say refused, the history still has it."""
    await world.register()
    world.receiver.drops = 1
    await world.lidarr.add_artist(world.lidarr.catalogue.artist_of(world.lidarr.catalogue.albums[0]))
    await world.lidarr.agenda.finish()
    await world.lidarr.postman.drain()

    assert world.receiver.events() == ["Test"]
    assert world.lidarr.records.count("refused") == 1


async def test_the_same_seed_plays_the_same_with_all_faults(receiver: Receiver) -> None:
    """Repeats, swaps and losses are in the records, and what came is exactly what they say."""
    faults = Faults(repeat=0.3, swap=0.3, lose=0.2, sends_again=True)
    played = []
    for _ in range(2):
        receiver.bodies.clear()
        receiver.drops = 3
        async with opened(receiver, faults=faults, seed=7) as world:
            receiver.drops = 0
            await world.register()
            receiver.drops = 3
            await world.add(30)
            await world.lidarr.agenda.finish()
            await world.lidarr.postman.drain()
            records = world.lidarr.records
        assert len(receiver.bodies) == records.count("acknowledged")
        assert {fact.kind for fact in records.facts} == {"test", "artist_add", "grab", "import", "failure"}
        lost = {each.fact for each in records.deliveries if each.outcome == "lost"}
        assert lost
        assert {fact.number for fact in records.facts} == records.acknowledged() | lost
        assert any(each.is_repeat for each in records.deliveries)
        assert records.count("refused") == 3
        played.append(list(receiver.bodies))
    first, second = played
    assert first == second
    imports = {body["downloadId"]: number for number, body in enumerate(first) if body["eventType"] == "Download"}
    grabs = {body["downloadId"]: number for number, body in enumerate(first) if body["eventType"] == "Grab"}
    assert any(imports[key] < grabs[key] for key in imports.keys() & grabs.keys())
