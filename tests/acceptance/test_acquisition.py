"""A wish becomes files, or ends with a reason; once, whatever Lidarr and its webhooks do. Its records judge."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from consumers.reconcilers import deadlines
from kima_stream.database import Connection, Pool
from kima_stream.effects.breaker import read as read_breakers
from kima_stream.settings import api_keys
from kima_stream.simulator.lidarr import Luck
from kima_stream.simulator.postman import Faults
from tests import acquisition
from tests.acquisition import Play
from tests.front_door import webhook
from tests.polling import eventually


def searches(play: Play) -> int:
    """Return how many searches Lidarr was told to make."""
    return sum(b"AlbumSearch" in call.body for call in play.house.happened("POST", "/command"))


async def ended(conn: Connection) -> dict[str, int]:
    """Return how often each type of event is in the log."""
    rows = await conn.fetch("SELECT type, count(*) AS n FROM events GROUP BY type")
    return {row["type"]: row["n"] for row in rows}


async def user_key(pool: Pool, user_id: str) -> str:
    """Return a key of a user."""
    async with pool.acquire() as conn:
        return (await api_keys.create(conn, name=user_id, role="user", user_id=user_id))[0]


async def test_a_request_becomes_files(pool: Pool) -> None:
    """One artist, one search, and the job says that it is complete; asked again it stays one."""
    async with acquisition.playing(pool) as play:
        album = play.albums[0]
        job_id = await play.ask(album)
        assert await play.ask(album) == job_id
        await play.ends(job_id, "completed")

        assert len(play.house.happened("POST", "/artist")) == 1
        assert searches(play) == 1
        assert len(play.house.lidarr.albums[album.mbid].files) == len(album.tracks)
        assert [each for each in play.house.lidarr.albums.values() if each.monitored] == [
            play.house.lidarr.albums[album.mbid]
        ]


async def test_lost_webhooks_are_found_in_the_history(pool: Pool, conn: Connection) -> None:
    """Not one webhook arrives, and the job completes all the same."""
    async with acquisition.playing(pool, faults=Faults(lose=1.0)) as play:
        job_id = await play.ask(play.albums[0])
        play.is_looking = True
        await play.ends(job_id, "completed")

        assert play.house.lidarr.records.count("acknowledged") == 0
    types = await ended(conn)
    assert types["lidarr.history_seen"] > 0
    assert types["download_job.completed"] == 1


async def test_what_webhooks_told_is_not_told_again(pool: Pool, conn: Connection) -> None:
    """The history has the same things: none of them is a second fact."""
    async with acquisition.playing(pool) as play:
        jobs = [await play.ask(album) for album in play.albums[:3]]
        for job_id in jobs:
            await play.ends(job_id, "completed")
        before = await ended(conn)
        for _ in range(3):
            await play.look()

    after = await ended(conn)
    assert after.get("lidarr.history_seen", 0) == before.get("lidarr.history_seen", 0) == 0
    assert after["download_job.completed"] == 3


async def test_doubled_and_overtaken_webhooks_change_nothing(pool: Pool, conn: Connection) -> None:
    """Every webhook twice, imports before their grabs: each job completes once and is told once."""
    faults = Faults(repeat=1.0, swap=1.0)
    async with acquisition.playing(pool, faults=faults) as play:
        play.is_looking = True
        jobs = [await play.ask(album) for album in play.albums[:5]]
        for job_id in jobs:
            await play.ends(job_id, "completed")
        await play.house.lidarr.postman.drain()
        for job_id in jobs:
            assert Counter(await play.types(job_id))["download_job.completed"] == 1
        assert searches(play) == 5
        await eventually(lambda: _told(conn, 5))


async def _told(conn: Connection, count: int) -> bool:
    return bool(await conn.fetchval("SELECT count(*) FROM notifications WHERE version >= 0") == count)


async def test_an_outage_of_lidarr_ends_no_job(pool: Pool, conn: Connection) -> None:
    """While it is away nothing fails and nothing completes; when it is back, all do, with one search each."""
    async with acquisition.playing(pool, luck=Luck(imports=1.0, seconds=(0.5, 1.0))) as play:
        play.is_looking = True
        jobs = [await play.ask(album) for album in play.albums[:4]]
        await eventually(lambda: searches(play) >= 1, timeout=20)
        play.house.weather.is_down = True
        addresses, play.house.lidarr.postman.addresses = play.house.lidarr.postman.addresses, []
        await eventually(lambda: _is_open(conn), timeout=30)
        statuses = {(await play.show(job_id)).status for job_id in jobs}
        assert not statuses & {"failed", "cancelled"}
        play.house.weather.is_down = False
        play.house.lidarr.postman.addresses = addresses
        for job_id in jobs:
            await play.ends(job_id, "completed", timeout=60)

        assert searches(play) == 4
        assert len({call.body for call in play.house.happened("POST", "/artist")}) == len(
            play.house.happened("POST", "/artist")
        )
    assert (await ended(conn)).get("download_job.failed", 0) == 0


async def _is_open(conn: Connection) -> bool:
    return any(state != "closed" for _, state in await read_breakers(conn, ["lidarr"]))


@asynccontextmanager
async def spoiled(play: Play) -> AsyncIterator[None]:
    """Let no download be imported."""

    async def spoil() -> None:
        while True:
            for download in play.house.lidarr.downloads:
                if download.state == "downloading":
                    await play.house.lidarr.fail_import(download, "Album match is not close enough: 61.2%")
            await asyncio.sleep(0.05)

    spoiling = asyncio.create_task(spoil())
    try:
        yield
    finally:
        spoiling.cancel()
        await asyncio.gather(spoiling, return_exceptions=True)


async def test_an_import_that_fails_is_tried_with_other_releases_up_to_a_cap(pool: Pool) -> None:
    """Each failed release is blocked once, no more of them than allowed; then the job fails and says why."""
    async with acquisition.playing(pool, luck=Luck(ends=0.0)) as play:
        play.is_looking = True
        # The indexers have two releases: the first may be blocked, the second is one too many.
        async with play.door.client.put("/api/settings", json={"downloadRetryAttempts": 1}) as answer:
            assert answer.status == 200
        job_id = await play.ask(play.albums[0])
        async with spoiled(play):
            failed = await play.ends(job_id, "failed", timeout=60)

        blocked = [call for call in play.house.calls if call.method == "DELETE" and call.status == 200]
        assert len(blocked) == 1
        assert all(("blocklist", "true") in call.query for call in blocked)
        assert Counter(await play.types(job_id))["download_job.failed"] == 1
        assert failed.reason
        assert failed.next_step


async def test_when_nothing_more_is_grabbed_the_job_fails(pool: Pool) -> None:
    """Releases are blocked until there is none: the bound of waiting ends the job, once, with a reason."""
    async with acquisition.playing(pool, luck=Luck(ends=0.0)) as play:
        play.is_looking = True
        job_id = await play.ask(play.albums[0])
        async with spoiled(play):
            await eventually(lambda: _waits_for_a_grab(play, job_id, blocked=2), timeout=60)
        await eventually(lambda: _fails_in_an_hour(play, job_id), timeout=20)

        assert (await play.show(job_id)).reason
        assert Counter(await play.types(job_id))["download_job.failed"] == 1


async def _fails_in_an_hour(play: Play, job_id: UUID) -> bool:
    await deadlines.sweep_once(play.pool, datetime.now(UTC) + timedelta(hours=1))
    return await play.is_in(job_id, "failed")


async def _waits_for_a_grab(play: Play, job_id: UUID, *, blocked: int) -> bool:
    deletions = sum(call.method == "DELETE" and call.status == 200 for call in play.house.calls)
    assert deletions >= blocked
    return (await play.show(job_id)).status == "searching"


async def test_how_many_are_under_way_is_shown(pool: Pool) -> None:
    """By source, and back to nothing when they have ended: counted, not added up."""

    def active(source: str) -> float | None:
        return REGISTRY.get_sample_value("kima_active_downloads", {"source": source})

    async with acquisition.playing(pool, luck=Luck(ends=0.0)) as play:
        jobs = [await play.ask(album) for album in play.albums[:2]]
        for job_id in jobs:
            await play.ends(job_id, "downloading")
        await deadlines.measure(pool)
        assert (active("lidarr"), active("soulseek")) == (2, 0)
        for job_id in jobs:
            await play.change(job_id, "cancel")
        await deadlines.measure(pool)
        assert active("lidarr") == 0


async def test_two_users_of_one_album_make_one_download(pool: Pool) -> None:
    """Each has a job of their own, and both are complete; Lidarr fetched it once."""
    async with acquisition.playing(pool, luck=Luck(imports=1.0, seconds=(1.0, 1.5))) as play:
        album = play.albums[0]
        ann, bob = await user_key(pool, "ann"), await user_key(pool, "bob")
        first = await play.ask(album, key=ann)
        await eventually(lambda: len(play.house.lidarr.downloads) == 1, timeout=20)
        second = await play.ask(album, key=bob)
        assert first != second
        for job_id in (first, second):
            await play.ends(job_id, "completed")

        assert len(play.house.happened("POST", "/artist")) == 1
        assert searches(play) == 1
        assert len(play.house.lidarr.downloads) == 1


async def test_an_unknown_download_touches_no_job(pool: Pool) -> None:
    """A failure of something that nobody asked for waits where it is seen."""
    async with acquisition.playing(pool, luck=Luck(ends=0.0)) as play:
        job_id = await play.ask(play.albums[0])
        await eventually(lambda: play.is_in(job_id, "downloading"), timeout=20)
        before = await play.types(job_id)
        await play.door.post(webhook("download-failure"))
        await play.door.post(webhook("import-failure"))
        await eventually(lambda: _unmatched(pool), timeout=10)

        assert await play.types(job_id) == before


async def _unmatched(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT count(*) = 2 FROM events WHERE type = 'unmatched.waiting'"))


async def test_cancelling_takes_the_download_out_of_lidarr(pool: Pool) -> None:
    """What runs is removed from queue and client, once; what is over stays over."""
    async with acquisition.playing(pool, luck=Luck(ends=0.0)) as play:
        job_id = await play.ask(play.albums[0])
        await eventually(lambda: play.is_in(job_id, "downloading"), timeout=20)
        assert await play.change(job_id, "cancel") == 202
        assert await play.change(job_id, "cancel") == 202
        await eventually(lambda: any(call.method == "DELETE" for call in play.house.calls), timeout=20)

        assert (await play.show(job_id)).status == "cancelled"
        [removed] = [call for call in play.house.calls if call.method == "DELETE" and call.status == 200]
        assert ("removeFromClient", "true") in removed.query
        assert ("blocklist", "false") in removed.query


async def test_a_removal_that_waited_spares_what_another_wants_by_now(pool: Pool) -> None:
    """Cancelled while Lidarr is away, asked for by somebody else before it is back: the download goes on for them."""
    async with acquisition.playing(pool, luck=Luck(ends=0.0)) as play:
        album = play.albums[0]
        ann, bob = await user_key(pool, "ann"), await user_key(pool, "bob")
        first = await play.ask(album, key=ann)
        await eventually(lambda: play.is_in(first, "downloading"), timeout=20)
        play.house.weather.is_down = True
        assert await play.change(first, "cancel") == 202
        second = await play.ask(album, key=bob)
        play.house.weather.is_down = False
        await eventually(lambda: _has_no_calls(pool), timeout=30)

        assert await play.is_in(second, "downloading")
        assert [call for call in play.house.calls if call.method == "DELETE" and call.status == 200] == []
        cancelled = await play.show(first)
        assert (cancelled.status, cancelled.next_step) == ("cancelled", "Nothing: the download goes on for others.")
        await play.change(second, "cancel")
        await eventually(lambda: any(call.method == "DELETE" for call in play.house.calls), timeout=20)


async def _has_no_calls(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT count(*) = 0 FROM effects"))


async def test_nothing_found_fails_with_a_reason(pool: Pool) -> None:
    """The only source has nothing: the job ends, once, and a retry opens the next attempt."""
    async with acquisition.playing(pool, luck=Luck(finds=0.0)) as play:
        job_id = await play.ask(play.albums[0])
        failed = await play.ends(job_id, "failed")
        assert failed.reason
        assert failed.next_step
        play.house.lidarr.luck = acquisition.SPEEDY
        assert await play.change(job_id, "retry") == 202
        completed = await play.ends(job_id, "completed")

        assert completed.attempt == 2


async def test_an_album_that_nobody_knows_fails_with_a_reason(pool: Pool) -> None:
    """The metadata server has no such release group."""
    async with acquisition.playing(pool) as play:
        body = {"artist": "Nobody", "album": "Nothing", "mbid": str(UUID(int=5, version=4))}
        async with play.door.client.post("/api/downloads", json=body) as answer:
            job_id = UUID((await answer.json())["id"])
        failed = await play.ends(job_id, "failed")

        assert "does not know" in str(failed.reason)
        assert play.house.happened("POST", "/artist") == []


@pytest.mark.parametrize("with_mbid", [True, False])
async def test_without_an_mbid_the_names_decide(pool: Pool, *, with_mbid: bool) -> None:
    """An album is found by its names as well, and nothing but that album is taken."""
    async with acquisition.playing(pool) as play:
        album = play.albums[0]
        job_id = await play.ask(album, mbid=with_mbid)
        await play.ends(job_id, "completed")

        assert [d.albums[0].known.mbid for d in play.house.lidarr.downloads] == [album.mbid]
