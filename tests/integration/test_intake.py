"""From a webhook to a job, over a real Postgres: correlated, decided once, whatever the delivery does."""

import asyncio
import json
import random
from collections.abc import Sequence
from itertools import permutations
from uuid import UUID

import pytest

from consumers import download_jobs as jobs_group, intake
from kima_stream import dead_letters, delivery, event_store, upcasters
from kima_stream.checkpoints import Batch
from kima_stream.database import Connection, Pool
from kima_stream.events import (
    JobCancelRequested,
    NewEvent,
    Policy,
    RecordedEvent,
    UnmatchedResolved,
    UnmatchedWaiting,
    new_event_id,
)
from kima_stream.http.download_requests import change, request
from kima_stream.integrations import lidarr_webhooks
from kima_stream.read_models.download_jobs import PROJECTION, Filter, list_page
from kima_stream.reconciler import sweep_once
from kima_stream.replay import replay
from projections.correlation import Album
from projections.download_job import DownloadJob
from tests.factories import number_all
from tests.front_door import FIXTURES, webhook

TIDEWATER = UUID("0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f")
LOW_WATER_MARK = UUID("9e8d7c6b-5a49-4382-b716-05f4e3d2c1b0")
DOWNLOAD_ID = "3F2504E04F8911D39A0C0305E82C3301A1B2C3D4"


def changed(name: str, **fields: object) -> bytes:
    """Return a fixture with other values; None leaves the field out."""
    body = {**json.loads(webhook(name)), **fields}
    return json.dumps({key: value for key, value in body.items() if value is not None}).encode()


def an_album(title: str, mbid: UUID | None = None, number: int = 900) -> dict[str, object]:
    """Return an album as Lidarr sends it."""
    return {"id": number, "title": title} | ({"mbId": str(mbid)} if mbid else {})


async def receive(conn: Connection, *bodies: bytes) -> list[RecordedEvent]:
    """Append webhooks as the door does; each is a fact of its own."""
    recorded = []
    for body in bodies:
        received = lidarr_webhooks.receive(body)
        event_id = new_event_id()
        event = received.new_event(event_id, metadata="{}", correlation_id=f"trace of {event_id}")
        recorded += await event_store.append_many(conn, [event_store.Append(received.stream(event_id), [event])])
    return recorded


async def take_in(pool: Pool, events: Sequence[RecordedEvent]) -> None:
    """Deliver ``events`` to the intake, one after the other; nothing may be held back."""
    for event in events:
        delivered = await delivery.deliver(pool, intake.GROUP, {event.stream: [event]})
        assert not delivered.held


async def ask(
    conn: Connection,
    album: str = "Tidewater",
    mbid: UUID | None = TIDEWATER,
    user: str = "ann",
    policy: Policy = Policy(),  # noqa: B008 - frozen
) -> UUID:
    """Ask for an album as the door does; return the job."""
    wanted = Album(artist="The Harbour Lights", title=album, mbid=mbid)
    async with conn.transaction():
        requested = await request(conn, wanted, user_id=user, correlation_id=f"trace of {user}", policy=policy)
    return requested.id


async def jobs(conn: Connection, user: str | None = None) -> list[DownloadJob]:
    """Return the jobs as the read model has them."""
    return [row.state for row in await list_page(conn, Filter(user_id=user), limit=100)]


async def states(conn: Connection) -> dict[tuple[str, str], tuple[str, int]]:
    """Return status and attempt by user and album."""
    return {(job.user_id, job.album): (job.status, job.attempt) for job in await jobs(conn)}


async def unmatched(conn: Connection) -> list[object]:
    """Return the facts of category ``unmatched``, oldest first."""
    rows = await conn.fetch("SELECT DISTINCT stream FROM events WHERE category = 'unmatched' ORDER BY stream")
    streams = await event_store.read_streams(conn, dict.fromkeys((row["stream"] for row in rows), -1))
    return [upcasters.decode(event) for events in streams.values() for event in events]


