"""Every command there is, also one that somebody adds later: ``--json``, its success, its errors, its exit codes.

The tree is walked, so a new command is tried by being there: with the arguments of ``EXAMPLES`` if it
needs some that mean something, else with some of the right type.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import click
import pytest
from click.testing import CliRunner, Result

from kima_stream import database, event_store
from kima_stream.cli import main, parts
from kima_stream.event_store import Append
from kima_stream.settings import api_keys
from tests import processes
from tests.factories import a_note, number_all
from tests.front_door import ROOT
from tests.polling import eventually

NOWHERE = "postgresql://kima@127.0.0.1:1/none"
STAYING = {("up",), ("serve",), ("publish",), ("consume",), ("reconcile",)}  # they say a line and stay
ELSEWHERE = {("demo",), ("bench",)}  # their success has tests of its own: test_demo.py, test_bench.py
NEEDS_NOTHING = {("demo",), ("bench",), ("openapi",), ("asyncapi",), ("completion",)}  # no Postgres to be away
NOTE, KEY = uuid4(), uuid4()


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that does something, by the words that call it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None, name
        yield from leaves(child, (*path, name))


COMMANDS = dict(leaves(main))
EACH = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)

EXAMPLES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("completion",): ("bash",),
    ("consume",): (),
    ("dead-letters", "discard"): ("scribe", "note-2", "--yes"),
    ("dead-letters", "revive"): ("scribe", "note-1"),
    ("dead-letters", "show"): ("scribe", "note-1"),
    ("events", "append"): ("letter-1", "1", "--type", "letter.written"),
    ("events", "show"): (str(NOTE),),
    ("keys", "create"): ("--name", "walker"),
    ("reconcile",): ("--once",),
    ("request",): ("The Harbour Lights", "Tidewater", "--no-wait"),
    ("replay",): ("download_jobs",),
    ("settings", "get"): ("lidarrUrl",),
    ("settings", "rotate-key"): (),
    ("settings", "set"): ("lidarrUrl=http://lidarr:8686",),
    ("state",): ("download_jobs", str(NOTE)),
    ("trace",): (str(NOTE),),
}
WITHOUT = {
    ("events", "list"), ("events", "tail"), ("events", "export"), ("events", "import"), ("groups",), ("keys", "list"),
    ("dead-letters", "list"), ("verify",), ("migrate",), ("openapi",), ("asyncapi",),
}  # fmt: skip
EXPECTED: Mapping[tuple[str, ...], int] = {("state",): 1}  # nobody wanted an album of this id


def of_its_type(parameter: click.Parameter) -> str:
    """Return a value that the parameter takes."""
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return str(next(iter(kind.choices)))
    if isinstance(kind, click.types.UUIDParameterType):
        return str(uuid4())
    if isinstance(kind, click.IntRange):
        return str(kind.min or 1)
    return "1" if kind is click.INT else "note-1"


def arguments(path: tuple[str, ...]) -> list[str]:
    """Return the command line of one command, with ``--json``."""
    if path in EXAMPLES:
        return [*path, *EXAMPLES[path], "--json"]
    words = [*path, "--json"]
    for parameter in COMMANDS[path].params:
        if parameter.required and isinstance(parameter, click.Option):
            words += [parameter.opts[0], of_its_type(parameter)]
        elif parameter.required:
            words.append(of_its_type(parameter))
    return words


def documents(text: str) -> list[Any]:
    """Return the JSON in ``text``: one document, or one per line."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def invoke(words: list[str], **environment: str) -> Result:
    """Run one command line in this process; a defect is raised."""
    answer = CliRunner().invoke(main, words, env={"KIMA_LOG_LEVEL": "error", "KIMA_SECRET_KEY": ROOT, **environment})
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    return answer


