"""The event store against a real Postgres: what is refused, what is kept, who wins."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from kima_stream import event_store
from kima_stream.database import Connection, Pool
from kima_stream.errors import DuplicateEventError, TornAppendError, WrongExpectedVersionError
from kima_stream.event_store import ANY, Append
from kima_stream.events import new_event_id
from tests.factories import a_note, append_notes, number_all


@pytest.fixture(autouse=True, params=["inserted", "copied"])
def way_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here holds for few events, which are inserted, and for many, which are copied."""
    monkeypatch.setattr("kima_stream.event_rows.COPY_FROM_EVENTS", 1 if request.param == "copied" else 10**9)


async def test_versions_count_from_zero_in_each_stream(conn: Connection) -> None:
    """A stream's events are 0, 1, 2, … whatever happens in other streams."""
    await event_store.append(conn, "note-a", [a_note(), a_note()], expected_version=-1)
    await event_store.append(conn, "note-b", [a_note()])
    version = await event_store.append(conn, "note-a", [a_note()], expected_version=1)

    assert version == 2
    assert [event.version for event in await event_store.read_stream(conn, "note-a")] == [0, 1, 2]
    assert await event_store.head_version(conn, "note-none") == -1


@pytest.mark.parametrize("expected", [-1, 0, 2])
async def test_an_append_at_another_version_is_refused(conn: Connection, expected: int) -> None:
    """Whoever decided on an older or imagined state must decide again; nothing is written."""
    await event_store.append(conn, "note-a", [a_note(), a_note()])

    with pytest.raises(WrongExpectedVersionError) as caught:
        await event_store.append(conn, "note-a", [a_note()], expected_version=expected)

    assert (caught.value.actual_version, await event_store.head_version(conn, "note-a")) == (1, 1)


async def test_the_same_event_twice_answers_with_the_original(conn: Connection) -> None:
    """A repeat is told where the fact stands, also when its version has passed: ids come first."""
    note = a_note()
    await event_store.append(conn, "note-a", [note], expected_version=-1)
    await event_store.append(conn, "note-a", [a_note()])

    for expected in (ANY, -1, 7):
        with pytest.raises(DuplicateEventError) as caught:
            await event_store.append(conn, "note-elsewhere", [note], expected_version=expected)
        assert [(e.stream, e.version) for e in caught.value.originals] == [("note-a", 0)]
    assert await event_store.head_version(conn, "note-elsewhere") == -1


async def test_a_half_known_append_is_a_defect_and_writes_nothing(conn: Connection) -> None:
    """Two events of which one is known are neither a repeat nor news."""
    known = a_note()
    await event_store.append(conn, "note-a", [known])

    with pytest.raises(TornAppendError):
        await event_store.append(conn, "note-a", [known, a_note()])

    assert await event_store.head_version(conn, "note-a") == 0


async def test_several_streams_are_appended_all_or_none(conn: Connection) -> None:
    """One refused stream takes the others with it."""
    await event_store.append(conn, "note-b", [a_note()])

    with pytest.raises(WrongExpectedVersionError):
        await event_store.append_many(conn, [Append("note-a", [a_note()]), Append("note-b", [a_note()], -1)])

    assert await event_store.head_version(conn, "note-a") == -1


async def test_a_refusal_leaves_the_callers_transaction_usable(conn: Connection) -> None:
    """The savepoint is ours; what the caller wrote before and after is kept."""
    note = a_note()
    await event_store.append(conn, "note-a", [note])
    async with conn.transaction():
        await event_store.append(conn, "note-b", [a_note()])
        with pytest.raises(DuplicateEventError):
            await event_store.append(conn, "note-a", [note])
        await event_store.append(conn, "note-c", [a_note()])

    assert [await event_store.head_version(conn, f"note-{s}") for s in "abc"] == [0, 0, 0]


async def test_many_rivals_on_one_stream_all_get_a_version(pool: Pool) -> None:
    """With ANY nobody is refused and no version is skipped."""

    async def write() -> int:
        async with pool.acquire() as conn:
            return await event_store.append(conn, "note-hot", [a_note()])

    versions = await asyncio.gather(*(write() for _ in range(60)))

    assert sorted(versions) == list(range(60))


