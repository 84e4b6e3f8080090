"""What a consumer group is, and how far it has come: tables ``group_checkpoints`` and ``reactions``.

The truth of progress is a version per stream, in the group's own rows: the read model of a
projection, ``reactions`` of a reaction. ``verified_position`` is what the sweep made of them:
everything up to it is known to be handled. What Redis says is a hint.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from kima_stream.database import Connection
from kima_stream.errors import ForkedLogError
from kima_stream.events import NO_STREAM, RecordedEvent

SWEEP_CHUNK = 5_000  # positions compared in one statement


class Batch(msgspec.Struct, frozen=True):
    """News for some streams of one category, to be handled in one transaction.

    ``entries`` holds what the delivery brought, per stream and in any order; an empty list says
    only that there is news: read the log. ``discarded`` are (stream, version) to step over.
    ``one_at_a_time`` handles the next event of each stream and no more, to find a poison event.
    """

    entries: Mapping[str, Sequence[RecordedEvent]]
    discarded: frozenset[tuple[str, int]] = frozenset()
    one_at_a_time: bool = False


class ConsumerGroup(msgspec.Struct, frozen=True):
    """A name, what it reads, and the one function that handles it, live or replayed.

    ``name`` is the consumer group in Redis and the key of its checkpoint: renaming it replays
    everything. ``read_model`` names the table that holds a projection's progress, None says that
    the progress is in ``reactions``. ``handle`` runs inside the caller's transaction, is safe to
    call twice, late or out of order, and returns the version reached per stream.
    """

    name: str
    category: str
    handle: Callable[[Connection, Batch], Awaitable[Mapping[str, int]]]
    read_model: str | None = None


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a group is known to have come; ``stopped`` after too many streams were parked at once."""

    verified_position: int
    stopped: bool


class GroupStatus(msgspec.Struct, frozen=True):
    """A group as an operator sees it; ``lag_events`` counts in Postgres what lies after ``verified_position``."""

    name: str
    category: str
    verified_position: int
    head_position: int
    lag_events: int
    lag_seconds: float
    parked_streams: int
    retrying_streams: int
    stopped: bool


class BehindStream(msgspec.Struct, frozen=True):
    """A stream whose newest numbered event the group has not handled."""

    stream: str
    version: int  # of the newest event
    position: int  # of the oldest event looked at
    age_seconds: float  # since its newest event was numbered


_ENSURE = """
    INSERT INTO group_checkpoints (group_name, category) VALUES ($1, $2) ON CONFLICT DO NOTHING
"""
_READ = """
    SELECT c.verified_position, c.stopped_at IS NOT NULL AS stopped,
           c.verified_position > 0 AND c.chain_hash IS DISTINCT FROM p.chain_hash AS forked
      FROM group_checkpoints AS c
      LEFT JOIN event_positions AS p ON p.position = c.verified_position
     WHERE c.group_name = $1
"""


async def read(conn: Connection, group: ConsumerGroup) -> Checkpoint:
    """Return the checkpoint of ``group``, made if it is new.

    Raises:
        ForkedLogError: the log is not the one that the checkpoint was taken in.
    """
    row = await conn.fetchrow(_READ, group.name)
    if row is None:
        await conn.execute(_ENSURE, group.name, group.category)
        row = await conn.fetchrow(_READ, group.name)
    assert row is not None  # noqa: S101 - just inserted, and never deleted
    if row["forked"]:
        raise ForkedLogError(group=group.name, position=row["verified_position"])
    return Checkpoint(verified_position=row["verified_position"], stopped=row["stopped"])


_ADVANCE = """
    UPDATE group_checkpoints AS c
       SET verified_position = p.position, chain_hash = p.chain_hash
      FROM event_positions AS p
     WHERE c.group_name = $1 AND p.position = $2 AND c.verified_position < $2
"""


async def advance(conn: Connection, group: ConsumerGroup, position: int) -> None:
    """Record that everything up to ``position`` is handled; never moves back."""
    await conn.execute(_ADVANCE, group.name, position)


_STOP = "UPDATE group_checkpoints SET stopped_at = coalesce(stopped_at, clock_timestamp()) WHERE group_name = $1"
_RESUME = "UPDATE group_checkpoints SET stopped_at = NULL WHERE group_name = $1"


async def set_stopped(conn: Connection, group_name: str, *, stopped: bool) -> None:
    """Stop or resume a whole group."""
    await conn.execute(_STOP if stopped else _RESUME, group_name)


_CHUNK_END = """
    SELECT (SELECT max(position) FROM event_positions) AS head,
           (SELECT position FROM event_positions
             WHERE category = $1 AND position > $2
             ORDER BY position OFFSET $3 LIMIT 1) AS full_chunk
"""


async def chunk_end(conn: Connection, category: str, after: int) -> int:
    """Return the last position of the next chunk of ``category``: the head of the log when all fit."""
    row = await conn.fetchrow(_CHUNK_END, category, after, SWEEP_CHUNK - 1)
    assert row is not None  # noqa: S101 - an aggregate always answers
    return int(row["full_chunk"] or row["head"] or 0)


_BEHIND = """
    SELECT n.stream, n.version, n.position,
           extract(epoch FROM clock_timestamp() - n.numbered_at)::float8 AS age_seconds
      FROM (SELECT stream, max(version) AS version, min(position) AS position, max(numbered_at) AS numbered_at
              FROM event_positions
             WHERE category = $2 AND position > $3 AND position <= $4
             GROUP BY stream) AS n
      LEFT JOIN {progress} AS r ON r.stream = n.stream
     WHERE coalesce(r.version, -1) < n.version
       AND NOT EXISTS (SELECT FROM dead_letters AS d
                        WHERE d.group_name = $1 AND d.stream = n.stream AND d.status = 'parked')
     ORDER BY n.position
"""


