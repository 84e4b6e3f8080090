"""The decisions of the intake about a whole batch: pure, webhook by webhook, each after the ones before it.

A grab or an import goes to every job that it moves, whoever asked for it, since the library is
shared; when nobody did, to a job of the user ``lidarr``. A failure is known by its download id only;
one that no job knows waits in ``unmatched`` until a grab or an import brings the id, since Lidarr's
threads overtake each other.
"""

from collections.abc import Iterable, Mapping, Sequence, Set as AbstractSet
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from consumers.news import Failed, Moved, News, Seen
from kima_stream import upcasters
from kima_stream.events import (
    Event,
    JobDownloadFailed,
    JobImportFailed,
    NewEvent,
    RecordedEvent,
    UnmatchedResolved,
    UnmatchedWaiting,
    derived_id,
    new_event,
    stream_category,
)
from kima_stream.integrations.received import stream_name
from kima_stream.projector import Row
from projections import correlation
from projections.download_job import DownloadJob
from projections.download_job_course import Course
from projections.download_job_decider import decide, decide_unasked
from projections.download_job_lidarr import has

JOBS: Final = "download_job"  # category of the jobs
UNMATCHED: Final = "unmatched"  # category of what no job knows


class Waiting(msgspec.Struct, frozen=True):
    """A failure that waits, and the event that says so: the cause of what it does in the end."""

    event_id: UUID
    fact: UnmatchedWaiting


class Found(msgspec.Struct, frozen=True):
    """What there is when a batch begins, all of it locked.

    ``keys`` hold the streams that each finds; ``rows`` are at the heads of their streams, a blank one for a stream
    without events; ``waiting`` are the failures by stream and webhook.
    """

    keys: Mapping[str, Sequence[str]]
    rows: Mapping[str, Row[DownloadJob]]
    waiting: Mapping[str, Mapping[UUID, Waiting]]


