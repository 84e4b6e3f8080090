"""The command line, and the composition root: it knows all and nobody knows it.

One file per noun; a command loads what it needs when it runs. Answers go to stdout, log lines to
stderr. Exit: 0 ok, 1 a check failed or it already is as you did not want it, 2 wrong use or
configuration, 3 Postgres, the server or another system cannot be reached or does not serve us.
"""

import sys
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from kima_stream.cli.failures import UNREACHABLE, USAGE, failure, told

__all__ = ["UNREACHABLE", "USAGE", "main"]

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
    "request": "request",
    "groups": "groups",
    "dead-letters": "dead_letters",
    "effects": "effects",
    "keys": "keys",
    "connect": "connect",
    "settings": "settings",
    "erase": "erase",
    "doctor": "doctor",
    "bench": "bench",
    "healthcheck": "healthcheck",
    "openapi": "documents",
    "asyncapi": "documents",
    "completion": "completion",
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
        except BaseException as error:
            raise failure(error) from error

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # noqa: ANN401 - click's signature
        """Run a command line; with ``--json`` a failure is said in JSON too, also that of a wrong option."""
        given = extra.pop("args", None) if not args else args[0]
        words = list(sys.argv[1:] if given is None else given)
        named = words[: words.index("--")] if "--" in words else words
        extra["standalone_mode"] = False
        told(lambda: super(Commands, self).main(words, *args[1:], **extra), as_json="--json" in named)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="kima-stream", message="%(prog)s %(version)s")
def main() -> None:
    """Record every webhook and request as an immutable event, and act on each exactly once."""
