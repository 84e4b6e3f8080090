"""verify finds what was changed behind the log's back, and says where."""

import random
from collections.abc import Callable
from uuid import UUID

import asyncpg
import pytest

from kima_stream import audit, event_store
from kima_stream.checkpoints import ConsumerGroup
from kima_stream.database import Connection, Pool
from kima_stream.events import new_event_id
from kima_stream.reconciler import sweep_once
from tests.factories import Scribe, a_note, append_notes, number_all

FLIPS = 1_000
TEXTS = ("stream", "category", "type", "source", "subject", "correlation_id")


@pytest.fixture
async def open_log(conn: Connection) -> Connection:
    """A log of 60 events whose guards are off, as for somebody with the database's password."""
    await append_notes(conn, streams=5, each=10)
    for number in range(10):
        note = a_note(f'{{"ü": {number}}}', subject="s", causation_id=new_event_id())
        await event_store.append(conn, f"memo-{number % 2}", [note])
    await number_all(conn)
    for table in ("events", "event_positions"):
        await conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    for constraint in ("category_check", "stream_check", "version_check", "stream_version_key", "event_id_key"):
        await conn.execute(f"ALTER TABLE events DROP CONSTRAINT events_{constraint}")
    return conn


async def test_an_untouched_log_is_verified(conn: Connection) -> None:
    """Everything is checked, and nothing is found."""
    await append_notes(conn, streams=5, each=10)
    await number_all(conn)
    await event_store.append(conn, "note-0", [a_note()])

    verified = await audit.verify(conn)

    assert (verified.checked, verified.faults, verified.unnumbered) == (50, (), 1)
    link = await conn.fetchval("SELECT encode(chain_hash, 'hex') FROM event_positions ORDER BY position DESC LIMIT 1")
    assert verified.chain_hash == link


async def test_an_event_that_was_passed_by_is_found(conn: Connection) -> None:
    """It has no position, and the publisher says that nothing is missing there: nobody would ever handle it."""
    await append_notes(conn, streams=1, each=3)
    await number_all(conn)
    await event_store.append(conn, "memo-1", [a_note()])
    await conn.execute("UPDATE leases SET floor = (SELECT max(id) FROM events)")
    await append_notes(conn, streams=1, each=1)
    await number_all(conn)

    (fault,) = (await audit.verify(conn)).faults

    assert (fault.position, fault.kind) == (4, "forgotten")
    assert "memo-1 version 0" in fault.detail


def flip_text(text: str, rng: random.Random) -> str:
    """Return ``text`` with one bit of one byte flipped, still UTF-8 and without NUL."""
    while True:
        raw = bytearray(text.encode())
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        try:
            flipped = raw.decode()
        except UnicodeDecodeError:
            continue
        if "\x00" not in flipped:
            return flipped


async def flip(conn: Connection, position: int, column: str, rng: random.Random) -> None:
    """Flip one bit of one column of the event at ``position``."""
    event_id = await conn.fetchval("SELECT id FROM event_positions WHERE position = $1", position)
    value = await conn.fetchval(f"SELECT {column} FROM events WHERE id = $1", event_id)
    if value is None:
        expression, flipped = "$2", {"causation_id": new_event_id(), "subject": "x"}[column]
    elif column in {"occurred_at", "recorded_at"}:
        expression, flipped = f"{column} + $2::bigint * interval '1 microsecond'", 1 << rng.randrange(30)
    elif column in {"event_id", "causation_id"}:
        expression, flipped = "$2", UUID(int=value.int ^ (1 << rng.randrange(128)))
    elif column in {"version", "schema_version"}:
        expression, flipped = "$2", value ^ (1 << rng.randrange(40))
    elif column in {"data", "metadata"}:
        expression, flipped = "$2", await _flip_json(conn, value, rng)
    else:
        expression, flipped = "$2", flip_text(value, rng)
    await conn.execute(f"UPDATE events SET {column} = {expression} WHERE id = $1", event_id, flipped)


async def _flip_json(conn: Connection, value: str, rng: random.Random) -> str:
    """Flip bits until it is JSON again, as the column demands."""
    while True:
        flipped = flip_text(value, rng) if rng.random() < 0.9 else value + " "
        try:
            async with conn.transaction():
                await conn.execute("SELECT $1::json", flipped)
        except asyncpg.PostgresError:
            continue
        return flipped


async def test_one_flipped_bit_anywhere_is_found_and_located(
    open_log: Connection, rng: random.Random, scaled: Callable[[int], int]
) -> None:
    """Any column of any event: verify names its position, and that one first."""
    columns = (
        *TEXTS,
        "event_id",
        "version",
        "schema_version",
        "data",
        "metadata",
        "causation_id",
        "occurred_at",
        "recorded_at",
    )
    for _ in range(scaled(FLIPS)):
        position, column = rng.randint(1, 60), rng.choice(columns)
        transaction = open_log.transaction()
        await transaction.start()
        await flip(open_log, position, column, rng)
        verified = await audit.verify(open_log)
        assert verified.first_bad_position == position, (column, verified.faults[:3])
        await transaction.rollback()

    assert (await audit.verify(open_log)).faults == ()


@pytest.mark.parametrize(
    ("statement", "position", "kind"),
    [
        ("DELETE FROM events WHERE id = (SELECT id FROM event_positions WHERE position = 7)", 7, "missing"),
        ("DELETE FROM event_positions WHERE position = 7", 7, "hole"),
        ("UPDATE event_positions SET chain_hash = sha256('x') WHERE position = 7", 7, "chain"),
        ("UPDATE event_positions SET event_hash = sha256('x') WHERE position = 7", 7, "hash"),
        ("UPDATE event_positions SET category = 'other' WHERE position = 7", 7, "mismatch"),
        ("UPDATE event_positions SET position = position + 1 WHERE position = 60", 60, "hole"),
    ],
)
async def test_the_skeleton_is_checked_too(open_log: Connection, statement: str, position: int, kind: str) -> None:
    """A row taken away, or changed, in either table."""
    await open_log.execute(statement)

    verified = await audit.verify(open_log)

    assert verified.first_bad_position == position
    assert kind in {fault.kind for fault in verified.faults if fault.position == position}


async def test_a_tail_cut_off_is_noticed_by_those_who_saw_it(open_log: Connection, pool: Pool) -> None:
    """The chain alone cannot miss what came after it; the groups' checkpoints do, and so do the events."""
    await Scribe.prepare(open_log)
    group: ConsumerGroup = Scribe().group
    await sweep_once(pool, group)
    await open_log.execute("DELETE FROM event_positions WHERE position > 55")

    verified = await audit.verify(open_log)

    assert {(fault.kind, fault.position) for fault in verified.faults} == {("checkpoint", 60), ("forgotten", 56)}

    await open_log.execute("DELETE FROM events WHERE id NOT IN (SELECT id FROM event_positions)")
    verified = await audit.verify(open_log)
    assert [(fault.kind, fault.position) for fault in verified.faults] == [("checkpoint", 60)]


async def test_a_range_is_verified_by_itself(open_log: Connection) -> None:
    """From the link before it, to its last position; versions go on from what came before."""
    assert (await audit.verify(open_log, first=20, last=40)).checked == 21
    await open_log.execute(
        "UPDATE events SET source = 'x' WHERE id = (SELECT id FROM event_positions WHERE position = 30)"
    )

    assert (await audit.verify(open_log, first=20, last=40)).first_bad_position == 30
    assert (await audit.verify(open_log, first=31)).faults == ()
