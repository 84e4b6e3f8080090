"""``dead-letters``: what the consumer groups could not handle, and what to do with it."""

import click
import msgspec

from kima_stream import dead_letters as letters
from kima_stream.cli import tables
from kima_stream.cli.completion import complete_group
from kima_stream.cli.database import with_connection
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.dead_letters import DeadLetter
from kima_stream.errors import NotFoundError

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group(name="dead-letters")
def dead_letters() -> None:
    """See and settle what a group could not handle."""


@dead_letters.command(name="list")
@click.option("--group", "group_name", shell_complete=complete_group, help="Only this consumer group's.")
@click.option("--status", type=click.Choice(["retrying", "parked", "discarded"]))
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@AS_JSON
def list_letters(*, group_name: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """List them, the latest failure first."""

    async def read(conn: Connection) -> list[DeadLetter]:
        return await letters.find(conn, group_name=group_name, status=status, limit=limit)

    found = with_connection(read)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    if not found:
        click.echo("nothing is held back")
        return
    tables.show(
        ("group", "stream", "version", "status", "attempts", "error"),
        (
            (letter.group_name, letter.stream, letter.version, letter.status, letter.attempts,
             f"{letter.error_type}: {letter.error}")
            for letter in found
        ),
    )  # fmt: skip


@dead_letters.command(name="show")
@click.argument("group_name", metavar="GROUP", shell_complete=complete_group)
@click.argument("stream")
@AS_JSON
def show_letters(*, group_name: str, stream: str, as_json: bool) -> None:
    """Show all of one stream of one group. Exit 1 when there is none."""

    async def read(conn: Connection) -> list[DeadLetter]:
        return await letters.find(conn, group_name=group_name, stream=stream)

    found = with_connection(read)
    if not found:
        raise NotFoundError(f"{plain(stream)} is not held back for {plain(group_name)}")
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    for letter in found:
        for name, value in msgspec.structs.asdict(letter).items():
            click.echo(f"{name:<16} {'' if value is None else plain(str(value))}")


@dead_letters.command()
@click.argument("group_name", metavar="GROUP", shell_complete=complete_group)
@click.argument("stream", required=False)
@click.option("--all", "every", is_flag=True, help="All parked streams of the group.")
@AS_JSON
def revive(*, group_name: str, stream: str | None, every: bool, as_json: bool) -> None:
    """Let a parked STREAM be handled again from where it stopped, in order, within a second."""
    if (stream is None) != every:
        message = "name a STREAM, or say --all"
        raise click.UsageError(message)

    async def write(conn: Connection) -> list[str]:
        return await letters.revive(conn, group_name, stream)

    revived = with_connection(write)
    click.echo(
        msgspec.json.encode({"revived": revived}) if as_json else "\n".join(revived) or "nothing is parked there"
    )
    if not revived:
        raise SystemExit(1)


@dead_letters.command()
@click.argument("group_name", metavar="GROUP", shell_complete=complete_group)
@click.argument("stream")
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
def discard(*, group_name: str, stream: str, yes: bool, as_json: bool) -> None:
    """Give up, for ever, the event at which STREAM waits; a replay steps over it too."""
    if not yes:
        click.confirm(f"Step over the next event of {stream} for {group_name}, for ever?", abort=True, err=True)

    async def write(conn: Connection) -> int | None:
        return await letters.discard(conn, group_name, stream)

    version = with_connection(write)
    if version is None:
        raise NotFoundError(f"{plain(stream)} is not held back for {plain(group_name)}")
    click.echo(
        msgspec.json.encode({"stream": stream, "version": version}) if as_json else f"discarded version {version}"
    )
