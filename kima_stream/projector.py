"""The one handle of every projection: lock the rows, fold what is new, save.

The door uses the same functions inside a user's transaction, so an answer is final and the row
is current when it is given.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar
from uuid import UUID

import msgspec
from msgspec.structs import replace

from kima_stream import delivery, event_store, upcasters
from kima_stream.checkpoints import Batch, ConsumerGroup
from kima_stream.database import Connection
from kima_stream.event_store import Append
from kima_stream.events import NO_STREAM, Event, NewEvent, RecordedEvent, derived_id, event_type, new_event

S = TypeVar("S")
_UNBORN = datetime(1970, 1, 1, tzinfo=UTC)  # of a row without events; never shown


class Row(msgspec.Struct, Generic[S], frozen=True):
    """One read-model row: a state and the version of the stream that it is the fold of.

    ``created_at`` and ``updated_at`` are the recorded times of its first and last event, so that a
    rebuild makes the same bytes.
    """

    stream: str
    version: int
    state: S
    created_at: datetime = _UNBORN
    updated_at: datetime = _UNBORN


class ReadModel(Protocol[S]):
    """The table of one projection; its SQL lives in ``read_models``."""

    @property
    def table(self) -> str:
        """The name of the table."""

    def renamed(self, table: str) -> "ReadModel[S]":
        """Return the same read model in another table of the same shape."""

    async def lock(self, conn: Connection, streams: Sequence[str]) -> dict[str, Row[S]]:
        """Lock the rows of ``streams`` that exist, in name order, and return them."""

    async def lock_new(self, conn: Connection, stream: str, blank: Row[S]) -> Row[S]:
        """Insert ``blank`` unless there is a row, lock it and return it."""

    async def save(self, conn: Connection, rows: Sequence[Row[S]]) -> None:
        """Write rows in one statement, each only over an older version; open and close their effects."""

    async def keep_effects(self, conn: Connection, rows: Sequence[Row[S]]) -> None:
        """Make the table ``effects`` what ``rows``, locked by the caller, have open."""


class Projection(msgspec.Struct, Generic[S], frozen=True):
    """A pure fold and the table that it fills; ``name`` is the consumer group and the table."""

    name: str
    category: str
    initial: S
    apply: Callable[[S, Event], S]
    read_model: ReadModel[S]


def consumer_group(projection: Projection[S]) -> ConsumerGroup:
    """Return the group that keeps the projection's table up to date."""

    async def handle(conn: Connection, batch: Batch) -> Mapping[str, int]:
        return await project(conn, projection, batch)

    return ConsumerGroup(
        name=projection.name, category=projection.category, handle=handle, read_model=projection.read_model.table
    )


async def project(conn: Connection, projection: Projection[S], batch: Batch) -> Mapping[str, int]:
    """Fold what is new in the streams of ``batch``, save it, and return the version per stream."""
    streams = sorted(batch.entries)
    rows = await projection.read_model.lock(conn, streams)
    for stream in streams:
        if stream not in rows:
            rows[stream] = blank(projection, stream)
    found = await delivery.news(conn, batch, {stream: row.version for stream, row in rows.items()})
    changed = [fold(projection, rows[stream], events, batch.discarded) for stream, events in found.items() if events]
    if changed:
        await projection.read_model.save(conn, changed)
    return {row.stream: row.version for row in rows.values()} | {row.stream: row.version for row in changed}


def fold(
    projection: Projection[S],
    row: Row[S],
    events: Sequence[RecordedEvent],
    discarded: frozenset[tuple[str, int]] = frozenset(),
) -> Row[S]:
    """Return ``row`` after ``events``, which follow its version without a gap; the state ignores the discarded."""
    if not events:
        return row
    state = row.state
    for event in events:
        if not discarded or (event.stream, event.version) not in discarded:
            state = projection.apply(state, upcasters.decode(event))
    return Row(
        stream=row.stream,
        version=events[-1].version,
        state=state,
        created_at=events[0].recorded_at if row.version == NO_STREAM else row.created_at,
        updated_at=events[-1].recorded_at,
    )


async def load(conn: Connection, projection: Projection[S], stream: str) -> Row[S]:
    """Lock the row of ``stream``, made if it is new, and return it folded to the head of its stream.

    Nobody can decide about this stream until the caller's transaction ends.
    """
    row = await projection.read_model.lock_new(conn, stream, blank(projection, stream))
    return fold(projection, row, await event_store.read_stream(conn, stream, after=row.version))


async def decide(conn: Connection, projection: Projection[S], row: Row[S], events: Sequence[NewEvent]) -> Row[S]:
    """Append ``events`` to the stream of a loaded row, fold them in, save, and return the new row.

    Raises:
        WrongExpectedVersionError: something else appended without the row's lock; load again.
    """
    recorded = await event_store.append_many(conn, [Append(row.stream, events, row.version)])
    row = fold(projection, row, recorded)
    await projection.read_model.save(conn, [row])
    return row


def consequences(
    decided: Sequence[Event], *, event_id: UUID, correlation_id: str | None, causation_id: UUID | None = None
) -> list[NewEvent]:
    """Return what was decided, ready to append: the first under ``event_id``, the others as caused by it.

    Ids derive from the first one's, so that the same news decided again makes the same events.
    """
    return [
        replace(
            new_event(fact, correlation_id=correlation_id),
            event_id=derived_id(event_id, f"{fact_type}/{number}") if number else event_id,
            causation_id=event_id if number else causation_id,
        )
        for number, (fact, fact_type) in enumerate((each, event_type(type(each))) for each in decided)
    ]


def blank(projection: Projection[S], stream: str) -> Row[S]:
    """Return the row of a stream that has no event yet."""
    return Row(stream=stream, version=NO_STREAM, state=projection.initial)
