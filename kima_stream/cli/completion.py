"""``completion``: teach a shell the names of commands, options, projections and consumer groups.

The scripts are click's. They ask the program itself on every Tab, so they never grow old, and
nothing they ask for needs a database.
"""

from typing import Final

import click
import msgspec
from click.shell_completion import CompletionItem, get_completion_class

PROGRAM: Final = "kima-stream"
VARIABLE: Final = "_KIMA_STREAM_COMPLETE"  # what click derives from the program's name
INSTALL: Final = {
    "bash": "kima-stream completion bash > ~/.local/share/bash-completion/completions/kima-stream",
    "zsh": 'kima-stream completion zsh > "${fpath[1]}/_kima-stream"',
    "fish": "kima-stream completion fish > ~/.config/fish/completions/kima-stream.fish",
}


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A shell's script, and the command that installs it for good."""

    shell: str
    install: str
    script: str


_HOW: Final = "\n".join(
    (
        "\b",  # click: leave the lines as they are
        'Now, in bash: eval "$(kima-stream completion bash)"',
        "To keep it:",
        *(f"  {command}" for command in INSTALL.values()),
    )
)


@click.command(epilog=_HOW)
@click.argument("shell", type=click.Choice(sorted(INSTALL)))
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON: the script, and how to install it.")
def completion(*, shell: str, as_json: bool) -> None:
    """Print the script that makes SHELL complete kima-stream's commands and names."""
    found = Completion(shell=shell, install=INSTALL[shell], script=script(shell))
    click.echo(msgspec.json.encode(found) if as_json else found.script)


def script(shell: str) -> str:
    """Return the script for ``shell``; its last line says how to install it."""
    complete = get_completion_class(shell)
    if complete is None:
        raise click.BadParameter(f"click completes no {shell}")
    from kima_stream.cli import main

    source = complete(main, {}, PROGRAM, VARIABLE).source().strip()
    return f"{source}\n\n# To keep it: {INSTALL[shell]}"


def complete_group(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    param: click.Parameter,  # noqa: ARG001 - as above
    incomplete: str,
) -> list[CompletionItem[str]]:
    """Return the consumer groups whose names begin with ``incomplete``."""
    from kima_stream.cli import parts

    return [CompletionItem(group.name) for group in parts.consumer_groups() if group.name.startswith(incomplete)]