async def test_a_requested_album_goes_all_the_way(pool: Pool, conn: Connection) -> None:
    """Asked for, grabbed, imported: one job, one trace, each step caused by its webhook."""
    job_id = await ask(conn)
    grab, download = await receive(conn, webhook("grab"), webhook("download"))

    await take_in(pool, [grab])
    assert await states(conn) == {("ann", "Tidewater"): ("downloading", 1)}
    await take_in(pool, [download])
    assert await states(conn) == {("ann", "Tidewater"): ("completed", 1)}

    history = await event_store.read_stream(conn, f"download_job-{job_id}")
    assert [(event.type, event.causation_id) for event in history] == [
        ("download_job.requested", None),
        ("download_job.attempt_opened", history[0].event_id),
        ("download_job.deadline_set", history[0].event_id),
        ("download_job.grabbed", grab.event_id),
        ("download_job.deadline_set", grab.event_id),
        ("download_job.imported", download.event_id),
        ("download_job.completed", download.event_id),
    ]
    assert {event.correlation_id for event in history} == {"trace of ann"}


async def test_a_failed_download_fails_its_job_and_a_grab_goes_on(pool: Pool, conn: Connection) -> None:
    """Known by the download id alone; Lidarr's next grab is the next attempt."""
    await ask(conn)
    events = await receive(
        conn, webhook("grab"), webhook("download-failure"), changed("grab", downloadId="NEXT"),
        changed("download", downloadId="NEXT"),
    )  # fmt: skip

    await take_in(pool, events[:2])
    assert await states(conn) == {("ann", "Tidewater"): ("failed", 1)}
    await take_in(pool, events[2:3])
    assert await states(conn) == {("ann", "Tidewater"): ("downloading", 2)}
    await take_in(pool, events[3:])
    assert await states(conn) == {("ann", "Tidewater"): ("completed", 2)}


async def test_what_nobody_asked_for_is_lidarrs_own_job(pool: Pool, conn: Connection) -> None:
    """A grab opens it, and its trace is that of the webhook."""
    [grab] = await receive(conn, webhook("grab"))

    await take_in(pool, [grab])

    [job] = await jobs(conn)
    assert (job.user_id, job.origin, job.status) == ("lidarr", "lidarr", "downloading")
    assert (job.target_mbid, job.correlation_id) == (TIDEWATER, grab.correlation_id)


async def test_a_late_grab_after_completion_opens_no_second_job(pool: Pool, conn: Connection) -> None:
    """Lidarr's search grabbed twice: the album is there, so the second release is noted with the job that has it."""
    for number, (mbid, user) in enumerate(((TIDEWATER, "ann"), (LOW_WATER_MARK, "lidarr"))):
        album = an_album(f"Album of {user}", mbid, number)
        if user == "ann":
            await ask(conn, album="Album of ann", mbid=mbid)
        first = [
            changed("grab", downloadId=f"1 {user}", albums=[album]),
            changed("download", downloadId=f"1 {user}", album=album),
            changed("grab", downloadId=f"2 {user}", albums=[album]),
            changed("download", downloadId=f"2 {user}", album=album, trackFiles=[{"id": 77}]),
        ]
        await take_in(pool, await receive(conn, *first))

    assert await states(conn) == {
        ("ann", "Album of ann"): ("completed", 1),
        ("lidarr", "Album of lidarr"): ("completed", 1),
    }
    assert {len(job.downloads) for job in await jobs(conn)} == {2}


async def test_a_grab_after_a_cancel_is_removed_unless_others_want_it(pool: Pool, conn: Connection) -> None:
    """The search that was under way grabbed it; with another job that wants the album Lidarr goes on."""
    policy = Policy(sources=("lidarr",))
    for number, others in enumerate((False, True)):
        mbid = UUID(int=number + 1)
        album = an_album(f"Album {number}", mbid, number)
        job_id = await ask(conn, album=f"Album {number}", mbid=mbid, policy=policy)
        if others:
            await ask(conn, album=f"Album {number}", mbid=mbid, user="ben", policy=policy)
        async with conn.transaction():
            await change(conn, job_id, JobCancelRequested(user_id="ann"), policy=policy)
        await take_in(pool, await receive(conn, changed("grab", downloadId=f"D{number}", albums=[album])))

    cancelled = [job for job in await jobs(conn) if job.status == "cancelled"]
    assert {job.album: [effect.target for effect in job.effects] for job in cancelled} == {
        "Album 0": ["D0"],
        "Album 1": [],
    }
    assert (await states(conn))["ben", "Album 1"] == ("downloading", 1)
    assert not await jobs(conn, "lidarr")


