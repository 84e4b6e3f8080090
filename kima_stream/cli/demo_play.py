"""The play of the demo: a simulated Lidarr, people, and two acts with a nemesis in the first.

Nothing of ours is asked what should happen: who plays only sends, and waits until all is quiet.
"""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import aiohttp
import msgspec
from rich.console import Console
from rich.text import Text

from kima_stream.cli import demo_house
from kima_stream.cli.demo_house import House, HouseError
from kima_stream.simulator import server, verdict
from kima_stream.simulator.agenda import Agenda
from kima_stream.simulator.catalogue import KnownAlbum, invent
from kima_stream.simulator.lidarr import Lidarr, Luck
from kima_stream.simulator.people import People
from kima_stream.simulator.postman import Faults, Postman
from kima_stream.simulator.records import Records

SETTLE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1
LANES: Final = 6  # Lidarr's threads
ASKED: Final = 0.85  # of the albums; the others Lidarr grabs by itself
PACE_SECONDS: Final = 20.0  # of Lidarr's time, between two albums


class Story:
    """Lines with the seconds since the beginning; silent when only the ending counts."""

    def __init__(self, *, silent: bool) -> None:
        """Begin now."""
        self._began = time.monotonic()
        self._console = Console(highlight=False, soft_wrap=True, quiet=silent)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def say(self, text: str, style: str = "") -> None:
        """Tell what happens now."""
        self._console.print(Text.assemble((f"{self.seconds:6.1f} s  ", "dim"), (text, style)))


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that plays."""

    house: House
    story: Story
    lidarr: Lidarr
    lidarr_client: aiohttp.ClientSession
    admin: aiohttp.ClientSession
    people: People
    rng: random.Random

    @property
    def records(self) -> Records:
        """The simulator's own."""
        return self.lidarr.records


@asynccontextmanager
async def staged(story: Story, albums: int, seed: int) -> AsyncIterator[Stage]:
    """Start the house, the simulated Lidarr and the people; register the webhook."""
    rng, records = random.Random(seed), Records()  # noqa: S311 - to play the same again
    postman = Postman(records, rng, faults=Faults(repeat=0.12, swap=0.1, sends_again=True), lanes=LANES)
    agenda = Agenda(datetime.now(UTC))
    lidarr = Lidarr(invent(rng, albums), agenda, rng, records, postman, luck=Luck(imports=0.75, ends=0.95))
    lidarr_key = secrets.token_hex(16)
    async with (
        demo_house.built() as house,
        postman.working(),
        server.serving(server.build(lidarr, lidarr_key)) as lidarr_url,
        aiohttp.ClientSession(lidarr_url, headers={"X-Api-Key": lidarr_key}) as lidarr_client,
        aiohttp.ClientSession(house.url, headers={"X-Api-Key": house.key}) as admin,
    ):
        story.say("both servers answer")
        await house.open()
        story.say(f"the door is open at {house.url}, all roles run")
        headers = {"X-Api-Key": await _make_key(admin, "a person", "user")}
        async with aiohttp.ClientSession(house.url, headers=headers) as person:
            await _register(
                lidarr_client, f"{house.url}/api/webhooks/lidarr", await _make_key(admin, "Lidarr", "webhook")
            )
            story.say(f"a simulated Lidarr at {lidarr_url} registered its webhook; its Test event arrived")
            yield Stage(
                house=house, story=story, lidarr=lidarr, lidarr_client=lidarr_client, admin=admin,
                people=People(person, records), rng=rng,
            )  # fmt: skip


async def _make_key(admin: aiohttp.ClientSession, name: str, role: str) -> str:
    async with admin.post("/api/keys", json={"name": name, "role": role}) as answer:
        answer.raise_for_status()
        return str((await answer.json())["key"])


async def _register(client: aiohttp.ClientSession, url: str, key: str) -> None:
    """Register the webhook as an operator of Lidarr does; that sends a Test.

    Grab, Download and DownloadFailure only: the others have no identity, so that one which a proxy
    sends again after a broken connection is, by Lidarr's contract, a fact of its own.
    """
    fields = {"url": url, "method": 1, "headers": [{"key": "X-Webhook-Secret", "value": key}]}
    body = {
        "name": "kima-stream", "implementation": "Webhook", "configContract": "WebhookSettings", "onGrab": True,
        "onReleaseImport": True, "onDownloadFailure": True,
        "fields": [{"name": name, "value": value} for name, value in fields.items()],
    }  # fmt: skip
    async with client.post("/api/v1/notification", json=body) as answer:
        if not answer.ok:
            raise HouseError(f"the webhook could not be registered: {await answer.text()}")


