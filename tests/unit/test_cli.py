"""The command line: every command is there, and every error is a line and a code."""

import asyncio
from pathlib import Path

import asyncpg
import click
import pytest
from click.testing import CliRunner

from kima_stream import cli
from kima_stream.cli import loop, main
from kima_stream.errors import (
    ConfigurationError,
    ConflictError,
    IntegrationError,
    NotFoundError,
    RateLimitError,
    UserFacingError,
)
from tests.polling import eventually

COMMANDS = main.list_commands(click.Context(main))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    """--help of each: the modules load, and somebody has written a sentence."""
    answer = CliRunner().invoke(main, [name, "--help"])

    assert answer.exit_code == 0
    assert answer.output.startswith(f"Usage: main {name}")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigurationError(["KIMA_PORT: bad", "KIMA_HOST: bad"]), 2, ["KIMA_PORT: bad", "KIMA_HOST: bad"]),
        (NotFoundError("There is no such key."), 1, ["There is no such key."]),
        (ConflictError("It is there already."), 1, ["It is there already."]),
        (UserFacingError("That is no time.", status=422), 2, ["That is no time."]),
        (IntegrationError("refuses", system="lidarr", retryable=False), 3, ["lidarr: refuses"]),
        (IntegrationError("does not answer", system="lidarr", retryable=True), 3, ["lidarr: does not answer"]),
        (RateLimitError(retry_after_seconds=7), 3, ["too many requests, try again in 7 s"]),
        (ConnectionRefusedError(111, "Connection refused"), 3, ["cannot be reached: [Errno 111] Connection refused"]),
        (TimeoutError(), 3, ["cannot be reached: TimeoutError"]),
        (asyncpg.CannotConnectNowError("starting up"), 3, ["Postgres cannot be reached: starting up"]),
        (asyncpg.InvalidPasswordError("no"), 3, ["Postgres refuses: no"]),
        (asyncpg.UndefinedTableError("x"), 2, ["the tables are missing: run `kima-stream migrate` first"]),
        (ExceptionGroup("tasks", [ConfigurationError(["KIMA_PORT: bad"])]), 2, ["KIMA_PORT: bad"]),
    ],
)
def test_an_error_is_one_clear_line_and_a_code(
    error: Exception, code: int, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback for what a person can mend, also out of a group of tasks."""

    @click.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(main, "get_command", lambda *_: fail)

    answer = CliRunner().invoke(main, ["fail"])

    assert answer.exit_code == code
    assert answer.stderr.splitlines() == [f"kima-stream: {line}" for line in said]
    assert answer.stdout == ""


def test_a_defect_is_not_hushed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw keeps its traceback."""

    @click.command()
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "get_command", lambda *_: fail)

    assert isinstance(CliRunner().invoke(main, ["fail"]).exception, ZeroDivisionError)


def test_a_role_alone_says_which_setting_it_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ``up`` brings servers; the others name what they need."""
    monkeypatch.setenv("KIMA_DATA_DIR", str(tmp_path))
    for name in ("KIMA_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)

    answer = CliRunner().invoke(main, ["publish"])

    assert answer.exit_code == cli.USAGE
    assert answer.stderr == f"kima-stream: KIMA_DATABASE_URL: missing, and no kima-stream runs on {tmp_path}\n"


def test_an_unreachable_database_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 3, at once."""
    monkeypatch.setenv("KIMA_DATABASE_URL", f"postgresql://kima@/kima?host={tmp_path}")

    answer = CliRunner().invoke(main, ["migrate"])

    assert answer.exit_code == cli.UNREACHABLE
    assert answer.stderr.startswith("kima-stream: Postgres cannot be reached: ")


async def test_a_role_that_fails_begins_anew_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw in one role never closes the door."""
    monkeypatch.setattr(loop, "AGAIN_SECONDS", 0)
    runs: list[int] = []
    steady = asyncio.Event()

    async def failing() -> None:
        runs.append(len(runs))
        if len(runs) > 2:
            await asyncio.Event().wait()
        raise ZeroDivisionError

    async def other() -> None:
        steady.set()
        await asyncio.Event().wait()

    async with loop.together(failing, other):
        await eventually(lambda: len(runs) == 3)
        assert steady.is_set()


async def test_a_role_that_only_a_human_can_mend_ends_all() -> None:
    """Beginning anew would not help against a wrong setting."""

    async def misconfigured() -> None:
        raise ConfigurationError(["KIMA_DATA_DIR: gone"])

    with pytest.raises(ExceptionGroup) as failed:
        async with loop.together(misconfigured):
            await asyncio.Event().wait()

    assert failed.group_contains(ConfigurationError)


async def test_a_role_that_swallows_its_cancel_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some library turns a cancel into an error of its own, now and then; the stop does not hang on it."""
    monkeypatch.setattr(loop, "CANCEL_AGAIN_SECONDS", 0.01)
    swallowed: list[int] = []

    async def stubborn() -> None:
        while len(swallowed) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(1)
        await asyncio.Event().wait()

    async with asyncio.timeout(5), loop.together(stubborn):
        await asyncio.sleep(0)

    assert len(swallowed) == 2
