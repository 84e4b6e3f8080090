"""The verdict: silent when the answers fit the records, and loud for each way in which they may not."""

import ast
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest
from msgspec.structs import replace

import kima_stream.simulator
from kima_stream.simulator.records import Records
from kima_stream.simulator.verdict import Fault, Seen, SeenEvent, SeenJob, judge

NOW = datetime(2026, 3, 14, tzinfo=UTC)
ALBUM, JOB = UUID(int=1), UUID(int=2)


def event(kind: str, stream: str = f"download_job-{JOB}", body: bytes = b"{}") -> SeenEvent:
    """Return an event as it was answered."""
    return SeenEvent(uuid4(), stream, kind, msgspec.Raw(body))


def played() -> tuple[Records, Seen]:
    """Return an album that was asked for, grabbed and imported, and answers that say so."""
    records = Records()
    received = []
    for kind in ("grab", "import"):
        body = b'{"eventType": "%s"}' % kind.encode()
        fact = records.happened(
            "grab" if kind == "grab" else "import", NOW, body, albums=(ALBUM,), files=3 * (kind == "import")
        )
        received.append(event(f"lidarr.{kind}", "lidarr-1", body))
        for is_repeat in (False, True):
            records.told(fact, status=200, event_id=received[-1].event_id, is_repeat=is_repeat)
    wish = records.wish(ALBUM)
    wish.sent, wish.acknowledged, wish.jobs = 2, 2, {JOB}
    decided = tuple(event(f"download_job.{kind}") for kind in ("requested", "grabbed", "imported", "completed"))
    job = SeenJob(id=JOB, artist="a", album="b", mbid=ALBUM, status="completed", requests=2, files=3)
    return records, Seen(tuple(received), decided, (job,))


def test_answers_that_fit_the_records_have_no_fault() -> None:
    """Repeats are no facts of their own."""
    assert judge(*played()) == []


def with_job(**changes: object) -> Callable[[Seen], Seen]:
    """Answer another job."""
    return lambda seen: replace(seen, jobs=(replace(seen.jobs[0], **changes),))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda seen: replace(seen, received=seen.received[1:]), "lost"),
        (lambda seen: replace(seen, received=(*seen.received, replace(seen.received[0], event_id=uuid4()))), "doubled"),
        (lambda seen: replace(seen, received=(*seen.received, event("lidarr.x", "lidarr-2"))), "doubled"),
        (lambda seen: replace(seen, received=tuple(replace(one, event_id=uuid4()) for one in seen.received)), "lost"),
        (lambda seen: replace(seen, decided=seen.decided[:-2]), "lost"),
        (lambda seen: replace(seen, decided=(*seen.decided, event("download_job.completed"))), "doubled"),
        (lambda seen: replace(seen, decided=(*seen.decided, event("download_job.grabbed"))), "doubled"),
        (lambda seen: replace(seen, jobs=()), "lost"),
        (lambda seen: replace(seen, jobs=(*seen.jobs, replace(seen.jobs[0], id=uuid4()))), "doubled"),
        (lambda seen: replace(seen, jobs=(*seen.jobs, replace(seen.jobs[0], mbid=UUID(int=9)))), "doubled"),
        (with_job(status="downloading"), "lost"),
        (with_job(files=2), "lost"),
        (with_job(files=4), "doubled"),
        (with_job(requests=1), "lost"),
        (with_job(requests=3), "doubled"),
        (with_job(id=UUID(int=7)), "lost"),
    ],
)  # fmt: skip
def test_every_difference_is_a_fault(change: Callable[[Seen], Seen], kind: str) -> None:
    """A verdict that cannot be lost is none."""
    records, seen = played()

    assert kind in {fault.kind for fault in judge(records, change(seen))}


def test_a_change_of_one_byte_is_a_loss() -> None:
    """Bodies are kept as they came."""
    records, seen = played()
    changed = replace(seen.received[0], data=msgspec.Raw(b'{"eventType":"grab"}'))
    faults = judge(records, replace(seen, received=(changed, *seen.received[1:])))

    assert Fault("lost", "webhook grab") in faults


def test_what_was_never_acknowledged_may_be_there_or_not() -> None:
    """A connection that broke says nothing about the commit; a request may count or not."""
    records, seen = played()
    fact = records.happened("artist_add", NOW, b'{"eventType": "ArtistAdd"}')
    records.told(fact)
    records.wish(ALBUM).sent += 1

    assert judge(records, seen) == []
    there = (*seen.received, event("lidarr.artist_add", "lidarr-3", fact.body))
    assert judge(records, with_job(requests=3)(replace(seen, received=there))) == []


def test_the_simulator_shares_no_code_with_what_it_judges() -> None:
    """An oracle that imports what it judges shares its mistakes."""
    assert kima_stream.simulator.__file__ is not None
    folder = Path(kima_stream.simulator.__file__).parent
    modules = list(folder.glob("*.py"))
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            ours = [name for name in names if name.split(".")[0] in {"kima_stream", "projections", "consumers"}]
            assert all(name.startswith("kima_stream.simulator") for name in ours), module.name
    assert len(modules) > 10
