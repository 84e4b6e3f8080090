"""How a command fails: one clear line each on stderr, an exit code, and with ``--json`` an object on stdout.

So whoever reads stdout of ``--json`` finds JSON there, whatever happened.
"""

import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Final, Literal, NoReturn

import click
import msgspec

from kima_stream.errors import ConfigurationError, IntegrationError, KimaStreamError, RateLimitError, UserFacingError

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3

_KINDS: Final[dict[int, Literal["failed", "usage", "unreachable"]]] = {
    FAILED: "failed",
    USAGE: "usage",
    UNREACHABLE: "unreachable",
}


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Why a command ended; ``messages`` are what stderr says."""

    exit_code: int
    kind: Literal["failed", "usage", "unreachable"]
    messages: Sequence[str]


class Failure(click.ClickException):
    """What we raise on purpose, on its way to the terminal: a check failed, or it is not as you wanted it."""

    exit_code = FAILED

    def __init__(self, *messages: str) -> None:
        """Keep one message per line."""
        super().__init__("; ".join(messages))
        self.messages = messages

    def show(self, file: IO[str] | None = None) -> None:
        """Say each line."""
        for line in self.messages:
            click.echo(f"kima-stream: {line}", file=file, err=file is None)


class Misuse(Failure):
    """Wrong use or configuration."""

    exit_code = USAGE


class Unreachable(Failure):
    """Postgres, the server or another system does not answer, or does not serve us."""

    exit_code = UNREACHABLE


def failure(error: BaseException) -> Failure:
    """Return what ``error``, or the first of a group of tasks, is at the terminal.

    Raises:
        SystemExit: it is no failure: nobody reads our output any more.
        BaseException: it is a defect; it keeps its traceback.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, BrokenPipeError) and _reader_has_gone():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
        raise SystemExit(0)
    found = _ours(error) if isinstance(error, KimaStreamError) else _outside(error)
    if found is None:
        raise error
    return found


def _ours(error: KimaStreamError) -> Failure:
    match error:
        case ConfigurationError():
            return Misuse(*error.faults)
        case UserFacingError(status=400 | 415 | 422):
            return Misuse(str(error))
        case IntegrationError() | RateLimitError():
            return Unreachable(str(error))
        case _:
            return Failure(str(error))


def _outside(error: BaseException) -> Failure | None:
    import asyncpg
    import psycopg

    match error:
        case psycopg.OperationalError() | asyncpg.PostgresConnectionError() | asyncpg.CannotConnectNowError():
            return Unreachable(f"Postgres cannot be reached: {_line(error)}")
        case (
            asyncpg.InvalidAuthorizationSpecificationError()
            | asyncpg.InvalidCatalogNameError()
            | asyncpg.ObjectNotInPrerequisiteStateError()
        ):
            return Unreachable(f"Postgres refuses: {_line(error)}")
        case asyncpg.UndefinedTableError():
            return Misuse("the tables are missing: run `kima-stream migrate` first")
        case OSError() | TimeoutError():
            return Unreachable(f"cannot be reached: {_line(error)}")
        case _:
            return None


def told(run: Callable[[], object], *, as_json: bool) -> NoReturn:
    """Run a command line to its end; say what it failed of, on stdout too when JSON was asked for."""
    try:
        outcome = run()  # click's own exit code, e.g. of --help
        sys.exit(outcome if isinstance(outcome, int) else 0)
    except click.Abort:
        message = "stopped before it was done"
        click.echo(f"kima-stream: {message}", err=True)
        _say_json([message], FAILED, as_json=as_json)
    except click.ClickException as error:
        error.show()
        messages = error.messages if isinstance(error, Failure) else [error.format_message()]
        _say_json(messages, error.exit_code, as_json=as_json)


def _say_json(messages: Sequence[str], exit_code: int, *, as_json: bool) -> NoReturn:
    if as_json:
        failed = Failed(exit_code=exit_code, kind=_KINDS.get(exit_code, "failed"), messages=messages)
        click.echo(msgspec.json.encode({"error": failed}))
    sys.exit(exit_code)


def _reader_has_gone() -> bool:
    """Return whether whoever read our output has seen enough, as in ``kima-stream … | head``."""
    with suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
