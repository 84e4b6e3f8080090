"""``events export`` and ``events import``: the log out and in again, once, without changing a byte."""

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kima_stream import database, event_store, replay, schema
from kima_stream.cli.arrivals import Arrivals
from kima_stream.cli.json_objects import objects
from kima_stream.database import Connection, Pool
from kima_stream.errors import UserFacingError
from kima_stream.event_store import Append
from kima_stream.group_commit import GroupCommit
from kima_stream.http import cloudevents
from kima_stream.read_models import PROJECTIONS
from tests import front_door
from tests.factories import a_note, append_notes, number_all
from tests.front_door import FIXTURES, SLSKD, OpenDoor
from tests.polling import eventually

ROWS = """
    SELECT event_id, stream, version, category, type, schema_version, source, subject, data::text, metadata::text,
           correlation_id, causation_id, occurred_at
      FROM events ORDER BY id
"""


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


@pytest.fixture
def other_dsn(empty_database: Callable[[], str]) -> str:
    """Return the URL of another migrated database: the installation that it goes to."""
    dsn = empty_database()
    schema.migrate(dsn)
    return dsn


async def start(dsn: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start ``events …`` as a person would."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kima_stream", "events", *arguments, env={"KIMA_DATABASE_URL": dsn},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def run(dsn: str, *arguments: str, stdin: bytes = b"", code: int = 0) -> bytes:
    """Run ``events …`` to its end and return what it says, on stderr when it is to fail."""
    process = await start(dsn, *arguments)
    out, err = await process.communicate(stdin)
    assert process.returncode == code, err.decode()
    return err if code else out


async def fill(door: OpenDoor, conn: Connection) -> None:
    """Write what the door takes: webhooks as they were printed, requests, and events of others in every mode."""
    for file in sorted((FIXTURES / "webhooks").glob("*.json")):
        assert (await door.post(file.read_bytes()))[0] == 200
    for file in sorted((FIXTURES / "slskd").glob("webhook-*.json")):
        assert (await door.post(file.read_bytes(), SLSKD))[0] == 200
    assert (await door.post(b'{"artist":"Bj\xc3\xb6rk","album":"Post"}', "/api/downloads"))[0] == 202
    await submit(door)
    await number_all(conn)


async def submit(door: OpenDoor) -> None:
    """Send events of others: text with line ends, bytes, nothing."""
    for number, (kind, body) in enumerate(
        [
            ("application/json", b'{\r\n\t"a" : [1.0, "\\u0000"]\n}'),
            ("image/png", b"\x89PNG\r\n\x00"),
            ("text/plain", b""),
        ]
    ):
        headers = {"ce-specversion": "1.0", "ce-id": str(number), "ce-source": "/shop", "ce-type": "t",
                   "ce-stream": "order-1", "Content-Type": kind}  # fmt: skip
        async with door.client.post("/api/events", data=body, headers=headers) as answer:
            assert answer.status == 202


async def test_a_log_moves_to_another_installation(
    door: OpenDoor, conn: Connection, dsn: str, other_dsn: str, tmp_path: Path
) -> None:
    """Every column, every byte and the order; a second import changes nothing; the fold is the same."""
    await fill(door, conn)
    file = tmp_path / "log.jsonl"
    said = json.loads(await run(dsn, "export", "--output", str(file), "--json"))
    before = await conn.fetch(ROWS)
    assert said == {"events": len(before), "head": len(before)}
    assert len(file.read_bytes().splitlines()) == len(before)
    assert list(tmp_path.iterdir()) == [file]

    assert b"--restore" in await run(other_dsn, "import", str(file), code=2)
    imported = json.loads(await run(other_dsn, "import", str(file), "--restore", "--json"))
    assert imported == {"read": len(before), "appended": len(before), "duplicates": 0}
    again = json.loads(await run(other_dsn, "import", "-", "--restore", "--json", stdin=file.read_bytes()))
    assert again == {"read": len(before), "appended": 0, "duplicates": len(before)}

    other = await database.connect(other_dsn, role="test")
    assert await other.fetch(ROWS) == before
    await number_all(other)
    assert [row["event_id"] for row in await other.fetch("SELECT event_id FROM event_positions ORDER BY position")] == [
        row["event_id"] for row in before
    ]
    jobs = PROJECTIONS["download_jobs"]
    for one in (conn, other):
        await replay.replay(one, jobs, apply=True)
    states = [await one.fetch("SELECT stream, version, state::text FROM download_jobs") for one in (conn, other)]
    assert states[0] == states[1]
    assert states[0]
    await other.close()


async def test_cloudevents_go_to_whoever_takes_them(door: OpenDoor, conn: Connection, dsn: str, other_dsn: str) -> None:
    """The export is a batch as it stands, for a door elsewhere; byte for byte; ours stay ours."""
    await fill(door, conn)
    batch = await run(dsn, "export", "--format", "cloudevents", "--category", "order")
    everything = json.loads(await run(dsn, "export", "--format", "cloudevents"))
    assert len(everything) == await conn.fetchval("SELECT count(*) FROM events")

    other = await database.open_pool(other_dsn, role="test")
    async with front_door.opened(other) as far:
        headers = {"Content-Type": cloudevents.BATCH}
        async with far.client.post("/api/events", data=batch, headers=headers) as answer:
            assert answer.status == 202
        for row in await conn.fetch("SELECT event_id FROM events WHERE category = 'order'"):
            bodies = []
            for client in (door.client, far.client):
                async with client.get(f"/api/events/{row['event_id']}?format=binary") as answer:
                    bodies.append((await answer.read(), answer.headers.get("Content-Type")))
            assert bodies[0] == bodies[1]
    await other.close()
    for where in (dsn, other_dsn):
        assert json.loads(await run(where, "import", "--json", stdin=batch))["duplicates"] == 3
    lines = b"\n".join(json.dumps(event).encode() for event in everything if event["type"].startswith("lidarr."))
    assert b"kima-stream" in await run(other_dsn, "import", stdin=lines, code=1)


async def test_a_part_comes_out(conn: Connection, dsn: str) -> None:
    """By filter, by position, up to a time; to go on, after the head of the last export."""
    await append_notes(conn, streams=2, each=3)
    await number_all(conn)

    async def positions(*arguments: str) -> list[int]:
        return [json.loads(line)["position"] for line in (await run(dsn, "export", *arguments)).splitlines()]

    assert await positions("--stream", "note-1") == [2, 4, 6]
    assert await positions("--after", "2", "--to", "4") == [3, 4]
    assert await positions("--to", "2000-01-01") == []
    assert await positions("--category", "letter") == []
    assert json.loads(await run(dsn, "export", "--format", "cloudevents", "--after", "6")) == []


async def test_a_place_that_takes_no_file_is_wrong_use(dsn: str, tmp_path: Path) -> None:
    """Exit 2, named; nothing is left half-way."""
    assert b"cannot be written" in await run(dsn, "export", "-o", str(tmp_path / "nowhere" / "log"), code=2)
    assert list(tmp_path.iterdir()) == []


def a_line(**over: Any) -> bytes:  # noqa: ANN401 - any field
    """Return one line as an export has it; ``...`` leaves a field out."""
    fields = {
        "event_id": str(uuid4()), "stream": "note-1", "version": 0, "type": "note.taken", "source": "test",
        "occurred_at": "2026-11-24T02:00:00Z", "correlation_id": "c", "data": {"a": 1}, "metadata": {},
    } | over  # fmt: skip
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode() + b"\n"


async def test_what_contradicts_the_log_is_refused(conn: Connection, dsn: str) -> None:
    """Another event under the same id, or a stream that has moved on: exit 1, and nothing of the chunk is written."""
    first = a_line()
    assert json.loads(await run(dsn, "import", "--json", stdin=first))["appended"] == 1
    event_id = json.loads(first)["event_id"]
    for contradiction in (
        a_line(event_id=event_id, data=2),
        a_line(event_id=event_id, stream="note-2"),
        a_line(event_id=event_id, version=1),
        a_line(stream="note-3") + a_line(),
        a_line(stream="note-3") + a_line(version=2),
        a_line(stream="note-3", event_id=event_id),
    ):
        assert await run(dsn, "import", stdin=contradiction, code=1)
    twice = str(uuid4())
    assert await run(dsn, "import", stdin=a_line(version=1, event_id=twice) + a_line(version=2, event_id=twice), code=1)
    assert await conn.fetchval("SELECT count(*) FROM events") == 1

    assert json.loads(await run(dsn, "import", "--json", "--renumber", stdin=a_line(version=7)))["appended"] == 1
    assert await event_store.head_version(conn, "note-1") == 1


@pytest.mark.parametrize(
    "line",
    [
        b"[1]", b"{}", b'{"specversion":"1.0"}', a_line(stream="note"), a_line(stream="Note-1"), a_line(type=""),
        a_line(stream="note-\x00"), a_line(version=-1), a_line(version=2**70), a_line(occurred_at="2026-11-24"),
        a_line(source="\x1b"), a_line(schema_version=0), a_line(data=..., data_text="{"), a_line(type="t" * 300),
        a_line(correlation_id="c" * 600), a_line(data=..., data_text="[" * 500 + "]" * 500), a_line(subject="\ud800"),
    ],
)  # fmt: skip
async def test_nonsense_is_named(conn: Connection, pool: Pool, line: bytes) -> None:
    """Wrong use, the number of the object, and nothing is written, of the good ones before it neither."""
    async with GroupCommit(pool) as commit:
        for renumbers in (False, True):
            arrivals = Arrivals(pool, commit, is_restore=False, renumbers=renumbers)
            with pytest.raises(UserFacingError, match="object 2 of the file") as refused:
                await arrivals.take(objects(io.BytesIO(a_line() + line)))
            assert refused.value.status == 422
    assert await conn.fetchval("SELECT count(*) FROM events") == 0


async def test_whatever_the_log_holds_can_be_restored(conn: Connection, dsn: str, other_dsn: str) -> None:
    """Lidarr's download ids are any text; what a table does not take is said, and nothing of it is written."""
    strange = [a_note("1", source="\x1b[2J", subject="\n"), a_note("2", type="\t")]
    await event_store.append_many(conn, [Append("lidarr-a\nb\x7f", strange)])
    await number_all(conn)
    exported = await run(dsn, "export")
    assert json.loads(await run(other_dsn, "import", "--restore", "--json", stdin=exported))["appended"] == 2
    other = await database.connect(other_dsn, role="test")
    assert await other.fetch(ROWS) == await conn.fetch(ROWS)
    for line in (a_line(stream="note-" + "x" * 600), a_line(stream="note-\x00"), a_line(stream="Note-1")):
        assert b"file" in await run(other_dsn, "import", "--restore", stdin=line, code=2)
    assert await other.fetchval("SELECT count(*) FROM events") == 2
    await other.close()


async def test_the_largest_events_go_through(conn: Connection, dsn: str, other_dsn: str) -> None:
    """A page of them is never held at once, and comes out and in."""
    text = json.dumps("x" * 900_000)
    for number in range(12):
        await event_store.append_many(conn, [Append(f"note-{number}", [a_note(text)])])
    await number_all(conn)
    exported = await run(dsn, "export")
    assert json.loads(await run(other_dsn, "import", "--json", stdin=exported))["appended"] == 12


@pytest.mark.fault
async def test_killed_half_way_it_goes_on(
    dsn: str, conn: Connection, other_dsn: str, tmp_path: Path, scaled: Callable[[int], int]
) -> None:
    """Kill -9 in the middle: the same file again brings the rest, and nothing twice."""
    count = scaled(60_000)
    for start_ in range(0, count, 500):
        notes = [a_note(f'{{"n": {start_ + number}}}') for number in range(500)]
        await event_store.append_many(conn, [Append(f"note-{start_ % 7}", notes)])
    await number_all(conn)
    file = tmp_path / "log.jsonl"
    await run(dsn, "export", "-o", str(file))
    other = await database.connect(other_dsn, role="test")
    process = await start(other_dsn, "import", str(file))
    await eventually(lambda: other.fetchval("SELECT count(*) > 0 FROM events"), timeout=30)
    os.kill(process.pid, signal.SIGKILL)
    await process.communicate()
    there = await other.fetchval("SELECT count(*) FROM events")
    assert 0 < there < count

    done = json.loads(await run(other_dsn, "import", str(file), "--json"))
    assert (done["read"], done["appended"] >= count - there - 500) == (count, True)
    assert await other.fetch(ROWS) == await conn.fetch(ROWS)
    await other.close()
