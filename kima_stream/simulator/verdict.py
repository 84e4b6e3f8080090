"""The verdict: what really happened against what the judged one answers when it is asked over HTTP.

Lost is what it acknowledged and does not have, doubled what it has more often than it happened. Bodies
are compared byte for byte. A fact that was sent and never acknowledged may be there or not.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final, Literal, TypeVar
from uuid import UUID

import aiohttp
import msgspec

from kima_stream.simulator.records import Fact, Kind, Records, Wish

_EVENTS_OF_PAGE: Final = 1_000
_JOBS_OF_PAGE: Final = 200
_TOLD_BY: Final[dict[Kind, str]] = {  # what a job records of each fact
    "grab": "download_job.grabbed",
    "import": "download_job.imported",
    "failure": "download_job.download_failed",
}
_ENDS: Final[dict[Kind, str]] = {"grab": "downloading", "import": "completed", "failure": "failed"}

T = TypeVar("T")


class SeenEvent(msgspec.Struct, frozen=True):
    """An event as ``GET /api/events`` shows it; ``data`` is raw."""

    event_id: UUID
    stream: str
    type: str
    data: msgspec.Raw


class SeenJob(msgspec.Struct, frozen=True):
    """A job as ``GET /api/downloads`` shows it."""

    id: UUID
    artist: str
    album: str
    mbid: UUID | None
    status: str
    requests: int
    files: int


class Seen(msgspec.Struct, frozen=True):
    """Everything that was answered."""

    received: tuple[SeenEvent, ...]
    decided: tuple[SeenEvent, ...]
    jobs: tuple[SeenJob, ...]


class Fault(msgspec.Struct, frozen=True):
    """One thing lost or doubled."""

    kind: Literal["lost", "doubled"]
    what: str
    count: int = 1


class _EventPage(msgspec.Struct):
    events: list[SeenEvent]
    next: int | None


class _JobPage(msgspec.Struct):
    downloads: list[SeenJob]
    next: str | None


async def look(client: aiohttp.ClientSession) -> Seen:
    """Ask for all webhooks, all decisions and all jobs, page by page.

    Raises:
        aiohttp.ClientError: it does not answer.
    """
    return Seen(
        received=tuple(await _events(client, "lidarr")),
        decided=tuple(await _events(client, "download_job")),
        jobs=tuple(await look_at_jobs(client)),
    )


async def look_at_jobs(client: aiohttp.ClientSession, *, status: str | None = None) -> list[SeenJob]:
    """Ask for all jobs, or those of one status."""
    found: list[SeenJob] = []
    query = {"limit": str(_JOBS_OF_PAGE)} | ({"status": status} if status else {})
    while True:
        page = await _page(client, "/api/downloads", query, _JobPage)
        found += page.downloads
        if page.next is None:
            return found
        query["after"] = page.next


def judge(records: Records, seen: Seen) -> list[Fault]:
    """Return every fault; none when nothing was lost or doubled."""
    jobs: defaultdict[UUID | None, list[SeenJob]] = defaultdict(list)
    for job in seen.jobs:
        jobs[job.mbid].append(job)
    decided = Counter((event.stream.removeprefix("download_job-"), event.type) for event in seen.decided)
    acknowledged = records.acknowledged()
    stories: defaultdict[UUID, list[Fact]] = defaultdict(list)
    for fact in records.facts:
        for album in fact.albums:
            if fact.number in acknowledged and fact.kind in _TOLD_BY:
                stories[album].append(fact)
    faults = list(_judge_webhooks(records, seen, acknowledged))
    for album in {*stories, *records.wishes, *(mbid for mbid in jobs if mbid is not None)}:
        wish = records.wishes.get(album)
        found = jobs[album]
        faults += _compared(f"job for album {album}", expected=1 if wish or stories[album] else 0, found=len(found))
        for job in found[:1]:
            faults += _judge_job(job, stories[album], wish, decided)
    faults += [Fault("doubled", f"job {job.id} of no album") for job in jobs[None]]
    return faults


def _judge_webhooks(records: Records, seen: Seen, acknowledged: set[int]) -> Iterator[Fault]:
    """Compare the webhooks by their bodies, and hold every acknowledgement against the log."""
    least = Counter(fact.body for fact in records.facts if fact.number in acknowledged)
    most = Counter(fact.body for fact in records.facts)
    found = Counter(bytes(event.data) for event in seen.received)
    for body in {*most, *found}:
        kind = _event_type(body)
        yield from _compared(f"webhook {kind}", expected=least[body], most=most[body], found=found[body])
    there = {event.event_id for event in seen.received}
    promised = {delivery.event_id for delivery in records.deliveries if delivery.event_id is not None}
    yield from _compared("event ids that were acknowledged", expected=len(promised), found=len(promised & there))
    for number in acknowledged:
        ids = {each.event_id for each in records.deliveries if each.fact == number and each.event_id is not None}
        if len(ids) > 1:
            yield Fault("doubled", f"one webhook under {len(ids)} event ids", len(ids) - 1)


def _judge_job(
    job: SeenJob, story: Sequence[Fact], wish: Wish | None, decided: Counter[tuple[str, str]]
) -> Iterator[Fault]:
    """Compare one job with what happened to its album."""
    name = f"job {job.id}"
    kinds = Counter(fact.kind for fact in story)
    for kind, event_type in _TOLD_BY.items():
        yield from _compared(f"{event_type} of {name}", expected=kinds[kind], found=decided[str(job.id), event_type])
    completions = decided[str(job.id), "download_job.completed"]
    yield from _compared(f"completion of {name}", expected=min(1, kinds["import"]), found=completions)
    yield from _compared(f"file of {name}", expected=sum(fact.files for fact in story), found=job.files)
    status = _ENDS[story[-1].kind] if story else "requested"
    if job.status != status:
        yield Fault("lost", f"{name} is {job.status}, not {status}")
    if wish is not None:
        yield from _compared(f"request of {name}", expected=wish.acknowledged, most=wish.sent, found=job.requests)
        if wish.jobs != {job.id}:
            yield Fault("lost", f"{name}: {len(wish.jobs)} ids were answered")


def _compared(what: str, *, expected: int, found: int, most: int | None = None) -> Iterator[Fault]:
    if found < expected:
        yield Fault("lost", what, expected - found)
    most = expected if most is None else most
    if found > most:
        yield Fault("doubled", what, found - most)


def _event_type(body: bytes) -> str:
    found = msgspec.json.decode(body, type=dict[str, msgspec.Raw]).get("eventType")
    return bytes(found).decode().strip('"') if found else "without a type"


async def _events(client: aiohttp.ClientSession, category: str) -> list[SeenEvent]:
    found: list[SeenEvent] = []
    after: int | None = 0
    while after is not None:
        query = {"category": category, "limit": str(_EVENTS_OF_PAGE), "after": str(after)}
        page = await _page(client, "/api/events", query, _EventPage)
        found += page.events
        after = page.next
    return found


async def _page(client: aiohttp.ClientSession, path: str, query: dict[str, str], kind: type[T]) -> T:
    async with client.get(path, params=query) as answer:
        if answer.status != HTTPStatus.OK:
            answer.raise_for_status()
        return msgspec.json.decode(await answer.read(), type=kind)
