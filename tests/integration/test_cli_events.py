"""``events tail`` and ``events append`` at the terminal."""

import asyncio
import json
import signal
import sys
from typing import Any
from uuid import uuid4

import pytest

from kima_stream import event_store
from kima_stream.database import Connection
from kima_stream.event_store import Append
from tests.factories import a_note, append_notes, number_all


async def start(dsn: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start ``events …`` as a person would."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kima_stream", "events", *arguments,
        env={"KIMA_DATABASE_URL": dsn, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def run(dsn: str, *arguments: str, text: str = "") -> tuple[int | None, str, str]:
    """Run ``events …`` with ``text`` on stdin; return exit code, stdout and stderr."""
    process = await start(dsn, *arguments)
    out, err = await process.communicate(text.encode())
    return process.returncode, out.decode(), err.decode()


async def append(dsn: str, *arguments: str, text: str = "") -> dict[str, Any]:
    """Append one event and return where it stands."""
    code, out, err = await run(dsn, "append", *arguments, "--json", text=text)
    assert code == 0, err
    stands: dict[str, Any] = json.loads(out)
    return stands


async def test_what_is_appended_is_in_the_log(dsn: str, conn: Connection) -> None:
    """From the argument and from stdin, byte for byte, with cause and correlation."""
    first = await append(dsn, "order-1", '{ "a" : 1.0 }', "--type", "order.placed")
    second = await append(
        dsn, "order-1", "--type", "order.paid", "--correlation-id", "c", "--causation-id", first["event_id"],
        text='{"b":\n2}\n',
    )  # fmt: skip
    assert [first["version"], second["version"]] == [0, 1]

    one, two = await event_store.read_stream(conn, "order-1")
    assert (one.type, one.data, one.source) == ("order.placed", '{ "a" : 1.0 }', "kima-stream")
    assert (two.type, two.data, two.correlation_id) == ("order.paid", '{"b":\n2}\n', "c")
    assert two.causation_id == one.event_id
    code, out, _ = await run(dsn, "append", "order-1", "1", "--type", "t")
    assert (code, out.split()[0]) == (0, "order-1@2")


async def test_a_version_can_be_expected(dsn: str, conn: Connection) -> None:
    """Exit 1 when the stream is elsewhere, and nothing is written."""
    for version, code in ((0, 1), (-1, 0), (-1, 1), (0, 0)):
        arguments = ("append", "order-1", "1", "--type", "t", "--expected-version", str(version))
        assert (await run(dsn, *arguments))[0] == code
    assert await event_store.head_version(conn, "order-1") == 1


async def test_appended_twice_is_once(dsn: str) -> None:
    """With an id of its own; with other data it is a conflict."""
    arguments = ("append", "order-1", "1", "--type", "t", "--id", str(uuid4()))
    first = await append(dsn, *arguments[1:])
    assert await append(dsn, *arguments[1:]) == first | {"duplicate": True}
    code, _, err = await run(dsn, "append", "order-1", "2", *arguments[3:])
    assert (code, "is in the log" in err) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [("order-1", "{"), ("order-1", "-"), ("order", "1"), ("download_job-1", "1"), ("order-1", "1", "--type", "")],
)
async def test_wrong_use_is_said_so(dsn: str, conn: Connection, arguments: tuple[str, ...]) -> None:
    """Exit 2 with a line that helps; nothing is written."""
    code, out, err = await run(dsn, "append", "--type", "t", *arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err
    assert await conn.fetchval("SELECT count(*) FROM events") == 0


async def test_without_postgres_is_3() -> None:
    """As everywhere."""
    for arguments in (("tail",), ("append", "order-1", "1", "--type", "t")):
        assert (await run("postgresql://127.0.0.1:1/none", *arguments))[0] == 3


async def test_the_newest_come_last(dsn: str, conn: Connection) -> None:
    """As many as asked for, filtered, one a line; nothing that others sent steers the terminal."""
    await append_notes(conn, streams=1, each=12)
    await event_store.append_many(conn, [Append("letter-1\x1b[2J", [a_note('{\r\n"a": 1}')])])
    await number_all(conn)

    code, out, _ = await run(dsn, "tail", "-n", "3")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["11", "12", "13"]
    assert "letter-1\\x1b[2J@0" in out
    _, out, _ = await run(dsn, "tail", "--category", "note", "--json")
    assert [json.loads(line)["position"] for line in out.splitlines()] == list(range(3, 13))
    _, out, _ = await run(dsn, "tail", "--type", "nothing")
    assert out == ""


async def test_following_shows_what_comes(dsn: str, conn: Connection) -> None:
    """Each event once, in order, until Ctrl-C, which is no error."""
    await append_notes(conn, streams=1, each=3)
    await number_all(conn)
    process = await start(dsn, "tail", "-f", "-n", "2", "--json", "--category", "note")
    assert process.stdout is not None
    seen = [json.loads(await process.stdout.readline())["position"] for _ in range(2)]
    for _ in range(3):
        await append_notes(conn, streams=1, each=2)
        await event_store.append_many(conn, [Append("letter-1", [a_note()])])
        await number_all(conn)
        seen += [json.loads(await process.stdout.readline())["position"] for _ in range(2)]
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    assert seen == [2, 3, 4, 5, 7, 8, 10, 11]


async def test_who_has_seen_enough_may_leave(dsn: str, conn: Connection) -> None:
    """``events tail | head -1`` ends without complaint."""
    await append_notes(conn, streams=1, each=500)
    await number_all(conn)
    process = await asyncio.create_subprocess_shell(
        f"set -o pipefail; {sys.executable} -m kima_stream events tail -n 500 --json | head -1",
        executable="/bin/bash", env={"KIMA_DATABASE_URL": dsn},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["type"] == "note.taken"
