"""Tables at the terminal: fitted to its width, and complete wherever else they go.

An id or a stream's name that was cut off cannot be copied into the next command, so nothing is
ever cut: a narrow terminal folds it, and a file or a pipe gets lines as long as they need be.
"""

from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kima_stream.cli.text import plain

_ANY_WIDTH = 1_000_000


def show(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print ``rows`` under the names of ``columns``.

    A cell is a ``Text`` of ours, or anything else for its ``str``; None is blank. Whatever others
    sent is shown as it is: no markup in it colours, no control character moves the cursor.
    """
    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=not console.is_terminal)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if console.is_terminal:
        console.print(table)
        return
    needed = Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table).maximum
    wide = Console(width=needed)
    with wide.capture() as captured:
        wide.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    return Text("" if value is None else plain(str(value)))
