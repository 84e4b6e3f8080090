"""``trace``: what led to what, as a tree."""

from typing import Final

import click
import msgspec
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from kima_stream.cli.database import with_connection
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.http import trace as traces
from kima_stream.http.trace import Trace, Traced

ANY_WIDTH: Final = 10_000
MAX_DEPTH: Final = 24  # deeper ones stand side by side at this depth: a terminal is not wider


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def trace(*, id_: str, as_json: bool) -> None:
    """Show the causes and effects of an event id, or of all events of a correlation id."""

    async def work(conn: Connection) -> Trace:
        return await traces.trace(conn, id_)

    found = with_connection(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    console = Console(width=ANY_WIDTH)  # a terminal folds by itself; an id that was cut off cannot be asked for
    for tree in _trees(found):
        console.print(tree)
    if found.truncated:
        click.echo(f"… only the first {len(found.events)} events are shown", err=True)


def _trees(found: Trace) -> list[Tree]:
    trees: list[Tree] = []
    path: list[Tree] = []
    for event in found.events:
        del path[min(event.depth, MAX_DEPTH) :]
        line = _line(event, is_asked=str(event.event_id) == found.id.lower())
        node = path[-1].add(line) if path else Tree(line)
        if not path:
            trees.append(node)
        path.append(node)
    return trees


def _line(event: Traced, *, is_asked: bool) -> Text:
    """Return time, type, stream@version, and the id: what one needs to go on asking."""
    return Text.assemble(
        (event.occurred_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "dim"),
        " ",
        (plain(event.type), "bold reverse" if is_asked else "bold"),
        f" {plain(event.stream)}@{event.version} ",
        (str(event.event_id), "dim"),
    )
