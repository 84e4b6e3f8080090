"""``events export`` and ``events import``: the log out and in again, byte for byte.

Lines are for us: whatever an event has, one a line, to be restored elsewhere. CloudEvents are for
others: an array that ``POST /api/events`` takes as it stands, 1,000 at a time.
"""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal

import click
import msgspec

from kima_stream import audit
from kima_stream.cli import parts
from kima_stream.cli.arrivals import Arrivals, Imported
from kima_stream.cli.audit import PositionOrTime
from kima_stream.cli.database import with_connection
from kima_stream.cli.json_objects import objects
from kima_stream.cli.loop import run, settings
from kima_stream.database import Connection
from kima_stream.errors import ConfigurationError
from kima_stream.events import RecordedEvent
from kima_stream.group_commit import GroupCommit
from kima_stream.http import cloudevents, kept_cloudevents
from kima_stream.http.event_views import Filter, Numbered, read_head, read_log

_FORMATS: Final = click.Choice(["lines", "cloudevents"])


class Exported(msgspec.Struct, kw_only=True):
    """What was written; ``head`` is the position up to which the log was looked through: go on after it."""

    events: int = 0
    head: int = 0


@click.command(name="export")
@click.option("--stream", help="Of one stream.")
@click.option("--category", help="Of one category.")
@click.option("--type", "type_", help="Of one type.")
@click.option("--correlation-id", help="Of one correlation.")
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Beyond this position.")
@click.option("--to", "last", type=PositionOrTime(), help="Up to this position or time; the head if left out.")
@click.option("--format", "form", type=_FORMATS, default="lines", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; stdout if left out.")
@click.option("--json", "as_json", is_flag=True, help="Say in JSON what went into --output; the export is JSON anyway.")
def export_events(
    *,
    after: int,
    last: int | datetime | None,
    form: Literal["lines", "cloudevents"],
    output: Path | None,
    as_json: bool,
    type_: str | None,
    **which: str | None,
) -> None:
    """Write events by position, with their data as it was received.

    What has no position yet comes with the next export, --after the head of this one.
    """

    async def work(conn: Connection) -> Exported:
        up_to = await audit.position_at(conn, last) if isinstance(last, datetime) else last
        with _written(output) as file:
            return await _export(conn, Filter(type=type_, **which), file, after=after, up_to=up_to, form=form)

    done = with_connection(work)
    if output is not None:
        said = f"{done.events} events up to position {done.head} are in {output}"
        click.echo(msgspec.json.encode(done) if as_json else said)


@click.command(name="import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--restore", is_flag=True, help="Also streams of our own: into a log that no role works on.")
@click.option("--renumber", is_flag=True, help="Take the next versions of each stream instead of those in FILE.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def import_events(*, file: BinaryIO, restore: bool, renumber: bool, as_json: bool) -> None:
    """Append the events in FILE, or on stdin: lines of an export, or CloudEvents, one a line or in an array.

    What is in the log already is left alone, so the same file may be imported again, also after a
    crash half-way. Exit 1 when an event is there with other data, or its stream at another version.
    """
    done = run(_import(file, is_restore=restore, renumbers=renumber))
    said = f"{done.appended} of {done.read} events appended, {done.duplicates} were there before"
    click.echo(msgspec.json.encode(done) if as_json else said)


async def _import(file: BinaryIO, *, is_restore: bool, renumbers: bool) -> Imported:
    dsn = parts.database_url(settings())
    async with parts.pool(dsn, "cli", max_size=4) as pool, GroupCommit(pool) as commit:
        async with pool.acquire() as conn:
            await read_head(conn)  # before the file is waited for: is there a log?
        return await Arrivals(pool, commit, is_restore=is_restore, renumbers=renumbers).take(objects(file))


async def _export(
    conn: Connection, which: Filter, file: BinaryIO, *, after: int, up_to: int | None,
    form: Literal["lines", "cloudevents"],
) -> Exported:  # fmt: skip
    head = await read_head(conn)
    done = Exported(head=head if up_to is None else min(head, up_to))
    write, first, between, last = _line, b"", b"", b""
    if form == "cloudevents":
        write, first, between, last = _cloudevent, b"[\n", b",\n", b"\n]\n"
    file.write(first)
    async for event in _read(conn, which, after=after, up_to=done.head):
        file.write((between if done.events else b"") + write(event))
        done.events += 1
    file.write(last)
    return done


async def _read(conn: Connection, which: Filter, *, after: int, up_to: int) -> AsyncIterator[Numbered]:
    while events := await read_log(conn, which, after=after, up_to=up_to):
        for event in events:
            yield event
        after = events[-1].position


def _line(event: Numbered) -> bytes:
    """Return ``event`` on one line; JSON with line ends of its own goes as a text, or it would not be the same."""
    values = msgspec.structs.asdict(event)
    for name in ("data", "metadata"):
        text = bytes(values[name])
        if b"\n" in text or b"\r" in text:
            del values[name]
            values[f"{name}_text"] = text.decode()
    return msgspec.json.encode(values) + b"\n"


def _cloudevent(event: Numbered) -> bytes:
    """Return ``event`` as the CloudEvent that it was sent as, or would have been."""
    shared = {name: getattr(event, name) for name in RecordedEvent.__struct_fields__}
    texts = {name: bytes(shared[name]).decode() for name in ("data", "metadata")}
    return cloudevents.to_structured(kept_cloudevents.from_recorded(RecordedEvent(**shared | texts)))


@contextmanager
def _written(output: Path | None) -> Iterator[BinaryIO]:
    """Yield what to write to; a file gets its name only when it is complete."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    half = output.with_name(f"{output.name}.part")
    try:
        opened = half.open("wb")
    except OSError as error:
        raise ConfigurationError([f"{output} cannot be written: {error.strerror}"]) from None
    with opened as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    half.replace(output)