async def first_act(stage: Stage) -> None:
    """People ask and Lidarr acts, album by album; the nemesis strikes in between."""
    story, house, albums = stage.story, stage.house, stage.lidarr.catalogue.albums
    story.say(f"{len(albums)} albums: people ask, often more than once, and Lidarr grabs, imports, fails")
    strikes = {
        int(len(albums) * share): strike
        for share, strike in ((0.3, "consumer"), (0.5, "redis"), (0.65, "door"), (0.8, "restart"))
    }
    for number, album in enumerate(albums):
        match strikes.get(number):
            case "consumer":
                story.say(f"{number} albums in: kill -9 of consumer 1, process {house.roles['consumer 1'].pid}", "red")
                house.roles["consumer 1"].kill()
            case "redis":
                story.say(f"{number} albums in: FLUSHALL, Redis has forgotten everything", "red")
                await house.flush_redis()
            case "door":
                story.say(f"{number} albums in: kill -9 of the door, with webhooks inside; it starts again", "red")
                house.roles["door"].kill()
                house.roles["door"].start()
            case "restart":
                house.roles["consumer 1"].start()
                story.say(f"{number} albums in: consumer 1 starts again")
            case _:
                pass
        await _play_album(stage, album)
    house.check()
    await stage.lidarr.agenda.finish()
    await stage.lidarr.postman.drain()
    story.say(f"first act played: {told(stage)}")


async def _play_album(stage: Stage, album: KnownAlbum) -> None:
    """Let people ask for one album, and press Lidarr's button: nothing of ours does that yet."""
    if stage.rng.random() < ASKED:
        clicks = stage.rng.choice((1, 1, 2, 5))
        await stage.people.ask(stage.lidarr.catalogue.artist_of(album), album, clicks=clicks)
    async with stage.lidarr_client.get("/api/v1/album/lookup", params={"term": f"lidarr:{album.mbid}"}) as answer:
        (found,) = await answer.json()
    artist = {**found["artist"], "qualityProfileId": 1, "metadataProfileId": 1, "rootFolderPath": "/music"}
    path, body = "album", {**found, "artist": artist, "monitored": True, "addOptions": {"searchForNewAlbum": True}}
    if found.get("id"):  # it came with its artist
        path, body = "command", {"name": "AlbumSearch", "albumIds": [found["id"]]}
    async with stage.lidarr_client.post(f"/api/v1/{path}", json=body) as answer:
        if not answer.ok:
            raise HouseError(f"Lidarr did not take the album: {await answer.text()}")
    await stage.lidarr.agenda.advance(PACE_SECONDS)


async def second_act(stage: Stage) -> None:
    """Once the failures are known, Lidarr tries some again: another release, or the same torrent under its old id."""
    failed = [download for download in stage.lidarr.downloads if download.state == "failed"]
    await _until(stage, lambda: _are_failed(stage, {each.known.mbid for one in failed for each in one.albums}))
    # After a swap nobody can tell a second grab under the same id from a repeat of the first.
    stage.lidarr.postman.faults = Faults(repeat=0.12, sends_again=True)
    again = failed[::2]
    for download in again:
        same = stage.rng.random() < 1 / 2 and download.id not in stage.lidarr.postman.overtaken
        release = download.release if same else stage.lidarr.releases(download.albums[0])[1]
        download_id = download.id if same else None
        await stage.lidarr.grab(download.albums, release, download_id=download_id, will_import=True)
    await stage.lidarr.agenda.finish()
    await stage.lidarr.postman.drain()
    stage.story.say(f"second act played, {len(again)} of {len(failed)} failed downloads tried again: {told(stage)}")


async def _are_failed(stage: Stage, albums: set[UUID]) -> bool:
    seen = {job.mbid for job in await verdict.look_at_jobs(stage.admin, status="failed")}
    return albums <= seen


async def settle(stage: Stage) -> None:
    """Wait until everything is numbered and every group has verified everything."""
    await _until(stage, lambda: _is_settled(stage.admin))
    stage.story.say("settled: everything is numbered, every consumer group has verified all of it")


async def _is_settled(admin: aiohttp.ClientSession) -> bool:
    return await _lag(admin) == 0 and await _unnumbered(admin) == 0 and await _lag(admin) == 0


async def _lag(admin: aiohttp.ClientSession) -> int:
    async with admin.get("/api/groups") as answer:
        return sum(group["lag_events"] for group in (await answer.json())["groups"])


async def _unnumbered(admin: aiohttp.ClientSession) -> int:
    async with admin.get("/readyz") as answer:
        return int((await answer.json())["checks"]["publisher"].get("lag_events", 1))


async def _until(stage: Stage, condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for ``condition``; a house that does not get there is judged as it stands."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not await condition():
        stage.house.check()
        if time.monotonic() > deadline:
            stage.story.say(f"not settled after {SETTLE_SECONDS:.0f} s: judged as it stands", "red")
            return
        await asyncio.sleep(POLL_SECONDS)


def told(stage: Stage) -> str:
    """Return in one line what went over the wire so far."""
    records = stage.records
    repeats = sum(delivery.is_repeat for delivery in records.deliveries)
    clicks = sum(wish.acknowledged for wish in records.wishes.values())
    return (
        f"{len(records.wishes)} requests by {clicks} clicks, {len(records.acknowledged())} webhooks, "
        f"{repeats} repeated, {len(stage.lidarr.postman.overtaken)} overtaken, "
        f"{records.count('refused')} refused and sent again"
    )
