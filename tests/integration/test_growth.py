"""What every webhook and every second asks of Postgres reads as much in a large log as in a small one.

A plan made while a table was small holds for as long as the session: it must not be one that reads all of it.
"""

import json
import random
from collections.abc import Awaitable, Sequence
from uuid import UUID

from consumers import download_jobs, intake
from kima_stream import checkpoints, event_store, numbering
from kima_stream.checkpoints import Batch
from kima_stream.database import Connection
from kima_stream.event_store import Append
from kima_stream.events import Policy, RecordedEvent, new_event_id
from kima_stream.http.download_requests import request
from kima_stream.integrations import lidarr_webhooks
from projections.correlation import Album
from tests.factories import CATEGORY, a_note, number_all
from tests.front_door import webhook

LARGE = 10_000
FEW = 100  # index entries read for a handful of rows, and the same in a small table
PLANNED_AFTER = 6  # calls: then Postgres keeps one plan

_READ = """
    SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index
     WHERE indrelid IN (SELECT relid FROM pg_stat_user_tables)
"""


async def entries_read(conn: Connection, work: Awaitable[object]) -> int:
    """Return how many index entries ``work`` reads."""
    async with conn.transaction():
        before = await conn.fetchval(_READ)
        await work
        return int(await conn.fetchval(_READ) - before)


async def append_large(conn: Connection) -> None:
    """Append many events, each to a stream of its own, and number them."""
    for start in range(0, LARGE, 500):
        await event_store.append_many(conn, [Append(f"{CATEGORY}-{start + n}", [a_note()]) for n in range(500)])
    await number_all(conn)


async def test_progress_of_a_reaction_is_saved_by_its_key(conn: Connection) -> None:
    """However many streams the group has come through."""
    reached = dict.fromkeys((f"note-{n}" for n in range(5)), 0)
    for version in range(PLANNED_AFTER):
        await checkpoints.lock_reactions(conn, "scribe", sorted(reached))
        await checkpoints.save_reactions(conn, "scribe", dict.fromkeys(reached, version))
    await conn.execute(
        "INSERT INTO reactions (group_name, stream, version) "
        "SELECT 'scribe', 'other-' || n, 0 FROM generate_series(1, $1) AS n",
        LARGE,
    )

    later = dict.fromkeys(reached, PLANNED_AFTER)
    assert await entries_read(conn, checkpoints.lock_reactions(conn, "scribe", sorted(reached))) < FEW
    assert await entries_read(conn, checkpoints.save_reactions(conn, "scribe", later)) < FEW

    assert await checkpoints.lock_reactions(conn, "scribe", sorted(reached)) == later


async def test_what_waits_for_its_number_is_counted_from_where_all_have_one(conn: Connection) -> None:
    """A figure that is taken every second does not read the whole skeleton."""
    for _ in range(PLANNED_AFTER):
        await numbering.count_unnumbered(conn)
    await append_large(conn)
    await event_store.append(conn, "note-waits", [a_note(), a_note()])

    assert await entries_read(conn, numbering.count_unnumbered(conn)) < FEW

    assert (await numbering.count_unnumbered(conn)).events == 2


def a_grab(rng: random.Random) -> Append:
    """Return a Grab of an album of its own, as the door appends it."""
    body = {**json.loads(webhook("grab")), "downloadId": rng.randbytes(20).hex().upper()}
    mbid = UUID(bytes=rng.randbytes(16), version=4)
    body["albums"] = [{"id": rng.randrange(2**31), "title": f"Album {mbid}", "mbId": str(mbid)}]
    received, event_id = lidarr_webhooks.receive(json.dumps(body).encode()), new_event_id()
    return Append(received.stream(event_id), [received.new_event(event_id, metadata="{}", correlation_id=str(mbid))])


async def take_in(conn: Connection, recorded: Sequence[RecordedEvent]) -> None:
    """Let webhooks become jobs, and the projection follow."""
    await intake.GROUP.handle(conn, Batch({event.stream: [event] for event in recorded}))
    rows = await conn.fetch(
        "SELECT DISTINCT stream FROM events WHERE causation_id = ANY($1)", [e.event_id for e in recorded]
    )
    await download_jobs.GROUP.handle(conn, Batch({row["stream"]: [] for row in rows}))


async def open_job(conn: Connection, rng: random.Random) -> None:
    """Ask for an album as a user does: a job with an open call."""
    album = Album(artist="The Harbour Lights", title=f"Album {rng.random()}", mbid=UUID(bytes=rng.randbytes(16)))
    await request(conn, album, user_id="ann", correlation_id="trace", policy=Policy())


async def test_webhooks_and_requests_are_taken_in_by_keys(conn: Connection, rng: random.Random) -> None:
    """Whatever else is under way: other jobs, other keys, other open calls, other progress."""
    for _ in range(PLANNED_AFTER):
        await take_in(conn, await event_store.append_many(conn, [a_grab(rng)]))
        async with conn.transaction():
            await open_job(conn, rng)
    fresh = await event_store.append_many(conn, [a_grab(rng)])
    small = await entries_read(conn, take_in(conn, fresh))
    small_request = await entries_read(conn, open_job(conn, rng))
    for _ in range(LARGE // 5 // 100):
        async with conn.transaction():
            await take_in(conn, await event_store.append_many(conn, [a_grab(rng) for _ in range(100)]))
            for _ in range(100):
                await open_job(conn, rng)

    fresh = await event_store.append_many(conn, [a_grab(rng)])
    assert await entries_read(conn, take_in(conn, fresh)) < small + FEW
    assert await entries_read(conn, open_job(conn, rng)) < small_request + FEW
