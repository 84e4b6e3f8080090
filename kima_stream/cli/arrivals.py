"""What ``events import`` does with each event: append it where it was, once, without changing a byte.

A chunk is one transaction, in the order of the file: a cause stays before its effects. Killed in
between, the same file goes on where it stopped, for whatever is there is recognised by its id.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated, Final
from uuid import UUID

import asyncpg
import msgspec

from kima_stream import event_store
from kima_stream.database import Connection, Pool
from kima_stream.errors import ConflictError, UserFacingError, WrongExpectedVersionError
from kima_stream.event_store import Append
from kima_stream.events import OWN_CATEGORIES, NewEvent, RecordedEvent, stream_category
from kima_stream.group_commit import GroupCommit
from kima_stream.http import cloudevents
from kima_stream.http.categories import Categories
from kima_stream.http.cloudevents import CloudEvent, Scalar
from kima_stream.http.submissions import Submissions, find_recorded

CHUNK_EVENTS: Final = 500
CHUNK_CHARACTERS: Final = 8 * 1024 * 1024
TRIES: Final = 5  # a chunk that loses a race is appended anew
_RIVALS: Final = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """An event as ``events export`` writes it; ``…_text`` instead where the JSON has line ends."""

    event_id: UUID
    stream: str
    version: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    type: str
    source: str
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)]
    correlation_id: str
    causation_id: UUID | None = None
    subject: str | None = None
    schema_version: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1
    data: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    data_text: str | None = None
    metadata_text: str | None = None

    def new_event(self) -> NewEvent:
        """Return the event ready to append."""
        return NewEvent(
            event_id=self.event_id,
            type=self.type,
            data=self.data_text if self.data_text is not None else bytes(self.data).decode(),
            source=self.source,
            schema_version=self.schema_version,
            subject=self.subject,
            metadata=self.metadata_text if self.metadata_text is not None else bytes(self.metadata).decode(),
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            occurred_at=self.occurred_at,
        )


class Imported(msgspec.Struct, kw_only=True):
    """What became of a file; ``duplicates`` were there before, the same in every byte."""

    read: int = 0
    appended: int = 0
    duplicates: int = 0


class Arrivals:
    """Appends the events of a file; ``is_restore`` admits our own streams, ``renumbers`` gives new versions."""

    def __init__(self, pool: Pool, commit: GroupCommit, *, is_restore: bool, renumbers: bool) -> None:
        """Append events of the log itself, and CloudEvents as the front door does."""
        self._pool = pool
        self._submissions = Submissions(pool, commit, Categories(pool))
        self._is_restore = is_restore
        self._renumbers = renumbers

    async def take(self, texts: Iterator[str]) -> Imported:
        """Append all of ``texts``, each one JSON object, and count.

        Raises:
            UserFacingError, WrongExpectedVersionError: an event that cannot be taken; whole chunks before it were.
        """
        outcome = Imported()
        for chunk in _chunks(texts):
            read = [self._read(text, outcome.read + number) for number, text in enumerate(chunk, start=1)]
            for _, alike in groupby(read, key=type):
                some = list(alike)
                outcome.appended += await self._append_lines([one for one in some if isinstance(one, Line)])
                outcome.appended += await self._submit([one for one in some if isinstance(one, CloudEvent)])
            outcome.read += len(chunk)
            outcome.duplicates = outcome.read - outcome.appended
        return outcome

    async def _submit(self, sent: Sequence[CloudEvent]) -> int:
        stands = await self._submissions.append(
            sent, expected_version=None, correlation_id=None, submitted_by="the terminal"
        )
        return sum(not event.duplicate for event in stands.events)

    async def _append_lines(self, lines: Sequence[Line]) -> int:
        for line in lines:
            self._check(line)
        for _ in range(TRIES):
            try:
                async with self._pool.acquire() as conn, conn.transaction():
                    return await self._append_news(conn, lines)
            except _RIVALS:
                continue
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                first, last = lines[0].event_id, lines[-1].event_id
                detail = f"An event of the file, from {first} to {last}, cannot be kept: {error}"
                raise UserFacingError(detail, status=422) from None
        raise ConflictError("Others append to the same streams; import the file again.")

    def _read(self, text: str, number: int) -> Line | CloudEvent:
        """Return one object of the file as what it is."""
        try:
            if '"specversion"' in text and "specversion" in msgspec.json.decode(text, type=dict[str, msgspec.Raw]):
                return cloudevents.from_structured(text.encode())
            return _checked(msgspec.json.decode(text, type=Line), is_restore=self._is_restore)
        except (msgspec.MsgspecError, UnicodeEncodeError, UserFacingError) as error:
            raise UserFacingError(f"object {number} of the file is no event: {error}", status=422) from None

    def _check(self, line: Line) -> None:
        category = stream_category(line.stream)
        if not self._is_restore and category in OWN_CATEGORIES:
            detail = f"Streams of {category} are kima-stream's own: say --restore, on a log that no role works on."
            raise UserFacingError(detail, status=422)

    async def _append_news(self, conn: Connection, lines: Sequence[Line]) -> int:
        wanted: dict[UUID, Line] = {}
        for line in lines:
            if not _is_same(wanted.setdefault(line.event_id, line), line):
                raise _conflict(line.event_id)
        known = {ref.event_id for ref in await event_store.find_events(conn, list(wanted))}
        for event in await find_recorded(conn, list(known)):
            if not _is_recorded(wanted[event.event_id], event, any_version=self._renumbers):
                raise _conflict(event.event_id)
        news = [line for event_id, line in wanted.items() if event_id not in known]
        runs = [Append(stream, [line.new_event() for line in run]) for stream, run in groupby(news, lambda n: n.stream)]
        if not runs:
            return 0
        written = await event_store.insert(conn, runs)
        for line in news:
            version = written[line.event_id].version
            if version != line.version and not self._renumbers:
                raise WrongExpectedVersionError(
                    stream=line.stream, expected_version=line.version - 1, actual_version=version - 1
                )
        return len(news)


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if len(chunk) == CHUNK_EVENTS or size > CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _checked(line: Line, *, is_restore: bool) -> Line:
    """Return ``line`` once the front door would take it; what is restored was taken before, whatever it holds."""
    event = line.new_event()
    attributes: dict[str, Scalar] = {"specversion": "1.0", "id": str(event.event_id), "type": "t", "source": "s"}
    if not is_restore:
        attributes |= {"type": event.type, "source": event.source, "stream": line.stream}
        attributes |= {"correlationid": line.correlation_id, "subject": line.subject or ""}
    for text in (event.data, event.metadata):
        cloudevents.with_json(attributes, text.encode())
    return line


def _is_same(one: Line, other: Line) -> bool:
    return one is other or (one.stream, one.version, one.new_event()) == (
        other.stream,
        other.version,
        other.new_event(),
    )


def _is_recorded(line: Line, event: RecordedEvent, *, any_version: bool) -> bool:
    new = line.new_event()
    return (any_version or line.version == event.version) and line.stream == event.stream and all(
        getattr(new, name) == getattr(event, name) for name in NewEvent.__struct_fields__
    )  # fmt: skip


def _conflict(event_id: UUID) -> ConflictError:
    return ConflictError(f"Event {event_id} is in the log, or in this file, as another one.")