async def test_an_upgrade_of_a_finished_job_is_lidarrs_own(pool: Pool, conn: Connection) -> None:
    """Long after its search the user's job stays as it is; the new download is followed beside it."""
    async with conn.transaction():
        # The time of the search is over as soon as it began.
        await request(
            conn, Album(artist="The Harbour Lights", title="Tidewater", mbid=TIDEWATER), user_id="ann",
            correlation_id="trace of ann", policy=Policy(no_grab_seconds=0),
        )  # fmt: skip
    await take_in(pool, await receive(conn, webhook("grab"), webhook("download")))

    await take_in(pool, await receive(conn, changed("grab", downloadId="BETTER")))
    assert await states(conn) == {("ann", "Tidewater"): ("completed", 1), ("lidarr", "Tidewater"): ("downloading", 1)}
    await take_in(pool, await receive(conn, changed("download-upgrade", downloadId="BETTER")))
    assert set((await states(conn)).values()) == {("completed", 1)}


async def test_two_albums_under_one_download_id_are_two_jobs(pool: Pool, conn: Connection) -> None:
    """One grab of two albums; an import completes its album only; a failure is of all that still run."""
    grab = json.loads(webhook("grab-multi-album-no-download-id")) | {"downloadId": "BOTH"}
    other = an_album("Low Water Mark", LOW_WATER_MARK, 318)

    await take_in(pool, await receive(conn, json.dumps(grab).encode()))
    assert await states(conn) == dict.fromkeys(
        [("lidarr", "Tidewater"), ("lidarr", "Low Water Mark")], ("downloading", 1)
    )
    await take_in(pool, await receive(conn, changed("download", downloadId="BOTH", album=other)))
    assert await states(conn) == {
        ("lidarr", "Tidewater"): ("downloading", 1), ("lidarr", "Low Water Mark"): ("completed", 1),
    }  # fmt: skip
    await take_in(pool, await receive(conn, changed("download-failure", downloadId="BOTH")))
    assert await states(conn) == {
        ("lidarr", "Tidewater"): ("failed", 1), ("lidarr", "Low Water Mark"): ("completed", 1),
    }  # fmt: skip


async def test_an_album_of_two_users_moves_for_both(pool: Pool, conn: Connection) -> None:
    """The library is shared: one grab, one import, two jobs done and none of Lidarr's own."""
    await ask(conn, user="ann")
    await ask(conn, user="ben")

    await take_in(pool, await receive(conn, webhook("grab")))
    assert set((await states(conn)).values()) == {("downloading", 1)}
    await take_in(pool, await receive(conn, webhook("download")))
    assert await states(conn) == dict.fromkeys([("ann", "Tidewater"), ("ben", "Tidewater")], ("completed", 1))


async def test_iv_is_not_ivory(pool: Pool, conn: Connection) -> None:
    """Without an MBID names must be equal, not begin alike."""
    await ask(conn, album="IV", mbid=None)

    await take_in(pool, await receive(conn, changed("grab", downloadId="1", albums=[an_album("IVory", number=1)])))
    assert (await states(conn))["ann", "IV"] == ("requested", 1)
    await take_in(pool, await receive(conn, changed("grab", downloadId="2", albums=[an_album("iv.", TIDEWATER, 2)])))
    assert (await states(conn))["ann", "IV"] == ("downloading", 1)


async def test_a_failure_that_nobody_knows_touches_no_job_and_waits(pool: Pool, conn: Connection) -> None:
    """Shown as waiting; so does an ImportFailure, which says nothing about what failed."""
    await ask(conn)
    failure, hint = await receive(conn, webhook("download-failure"), webhook("import-failure"))

    await take_in(pool, [failure, hint])

    assert await states(conn) == {("ann", "Tidewater"): ("requested", 1)}
    waiting = [fact for fact in await unmatched(conn) if isinstance(fact, UnmatchedWaiting)]
    assert {(fact.fact_id, fact.fact_type) for fact in waiting} == {
        (failure.event_id, "lidarr.download_failure"), (hint.event_id, "lidarr.import_failure"),
    }  # fmt: skip