def assert_failed(answer: Result, code: int, kind: str) -> None:
    """Check that a failure is said to people on stderr and to programs on stdout."""
    assert answer.exit_code == code, answer.output
    (document,) = documents(answer.stdout)
    error = document["error"]
    assert (error["exit_code"], error["kind"]) == (code, kind)
    assert all(error["messages"])
    assert answer.stderr.strip()


@EACH
def test_json_is_everywhere(path: tuple[str, ...]) -> None:
    """Each has the option, and says what it does in a sentence; so has its help."""
    command = COMMANDS[path]
    assert "--json" in {word for parameter in command.params for word in parameter.opts}
    assert (command.help or "").strip()
    answer = CliRunner().invoke(main, [*path, "--help"])
    assert answer.exit_code == 0
    assert "--json" in answer.output


@EACH
def test_wrong_use_is_2_and_json(path: tuple[str, ...]) -> None:
    """An option that is not there, and a setting that is wrong; both without doing anything."""
    assert_failed(invoke([*path, "--json", "--no-such-option"]), 2, "usage")
    if path not in NEEDS_NOTHING:
        assert_failed(invoke(arguments(path), KIMA_PORT="none", KIMA_DATABASE_URL=NOWHERE), 2, "usage")


@EACH
def test_unreachable_is_3_and_json(path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Postgres, no door: one line, one object, exit 3, at once."""
    if path in NEEDS_NOTHING:
        pytest.skip("asks nobody")
    monkeypatch.setattr(parts, "AWAIT_SECONDS", 0.0)
    answer = invoke(
        arguments(path), KIMA_DATABASE_URL=NOWHERE, KIMA_REDIS_URL="redis://127.0.0.1:1/0", KIMA_PORT="1",
        KIMA_DATA_DIR=str(tmp_path),
    )  # fmt: skip
    is_made_up = path not in EXAMPLES and len(arguments(path)) > len(path) + 1
    if is_made_up and answer.exit_code == 2:
        assert_failed(answer, 2, "usage")  # it saw that what we made up means nothing
    elif path == ("doctor",):
        assert answer.exit_code == 3
        assert json.loads(answer.stdout)["postgres_reachable"] is False
    else:
        assert_failed(answer, 3, "unreachable")


async def _prepare(dsn: str) -> UUID:
    """Write an event, a key and two streams that a group holds back; return the key's id."""
    conn = await database.connect(dsn, role="test")
    await event_store.append_many(conn, [Append("note-1", [a_note('{\n"a": 1}', event_id=NOTE)])])
    await number_all(conn)
    for number in (1, 2):
        await conn.execute(
            """INSERT INTO dead_letters (group_name, stream, version, status, attempts, error_type, error,
                                         first_failed_at, last_failed_at, next_attempt_at, parked_at)
               VALUES ('scribe', $1, 0, 'parked', 5, 'ValueError', 'poison', now(), now(), now(), now())""",
            f"note-{number}",
        )
    _, key = await api_keys.create(conn, name="somebody", role="user")
    await conn.close()
    return key.key_id


@EACH
def test_success_is_json(path: tuple[str, ...], dsn: str, tmp_path: Path) -> None:
    """On a system with something in it: JSON on stdout and nothing else, and an exit code that is documented."""
    if path in ELSEWHERE or (path in STAYING and path != ("reconcile",)):
        pytest.skip("see the other tests")
    key_id = asyncio.run(_prepare(dsn))
    words = [*path, str(key_id), "--json"] if path == ("keys", "revoke") else arguments(path)
    answer = invoke(words, KIMA_DATABASE_URL=dsn, KIMA_PORT="1", KIMA_DATA_DIR=str(tmp_path))

    assert documents(answer.stdout)
    assert answer.exit_code in {0, 1, 2, 3}
    if path in EXAMPLES or path in WITHOUT:
        assert answer.exit_code == EXPECTED.get(path, 0), answer.output


@pytest.fixture
def house(dsn: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a role."""
    return {
        "KIMA_DATABASE_URL": dsn, "KIMA_REDIS_URL": redis_url, "KIMA_PORT": "0",
        "KIMA_DATA_DIR": str(tmp_path / "data"),
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted(STAYING), ids=" ".join)
async def test_what_stays_says_a_line_first(path: tuple[str, ...], house: dict[str, str], tmp_path: Path) -> None:
    """One line of JSON once it runs, with its process id; then nothing on stdout; Ctrl-C is no error."""
    async with processes.running(house, tmp_path / "log", *path) as role:
        assert role.said["pid"] == role.process.pid
        role.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert role.process.stdout is not None
            assert await role.process.stdout.read() == b""
            assert await role.process.wait() == 0


async def test_whoever_has_read_enough_may_leave(dsn: str) -> None:
    """``kima-stream … | head -1`` ends without complaint, also when there is more than a pipe holds."""
    conn = await database.connect(dsn, role="test")
    await event_store.append_many(conn, [Append("note-1", [a_note(json.dumps("x" * 1_000)) for _ in range(500)])])
    await conn.close()
    process = await asyncio.create_subprocess_shell(
        f"set -o pipefail; {sys.executable} -m kima_stream events list --stream note-1 --limit 500 --json | head -c 1",
        executable="/bin/bash", env={"KIMA_DATABASE_URL": dsn},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"{", b"")


def test_the_walk_finds_what_is_there() -> None:
    """Commands and subcommands; the examples name only such as exist."""
    assert {("up",), ("events", "append"), ("dead-letters", "discard"), ("keys", "revoke")} <= COMMANDS.keys()
    assert COMMANDS.keys() >= {*EXAMPLES, *WITHOUT, *STAYING, *ELSEWHERE, *NEEDS_NOTHING}


HEALTHCHECKED: Mapping[str, Callable[[int], dict[str, str]]] = {
    "serve": lambda port: {"KIMA_PORT": str(port)},
    "publish": lambda port: {"KIMA_METRICS_PORT": str(port)},
    "consume": lambda port: {"KIMA_METRICS_PORT": str(port)},
    "reconcile": lambda port: {"KIMA_METRICS_PORT": str(port)},
    "up": lambda port: {"KIMA_PORT": str(port)},
}


async def healthcheck(environment: Mapping[str, str]) -> tuple[int | None, Any]:
    """Ask as a container's health check does."""
    code, said = await processes.asked(environment, "healthcheck", "--json")
    return code, json.loads(said)


@pytest.mark.parametrize("role", HEALTHCHECKED)
async def test_healthcheck_asks_the_role_beside_it(
    role: str, house: dict[str, str], tmp_path: Path, unused_tcp_port: int
) -> None:
    """With the environment of its container: ready is 0, and 3 once the role has gone."""
    house |= HEALTHCHECKED[role](unused_tcp_port)
    async with processes.running(house, tmp_path / "log", role) as running:
        if role != "up":
            assert running.url == f"http://127.0.0.1:{unused_tcp_port}"
        code, said = await healthcheck(house)
        assert (code, said["checks"]["postgres"]["status"]) == (0, "ok")
    code, said = await healthcheck(house)
    assert (code, said["error"]["kind"]) == (3, "unreachable")


async def test_healthcheck_is_1_when_postgres_takes_nobody(
    house: dict[str, str], tmp_path: Path, unused_tcp_port: int, dsn: str
) -> None:
    """As during a restore: the process lives but can take nothing, and it says so part by part."""
    house["KIMA_PORT"] = str(unused_tcp_port)
    name = urlsplit(dsn).path.removeprefix("/")
    administrator = await database.connect(dsn.replace(name, "postgres"), role="test")

    async def is_unready() -> bool:
        code, said = await healthcheck(house)
        return code == 1 and said["checks"]["postgres"]["status"] == "unavailable"

    async with processes.running(house, tmp_path / "log", "serve"):
        await administrator.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await administrator.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        await eventually(is_unready, timeout=20)
    await administrator.close()