async def find_behind(conn: Connection, group: ConsumerGroup, after: int, up_to: int) -> list[BehindStream]:
    """Return the streams with events in (``after``, ``up_to``] that the group has not handled, parked ones left out."""
    rows = await conn.fetch(_BEHIND.format(progress=_progress(group)), group.name, group.category, after, up_to)
    return [BehindStream(**dict(row)) for row in rows]


_UNVERIFIED_SINCE = """
    SELECT least(
           (SELECT e.recorded_at
              FROM event_positions AS p
              JOIN events AS e ON e.id = p.id
             WHERE p.category = $2
               AND p.position > coalesce(
                   (SELECT verified_position FROM group_checkpoints WHERE group_name = $1), 0)
             ORDER BY p.position
             LIMIT 1),
           (SELECT recorded_at
              FROM events
             WHERE category = $2 AND id > coalesce((SELECT max(id) FROM event_positions), 0)
             ORDER BY id
             LIMIT 1))
"""


async def unverified_since(conn: Connection, group: ConsumerGroup) -> datetime | None:
    """Return when the oldest event was recorded that ``group`` is not known to have handled; None: it has them all."""
    since: datetime | None = await conn.fetchval(_UNVERIFIED_SINCE, group.name, group.category)
    return since


_VERSIONS = "SELECT r.stream, r.version FROM {progress} AS r WHERE r.stream = ANY($2::text[]) AND $1::text IS NOT NULL"


async def versions(conn: Connection, group: ConsumerGroup, streams: Sequence[str]) -> dict[str, int]:
    """Return the version that the group has reached in each of ``streams``, -1 where it has not begun."""
    reached = dict.fromkeys(streams, NO_STREAM)
    rows = await conn.fetch(_VERSIONS.format(progress=_progress(group)), group.name, list(streams))
    reached.update((row["stream"], row["version"]) for row in rows)
    return reached


def _progress(group: ConsumerGroup) -> str:
    """Return the relation with ``stream`` and ``version``; $1 is the group's name in each statement."""
    if group.read_model is None:
        return "(SELECT stream, version FROM reactions WHERE group_name = $1)"
    if not group.read_model.isidentifier():
        message = f"{group.read_model!r} is not the name of a table"
        raise ValueError(message)
    return group.read_model


_LOCK_REACTIONS_NEW = """
    INSERT INTO reactions (group_name, stream, version)
    SELECT $1, s, -1 FROM unnest($2::text[]) AS s ORDER BY s
        ON CONFLICT DO NOTHING
    RETURNING stream
"""
_LOCK_REACTIONS = """
    SELECT stream, version FROM reactions
     WHERE group_name = $1 AND stream = ANY($2::text[])
     ORDER BY stream
       FOR UPDATE
"""


async def lock_reactions(conn: Connection, group_name: str, streams: Sequence[str]) -> dict[str, int]:
    """Lock the group's rows of ``streams`` in name order and return their versions, -1 for new ones."""
    new = await conn.fetch(_LOCK_REACTIONS_NEW, group_name, list(streams))
    versions = dict.fromkeys((row["stream"] for row in new), NO_STREAM)
    if old := [stream for stream in streams if stream not in versions]:
        rows = await conn.fetch(_LOCK_REACTIONS, group_name, old)
        versions.update((row["stream"], row["version"]) for row in rows)
    return versions


# Not an UPDATE: it may be planned as a join that reads all streams of the group. A conflict is found by the key.
_SAVE_REACTIONS = """
    INSERT INTO reactions AS r (group_name, stream, version)
    SELECT $1, n.stream, n.version
      FROM unnest((SELECT $2::text[]), (SELECT $3::bigint[])) AS n (stream, version)  -- planned once: see event_rows
        ON CONFLICT (group_name, stream) DO UPDATE SET version = excluded.version WHERE r.version < excluded.version
"""


async def save_reactions(conn: Connection, group_name: str, reached: Mapping[str, int]) -> None:
    """Record the versions reached; the rows are locked by the caller."""
    await conn.execute(_SAVE_REACTIONS, group_name, list(reached), list(reached.values()))


_STATUS = """
    SELECT c.group_name AS name, c.category, c.verified_position, h.head_position,
           l.lag_events, coalesce(l.lag_seconds, 0)::float8 AS lag_seconds,
           (SELECT count(*) FROM dead_letters AS d WHERE d.group_name = c.group_name AND d.status = 'parked')
               AS parked_streams,
           (SELECT count(*) FROM dead_letters AS d WHERE d.group_name = c.group_name AND d.status = 'retrying')
               AS retrying_streams,
           c.stopped_at IS NOT NULL AS stopped
      FROM group_checkpoints AS c
     CROSS JOIN (SELECT coalesce(max(position), 0) AS head_position FROM event_positions) AS h
     CROSS JOIN LATERAL (
           SELECT count(*) AS lag_events, extract(epoch FROM clock_timestamp() - min(p.numbered_at)) AS lag_seconds
             FROM event_positions AS p
            WHERE p.category = c.category AND p.position > c.verified_position) AS l
     WHERE $1::text IS NULL OR c.group_name = $1
     ORDER BY c.group_name
"""


async def status(conn: Connection, group_name: str | None = None) -> list[GroupStatus]:
    """Return every group that ever ran, or one, by name."""
    return [GroupStatus(**dict(row)) for row in await conn.fetch(_STATUS, group_name)]
