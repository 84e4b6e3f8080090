"""One order, no holes: the elected leader gives each event its position and its place in the chain.

It numbers whatever one snapshot shows and nobody numbered yet, in id order. Who appended version
n+1 had seen n committed, so no snapshot shows an effect without its cause. Nobody waits for it,
and no long transaction stalls it; why the simpler ways lose events is in ADR-0004.
"""

from collections.abc import Awaitable
from typing import TypeVar

import asyncpg
import msgspec
import structlog

from kima_stream import chain, event_store, holes, leases, metrics
from kima_stream.database import Connection
from kima_stream.errors import FencedError
from kima_stream.events import RecordedEvent
from kima_stream.holes import Hole
from kima_stream.leases import Lease

LEASE_NAME = "publisher"
LEASE_SECONDS = 3.0  # a leader that says nothing for this long is replaced
BATCH_EVENTS = 1_000  # numbered in one transaction
MAX_COUNTED = 10_000  # more need not be counted to know that nobody numbers

_COLUMN_COUNT = len(RecordedEvent.__struct_fields__) - 1  # all but the position, in the order of COLUMNS

T = TypeVar("T")
log = structlog.get_logger(__name__)


class _Leadership(msgspec.Struct):
    """What a leader keeps in memory; it is read anew from the tables by the next one."""

    lease: Lease
    position: int
    chain_hash: bytes
    top: int  # the highest id seen
    holes: list[Hole]