async def test_a_grab_picks_up_the_failure_that_overtook_it(pool: Pool, conn: Connection) -> None:
    """Lidarr's threads race: the job ends as if the order had been kept, and nothing waits any more."""
    job_id = await ask(conn)
    failure, grab = await receive(conn, webhook("download-failure"), webhook("grab"))

    await take_in(pool, [failure, grab])

    assert await states(conn) == {("ann", "Tidewater"): ("failed", 1)}
    assert [type(fact) for fact in await unmatched(conn)] == [UnmatchedWaiting, UnmatchedResolved]
    await take_in(pool, await receive(conn, changed("grab", indexer="again")))
    assert await states(conn) == {("ann", "Tidewater"): ("downloading", 2)}, "a failure is picked up once"
    history = await event_store.read_stream(conn, f"download_job-{job_id}")
    assert [event.type for event in history].count("download_job.download_failed") == 1


@pytest.mark.parametrize("asked", [True, False])
async def test_any_order_ends_alike(pool: Pool, conn: Connection, asked: bool) -> None:
    """Grab, import of two halves: all six orders leave the same job."""
    half = changed("download", trackFiles=[{"id": 9004}])
    seen = set()
    for number, order in enumerate(permutations([webhook("grab"), webhook("download"), half])):
        # Six albums, so that six histories fit into one database.
        mbid = UUID(int=number + 1)
        named = [
            json.dumps(_renamed(json.loads(body), an_album(f"Album {number}", mbid, number), f"D{number}")).encode()
            for body in order
        ]
        if asked:
            await ask(conn, album=f"Album {number}", mbid=mbid)
        await take_in(pool, await receive(conn, *named))
    for job in await jobs(conn):
        [download] = job.downloads
        seen.add(
            (job.user_id, job.status, job.attempt, job.track_file_ids["Lidarr"], download.outcome, download.quality)
        )

    assert seen == {("ann" if asked else "lidarr", "completed", 1, (9001, 9002, 9003, 9004), "imported", "FLAC")}
    assert len(await jobs(conn)) == 6


def _renamed(body: dict[str, object], album: dict[str, object], download_id: str) -> dict[str, object]:
    return body | {"downloadId": download_id} | ({"albums": [album]} if "albums" in body else {"album": album})


async def test_read_again_from_the_start_nothing_happens_twice(
    pool: Pool, conn: Connection, rng: random.Random
) -> None:
    """The group's progress is lost and everything is delivered again, shuffled: not one event more."""
    await ask(conn)
    others = [an_album(f"Album {number}", UUID(int=number), number) for number in (1, 2)]
    events = await receive(
        conn, webhook("download-failure"), webhook("grab"), changed("grab", downloadId="NEXT"),
        changed("download", downloadId="NEXT"), changed("grab", downloadId="X", albums=others),
        webhook("import-failure"),
    )  # fmt: skip
    await take_in(pool, events)
    before = (await states(conn), await conn.fetchval("SELECT count(*) FROM events"))

    for _ in range(3):
        await conn.execute("DELETE FROM reactions")
        delivered = await delivery.deliver(pool, intake.GROUP, entries(rng.sample(events, len(events))))
        assert not delivered.held

    assert (await states(conn), await conn.fetchval("SELECT count(*) FROM events")) == before


