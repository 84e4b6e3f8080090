"""The one handle of every reaction: read a category, append elsewhere.

Its progress is a row per stream in ``reactions``, moved in the transaction that appends, so a
fact is reacted to once however often it is delivered.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from kima_stream import checkpoints, delivery
from kima_stream.checkpoints import Batch, ConsumerGroup
from kima_stream.database import Connection
from kima_stream.events import RecordedEvent

React: TypeAlias = Callable[[Connection, Sequence[RecordedEvent]], Awaitable[None]]


def consumer_group(name: str, category: str, react: React) -> ConsumerGroup:
    """Return the group that calls ``react`` with the news of a batch: as the log has them, each stream in order.

    ``react`` runs inside the transaction that records the progress; the ids of what it appends
    derive from the events, so that doing it twice is harmless even where the progress is lost.
    It locks what all of them need before it decides, in one order, so that two batches never wait for each other.
    """

    async def handle(conn: Connection, batch: Batch) -> Mapping[str, int]:
        versions = await checkpoints.lock_reactions(conn, name, sorted(batch.entries))
        found = await delivery.news(conn, batch, versions)
        reached = {stream: events[-1].version for stream, events in found.items() if events}
        events = [event for stream in sorted(found) for event in found[stream]]
        if fresh := [event for event in events if (event.stream, event.version) not in batch.discarded]:
            await react(conn, sorted(fresh, key=_order))
        if reached:
            await checkpoints.save_reactions(conn, name, reached)
        return versions | reached

    return ConsumerGroup(name=name, category=category, handle=handle)


def _order(event: RecordedEvent) -> float:
    """Return the position, beyond all others while there is none: the numbered of a stream come first."""
    return float("inf") if event.position is None else event.position
