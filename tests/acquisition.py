"""The way of a wish in one process: the front door, every group, the calls, the look at Lidarr, and a Lidarr.

The simulated Lidarr lives at our speed, with short downloads. What is judged is judged by its own records.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID, uuid4

import msgspec

from consumers import acquisition
from consumers.reconcilers.lidarr_watch import LidarrWatch
from kima_stream.cli import parts
from kima_stream.database import Pool
from kima_stream.effects import Worker
from kima_stream.errors import IntegrationError
from kima_stream.integrations.lidarr import session
from kima_stream.reconciler import sweep_once
from kima_stream.settings.config import Settings
from kima_stream.settings.store import SettingsStore, Sources
from kima_stream.simulator.catalogue import KnownAlbum
from kima_stream.simulator.lidarr import Luck
from kima_stream.simulator.postman import Address, Faults
from kima_stream.simulator.records import Kind
from tests import front_door, lidarr as lidarrs
from tests.factories import number_all
from tests.front_door import OpenDoor, make_key
from tests.lidarr import KEY, LidarrHouse
from tests.polling import eventually

SPEEDY = Luck(imports=1.0, seconds=(0.05, 0.2))
ALL: frozenset[Kind] = frozenset({"grab", "import", "failure", "import_failure"})
BEAT_SECONDS = 0.02


class Shown(msgspec.Struct, frozen=True):
    """What counts of a job as the door shows it."""

    id: UUID
    status: str
    attempt: int
    reason: str | None
    next_step: str | None


@dataclass
class Play:
    """All that plays; ``watch`` looks when a test lets it."""

    pool: Pool
    door: OpenDoor
    house: LidarrHouse
    worker: Worker
    watch: LidarrWatch
    is_looking: bool = False

    @property
    def albums(self) -> tuple[KnownAlbum, ...]:
        """What can be asked for."""
        return self.house.lidarr.catalogue.albums

    async def ask(self, album: KnownAlbum, *, key: str | None = None, mbid: bool = True) -> UUID:
        """Ask for an album and return the job."""
        artist = self.house.lidarr.catalogue.artist_of(album)
        body = {"artist": artist.name, "album": album.title} | ({"mbid": str(album.mbid)} if mbid else {})
        headers = {"X-Api-Key": key} if key else {}
        async with self.door.client.post("/api/downloads", json=body, headers=headers) as answer:
            assert answer.status == 202, await answer.text()
            return UUID((await answer.json())["id"])

    async def change(self, job_id: UUID, verb: str) -> int:
        """Cancel or retry a job and return the status."""
        async with self.door.client.post(f"/api/downloads/{job_id}/{verb}") as answer:
            return answer.status

    async def show(self, job_id: UUID) -> Shown:
        """Return a job."""
        async with self.door.client.get(f"/api/downloads/{job_id}") as answer:
            return msgspec.json.decode(await answer.read(), type=Shown)

    async def is_in(self, job_id: UUID, *statuses: str) -> bool:
        """Whether the job is in one of these states."""
        return (await self.show(job_id)).status in statuses

    async def ends(self, job_id: UUID, status: str, timeout: float = 30.0) -> Shown:
        """Wait for the job to be in ``status``."""
        await eventually(lambda: self.is_in(job_id, status), timeout=timeout)
        return await self.show(job_id)

    async def types(self, job_id: UUID) -> list[str]:
        """Return what happened to a job, by type."""
        async with self.door.client.get(f"/api/downloads/{job_id}/events", params={"limit": "1000"}) as answer:
            return [event["type"] for event in (await answer.json())["events"]]

    async def look(self) -> None:
        """Look at Lidarr once; one that does not answer is looked at again by whoever calls."""
        with suppress(IntegrationError):
            await self.watch.look_once()

    async def beat(self) -> None:
        """Number, sweep every group, and look at Lidarr if a test lets us, again and again."""
        look_at = 0.0
        while True:
            async with self.pool.acquire() as conn:
                await number_all(conn)
            for group in parts.consumer_groups():
                await sweep_once(self.pool, group)
            if self.is_looking and monotonic() >= look_at:
                await self.look()
                look_at = monotonic() + 0.3
            await asyncio.sleep(BEAT_SECONDS)

    async def live(self) -> None:
        """Let Lidarr's time go by as ours does."""
        before = monotonic()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            now = monotonic()
            await self.house.lidarr.agenda.advance(now - before)
            before = now


@asynccontextmanager
async def playing(
    pool: Pool, *, luck: Luck = SPEEDY, faults: Faults | None = None, webhooks: bool = True, seed: int = 1
) -> AsyncIterator[Play]:
    """Set everything up and let it live; the webhook is registered unless told otherwise."""
    async with lidarrs.opened(luck=luck, seed=seed, begin=datetime.now(UTC)) as house, session() as connections:
        house.lidarr.refresh_seconds = house.lidarr.search_seconds = 0.05
        settings = Settings(environment={"lidarrUrl": house.url, "lidarrApiKey": KEY})
        store = SettingsStore(pool, Sources.of(settings))
        await store.refresh()
        worker = Worker(pool, acquisition.executors(pool, store, connections), acquisition.OWNERS, holder=str(uuid4()))
        watch = LidarrWatch(pool, store, connections, holder=str(uuid4()))
        async with front_door.opened(pool, settings=settings) as door:
            await door.door.settings_store.refresh()
            if webhooks:
                house.lidarr.postman.faults = faults or Faults()
                headers = {"X-Webhook-Secret": await make_key(pool, "webhook")}
                url = f"{door.url}/api/webhooks/lidarr"
                house.lidarr.postman.addresses = [Address(url=url, wants=ALL, headers=headers)]
            play = Play(pool, door, house, worker, watch)
            async with _together(play.beat, play.live, worker.run):
                yield play


@asynccontextmanager
async def _together(*roles: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(role()) for role in roles]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