async def mixed(conn: Connection, rng: random.Random, *, downloads: int) -> list[RecordedEvent]:
    """Receive 200 webhooks, shuffled and numbered: up to two users, names alone, failures before their grabs."""
    bodies = []
    for number in range(50 // downloads):
        mbid = UUID(int=number + 1) if number % 3 else None
        album = an_album(f"Album {number}", mbid, number)
        beside = an_album(f"Beside {number}", UUID(int=number + 101), number + 100)
        for user in ["ann", "ben"][: number % 4]:
            await ask(conn, album=f"ALBUM  {number}", mbid=mbid if number % 2 else None, user=user)
        for download in range(downloads):
            ids = {"downloadId": f"D{number}.{download}"}
            hint = number % 5 == 4
            bodies += [
                changed("grab", albums=[album, beside] if hint or download else [album], **ids),
                changed("import-failure" if hint else "download-failure", **ids),
                changed("download", album=album, trackFiles=[{"id": number * 10 + download}], **ids),
                changed("download", album=album, trackFiles=[{"id": number * 10 + 5 + download}], **ids),
            ]
    await receive(conn, *rng.sample(bodies, len(bodies)))
    await number_all(conn)
    events = await event_store.read_log(conn, category="lidarr")
    assert len(events) == 200
    return events


async def left_behind(conn: Connection) -> tuple[object, ...]:
    """Return every byte that follows from the webhooks, but for the database's clock."""
    rows = await conn.fetch(
        """
        SELECT stream, version, state::text, job_id, user_id, target_mbid, target_is_derived, status,
               artist, album, source, attempt, reason FROM download_jobs ORDER BY stream
        """
    )
    events = await conn.fetch(
        """
        SELECT stream, version, event_id, type, data::text, correlation_id, causation_id
          FROM events WHERE category IN ('download_job', 'unmatched') ORDER BY stream, version
        """
    )
    keys = await conn.fetch("SELECT key, streams FROM correlation_keys ORDER BY key")
    return [*rows], [*events], [(row["key"], sorted(row["streams"])) for row in keys]


def entries(events: Sequence[RecordedEvent]) -> dict[str, list[RecordedEvent]]:
    """Return events as a delivery hands them over."""
    streams: dict[str, list[RecordedEvent]] = {}
    for event in events:
        streams.setdefault(event.stream, []).append(event)
    return streams


async def test_a_batch_leaves_what_its_webhooks_leave_one_by_one(conn: Connection, rng: random.Random) -> None:
    """All at once, in pieces or one by one: the same rows, events and keys, byte for byte, and each row is the fold."""
    events = await mixed(conn, rng, downloads=2)
    seen = []
    for size in (1, 7, len(events)):
        work = conn.transaction()
        await work.start()
        for start in range(0, len(events), size):
            piece = events[start : start + size]
            # Each comes twice, and out of order: it is one fact all the same.
            await intake.GROUP.handle(conn, Batch(entries(rng.sample([*piece, *piece], 2 * len(piece)))))
        seen.append(await left_behind(conn))
        facts = {type(fact) for fact in await unmatched(conn)}
        assert facts == {UnmatchedWaiting, UnmatchedResolved}, "the mixture has failures that overtake their grabs"
        await work.rollback()
    assert seen[0] == seen[1] == seen[2]

    await intake.GROUP.handle(conn, Batch(entries(events)))
    await number_all(conn)
    assert (await replay(conn, PROJECTION)).different == 0


async def test_a_batch_that_is_read_again_changes_nothing(pool: Pool, conn: Connection, rng: random.Random) -> None:
    """Its progress is lost, and it comes again, shuffled, at once or in pieces: not one byte is different."""
    events = await mixed(conn, rng, downloads=1)
    assert not (await delivery.deliver(pool, intake.GROUP, entries(events))).held
    before = await left_behind(conn)
    times = await conn.fetch("SELECT created_at, updated_at FROM download_jobs ORDER BY stream")

    for size in (len(events), 30, 1):
        await conn.execute("DELETE FROM reactions")
        shuffled = rng.sample(events, len(events))
        for start in range(0, len(events), size):
            assert not (await delivery.deliver(pool, intake.GROUP, entries(shuffled[start : start + size]))).held
        assert await left_behind(conn) == before

    assert await conn.fetch("SELECT created_at, updated_at FROM download_jobs ORDER BY stream") == times


async def test_a_batch_takes_as_many_statements_as_one_webhook(pool: Pool, conn: Connection) -> None:
    """Round trips do not grow with the batch."""
    grabs = await receive(
        conn,
        *(
            changed("grab", downloadId=f"D{number}", albums=[an_album(f"Album {number}", UUID(int=number), number)])
            for number in range(22)
        ),
    )
    counts = []
    async with pool.acquire() as own:
        for events in (grabs[:1], grabs[1:2], grabs[2:]):  # the first one teaches the connection its types
            statements: list[str] = []
            with own.query_logger(lambda record: statements.append(record.query)):  # noqa: B023 - used at once
                await intake.GROUP.handle(own, Batch(entries(events)))
            counts.append(len(statements))

    assert counts[1] == counts[2] <= 11


async def test_all_other_webhooks_leave_nothing(pool: Pool, conn: Connection) -> None:
    """Health, Test, Rename and the like, and what nobody knows, are read and done with."""
    silent = {path.stem for path in (FIXTURES / "webhooks").glob("*.json")} - {
        "grab", "grab-multi-album-no-download-id", "download", "download-upgrade", "download-manual-import",
        "download-failure", "import-failure",
    }  # fmt: skip
    events = await receive(conn, *map(webhook, sorted(silent)), b'{"eventType": "Party"}')

    await take_in(pool, events)

    assert await conn.fetchval("SELECT count(*) FROM events") == len(events)
    assert await conn.fetchval("SELECT count(*) FROM reactions WHERE version = 0") == len(events)


async def test_hostile_names_are_taken_in(pool: Pool, conn: Connection) -> None:
    """NUL, a megabyte of download id and no artist at all: none of it parks the stream."""
    body = {
        **json.loads(webhook("grab")),
        "artist": None,
        "downloadId": "x\0" + "y" * 100_000,
        "albums": [an_album("Tide\0water \x1b[31m"), an_album("")],
    }
    body["release"]["releaseTitle"] = "a\0b"

    await take_in(pool, await receive(conn, json.dumps(body | {"artist": {"id": 1, "name": "\0"}}).encode()))

    assert {job.album for job in await jobs(conn)} == {"Tide water [31m", ""}


async def test_a_discarded_webhook_is_stepped_over(pool: Pool, conn: Connection) -> None:
    """One that no longer fits its type is parked; discarded, it does not hold what comes after it."""
    poison = NewEvent(event_id=new_event_id(), type="lidarr.grab", data='{"eventType": "Grab"}', source="lidarr")
    await event_store.append(conn, f"lidarr-{DOWNLOAD_ID}", [poison])
    [grab] = await receive(conn, webhook("grab"))

    delivered = await delivery.deliver(pool, intake.GROUP, {grab.stream: []})
    assert delivered.held == {grab.stream}
    await dead_letters.discard(conn, intake.GROUP.name, grab.stream)
    delivered = await delivery.deliver(pool, intake.GROUP, {grab.stream: []})

    assert delivered.handled == {grab.stream}
    assert await states(conn) == {("lidarr", "Tidewater"): ("downloading", 1)}


async def test_intake_requests_and_projection_side_by_side(pool: Pool, conn: Connection, rng: random.Random) -> None:
    """Webhooks in big batches, users and the projection on the same albums: no deadlock, and the fold is the row."""
    albums = [an_album(f"Album {number}", UUID(int=number + 1), number) for number in range(12)]
    events = []
    for turn in range(5):
        for album in rng.sample(albums, len(albums)):
            ids = {"downloadId": f"D{turn}-{album['id']}"}
            events += await receive(
                conn, changed("grab", albums=[album], **ids), changed("download", album=album, **ids)
            )

    async def deliver(batch: list[RecordedEvent]) -> None:
        assert not (await delivery.deliver(pool, intake.GROUP, entries(batch))).held

    async def click(number: int) -> None:
        async with pool.acquire() as own:
            await ask(own, album=f"Album {number}", mbid=UUID(int=number + 1))

    work = [deliver(events[start : start + 30]) for start in range(0, len(events), 30)]
    work += [click(rng.randrange(12)) for _ in range(40)]
    rng.shuffle(work)
    async with asyncio.timeout(30):
        await asyncio.gather(*work)

    deadlocks = await conn.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert deadlocks == 0
    await number_all(conn)
    await sweep_once(pool, jobs_group.GROUP)
    replayed = await replay(conn, PROJECTION)
    assert (replayed.streams, replayed.different) == (len(await jobs(conn)), 0)