class Numberer:
    """Numbers events while it holds the lease; otherwise it stands by.

    It owns one connection, whose transactions are short: ``idle_in_transaction_session_timeout``
    of 2 s frees what a paused leader holds.
    """

    def __init__(self, conn: Connection, *, holder: str) -> None:
        """Stand by under the name ``holder``, unique to this process."""
        self._conn = conn
        self._holder = holder
        self._leading: _Leadership | None = None

    @property
    def leads(self) -> bool:
        """Whether this process believes that it leads; the tables decide."""
        return self._leading is not None

    @property
    def position(self) -> int:
        """The newest position, 0 when the log is empty or another process leads."""
        return 0 if self._leading is None else self._leading.position

    async def lead(self) -> bool:
        """Take the lease if it is free; return whether we lead."""
        if self._leading is None:
            lease = await leases.acquire(self._conn, LEASE_NAME, holder=self._holder, seconds=LEASE_SECONDS)
            if lease is not None:
                self._leading = await self._take_over(lease)
                log.info("leadership_taken", epoch=lease.epoch, position=self._leading.position)
        metrics.publisher_is_leader.set(self.leads)
        return self.leads

    async def keep(self) -> None:
        """Extend the lease while there is nothing to number.

        Raises:
            FencedError: another process leads now.
        """
        leading = self._required()
        await self._fenced(leases.hold(self._conn, leading.lease, seconds=LEASE_SECONDS))

    async def number_once(self) -> list[RecordedEvent]:
        """Number what one snapshot shows, at most BATCH_EVENTS; return it with its positions.

        Raises:
            FencedError: another process leads now; nothing was numbered.
        """
        leading = self._required()
        rows = await self._read_news(leading)
        snapshot = rows[0]
        rows = [row for row in rows if row["id"] is not None]
        ids = [row["id"] for row in rows]
        still, top = holes.after_reading(
            leading.holes,
            leading.top,
            ids,
            xmin=int(snapshot["xmin"]),
            truncated=len(rows) == BATCH_EVENTS,
        )
        numbered, last_hash = _number(rows, leading.position, leading.chain_hash)
        if numbered:
            try:
                saved = await self._fenced(self._save(leading, ids, numbered, holes.floor(still, top)))
            except BaseException:
                self._leading = None  # the commit may have happened: what we know is no longer sure
                raise
            still = holes.bounded(still, saved)
            leading.position += len(numbered)
            leading.chain_hash = last_hash
        leading.holes, leading.top = still, top
        return [event for event, _, _ in numbered]

    async def resign(self) -> None:
        """Give up the lease, so that another may lead at once."""
        if self._leading is not None:
            lease, self._leading = self._leading.lease, None
            await leases.release(self._conn, lease)
        metrics.publisher_is_leader.set(0)

    def _required(self) -> _Leadership:
        if self._leading is None:
            raise FencedError(lease=LEASE_NAME, epoch=0)
        return self._leading

    async def _fenced(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except FencedError:
            self._leading = None
            log.warning("leadership_lost", holder=self._holder)
            raise

    _LAST = "SELECT position, chain_hash FROM event_positions ORDER BY position DESC LIMIT 1"
    _GAPS = """
        SELECT s.top, s.bound, g.low, g.high
          FROM (SELECT coalesce((SELECT max(id) FROM event_positions), $1::bigint) AS top,
                       pg_current_xact_id()::text AS bound) AS s
          LEFT JOIN (SELECT lag(id, 1, $1::bigint) OVER (ORDER BY id) + 1 AS low, id - 1 AS high
                       FROM event_positions
                      WHERE id > $1::bigint) AS g ON g.low <= g.high
         ORDER BY g.low
    """

    async def _take_over(self, lease: Lease) -> _Leadership:
        """Read where the last leader stopped; the lease is ours already, so it cannot move on."""
        last = await self._conn.fetchrow(self._LAST)
        gaps = await self._conn.fetch(self._GAPS, lease.floor)
        return _Leadership(
            lease=lease,
            position=0 if last is None else last["position"],
            chain_hash=chain.GENESIS if last is None else last["chain_hash"],
            top=max(gaps[0]["top"], lease.floor),
            holes=[
                Hole(low=gap["low"], high=gap["high"], bound=int(gap["bound"]))
                for gap in gaps
                if gap["low"] is not None
            ],
        )

    _READ_NEWS = f"""
        SELECT n.*, s.xmin
          FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xmin) AS s
          LEFT JOIN LATERAL (
              (SELECT {event_store.COLUMNS}, e.id FROM events AS e WHERE e.id > $1 ORDER BY e.id LIMIT $4)
               UNION ALL
              (SELECT e.*
                 -- Not $2 itself: planned once, see event_rows.
                 FROM unnest((SELECT $2::bigint[]), (SELECT $3::bigint[])) AS h (low, high)
                CROSS JOIN LATERAL (
                    SELECT {event_store.COLUMNS}, e.id FROM events AS e
                     WHERE e.id BETWEEN h.low AND h.high ORDER BY e.id LIMIT $4) AS e)
               ORDER BY id LIMIT $4) AS n ON true
    """  # noqa: S608 - the columns are a constant

    async def _read_news(self, leading: _Leadership) -> list[asyncpg.Record]:
        """Return what one snapshot shows above the top and in the holes, by id; at least one row, for xmin."""
        lows = [hole.low for hole in leading.holes]
        highs = [hole.high for hole in leading.holes]
        return await self._conn.fetch(self._READ_NEWS, leading.top, lows, highs, BATCH_EVENTS)

    # One statement, so one round trip and one commit: nothing is numbered unless the lease is still ours,
    # and its row stays locked until the numbers are committed.
    _SAVE = """
        WITH held AS (
            UPDATE leases
               SET expires_at = clock_timestamp() + make_interval(secs => $11), floor = greatest(floor, $12)
             WHERE name = $9 AND epoch = $10
            RETURNING epoch
        ), saved AS (
            INSERT INTO event_positions (position, id, event_id, category, stream, version, event_hash, chain_hash)
            SELECT n.*
              FROM held, unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::bigint[],
                                $7::bytea[], $8::bytea[]) AS n
        )
        SELECT pg_current_xact_id()::text FROM held
    """

    async def _save(
        self, leading: _Leadership, ids: list[int], numbered: list[tuple[RecordedEvent, bytes, bytes]], floor: int
    ) -> int:
        """Commit the numbers and return the id of the transaction that did."""
        events = [event for event, _, _ in numbered]
        transaction_id = await self._conn.fetchval(
            self._SAVE,
            [event.position for event in events],
            ids,
            [event.event_id for event in events],
            [event.category for event in events],
            [event.stream for event in events],
            [event.version for event in events],
            [hashed for _, hashed, _ in numbered],
            [link for _, _, link in numbered],
            leading.lease.name,
            leading.lease.epoch,
            LEASE_SECONDS,
            floor,
        )
        if transaction_id is None:
            raise FencedError(lease=leading.lease.name, epoch=leading.lease.epoch)
        return int(transaction_id)


class Unnumbered(msgspec.Struct, frozen=True):
    """What is committed and waits for its number; MAX_COUNTED events and more look the same."""

    events: int
    oldest_seconds: float  # 0 when nothing waits


_COUNT_UNNUMBERED = """
    SELECT count(*) AS events,
           coalesce(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0)::float8 AS oldest_seconds
      FROM (SELECT coalesce((SELECT floor FROM leases WHERE name = $1), 0) AS id) AS floor
     CROSS JOIN LATERAL (
           SELECT e.recorded_at
             FROM events AS e
            WHERE e.id > floor.id
              -- Of those above the floor: a merge would read the whole skeleton up to there.
              AND NOT EXISTS (SELECT FROM event_positions AS p WHERE p.id = e.id AND p.id > floor.id)
            ORDER BY e.id
            LIMIT $2) AS waiting
"""


async def count_unnumbered(conn: Connection) -> Unnumbered:
    """Return how many events wait for their number and how old the oldest is, those of late transactions too."""
    row = await conn.fetchrow(_COUNT_UNNUMBERED, LEASE_NAME, MAX_COUNTED)
    assert row is not None  # noqa: S101 - an aggregate always answers
    return Unnumbered(**dict(row))


def _number(
    rows: list[asyncpg.Record], position: int, previous: bytes
) -> tuple[list[tuple[RecordedEvent, bytes, bytes]], bytes]:
    """Return each event with its position, its hash and its link, and the last link."""
    numbered = []
    for row in rows:
        position += 1
        event = RecordedEvent(*(*row[:_COLUMN_COUNT], position))
        hashed = chain.event_hash(event)
        previous = chain.chain_hash(previous, position, hashed)
        numbered.append((event, hashed, previous))
    return numbered, previous
