"""What tests make: events nobody decided, a group that writes down what it was handed, a log with content."""

from collections.abc import Sequence

import asyncpg

from kima_stream import event_store, reaction
from kima_stream.checkpoints import ConsumerGroup
from kima_stream.database import Connection
from kima_stream.events import NewEvent, RecordedEvent, new_event_id
from kima_stream.numbering import Numberer

CATEGORY = "note"


def a_note(text: str = "{}", **over: object) -> NewEvent:
    """Return an event of no meaning; ``text`` is its JSON."""
    fields = {"event_id": new_event_id(), "type": "note.taken", "data": text, "source": "test"} | over
    return NewEvent(**fields)  # type: ignore[arg-type]


async def append_notes(conn: Connection, *, streams: int = 3, each: int = 4) -> list[RecordedEvent]:
    """Append ``each`` notes to each of ``streams`` streams, round about; return them."""
    written = []
    for number in range(streams * each):
        stream = f"{CATEGORY}-{number % streams}"
        written += await event_store.append_many(conn, [event_store.Append(stream, [a_note(f'{{"n": {number}}}')])])
    return written


async def number_all(conn: Connection) -> int:
    """Number the whole log as a publisher of one moment would; return the head position."""
    numberer = Numberer(conn, holder="test")
    if not await numberer.lead():
        message = "somebody else numbers this log"
        raise AssertionError(message)
    while await numberer.number_once():
        pass
    position = numberer.position
    await numberer.resign()
    return position


class Scribe:
    """A reaction that writes down each event it is handed, in its own transaction; poison can be set."""

    def __init__(self, name: str = "scribe", category: str = CATEGORY) -> None:
        """Refuse nothing at first."""
        self.poison: set[tuple[str, int]] = set()
        self.broken = False
        self.group: ConsumerGroup = reaction.consumer_group(name, category, self._write_down)

    @staticmethod
    async def prepare(conn: Connection) -> None:
        """Make the table of what was handed over."""
        await conn.execute(
            "CREATE TABLE scribbled (n bigserial PRIMARY KEY, stream text, version bigint, event_id uuid)"
        )

    async def _write_down(self, conn: Connection, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            if self.broken or (event.stream, event.version) in self.poison:
                message = f"{event.stream} {event.version} is poison"
                raise ValueError(message)
            await conn.execute(
                "INSERT INTO scribbled (stream, version, event_id) VALUES ($1, $2, $3)",
                event.stream, event.version, event.event_id,
            )  # fmt: skip

    @staticmethod
    async def read(conn: Connection) -> dict[str, list[int]]:
        """Return, per stream, the versions in the order in which they were handed over."""
        rows: list[asyncpg.Record] = await conn.fetch("SELECT stream, version FROM scribbled ORDER BY n")
        streams: dict[str, list[int]] = {}
        for row in rows:
            streams.setdefault(row["stream"], []).append(row["version"])
        return streams