class Desk:
    """Where a batch is decided upon; afterwards it holds what is to be written.

    ``states`` are the jobs by stream, as they will be; ``moved`` and ``unmatched`` the events to append by stream;
    ``added`` the streams that keys find from now on.
    """

    def __init__(self, found: Found, known: AbstractSet[UUID]) -> None:
        """Begin with what there is; ``known`` are ids that the log has, of a batch that was handled before."""
        self.states = {stream: row.state for stream, row in found.rows.items()}
        self.moved: dict[str, list[NewEvent]] = {}
        self.unmatched: dict[str, list[NewEvent]] = {}
        self.added: dict[str, list[str]] = {}
        self._keys = found.keys
        self._waiting = {stream: dict(waiting) for stream, waiting in found.waiting.items()}
        self._taken = set(known)

    def take(self, news: News) -> None:
        """Decide what follows from one webhook, or from what was seen."""
        if isinstance(news, Moved):
            self._spread(news)
        elif isinstance(news, Seen):
            for stream in self._jobs([news.key]):
                self._record(
                    news.cause.event_id, stream, decide(self.states[stream], news.fact, news.cause.recorded_at)
                )
        elif not self._fail(news.cause.event_id, news.download_key, news.fact, news.cause.recorded_at):
            self._wait(news)

    def event_ids(self) -> list[UUID]:
        """Return the ids of all that is to be appended."""
        return [event.event_id for events in (*self.moved.values(), *self.unmatched.values()) for event in events]

    def _spread(self, news: Moved) -> None:
        """Bring a grab or an import to the jobs of each of its albums, then the failures that wait for its download."""
        # Before any moves: Lidarr may give two albums one number, and neither is then the other's.
        at = news.cause.recorded_at
        before = [self._jobs(album.keys) for album in news.albums]
        for album, streams in zip(news.albums, before, strict=True):
            jobs = [stream for stream in streams if correlation.is_for(self.states[stream], album.album)]
            moved = [
                (stream, course) for stream in jobs if (course := self._decide(stream, album.fact, at, jobs)).facts
            ]
            if not moved and not any(has(self.states[stream], album.fact) for stream in jobs):
                own = album.own_stream
                moved = [(own, decide_unasked(self.states[own], album.unasked, album.fact, at))]
            for stream, course in moved:
                self._record(news.cause.event_id, stream, course)
                self._add(stream, album.keys | news.download_keys)
        if news.download_key:
            self._pick_up(news.cause, news.download_key)

    def _decide(self, stream: str, fact: Event, at: datetime, jobs: Iterable[str]) -> Course:
        """Return what follows for one of the ``jobs`` that want the album."""
        is_wanted = any(self.states[other].is_active for other in jobs if other != stream)
        return decide(self.states[stream], fact, at, is_wanted_elsewhere=is_wanted)

    def _fail(
        self, cause_id: UUID, download_key: str | None, fact: JobDownloadFailed | JobImportFailed, at: datetime
    ) -> list[str]:
        """Record the failure with every job that knows the download; return their streams."""
        jobs = self._jobs([download_key] if download_key else [])
        jobs = [stream for stream in jobs if self.states[stream].download(fact.download_id)]
        for stream in jobs:
            self._record(cause_id, stream, decide(self.states[stream], fact, at))
        return jobs

    def _wait(self, news: Failed) -> None:
        """Let a fact that no job knows wait where it is seen."""
        cause = news.cause
        stream = stream_name(UNMATCHED, news.download_id, cause.event_id)
        waiting = UnmatchedWaiting(
            fact_id=cause.event_id,
            fact_type=cause.type,
            download_id=news.download_id,
            release_title=news.release_title,
            reason=news.reason,
        )
        event_id = derived_id(cause.event_id, UNMATCHED)
        if self._leave(stream, event_id, waiting, cause):
            self._waiting.setdefault(stream, {})[cause.event_id] = Waiting(event_id, waiting)
        self._add(stream, news.keys)

    def _pick_up(self, cause: RecordedEvent, download_key: str) -> None:
        """Bring the failures that overtook the first news of this download to the jobs that know it now."""
        for stream in self._find([download_key], UNMATCHED):
            for waiting in self._waiting.pop(stream, {}).values():
                fact = waiting.fact
                failed = JobDownloadFailed(download_id=fact.download_id or "", release_title=fact.release_title)
                streams = self._fail(waiting.event_id, download_key, failed, cause.recorded_at)
                resolved = UnmatchedResolved(fact_id=fact.fact_id, streams=tuple(streams))
                self._leave(stream, derived_id(fact.fact_id, "resolved"), resolved, cause)

    def _jobs(self, keys: Iterable[str]) -> list[str]:
        return self._find(keys, JOBS)

    def _find(self, keys: Iterable[str], category: str) -> list[str]:
        """Return the streams of ``category`` that ``keys`` find by now, by name."""
        streams = {stream for key in keys for each in (self._keys[key], self.added.get(key, ())) for stream in each}
        return sorted(stream for stream in streams if stream_category(stream) == category)

    def _record(self, cause_id: UUID, stream: str, course: Course) -> None:
        """Move the job, unless this cause has moved it before."""
        ids = [derived_id(cause_id, f"{stream}/{number}") for number in range(len(course.facts))]
        if not ids or not self._taken.isdisjoint(ids):
            return
        self._taken.update(ids)
        self.states[stream], correlation_id = course.state, course.state.correlation_id
        self.moved.setdefault(stream, []).extend(
            replace(new_event(fact, event_id=event_id, correlation_id=correlation_id), causation_id=cause_id)
            for fact, event_id in zip(course.facts, ids, strict=True)
        )

    def _leave(self, stream: str, event_id: UUID, fact: Event, cause: RecordedEvent) -> bool:
        """Append to a stream of ``unmatched``, once."""
        if event_id in self._taken:
            return False
        self._taken.add(event_id)
        self.unmatched.setdefault(stream, []).append(new_event(fact, event_id=event_id, cause=cause))
        return True

    def _add(self, stream: str, keys: Iterable[str]) -> None:
        for key in keys:
            if stream not in self._keys[key] and stream not in self.added.get(key, ()):
                self.added.setdefault(key, []).append(stream)


def still_waiting(events: Iterable[RecordedEvent]) -> dict[UUID, Waiting]:
    """Return the failures that wait in a stream of ``unmatched``, by the event of their webhook."""
    waiting: dict[UUID, Waiting] = {}
    for event in events:
        match upcasters.decode(event):
            case UnmatchedWaiting() as fact:
                waiting[fact.fact_id] = Waiting(event.event_id, fact)
            case UnmatchedResolved() as resolved:
                waiting.pop(resolved.fact_id, None)
            case _:
                continue
    return waiting
