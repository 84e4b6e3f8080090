"""The newest events as lines, and whatever comes after them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import click
import msgspec

from kima_stream import database
from kima_stream.cli.loop import stopping
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.http.event_views import EventQuery, EventView, Filter, read_head, read_log, read_page

POLL_SECONDS: Final = 0.2
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")  # JSON has line ends between its values only


def in_json(event: EventView) -> str:
    """Return ``event`` as one line of JSON."""
    return msgspec.json.encode(event).translate(_ONE_LINE).decode()


def in_words(event: EventView) -> str:
    """Return ``event`` as one line for a person; without a position it is not numbered yet."""
    position = "" if event.position is None else str(event.position)
    moment = event.recorded_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{position:>9} {moment} {plain(event.type)} {plain(event.stream)}@{event.version} {event.event_id}"


async def tail(dsn: str, which: Filter, *, count: int, follow: bool, line: Callable[[EventView], str]) -> None:
    """Print the newest ``count`` events and, when asked to, those that come, until a signal."""
    conn = await database.connect(dsn, role="cli")
    try:
        head = await read_head(conn)
        newest = await _newest(conn, which, count)
        if not follow:
            _say(newest, line)
            return
        numbered = [event for event in newest if event.position is not None]  # the others come when they are
        _say(numbered, line)
        async with stopping():
            await _follow(conn, which, max([head, *(event.position or 0 for event in numbered)]), line)
    finally:
        await conn.close()


async def _newest(conn: Connection, which: Filter, count: int) -> list[EventView]:
    if not count:
        return []
    query = EventQuery(**msgspec.structs.asdict(which), order="desc", limit=count)
    return list(reversed((await read_page(conn, query)).events))


async def _follow(conn: Connection, which: Filter, position: int, line: Callable[[EventView], str]) -> None:
    while True:
        head = await read_head(conn)
        while position < head:
            events = await read_log(conn, which, after=position, up_to=head)
            _say(events, line)
            position = events[-1].position if events else head
        await asyncio.sleep(POLL_SECONDS)


def _say(events: Sequence[EventView], line: Callable[[EventView], str]) -> None:
    for event in events:
        click.echo(line(event))
