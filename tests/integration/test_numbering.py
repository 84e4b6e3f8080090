"""Numbering among transactions that overlap, step by step: whatever is committed gets its number."""

import pytest

from kima_stream import database, event_store
from kima_stream.database import Connection
from kima_stream.event_store import Append
from kima_stream.numbering import Numberer, count_unnumbered
from tests.factories import a_note
from tests.polling import eventually


async def _append(conn: Connection, stream: str) -> None:
    """Append without a savepoint: that would have a transaction id of its own, younger than the drawn id."""
    await event_store.insert(conn, [Append(stream, [a_note()])])


async def _numbered(conn: Connection) -> list[str]:
    rows = await conn.fetch("SELECT stream FROM event_positions ORDER BY position")
    return [row["stream"] for row in rows]


@pytest.mark.parametrize("takes_over", [False, True])
async def test_an_id_drawn_by_a_younger_transaction_is_waited_for(dsn: str, conn: Connection, takes_over: bool) -> None:
    """Two statements of several rows overlap: the older transaction draws the last id and commits first.

    ``pg_snapshot_xmax`` is one past the newest transaction that has *ended*: the younger one, still
    running, is beyond it, and must be waited for all the same; also by a leader that takes over.
    """
    older = await database.connect(dsn, role="older")
    younger = await database.connect(dsn, role="younger")
    numberer = Numberer(conn, holder="test")
    assert await numberer.lead()

    writes_early, draws_early = older.transaction(), younger.transaction()
    await writes_early.start()
    await older.fetchval("SELECT pg_current_xact_id()")
    await draws_early.start()
    await _append(younger, "note-younger")  # id 1
    await _append(older, "note-older")  # id 2
    await writes_early.commit()
    assert [event.stream for event in await numberer.number_once()] == ["note-older"]
    if takes_over:
        await numberer.resign()
        assert await numberer.lead()
    for _ in range(3):
        assert await numberer.number_once() == []

    await draws_early.commit()
    assert (await count_unnumbered(conn)).events == 1
    assert [event.stream for event in await numberer.number_once()] == ["note-younger"]
    assert await _numbered(conn) == ["note-older", "note-younger"]
    for opened in (older, younger):
        await opened.close()


async def test_an_id_that_nobody_will_commit_is_forgotten(dsn: str, conn: Connection) -> None:
    """Rolled back: the hole is looked into once more and then no longer; the floor rises past it."""
    other = await database.connect(dsn, role="other")
    numberer = Numberer(conn, holder="test")
    assert await numberer.lead()
    transaction = other.transaction()
    await transaction.start()
    await _append(other, "note-lost")
    await _append(conn, "note-kept")
    await numberer.number_once()
    assert numberer._leading is not None
    assert len(numberer._leading.holes) == 1

    await transaction.rollback()

    async def is_forgotten() -> (
        bool
    ):  # once whoever had a transaction then has ended it, an ANALYZE of the server's too
        await numberer.number_once()
        assert numberer._leading is not None
        return numberer._leading.holes == []

    await eventually(is_forgotten)
    await _append(conn, "note-kept")
    await numberer.number_once()
    assert await conn.fetchval("SELECT floor FROM leases") == await conn.fetchval("SELECT max(id) FROM events")
    await other.close()
