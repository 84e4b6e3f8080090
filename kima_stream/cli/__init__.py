"""The command line, and the composition root: it knows all and nobody knows it.

One file per noun; a command loads what it needs when it runs. Answers go to stdout, log lines to
stderr. Exit: 0 ok, 1 a check failed or it already is as you did not want it, 2 wrong use or
configuration, 3 Postgres, the server or another system cannot be reached or does not serve us.
"""

import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from kima_stream.errors import ConfigurationError, IntegrationError, KimaStreamError, RateLimitError, UserFacingError

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3

# Command: the module of this package that has it, under its own name with underscores.
_COMMANDS: Final = {
    "up": "up",
    "demo": "demo",
    "serve": "roles",
    "publish": "roles",
    "consume": "roles",
    "reconcile": "roles",
    "migrate": "migrate",
    "events": "events",
    "trace": "trace",
    "replay": "audit",
    "verify": "audit",
    "state": "audit",
    "groups": "groups",
    "dead-letters": "dead_letters",
    "effects": "effects",
    "keys": "keys",
    "connect": "connect",
    "settings": "settings",
    "erase": "erase",
    "doctor": "doctor",
    "healthcheck": "healthcheck",
}


class Commands(click.Group):
    """Finds a command's module when it is asked for, and says errors in one clear line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of first need."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import the module that has the command."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"kima_stream.cli.{_COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        if not isinstance(command, click.Command):
            message = f"{module.__name__} has no command {cmd_name}"
            raise TypeError(message)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; whatever we raise on purpose becomes a line and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - sorted below; a defect is raised again
            _fail(_first(error))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="kima-stream", message="%(prog)s %(version)s")
def main() -> None:
    """Record every webhook and request as an immutable event, and act on each exactly once."""


def _first(error: BaseException) -> BaseException:
    """Return what a group of tasks failed of."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _fail(error: BaseException) -> NoReturn:
    import asyncpg
    import psycopg

    match error:
        case ConfigurationError():
            code, lines = USAGE, list(error.faults)
        case UserFacingError(status=400 | 415 | 422):
            code, lines = USAGE, [str(error)]
        case IntegrationError() | RateLimitError():
            code, lines = UNREACHABLE, [str(error)]
        case KimaStreamError():
            code, lines = FAILED, [str(error)]
        case psycopg.OperationalError() | asyncpg.PostgresConnectionError() | asyncpg.CannotConnectNowError():
            code, lines = UNREACHABLE, [f"Postgres cannot be reached: {_line(error)}"]
        case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
            code, lines = UNREACHABLE, [f"Postgres refuses: {_line(error)}"]
        case asyncpg.UndefinedTableError():
            code, lines = USAGE, ["the tables are missing: run `kima-stream migrate` first"]
        case OSError() | TimeoutError():
            code, lines = UNREACHABLE, [f"cannot be reached: {_line(error)}"]
        case _:
            raise error
    for line in lines:
        click.echo(f"kima-stream: {line}", err=True)
    sys.exit(code)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
