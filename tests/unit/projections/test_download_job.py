"""A download job: what follows from each fact, and that nothing follows twice."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given as drawn, strategies as st

from kima_stream.events import (
    Event,
    JobAttemptOpened,
    JobCompleted,
    JobDeadlineSet,
    JobDownloadFailed,
    JobFailed,
    JobGrabbed,
    JobImported,
    JobRequested,
    JobRequestMerged,
    UnmatchedResolved,
)
from projections import download_job_decider as decider
from projections.download_job import ACTIVE, INITIAL, DownloadJob, apply, fold
from projections.download_job_lidarr import has

News: TypeAlias = JobRequested | JobGrabbed | JobImported | JobDownloadFailed
NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
TARGET = UUID("0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f")


def requested(correlation_id: str = "first") -> JobRequested:
    """Somebody asks for Tidewater."""
    return JobRequested(
        job_id=UUID(int=7), user_id="ann", artist="The Harbour Lights", album="Tidewater", target_mbid=TARGET,
        target_is_derived=False, origin="user", correlation_id=correlation_id,
    )  # fmt: skip


def grabbed(download_id: str | None = "D1", *, instance: str = "Lidarr") -> JobGrabbed:
    """Lidarr grabs a release."""
    return JobGrabbed(
        download_id=download_id, lidarr_instance=instance, lidarr_album_id=317, release_title=f"release {download_id}",
        indexer="an indexer", quality="FLAC", size_bytes=312_475_648,
    )  # fmt: skip


def imported(download_id: str | None = "D1", *files: int, instance: str = "Lidarr") -> JobImported:
    """Lidarr imports files of the album."""
    return JobImported(
        download_id=download_id, lidarr_instance=instance, lidarr_album_id=317, track_file_ids=files, tracks=len(files)
    )


def failed(download_id: str = "D1") -> JobDownloadFailed:
    """The client gives up a release."""
    return JobDownloadFailed(download_id=download_id, release_title=f"release {download_id}")


def after(*news: News) -> DownloadJob:
    """Return the job to which this news came, each decided on what was there."""
    state = INITIAL
    for fact in news:
        state = fold(decide(state, fact), state)
    return state


def decide(state: DownloadJob, fact: News, at: datetime = NOW) -> list[Event]:
    """Decide, and leave the deadlines out: they are the business of another test."""
    facts = decider.decide(state, fact, at).facts
    return [each for each in facts if not isinstance(each, JobDeadlineSet)]


def types(facts: Sequence[Event]) -> tuple[object, ...]:
    """Return only what kinds of facts they are."""
    return tuple(type(fact) for fact in facts)


def test_five_clicks_open_one_attempt() -> None:
    """The first request opens the attempt; each other is recorded and merged."""
    job = after(*[requested()] * 5)

    assert (job.status, job.attempt, job.requests) == ("requested", 1, 5)
    assert decide(job, requested()) == [requested(), JobRequestMerged(attempt=1)]


@pytest.mark.parametrize("end", [imported("D1", 1), failed()])
def test_asking_again_after_the_end_opens_the_next_attempt(end: News) -> None:
    """Completed or failed: who asks again gets a new attempt, with a trace of its own."""
    job = after(requested(), grabbed(), end)

    assert decide(job, requested("second")) == [requested("second"), JobAttemptOpened(attempt=2)]
    job = after(requested(), grabbed(), end, requested("second"))
    assert (job.status, job.attempt, job.correlation_id) == ("requested", 2, "second")


def test_a_grab_moves_the_job_to_downloading() -> None:
    """The grab tells what was grabbed, and every state says what comes next."""
    job = after(requested(), grabbed())

    assert (job.status, job.source) == ("downloading", "lidarr")
    assert job.reason
    assert job.next_step
    [download] = job.downloads
    assert (download.key, download.outcome, download.quality) == ("D1", "running", "FLAC")


def test_an_import_completes_the_job() -> None:
    """With or without a grab before it."""
    assert after(requested(), grabbed(), imported("D1", 1, 2)).status == "completed"
    assert after(requested(), imported(None, 1, 2)).status == "completed"
    assert types(decide(after(requested()), imported("D1", 1))) == (JobImported, JobCompleted)


def test_a_failed_download_fails_the_job_and_says_why() -> None:
    """The page has a reason and a next step."""
    job = after(requested(), grabbed(), failed())

    assert job.status == "failed"
    assert job.reason
    assert job.next_step
    assert job.downloads[0].outcome == "failed"


def test_the_attempt_fails_with_its_last_download() -> None:
    """While another release is on its way there is hope."""
    job = after(requested(), grabbed("D1"), grabbed("D2"), failed("D1"))

    assert job.status == "downloading"
    assert types(decide(job, failed("D2"))) == (JobDownloadFailed, JobFailed)


def test_a_later_grab_of_a_failed_job_is_its_next_attempt() -> None:
    """Lidarr searches again by itself; also when it is the same torrent once more."""
    job = after(requested(), grabbed("D1"), failed("D1"))

    for again in ("D2", "D1"):
        assert decide(job, grabbed(again)) == [JobAttemptOpened(attempt=2, is_reopened=True), grabbed(again)]
    job = fold(decide(job, grabbed("D1")), job)
    assert (job.status, job.attempt, job.downloads[0].outcome) == ("downloading", 2, "running")
    assert types(decide(job, failed("D1"))) == (JobDownloadFailed, JobFailed)


def test_an_import_after_the_failure_completes_the_job() -> None:
    """Somebody imported by hand what the client had given up."""
    job = after(requested(), grabbed(), failed(), imported("D1", 1))

    assert (job.status, job.attempt, job.downloads[0].outcome) == ("completed", 2, "imported")


def test_a_completed_job_stays_completed() -> None:
    """A failure that comes too late, an upgrade and more files change no outcome."""
    job = after(requested(), grabbed("D1"), imported("D1", 1))

    assert decide(job, failed("D1")) == []
    assert decide(job, grabbed("D2"), NOW + timedelta(hours=1)) == []
    assert decide(job, imported("D1", 2)) == [imported("D1", 2)]
    job = after(requested(), grabbed("D1"), imported("D1", 1), imported("D1", 2))
    assert (job.status, job.track_file_ids) == ("completed", {"Lidarr": (1, 2)})


def test_a_failure_of_an_unknown_download_is_none_of_its_business() -> None:
    """A failure is known by its download id only."""
    assert decide(after(requested(), grabbed("D1")), failed("D9")) == []


def test_a_grab_that_its_import_overtook_completes_the_record() -> None:
    """In either order the job ends the same, with all that is known of the release."""
    ordered = after(requested(), grabbed(), imported("D1", 1))
    overtaken = after(requested(), imported("D1", 1), grabbed())

    assert overtaken == ordered


def test_two_lidarrs_may_count_alike() -> None:
    """File 1 of one Lidarr is not file 1 of another."""
    job = after(requested(), imported(None, 1), requested())

    assert decide(job, imported(None, 1)) == []
    assert types(decide(job, imported(None, 1, instance="4K"))) == (JobImported, JobCompleted)


def test_a_grab_without_download_id_is_known_by_its_release() -> None:
    """A blackhole gives no id."""
    job = after(requested(), grabbed(None))

    assert job.status == "downloading"
    assert decide(job, grabbed(None)) == []


def test_facts_of_others_change_nothing() -> None:
    """Whatever else the vocabulary holds is no fact of a job."""
    assert apply(INITIAL, UnmatchedResolved(fact_id=uuid4(), streams=())) == INITIAL


ids = st.sampled_from(["D1", "D2", None])
files = st.lists(st.integers(1, 4), max_size=3, unique=True)
news = st.one_of(
    st.just(requested()),
    ids.map(grabbed),
    st.builds(lambda download_id, numbers: imported(download_id, *sorted(numbers)), ids, files),
    st.sampled_from(["D1", "D2"]).map(failed),
)
outcomes = st.one_of(
    news,
    st.integers(0, 4).map(lambda attempt: JobAttemptOpened(attempt=attempt)),
    st.integers(0, 4).map(lambda attempt: JobRequestMerged(attempt=attempt)),
    st.just(JobCompleted(reason="done")),
    st.just(JobFailed(reason="gone", next_step="ask again")),
)


@drawn(st.lists(outcomes, max_size=30))
def test_apply_takes_any_history(history: list[Event]) -> None:
    """No order and no repetition of facts makes the fold fail, and what is over stays over for its attempt."""
    state = INITIAL
    for event in history:
        before, state = state, apply(state, event)
        if before.status not in ACTIVE and state.status != before.status:
            assert isinstance(event, JobAttemptOpened)
            assert state.attempt > before.attempt
        assert msgspec.json.decode(msgspec.json.encode(state), type=DownloadJob) == state


@drawn(st.lists(news, max_size=30))
def test_deciding_twice_on_the_same_news_gives_nothing(history: list[News]) -> None:
    """Whatever came before: news that was just decided on is known, requests apart, which are recorded each."""
    state = INITIAL
    for fact in history:
        state = fold(decide(state, fact), state)
        if isinstance(fact, JobRequested):
            assert types(decide(state, fact)) == (JobRequested, JobRequestMerged)
        else:
            assert decide(state, fact) == []


@drawn(st.lists(news, max_size=30))
def test_every_state_that_waits_says_for_what(history: list[News]) -> None:
    """An active job has a reason and a next step, a finished one its reason."""
    state = after(requested(), *history)

    assert state.reason
    assert state.next_step or state.status == "completed"


@drawn(st.permutations([requested(), grabbed(), grabbed(), imported("D1", 1), imported("D1", 2)]))
def test_any_order_of_a_success_ends_alike(shuffled: list[News]) -> None:
    """The job has all files and knows its release; it is complete, or was asked for again after that."""
    state = after(requested(), *shuffled)

    assert state.status == ("completed" if state.attempt == 1 else state.status)
    assert state.status in {"completed", "requested"}
    assert has(state, imported("D1", 1, 2))
    assert [(known.key, known.outcome, known.was_grabbed) for known in state.downloads] == [("D1", "imported", True)]


def test_a_late_grab_does_not_move_a_newer_attempt() -> None:
    """The import overtook its grab and completed the job; who asked again since waits for something else."""
    job = after(requested(), imported("D1", 1), requested("second"), grabbed("D1"))

    assert (job.status, job.attempt) == ("requested", 2)
