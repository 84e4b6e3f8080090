"""Replay: the read model is the fold of the log, whatever was dropped; what differs is shown and mended."""

import json

import msgspec
import pytest

from consumers import download_jobs, intake
from kima_stream import audit, dead_letters, event_store
from kima_stream.database import Connection, Pool
from kima_stream.errors import UndecodableEventError
from kima_stream.events import NewEvent, new_event_id
from kima_stream.integrations import lidarr_webhooks
from kima_stream.read_models.download_jobs import PROJECTION
from kima_stream.reconciler import sweep_once
from kima_stream.replay import replay, state_at
from tests.factories import number_all
from tests.front_door import webhook

ALBUMS = 12


@pytest.fixture
async def filled(pool: Pool, conn: Connection) -> Connection:
    """A log in which Lidarr grabbed twelve albums, imported some, and gave up others; all of it handled."""
    for number in range(ALBUMS):
        for name in [
            "grab",
            *(["download"] if number % 3 == 0 else []),
            *(["download-failure"] if number % 3 == 1 else []),
        ]:
            body = json.loads(webhook(name)) | {"downloadId": f"D{number}"}
            for album in [*body.get("albums", []), *filter(None, [body.get("album")])]:
                album |= {"id": number, "mbId": f"00000000-0000-4000-8000-{number:012}", "title": f"Album {number}"}
            received = lidarr_webhooks.receive(json.dumps(body).encode())
            event_id = received.identify(lidarr_webhooks.NAMESPACE)
            event = received.new_event(event_id, metadata="{}", correlation_id=None)
            await event_store.append(conn, received.stream(event_id), [event])
    await settle(pool, conn)
    return conn


async def settle(pool: Pool, conn: Connection) -> None:
    """Number and handle everything, as the roles do."""
    for group in (intake.GROUP, download_jobs.GROUP):
        await number_all(conn)
        await sweep_once(pool, group)
    await number_all(conn)


async def rows(conn: Connection) -> list[str]:
    """Return the read model, byte for byte."""
    return [row["row"] for row in await conn.fetch("SELECT d::text AS row FROM download_jobs AS d ORDER BY stream")]


async def test_what_is_live_is_the_fold_of_the_log(filled: Connection) -> None:
    """Nothing differs, and nothing is changed by looking."""
    before = await rows(filled)

    replayed = await replay(filled, PROJECTION)

    assert (replayed.streams, replayed.different, replayed.applied) == (ALBUMS, 0, False)
    assert len(before) == ALBUMS
    assert await rows(filled) == before