async def test_of_rivals_at_one_version_one_wins(pool: Pool) -> None:
    """The expected version lets exactly one through."""

    async def write() -> int | None:
        async with pool.acquire() as conn:
            try:
                return await event_store.append(conn, "note-hot", [a_note()], expected_version=-1)
            except WrongExpectedVersionError:
                return None

    outcomes = await asyncio.gather(*(write() for _ in range(20)))

    assert sorted(o for o in outcomes if o is not None) == [0]


async def test_ids_of_one_append_follow_its_versions(conn: Connection) -> None:
    """The publisher numbers in id order, so ids within an append must be drawn in the order given."""
    appends = [Append(f"note-{n % 7}", [a_note() for _ in range(5)]) for n in range(50)]
    for start in range(0, 50, 7):
        await event_store.insert(conn, appends[start : start + 7])

    rows = await conn.fetch("SELECT stream, version FROM events ORDER BY id")
    streams: dict[str, list[int]] = {}
    for row in rows:
        streams.setdefault(row["stream"], []).append(row["version"])
    assert all(versions == list(range(len(versions))) for versions in streams.values())


@pytest.mark.parametrize("text", ['{"a":  1,"a":2}', '"\\u0000"', '{"ü": "\\ud83d\\ude00 é"}', " [1,\n2 ] "])
async def test_data_is_kept_byte_for_byte(conn: Connection, text: str) -> None:
    """Spaces, repeated keys, NUL escapes and non-ASCII come out as they went in."""
    note = a_note(text)
    await event_store.append(conn, "note-a", [note])

    event = await event_store.read_event(conn, note.event_id)

    assert event is not None
    assert event.data == text


async def test_the_database_itself_refuses_to_change_the_log(conn: Connection) -> None:
    """UPDATE, DELETE and TRUNCATE raise, for a session that calls itself a replica too."""
    await append_notes(conn)
    await number_all(conn)
    for role in ("origin", "replica"):
        await conn.execute(f"SET session_replication_role = {role}")
        for table in ("events", "event_positions"):
            for statement in (f"UPDATE {table} SET version = version", f"DELETE FROM {table}", f"TRUNCATE {table}"):
                with pytest.raises(asyncpg.RestrictViolationError):
                    await conn.execute(statement)

    assert await conn.fetchval("SELECT count(*) FROM events") == 12


async def test_what_retention_took_is_still_known(conn: Connection) -> None:
    """The skeleton refuses an old id and continues an old stream when the event itself is gone."""
    note = a_note()
    await event_store.append(conn, "note-a", [note, a_note()])
    await number_all(conn)
    await conn.execute("ALTER TABLE events DISABLE TRIGGER events_are_immutable")
    await conn.execute("DELETE FROM events")

    with pytest.raises(DuplicateEventError):
        await event_store.append(conn, "note-a", [note])
    assert await event_store.append(conn, "note-a", [a_note()]) == 2


async def test_a_stream_name_must_name_its_category(conn: Connection) -> None:
    """The database refuses a name that is not ``<category>-<id>``."""
    for name in ("", "-x", "Note-1", "note", f"note-{'x' * 600}"):
        with pytest.raises(asyncpg.CheckViolationError):
            await event_store.append(conn, name, [a_note()])

    assert await conn.fetchval("SELECT count(*) FROM events") == 0


async def test_the_log_is_read_by_position_and_filtered(conn: Connection) -> None:
    """Filters combine, and a page ends where the next begins."""
    written = await append_notes(conn, streams=3, each=4)
    await event_store.append(conn, "memo-1", [a_note(correlation_id="me")])
    assert await event_store.read_log(conn) == []
    await number_all(conn)

    page = await event_store.read_log(conn, category="note", limit=5)
    rest = await event_store.read_log(conn, category="note", after=page[-1].position or 0)

    assert [event.event_id for event in page + rest] == [event.event_id for event in written]
    assert [event.stream for event in await event_store.read_log(conn, correlation_id="me")] == ["memo-1"]
    assert await event_store.read_event(conn, uuid4()) is None
    assert await event_store.find_events(conn, [new_event_id()]) == []
