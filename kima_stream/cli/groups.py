"""``groups``: how far each consumer group has come."""

import click
import msgspec
from rich.text import Text

from kima_stream import checkpoints
from kima_stream.checkpoints import GroupStatus
from kima_stream.cli import tables
from kima_stream.cli.database import with_connection
from kima_stream.database import Connection

COLUMNS = ("group", "category", "verified", "head", "lag", "age", "retrying", "parked", "state")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def groups(*, as_json: bool) -> None:
    """Show every consumer group: verified position, lag, parked streams. Exit 1 when one has stopped."""

    async def read(conn: Connection) -> list[GroupStatus]:
        return await checkpoints.status(conn)

    found = with_connection(read)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif not found:
        click.echo("no group has run yet; start one with `kima-stream consume`")
    else:
        tables.show(COLUMNS, (_row(group) for group in found))
    if any(group.stopped for group in found):
        raise SystemExit(1)


def _row(group: GroupStatus) -> tuple[object, ...]:
    return (
        group.name,
        group.category,
        group.verified_position,
        group.head_position,
        group.lag_events,
        f"{group.lag_seconds:.1f} s",
        group.retrying_streams,
        group.parked_streams,
        Text("stopped", "red") if group.stopped else "runs",
    )
