"""Is the log what it was? Recompute every hash, link, position and version, and name the first fault."""

from collections.abc import Callable
from datetime import datetime

import asyncpg
import msgspec

from kima_stream import chain, event_store
from kima_stream.database import Connection
from kima_stream.events import NO_STREAM, RecordedEvent
from kima_stream.numbering import LEASE_NAME

CHUNK_EVENTS = 5_000
MAX_FAULTS = 100  # reported; the first one is what matters

Progress = Callable[[int, int], None]  # (positions done, positions in all)


class Fault(msgspec.Struct, frozen=True):
    """What is wrong at one position."""

    position: int
    kind: str  # hole | missing | mismatch | hash | chain | version | checkpoint | forgotten
    detail: str


class Verified(msgspec.Struct, frozen=True):
    """The outcome: ``first_bad_position`` is None when nothing is wrong."""

    first_position: int
    last_position: int
    checked: int
    unnumbered: int  # committed, and waiting for the publisher
    faults: tuple[Fault, ...]
    chain_hash: str  # of the last position, hex: note it down elsewhere and nobody can replace the log unseen

    @property
    def first_bad_position(self) -> int | None:
        """The lowest position with a fault."""
        return min((fault.position for fault in self.faults), default=None)


_CHUNK = f"""
    SELECT p.position AS at_position, p.id AS at_id, p.event_id AS at_event_id, p.category AS at_category,
           p.stream AS at_stream, p.version AS at_version, p.event_hash, p.chain_hash,
           e.id IS NOT NULL AS present, {event_store.COLUMNS}
      FROM event_positions AS p
      LEFT JOIN events AS e ON e.id = p.id
     WHERE p.position > $1 AND p.position <= $2
     ORDER BY p.position
     LIMIT $3
"""  # noqa: S608 - the columns are a constant

_HEAD = "SELECT coalesce(max(position), 0) FROM event_positions"
_LINK = "SELECT chain_hash FROM event_positions WHERE position = $1"
_UNNUMBERED = "SELECT count(*) FROM events AS e WHERE NOT EXISTS (SELECT FROM event_positions AS p WHERE p.id = e.id)"


class _Walk:
    """What is carried from one position to the next."""

    def __init__(self, conn: Connection, first: int, previous: bytes) -> None:
        self._conn = conn
        self._first = first
        self.expected = first
        self.previous = previous
        self.checked = 0
        self.versions: dict[str, int] = {}
        self.faults: list[Fault] = []

    def note(self, position: int, kind: str, detail: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(position, kind, detail))

    async def step(self, row: asyncpg.Record) -> None:
        position = row["at_position"]
        if position != self.expected:
            self.note(self.expected, "hole", f"positions {self.expected} to {position - 1} are not there")
        self.expected = position + 1
        await self._check_version(position, row["at_stream"], row["at_version"])
        if row["present"]:
            self._check_event(position, row)
        else:
            self.note(position, "missing", f"event {row['at_event_id']} is not in the log")
        link = chain.chain_hash(self.previous, position, row["event_hash"])
        if link != row["chain_hash"]:
            self.note(position, "chain", "the chain does not go on from the position before")
        self.previous = row["chain_hash"]
        self.checked += 1

    def _check_event(self, position: int, row: asyncpg.Record) -> None:
        event = _event(row)
        for column in ("event_id", "category", "stream", "version"):
            if row[f"at_{column}"] != getattr(event, column):
                self.note(position, "mismatch", f"the event's {column} is not the one that was numbered")
        if chain.event_hash(event) != row["event_hash"]:
            self.note(position, "hash", f"event {event.event_id} is not what was numbered")

    async def _check_version(self, position: int, stream: str, version: int) -> None:
        last = self.versions.get(stream)
        if last is None:
            last = NO_STREAM if self._first == 1 else await self._conn.fetchval(_VERSION_BEFORE, stream, self._first)
        if version != last + 1:
            self.note(position, "version", f"{stream} goes from version {last} to {version}")
        self.versions[stream] = version


