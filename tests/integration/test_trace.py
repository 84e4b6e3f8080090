"""``trace``: what led to what, over streams and correlation ids, at the terminal and over HTTP."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from kima_stream import event_store
from kima_stream.database import Connection, Pool
from kima_stream.errors import NotFoundError
from kima_stream.event_store import Append
from kima_stream.http import trace as traces
from kima_stream.http.trace import Trace, trace
from tests import front_door
from tests.factories import a_note
from tests.front_door import OpenDoor


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


async def an_event(
    conn: Connection,
    name: str,
    cause: UUID | None = None,
    *,
    correlation: str | None = None,
    event_id: UUID | None = None,
) -> UUID:
    """Append one event of type ``name`` to a stream of its own and return its id."""
    event_id = event_id or uuid4()
    note = a_note(event_id=event_id, type=name, causation_id=cause, correlation_id=correlation)
    await event_store.append_many(conn, [Append(f"note-{event_id}", [note])])
    return event_id


def outline(found: Trace) -> list[str]:
    """Return the types, indented by depth."""
    return ["." * event.depth + event.type for event in found.events]


async def test_the_tree_is_found_from_each_of_its_events(conn: Connection) -> None:
    """Up to the first cause and down to the last effect, also where the correlation changes."""
    grab = await an_event(conn, "grab", correlation="a")
    grabbed = await an_event(conn, "grabbed", grab, correlation="b")
    await an_event(conn, "told", grabbed, correlation="c")
    again = await an_event(conn, "again", grab, correlation="a")
    await an_event(conn, "stranger", correlation="b")

    for event_id in (grab, grabbed, again):
        found = await trace(conn, str(event_id))
        assert outline(found) == ["grab", ".grabbed", "..told", ".again"]
        assert found.events[0].effects == (grabbed, again)
        assert not found.truncated
    assert outline(await trace(conn, "b")) == ["grab", ".grabbed", "..told", ".again", "stranger"]


async def test_a_correlation_shows_all_its_trees(conn: Connection) -> None:
    """Events without a cause stand side by side, the oldest first; a cause outside of the log is none."""
    await an_event(conn, "first", correlation="a")
    second = await an_event(conn, "second", uuid4(), correlation="a")
    await an_event(conn, "third", second, correlation="a")
    assert outline(await trace(conn, "a")) == ["first", "second", ".third"]


async def test_circles_end(conn: Connection) -> None:
    """Others can name causes as they like: each event is shown once."""
    one, two, alone = uuid4(), uuid4(), uuid4()
    await an_event(conn, "one", two, event_id=one)
    await an_event(conn, "two", one, event_id=two)
    await an_event(conn, "alone", alone, event_id=alone)
    assert outline(await trace(conn, str(two))) == ["one", ".two"]
    assert outline(await trace(conn, str(alone))) == ["alone"]


@pytest.mark.parametrize("shape", ["chain", "fan", "flat"])
async def test_a_large_tree_is_cut(conn: Connection, shape: str) -> None:
    """At most as many as were allowed, and it says so."""
    ids = [uuid4() for _ in range(60)]
    shapes: dict[str, list[UUID | None]] = {
        "chain": [None, *ids[:-1]],
        "fan": [None, *ids[:1] * 59],
        "flat": [None] * 60,
    }
    notes = [
        a_note(event_id=id_, causation_id=cause, correlation_id="a")
        for id_, cause in zip(ids, shapes[shape], strict=True)
    ]
    await event_store.append_many(conn, [Append("note-1", notes)])
    for id_, allowed in (("a", 60), ("a", 59), (str(ids[0]), 60 if shape != "flat" else 1), ("a", 1)):
        found = await trace(conn, id_, max_events=allowed)
        assert len(found.events) == allowed
        assert found.truncated == (allowed < 60 and not (shape == "flat" and id_ != "a"))
        assert found.events[0].event_id == ids[0]


async def test_only_indexes_are_asked(conn: Connection) -> None:
    """Planned for a long log, no statement scans it."""
    await conn.execute("SET enable_seqscan = off")
    plan = ""
    for statement, values in (
        (traces._START, (uuid4(), "a", 10)),
        (traces._NEIGHBOURS, ([uuid4()], [uuid4()], [uuid4()], 10)),
    ):
        plan = "\n".join(row[0] for row in await conn.fetch(f"EXPLAIN {statement}", *values))
        assert "Seq Scan" not in plan, plan
        assert plan.count("events_") >= 3, plan
    assert "events_causation_id_idx" in plan


async def test_nothing_known_is_said_so(conn: Connection, dsn: str, door: OpenDoor) -> None:
    """404, and exit 1 with a clear line."""
    with pytest.raises(NotFoundError):
        await trace(conn, "a")
    async with door.client.get("/api/trace/a") as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")
    code, out, err = await run(dsn, "a")
    assert (code, out) == (1, "")
    assert "No event has this id" in err


async def test_the_same_tree_over_http_and_at_the_terminal(conn: Connection, dsn: str, door: OpenDoor) -> None:
    """What comes from outside cannot steer the terminal; an id may hold a slash."""
    cause = await an_event(conn, "grab", correlation="a/b=")
    effect = await an_event(conn, "[red]evil\x1b[2J", cause, correlation="c")
    async with door.client.get("/api/trace/a%2Fb=") as answer:
        assert answer.status == 200
        over_http = await answer.json()
    assert [(event["event_id"], event["depth"]) for event in over_http["events"]] == [(str(cause), 0), (str(effect), 1)]

    code, out, _ = await run(dsn, "a/b=", "--json")
    assert (code, json.loads(out)) == (0, over_http)
    code, out, _ = await run(dsn, str(effect))
    assert code == 0
    first, second = out.splitlines()
    assert f"grab note-{cause}@0" in first
    assert f"[red]evil\\x1b[2J note-{effect}@0" in second
    assert second.startswith("└")
    assert (first.endswith(str(cause)), second.endswith(str(effect))) == (True, True)  # on a narrow terminal, too


async def run(dsn: str, *arguments: str) -> tuple[int, str, str]:
    """Run ``trace`` as a person would and return exit code, stdout and stderr."""
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "kima_stream", "trace", *arguments],
        env={"KIMA_DATABASE_URL": dsn, "COLUMNS": "60", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return result.returncode, result.stdout, result.stderr
