"""Group commit: while one commit is in flight, the next callers gather and share the next one.

One statement for all of them; a member that is known already, late or faulty is sorted out by
itself and never fails or tears its neighbours. Nobody is answered before the commit.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

import asyncpg
import msgspec
import structlog

from kima_stream import event_rows, event_store, metrics
from kima_stream.database import Connection, Pool
from kima_stream.delivery import OUTAGE
from kima_stream.errors import DuplicateEventError, EventRef, KimaStreamError
from kima_stream.event_store import ANY, Append
from kima_stream.events import NewEvent, stream_category

BATCH_EVENTS = 500  # in one commit
OUTAGE_SECONDS = 5.0  # Postgres may restart within this; then the caller is told to come back
RETRY_SECONDS = 0.1

log = structlog.get_logger(__name__)


class Receipt(msgspec.Struct, frozen=True):
    """The answer to an append: where its events stand.

    ``duplicate``: they stood there before. ``conflicting``: the same ids came with another body.
    """

    events: tuple[EventRef, ...]
    duplicate: bool = False
    conflicting: bool = False


class _Member(msgspec.Struct):
    append: Append
    answer: asyncio.Future[Receipt]

    def resolve(self, answer: Receipt | BaseException) -> None:
        if self.answer.done():  # the caller has gone
            return
        if isinstance(answer, Receipt):
            self.answer.set_result(answer)
        else:
            self.answer.set_exception(answer)


class GroupCommit:
    """Appends of many concurrent callers; use as a context manager, which ends with a last flush."""

    def __init__(self, pool: Pool, *, on_commit: Callable[[], None] = lambda: None) -> None:
        """``on_commit`` runs after each commit, e.g. to wake the publisher."""
        self._pool = pool
        self._on_commit = on_commit
        self._gathered: list[_Member] = []
        self._arrived = asyncio.Event()
        self._closing = False
        self._flusher: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        self._flusher = asyncio.create_task(self._keep_flushing(), name="group-commit")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closing = True
        self._arrived.set()
        if self._flusher is not None:
            await self._flusher

    def append(
        self, stream: str, events: Sequence[NewEvent], *, expected_version: int | None = ANY
    ) -> asyncio.Future[Receipt]:
        """Append ``events`` (at least one) to ``stream``, all or none; return once they are durable.

        Raises:
            WrongExpectedVersionError, TornAppendError: nothing was written.
            OUTAGE: Postgres did not answer for OUTAGE_SECONDS; whether they are in the log is
                unknown, and doing it again with the same ids is safe.
        """
        answer: asyncio.Future[Receipt] = self._loop.create_future()
        self._gathered.append(_Member(Append(stream, events, expected_version), answer))
        self._arrived.set()
        return answer

    async def _keep_flushing(self) -> None:
        while True:
            await self._arrived.wait()
            members, self._gathered = self._gathered[:BATCH_EVENTS], self._gathered[BATCH_EVENTS:]
            if not self._gathered and not self._closing:
                self._arrived.clear()
            if members:
                await self._flush(members)
            elif self._closing:
                return

    async def _flush(self, members: list[_Member]) -> None:
        deadline = asyncio.get_running_loop().time() + OUTAGE_SECONDS
        while True:
            try:
                async with self._pool.acquire() as conn:
                    await self._commit(conn, [member for member in members if not member.answer.done()])
            except OUTAGE as error:
                # The commit may have happened: the ids decide when we ask again.
                if asyncio.get_running_loop().time() > deadline:
                    self._refuse(members, error)
                    return
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                log.exception("group_commit_failed")
                self._refuse(members, error)
                return
            else:
                self._on_commit()
                return

    def _refuse(self, members: list[_Member], error: BaseException) -> None:
        for member in members:
            member.resolve(error)

    async def _commit(self, conn: Connection, members: list[_Member]) -> None:
        shared, followers, alone = _sort(members)
        if shared:
            try:
                await self._commit_shared(conn, shared)
            except OUTAGE:
                raise
            except asyncpg.PostgresError:
                alone = shared + alone  # one bad member must not fail its neighbours
        for member in alone:
            await self._commit_alone(conn, member)
        for follower, leader in followers:
            if leader.answer.cancelled():  # its caller has gone; the follower's has not
                await self._commit_alone(conn, follower)
            else:
                _follow(follower, leader)

    async def _commit_shared(self, conn: Connection, members: list[_Member]) -> None:
        written = await event_rows.insert_versions(conn, [member.append for member in members])
        metrics.commit_batch_events.observe(len(written))
        for member in members:
            append = member.append
            if append.events[0].event_id in written:
                member.resolve(_receipt(append, [written[event.event_id] for event in append.events]))
            else:
                await self._commit_alone(conn, member)  # known already: it says where

    async def _commit_alone(self, conn: Connection, member: _Member) -> None:
        append = member.append
        try:
            recorded = await event_store.append_many(conn, [append])
        except DuplicateEventError as duplicate:
            metrics.duplicate_events.labels(category=stream_category(append.stream)).inc()
            conflicting = await _differs(conn, append)
            member.resolve(Receipt(events=duplicate.originals, duplicate=True, conflicting=conflicting))
        except OUTAGE:
            raise
        except (KimaStreamError, asyncpg.PostgresError) as error:
            member.resolve(error)
        else:
            member.resolve(_receipt(append, [event.version for event in recorded]))


def _sort(members: list[_Member]) -> tuple[list[_Member], list[tuple[_Member, _Member]], list[_Member]]:
    """Return who shares the statement, who repeats one of them (with whom), and who must go alone.

    Alone go those whose ids overlap, and those with an expected version whose stream has others too.
    """
    shared: list[_Member] = []
    followers: list[tuple[_Member, _Member]] = []
    alone: list[_Member] = []
    first: dict[int, _Member] = {}  # by the number of an id, which hashes at a fifth of the cost
    crowd = Counter([member.append.stream for member in members])
    for member in members:
        ids = [event.event_id.int for event in member.append.events]
        leader = first.get(ids[0])
        if leader is not None and [event.event_id.int for event in leader.append.events] == ids:
            followers.append((member, leader))
        elif any(event_id in first for event_id in ids) or (
            member.append.expected_version is not None and crowd[member.append.stream] > 1
        ):
            alone.append(member)
        else:
            shared.append(member)
            for event_id in ids:
                first[event_id] = member
    return shared, followers, alone


def _follow(follower: _Member, leader: _Member) -> None:
    """Answer a repeat within one batch as the first one was answered."""
    if not leader.answer.done():
        return
    error = leader.answer.exception()
    if error is not None:
        follower.resolve(error)
        return
    metrics.duplicate_events.labels(category=stream_category(follower.append.stream)).inc()
    conflicting = any(
        (one.type, one.data) != (other.type, other.data)
        for one, other in zip(follower.append.events, leader.append.events, strict=True)
    )
    follower.resolve(Receipt(events=leader.answer.result().events, duplicate=True, conflicting=conflicting))


def _receipt(append: Append, versions: Sequence[int]) -> Receipt:
    return Receipt(
        events=tuple(
            EventRef(event_id=event.event_id, stream=append.stream, version=version)
            for event, version in zip(append.events, versions, strict=True)
        )
    )


_STORED = "SELECT event_id, type, data FROM events WHERE event_id = ANY($1::uuid[])"


async def _differs(conn: Connection, append: Append) -> bool:
    """Whether the log has another body under one of these ids; retention may have taken it: then not."""
    stored = {
        row["event_id"]: (row["type"], row["data"])
        for row in await conn.fetch(_STORED, [event.event_id for event in append.events])
    }
    return any(
        event.event_id in stored and stored[event.event_id] != (event.type, event.data) for event in append.events
    )