_VERSION_BEFORE = "SELECT coalesce(max(version), -1) FROM event_positions WHERE stream = $1 AND position < $2"


def _event(row: asyncpg.Record) -> RecordedEvent:
    return RecordedEvent(**{name: row[name] for name in RecordedEvent.__struct_fields__ if name != "position"})


async def verify(
    conn: Connection, *, first: int = 1, last: int | None = None, progress: Progress = lambda _done, _all: None
) -> Verified:
    """Check positions ``first`` to ``last`` (the head): dense, hashed, chained, each stream without a gap.

    The link before ``first`` is taken as given; from 1 on nothing is.
    """
    head = await conn.fetchval(_HEAD)
    last = head if last is None else min(last, head)
    before = chain.GENESIS if first <= 1 else await conn.fetchval(_LINK, first - 1)
    walk = _Walk(conn, first, before or chain.GENESIS)
    after = first - 1
    while rows := await conn.fetch(_CHUNK, after, last, CHUNK_EVENTS):
        for row in rows:
            await walk.step(row)
        after = rows[-1]["at_position"]
        progress(after - first + 1, last - first + 1)
    if walk.expected <= last:
        walk.note(walk.expected, "hole", f"positions {walk.expected} to {last} are not there")
    await _check_checkpoints(conn, walk, first, last)
    await _check_forgotten(conn, walk, first, last)
    return Verified(
        first_position=first,
        last_position=last,
        checked=walk.checked,
        unnumbered=await conn.fetchval(_UNNUMBERED),
        faults=tuple(walk.faults),
        chain_hash=walk.previous.hex(),
    )


_FORKED = """
    SELECT c.group_name, c.verified_position
      FROM group_checkpoints AS c
      LEFT JOIN event_positions AS p ON p.position = c.verified_position
     WHERE c.verified_position >= greatest($1, 1)
       -- Beyond the head: what a group has seen there was cut off.
       AND (c.verified_position <= $2 OR c.verified_position > (SELECT coalesce(max(position), 0) FROM event_positions))
       AND p.chain_hash IS DISTINCT FROM c.chain_hash
"""


async def _check_checkpoints(conn: Connection, walk: _Walk, first: int, last: int) -> None:
    """Hold the chain against what the groups saw: a log cut short or replaced is noticed here."""
    for row in await conn.fetch(_FORKED, first, last):
        walk.note(row["verified_position"], "checkpoint", f"group {row['group_name']} verified another chain here")


# Below the floor nothing is missing, says the publisher, so it will never look there again.
_FORGOTTEN = """
    SELECT e.event_id, e.stream, e.version,
           coalesce((SELECT min(p.position) FROM event_positions AS p WHERE p.id > e.id),
                    (SELECT coalesce(max(p.position), 0) + 1 FROM event_positions AS p)) AS position
      FROM leases AS l
      JOIN events AS e ON e.id <= l.floor
     WHERE l.name = $1 AND NOT EXISTS (SELECT FROM event_positions AS p WHERE p.id = e.id)
     ORDER BY e.id
     LIMIT $2
"""


async def _check_forgotten(conn: Connection, walk: _Walk, first: int, last: int) -> None:
    """Look for events that the publisher has passed by: nobody will ever handle them."""
    for row in await conn.fetch(_FORGOTTEN, LEASE_NAME, MAX_FAULTS):
        if first <= row["position"] <= last + 1:
            detail = f"{row['stream']} version {row['version']}, event {row['event_id']}, never got its position"
            walk.note(row["position"], "forgotten", detail)


_POSITION_AT = "SELECT coalesce(max(position), 0) FROM event_positions WHERE numbered_at <= $1"


async def position_at(conn: Connection, moment: datetime) -> int:
    """Return the last position that was numbered at ``moment``, 0 when there was none."""
    return int(await conn.fetchval(_POSITION_AT, moment))
