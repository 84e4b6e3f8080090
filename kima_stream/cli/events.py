"""``events``: read the log at the terminal, follow it, and write to it."""

import sys
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar
from uuid import UUID

import click
import msgspec

from kima_stream.cli import exchange, parts, tables, tail as tails
from kima_stream.cli.database import with_connection
from kima_stream.cli.loop import run, settings
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.errors import NotFoundError, UserFacingError
from kima_stream.events import new_event_id
from kima_stream.group_commit import GroupCommit
from kima_stream.http import cloudevents
from kima_stream.http.categories import Categories
from kima_stream.http.cloudevents import CloudEvent
from kima_stream.http.event_views import MAX_PAGE, EventPage, EventQuery, EventView, Filter, read_event, read_page
from kima_stream.http.submissions import Submission, Submissions

_REFUSED: Final = frozenset({409, 412})  # the log says no; anything else is wrong use
_COLUMNS: Final = ("position", "type", "stream", "version", "recorded", "id")
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, the data as it was received.")

F = TypeVar("F", bound=Callable[..., Any])


def _filters(command: F) -> F:
    """Add the options that say which events."""
    for option in (
        click.option("--correlation-id", help="Of one correlation."),
        click.option("--type", "type_", help="Of one type, e.g. lidarr.grab."),
        click.option("--category", help="Of one category, e.g. lidarr."),
        click.option("--stream", help="Of one stream, e.g. lidarr-3F25..."),
    ):
        command = option(command)
    return command


@click.group()
def events() -> None:
    """List, show, follow, append, export and import what is recorded."""


@events.command(name="list")
@_filters
@click.option("--after", type=click.IntRange(min=0), help="Beyond this position.")
@click.option("--limit", type=click.IntRange(1, MAX_PAGE), default=20, show_default=True)
@click.option("--order", type=click.Choice(["asc", "desc"]), default="desc", show_default=True, help="By position.")
@_AS_JSON
def list_events(
    *,
    stream: str | None,
    category: str | None,
    type_: str | None,
    correlation_id: str | None,
    after: int | None,
    limit: int,
    order: Literal["asc", "desc"],
    as_json: bool,
) -> None:
    """List events by position, the newest first."""
    query = EventQuery(
        stream=stream, category=category, type=type_, correlation_id=correlation_id, after=after, limit=limit,
        order=order,
    )  # fmt: skip

    async def work(conn: Connection) -> EventPage:
        return await read_page(conn, query)

    page = with_connection(work)
    if as_json:
        click.echo(msgspec.json.encode(page))
    else:
        tables.show(_COLUMNS, (_row(event) for event in page.events))


@events.command()
@click.argument("event_id", type=click.UUID)
@_AS_JSON
def show(*, event_id: UUID, as_json: bool) -> None:
    """Show one event: where it stands, and its data as it was received."""

    async def work(conn: Connection) -> EventView | None:
        return await read_event(conn, event_id)

    event = with_connection(work)
    if event is None:
        raise NotFoundError(f"There is no event {event_id}.")
    if as_json:
        click.echo(msgspec.json.encode(event))
        return
    for name, value in msgspec.structs.asdict(event).items():
        if name not in {"data", "metadata"}:
            click.echo(f"{name:<15} {'' if value is None else plain(str(value))}")
    click.echo(f"{'metadata':<15} {bytes(event.metadata).decode()}\n\n{bytes(event.data).decode()}")


@events.command()
@_filters
@click.option("-n", "--lines", "count", type=click.IntRange(0, MAX_PAGE), default=10, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes, until Ctrl-C.")
@_AS_JSON
def tail(
    *,
    stream: str | None,
    category: str | None,
    type_: str | None,
    correlation_id: str | None,
    count: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the newest events, the newest last, one a line."""
    which = Filter(stream=stream, category=category, type=type_, correlation_id=correlation_id)
    dsn = parts.database_url(settings())
    run(tails.tail(dsn, which, count=count, follow=follow, line=tails.in_json if as_json else tails.in_words))


@events.command()
@click.argument("stream")
@click.argument("data", default="-")
@click.option("--type", "type_", required=True, help="What happened, e.g. order.placed.")
@click.option("--expected-version", type=click.IntRange(min=-1), help="The stream must be at it; -1: must be new.")
@click.option("--id", "sent_id", help="Of the event: appended twice it is one. Fresh unless given.")
@click.option("--source", default="kima-stream", show_default=True, help="Where it happened.")
@click.option("--subject", help="What it is about.")
@click.option("--correlation-id", "correlationid", help="What it belongs to.")
@click.option("--causation-id", "causationid", help="The event that caused it.")
@_AS_JSON
def append(
    *, stream: str, data: str, type_: str, expected_version: int | None, sent_id: str | None, as_json: bool,
    **named: str | None,
) -> None:  # fmt: skip
    """Append one event with DATA, which is JSON, to STREAM; without DATA, or with -, it is read from stdin."""
    attributes = {
        "specversion": "1.0",
        "id": sent_id or str(new_event_id()),
        "type": type_,
        "stream": stream,
        "datacontenttype": cloudevents.JSON,
    } | {name: value for name, value in named.items() if value is not None}
    body = sys.stdin.buffer.read() if data == "-" else data.encode("utf-8", "surrogateescape")
    try:
        event = cloudevents.with_json(dict(attributes), body)
        (stands,) = run(_append(event, expected_version)).events
    except UserFacingError as error:
        if error.status in _REFUSED:
            raise
        raise click.UsageError(error.detail) from None
    if as_json:
        click.echo(msgspec.json.encode(stands))
    else:
        was_there = " (it was there before)" if stands.duplicate else ""
        click.echo(f"{plain(stands.stream)}@{stands.version} {stands.event_id}{was_there}")


async def _append(event: CloudEvent, expected_version: int | None) -> Submission:
    async with parts.pool(parts.database_url(settings()), "cli", max_size=2) as pool, GroupCommit(pool) as commit:
        return await Submissions(pool, commit, Categories(pool)).append(
            [event], expected_version=expected_version, correlation_id=None, submitted_by="the terminal"
        )


def _row(event: EventView) -> tuple[object, ...]:
    recorded = event.recorded_at.isoformat(timespec="seconds")
    return (event.position, event.type, event.stream, event.version, recorded, event.event_id)


events.add_command(exchange.export_events)
events.add_command(exchange.import_events)