async def test_a_log_read_on_a_connection_of_its_own_folds_to_the_same(
    pool: Pool, filled: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunk by chunk, each read while the one before is folded; when that fails the reader is free again."""
    monkeypatch.setattr("kima_stream.replay.CHUNK_EVENTS", 2)
    done: list[tuple[int, int]] = []
    async with pool.acquire() as reader:
        replayed = await replay(filled, PROJECTION, reader=reader, progress=lambda *at: done.append(at))
        assert (replayed.streams, replayed.different) == (ALBUMS, 0)
        assert done[-1] == (replayed.events, replayed.events)
        assert len(done) > 2

        broken = msgspec.structs.replace(PROJECTION, apply=lambda _state, _event: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await replay(filled, broken, reader=reader)
        assert await reader.fetchval("SELECT 1") == 1


async def test_a_dropped_read_model_comes_back_byte_by_byte(pool: Pool, filled: Connection) -> None:
    """By a replay that is applied, and by the sweep from the beginning."""
    before = await rows(filled)
    await filled.execute("DELETE FROM download_jobs")

    assert (await replay(filled, PROJECTION, apply=True)).different == ALBUMS
    assert await rows(filled) == before

    await filled.execute("DELETE FROM download_jobs")
    await filled.execute("UPDATE group_checkpoints SET verified_position = 0")
    await sweep_once(pool, download_jobs.GROUP)
    assert await rows(filled) == before


async def test_every_difference_is_shown_and_mended_on_demand(filled: Connection) -> None:
    """A row that was changed, one that is missing, one too many, one that is behind."""
    before = await rows(filled)
    streams = [row["stream"] for row in await filled.fetch("SELECT stream FROM download_jobs ORDER BY stream")]
    await filled.execute("UPDATE download_jobs SET status = 'cancelled' WHERE stream = $1", streams[0])
    await filled.execute("DELETE FROM download_jobs WHERE stream = $1", streams[1])
    await filled.execute("UPDATE download_jobs SET version = version - 1 WHERE stream = $1", streams[2])
    await filled.execute(
        'INSERT INTO download_jobs SELECT (jsonb_populate_record(d, \'{"stream": "download_job-x"}\')).* '
        "FROM download_jobs AS d WHERE stream = $1",
        streams[3],
    )

    replayed = await replay(filled, PROJECTION)

    kinds = {difference.stream: difference.kind for difference in replayed.differences}
    assert kinds == {
        streams[0]: "different",
        streams[1]: "missing",
        streams[2]: "behind",
        "download_job-x": "unexpected",
    }
    [changed] = [difference for difference in replayed.differences if difference.stream == streams[0]]
    assert changed.fields["status"][0] == "cancelled"

    await replay(filled, PROJECTION, apply=True)
    assert await rows(filled) == before
    assert (await replay(filled, PROJECTION)).different == 0


async def test_what_was_folded_before_it_was_numbered_is_no_difference(filled: Connection) -> None:
    """The door folds a request at once; the publisher numbers it a moment later."""
    [(stream, version)] = await filled.fetch("SELECT stream, version FROM download_jobs LIMIT 1")
    merged = NewEvent(
        event_id=new_event_id(),
        type="download_job.request_merged",
        data='{"type":"download_job.request_merged","attempt":1}',
        source="test",
    )
    await event_store.append(filled, stream, [merged])
    await filled.execute("UPDATE download_jobs SET version = version + 1 WHERE stream = $1", stream)

    replayed = await replay(filled, PROJECTION)

    # Version and bytes but for the time of the last event, which the raw UPDATE did not touch.
    assert [set(difference.fields) for difference in replayed.differences] == [{"updated_at"}]
    assert version >= 0


async def test_a_state_can_be_seen_as_of_any_position(filled: Connection) -> None:
    """Each position shows what had happened until then, and nothing later."""
    [(stream,)] = await filled.fetch("SELECT stream FROM download_jobs WHERE status = 'completed' LIMIT 1")
    events = await event_store.read_stream(filled, stream)
    seen = [(await state_at(filled, PROJECTION, stream, up_to=event.position)).state.status for event in events]

    assert seen[-1] == "completed"
    assert "downloading" in seen[:-1]
    assert (await state_at(filled, PROJECTION, stream, up_to=0)).version == -1
    assert (await state_at(filled, PROJECTION, stream)).state.status == "completed"
    assert await audit.position_at(filled, events[-1].recorded_at) < (events[-1].position or 0)


async def test_a_replay_as_of_a_position_stops_there(filled: Connection) -> None:
    """Only streams that had begun are in it."""
    early = await replay(filled, PROJECTION, up_to=ALBUMS * 2)

    assert 0 < early.streams < ALBUMS
    assert early.different > 0


async def test_a_discarded_event_is_stepped_over_and_a_parked_one_is_waited_at(pool: Pool, filled: Connection) -> None:
    """Live and replay agree about what was not handled."""
    streams = [row["stream"] for row in await filled.fetch("SELECT stream FROM download_jobs ORDER BY stream LIMIT 2")]
    for stream in streams:
        poison = NewEvent(event_id=new_event_id(), type="download_job.nonsense", data='{"type":"x"}', source="test")
        await event_store.append(filled, stream, [poison])
    await number_all(filled)
    with pytest.raises(UndecodableEventError):
        await replay(filled, PROJECTION)
    await sweep_once(pool, download_jobs.GROUP)
    assert await dead_letters.discard(filled, "download_jobs", streams[0]) is not None
    await sweep_once(pool, download_jobs.GROUP)

    replayed = await replay(filled, PROJECTION)

    assert replayed.differences == ()
