"""Kills at random while hundreds of jobs are on their way: every job ends, and Lidarr was told each thing once."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from uuid import UUID

import aiohttp
import msgspec
import pytest

from consumers.reconcilers import deadlines
from kima_stream import database
from kima_stream.database import Pool
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey
from kima_stream.read_models import download_jobs
from kima_stream.replay import replay
from kima_stream.settings import api_keys
from kima_stream.simulator.catalogue import invent
from kima_stream.simulator.lidarr import Luck
from kima_stream.simulator.postman import Address, Faults
from tests import lidarr as lidarrs
from tests.acquisition import ALL
from tests.faults import campaign
from tests.faults.campaign import API_KEY, House, Role
from tests.lidarr import KEY, LidarrHouse
from tests.polling import eventually

JOBS = 500
KILLS = 300
LUCK = Luck(imports=0.8, finds=0.95, seconds=(0.2, 2.0))
VICTIMS = ("calls-1", "calls-2", "consumer-1", "reconciler", "publisher-1", "api")
ENDED = {"completed", "failed", "cancelled"}


@asynccontextmanager
async def living(house: LidarrHouse) -> AsyncIterator[None]:
    """Let Lidarr's time go by as ours does."""

    async def live() -> None:
        before = monotonic()
        while True:
            await asyncio.sleep(0.02)
            now = monotonic()
            await house.lidarr.agenda.advance(now - before)
            before = now

    task = asyncio.create_task(live())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def whole_house(postgres: Postgres, valkey: Valkey, lidarr: LidarrHouse, folder: Path) -> AsyncIterator[House]:
    """Start every role, two that make calls among them, all of which know the Lidarr."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    more = {"LIDARR_URL": lidarr.url, "LIDARR_API_KEY": KEY, "SOULSEEK_SERVER": "127.0.0.1:1"}
    calls = {f"calls-{n}": ("consume", "acquisition", "--slot", str(n)) for n in (1, 2)}
    async with campaign.house(postgres, valkey, port, folder, more=more, also=calls) as built:
        yield built


async def ask(url: str, lidarr: LidarrHouse, number: int) -> UUID:
    """Ask for an album until somebody has taken it."""
    album = lidarr.lidarr.catalogue.albums[number]
    artist = lidarr.lidarr.catalogue.artist_of(album)
    body = {"artist": artist.name, "album": album.title, "mbid": str(album.mbid)}
    headers = {"X-Api-Key": API_KEY, "Idempotency-Key": f"wish {number}"}
    async with aiohttp.ClientSession(url, headers=headers) as client:
        while True:
            try:
                async with client.post("/api/downloads", json=body) as answer:
                    if answer.status == 202:
                        return UUID((await answer.json())["id"])
                    assert answer.status in {429, 503}, await answer.text()
            except (aiohttp.ClientError, OSError):
                pass  # it is being killed; asked again under the same key it is one wish
            await asyncio.sleep(0.2)  # a client's manners


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_every_job_ends_and_each_call_is_made_once(
    postgres: Postgres, valkey: Valkey, tmp_path: Path, rng: random.Random, scaled: Callable[[int], int]
) -> None:
    """Kill -9 of doors, consumers, those who call and those who look; webhooks get lost and come twice."""
    count = scaled(JOBS)
    catalogue = invent(random.Random(rng.random()), count)
    async with lidarrs.opened(catalogue=catalogue, luck=LUCK, begin=datetime.now(UTC)) as lidarr, living(lidarr):
        lidarr.lidarr.refresh_seconds = lidarr.lidarr.search_seconds = 0.1
        lidarr.lidarr.postman.faults = Faults(repeat=0.2, lose=0.2)
        async with whole_house(postgres, valkey, lidarr, tmp_path) as house:
            pool = await database.open_pool(postgres.url, role="oracle")
            async with pool.acquire() as conn:
                key, _ = await api_keys.create(conn, name="Lidarr", role="webhook")
            url, headers = f"{house.url}/api/webhooks/lidarr", {"X-Webhook-Secret": key}
            lidarr.lidarr.postman.addresses = [Address(url=url, wants=ALL, headers=headers)]
            asking = [asyncio.create_task(ask(house.url, lidarr, number)) for number in range(count)]
            for _ in range(scaled(KILLS)):
                await asyncio.sleep(0.2 + rng.random() * 0.3)  # work between the faults
                assert house.ended() == []
                strike(house.roles[rng.choice(VICTIMS)])
            jobs = await asyncio.gather(*asking)
            await eventually(lambda: only_grabs_are_awaited(pool, lidarr, jobs), timeout=300)
            strike(house.roles["reconciler"])  # it looks as soon as it runs: at what no webhook has told
            await eventually(lambda: only_grabs_are_awaited(pool, lidarr, jobs, statuses=("searching",)), timeout=120)
            await eventually(lambda: all_end_in_an_hour(pool, jobs), timeout=60)
            await check(pool, lidarr, jobs)
            await pool.close()


def strike(role: Role) -> None:
    """Kill a role and start it again, as a supervisor does."""
    role.kill()
    role.start()


async def only_grabs_are_awaited(
    pool: Pool, lidarr: LidarrHouse, jobs: list[UUID], *, statuses: tuple[str, ...] = ("searching", "downloading")
) -> bool:
    """Whether nothing more will happen by itself: nobody calls, Lidarr loads nothing, and jobs wait in vain."""
    loading = [each for each in lidarr.lidarr.downloads if each.state == "downloading"]
    rows = await pool.fetch("SELECT status FROM download_jobs WHERE job_id = ANY($1::uuid[])", jobs)
    waiting = Counter(row["status"] for row in rows if row["status"] not in {*ENDED, *statuses})
    effects = await pool.fetchval("SELECT count(*) FROM effects")
    assert not waiting, (dict(waiting), effects, len(loading))
    assert len(rows) == len(set(jobs))
    return not loading and not effects


async def all_end_in_an_hour(pool: Pool, jobs: list[UUID]) -> bool:
    """Whether no job is on its way once those that wait for a grab in vain were told that their time is up."""
    await deadlines.sweep_once(pool, datetime.now(UTC) + timedelta(hours=1))
    rows = await pool.fetch("SELECT status FROM download_jobs WHERE job_id = ANY($1::uuid[])", jobs)
    waiting = Counter(row["status"] for row in rows if row["status"] not in ENDED)
    assert not waiting, dict(waiting)
    return len(rows) == len(set(jobs))


async def check(pool: Pool, lidarr: LidarrHouse, jobs: list[UUID]) -> None:
    """Hold the jobs against Lidarr's own records."""
    rows = await pool.fetch("SELECT target_mbid, status, state FROM download_jobs WHERE version >= 0")
    status = {row["target_mbid"]: row["status"] for row in rows}
    searches = Counter(
        album
        for call in lidarr.happened("POST", "/command")
        if (body := msgspec.json.decode(call.body, type=dict[str, object])).get("name") == "AlbumSearch"
        for album in body["albumIds"]  # type: ignore[attr-defined]
    )
    attempts = {row["target_mbid"]: msgspec.json.decode(row["state"])["attempt"] for row in rows}
    ids = {album.known.mbid: album.id for album in lidarr.lidarr.albums.values()}
    artists = [call.body for call in lidarr.happened("POST", "/artist")]

    assert len(jobs) == len(set(jobs)) == len(status)
    assert len(artists) == len({album.artist_mbid for album in lidarr.lidarr.catalogue.albums})
    too_often = {mbid: searches[ids[mbid]] for mbid in status if searches[ids[mbid]] > attempts[mbid]}
    assert too_often == {}
    for album in lidarr.lidarr.albums.values():
        if status.get(album.known.mbid) == "completed":
            assert len(album.files) == len(album.known.tracks), "completed without its files"
        elif album.known.mbid in status:
            assert not album.files, "files are there and the job does not say so"
    told = await pool.fetch("SELECT job_id, attempt, kind FROM notifications WHERE version >= 0")
    assert len(told) == len({tuple(row) for row in told})
    async with pool.acquire() as conn:
        assert (await replay(conn, download_jobs.PROJECTION)).differences == ()
        assert await conn.fetchval("SELECT count(*) FROM effects WHERE system = 'lidarr'") == 0
    print(f"\n{Counter(status.values())}, {sum(searches.values())} searches, {len(artists)} artists")  # noqa: T201
