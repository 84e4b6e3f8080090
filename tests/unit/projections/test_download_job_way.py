"""The way of a download job through its sources: what it asks for, until when, and how it ends."""

from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from kima_stream import events
from kima_stream.events import (
    EffectFailed,
    EffectIntended,
    EffectWithdrawn,
    Event,
    JobAddedToLidarr,
    JobAttemptOpened,
    JobCancelled,
    JobCancelRequested,
    JobCompleted,
    JobDeadlinePassed,
    JobDeadlineSet,
    JobDownloadBlocked,
    JobDownloadFailed,
    JobDownloadFinished,
    JobDownloadRemoved,
    JobFailed,
    JobGrabbed,
    JobImportFailed,
    JobProgressed,
    JobRequested,
    JobRequestMerged,
    JobRetryRequested,
    JobScanRequested,
    JobSearched,
    JobSoulseekFinished,
    JobSourceChosen,
    JobTracksCounted,
    Policy,
)
from projections.download_job import FOLDS
from projections.download_job_decider import decide, decide_unasked
from tests.job_play import (
    BOTH,
    LIDARR,
    NONE,
    NOW,
    SOULSEEK,
    TURNED,
    Play,
    a_grab,
    a_request,
    an_import,
    asked,
    peer_files,
)

MINUTE = 60
CANCEL = JobCancelRequested(user_id="ann")
RETRY = JobRetryRequested(user_id="ann", correlation_id="second")


def added(present: int = 0, total: int | None = 10) -> JobAddedToLidarr:
    """Lidarr watches the album, and has so much of it."""
    return JobAddedToLidarr(lidarr_instance="Lidarr", lidarr_album_id=317, tracks_total=total, tracks_present=present)


def searched(found: int | None = None) -> JobSearched:
    """Lidarr's search is over."""
    return JobSearched(source="lidarr", found=found)


def soulseek(found: int, wanted: int = 10) -> JobSoulseekFinished:
    """Soulseek is done."""
    return JobSoulseekFinished(
        files=peer_files(found), tracks_wanted=wanted, tracks_found=found, peers=("peer", "other")
    )


def import_failed(download_id: str = "D1") -> JobImportFailed:
    """Lidarr could not import a download."""
    return JobImportFailed(download_id=download_id, reason="Album match is not close enough.")


def grabbing(policy: Policy = LIDARR) -> Play:
    """Return a job whose release was grabbed after Lidarr's search."""
    play = asked(policy)
    play.outcome(added())
    play.outcome(searched())
    play.news(a_grab())
    return play


def types(facts: list[Event]) -> list[type[Event]]:
    """Return only what kinds of facts they are."""
    return [type(fact) for fact in facts]


def test_every_fact_of_a_job_has_its_fold() -> None:
    """A new fact of the vocabulary that the job does not know fails here."""
    job_facts = {
        each for each in vars(events).values()
        if isinstance(each, type) and issubclass(each, events.Event) and each is not events.Event
        and events.event_type(each).startswith(("download_job.", "effect."))
    }  # fmt: skip

    assert set(FOLDS) == job_facts


def test_the_straight_way_through_lidarr() -> None:
    """Added, searched, grabbed, imported: one call of each kind, each with the deadline of what comes next."""
    play = asked(LIDARR)
    assert (play.state.status, play.state.source, play.wanted) == ("searching", "lidarr", ["lidarr.add"])

    play.outcome(added())
    assert (play.state.status, play.wanted) == ("searching", ["lidarr.search"])
    play.outcome(searched(found=1))
    assert (play.state.deadline_kind, play.left_seconds) == ("grab", 10 * MINUTE)
    play.news(a_grab())
    assert (play.state.status, play.state.deadline_kind) == ("downloading", "progress")
    play.news(JobDownloadFinished(download_id="D1"))
    assert (play.state.status, play.state.deadline_kind, play.left_seconds) == ("importing", "import", 15 * MINUTE)
    play.news(an_import())

    assert (play.state.status, play.state.effects, play.state.deadline_at) == ("completed", (), None)
    kinds = [event.effect.kind for event in play.history if isinstance(event, EffectIntended)]
    assert kinds == ["lidarr.add", "lidarr.search"]


def test_nobody_can_act_and_the_job_still_ends() -> None:
    """Without a source it stays requested, says what to do, and fails after its bound."""
    play = asked(NONE)
    assert (play.state.status, play.state.source, play.wanted) == ("requested", None, [])
    assert play.left_seconds == 5 * MINUTE

    play.passes()

    assert (play.state.status, play.state.code) == ("failed", "no_source")
    assert play.state.next_step


@pytest.mark.parametrize("policy", [LIDARR, SOULSEEK, BOTH, TURNED])
def test_only_the_sources_of_the_policy_are_asked_and_each_once(policy: Policy) -> None:
    """A source that fails leads to the next; none means none."""
    play = asked(policy)
    while play.state.is_active:
        play.fails(reason="Out of order.")

    chosen = [event.source for event in play.history if isinstance(event, JobSourceChosen)]
    assert chosen == list(policy.sources)
    assert (play.state.status, play.state.code, play.state.reason) == ("failed", "refused", "Out of order.")
    assert play.state.next_step
    assert play.wanted == []


def test_nothing_found_is_the_turn_of_the_next_source() -> None:
    """Lidarr's search found nothing; Soulseek brings the album, and the library is told."""
    play = asked(BOTH)
    play.outcome(added())
    play.outcome(searched(found=0))
    assert (play.state.source, play.wanted) == ("soulseek", ["soulseek.acquire"])

    play.outcome(soulseek(10))

    assert (play.state.status, play.state.source, play.wanted) == ("completed", "soulseek", ["library.scan"])
    assert play.outcome(JobScanRequested()) == [JobScanRequested()]
    assert (play.wanted, play.news(JobScanRequested())) == ([], [])


@pytest.mark.parametrize(("policy", "ended"), [(BOTH, "searching"), (LIDARR, "failed")])
def test_no_grab_in_time_is_the_end_of_the_source(policy: Policy, ended: str) -> None:
    """The page says why, whichever way it goes on."""
    play = asked(policy)
    play.outcome(added())
    play.outcome(searched())

    play.passes()

    assert play.state.status == ended
    assert "grabbed nothing" in (play.state.reason or "")


@pytest.mark.parametrize(
    ("news", "code"),
    [([], "stalled"), ([JobDownloadFinished(download_id="D1")], "not_imported")],
)
def test_a_download_without_progress_and_a_stuck_import_fail_once(news: list[Event], code: str) -> None:
    """After their bound, with a reason; what comes later by itself is taken all the same."""
    play = grabbing()
    for fact in news:
        play.news(fact)

    play.passes()

    assert (play.state.status, play.state.code) == ("failed", code)
    assert [type(event) for event in play.history].count(JobFailed) == 1
    play.news(an_import())
    assert (play.state.status, play.state.attempt) == ("completed", 2)


def test_progress_pushes_the_deadline_but_never_beyond_the_bound() -> None:
    """A slow download lives as long as it moves; one that moves for ever does not."""
    play = grabbing(msgspec.structs.replace(LIDARR, total_seconds=3 * 60 * MINUTE))
    until = play.state.until
    left = 1_000
    while play.state.is_active:
        play.later(30 * MINUTE)
        left -= 1
        play.news(JobProgressed(download_id="D1", size_bytes=1_000, left_bytes=left))
        if play.left_seconds <= 0:
            play.passes()

    assert until is not None
    assert (play.state.code, play.now) == ("stalled", until)


def test_a_little_progress_is_no_fact_yet() -> None:
    """Polls do not fill the log: a twentieth of the size is one, or any when half of the time is over."""
    play = grabbing()

    assert play.news(JobProgressed(download_id="D1", size_bytes=1_000, left_bytes=999)) == []
    assert play.news(JobProgressed(download_id="D1", size_bytes=1_000, left_bytes=900)) != []
    assert play.news(JobProgressed(download_id="D1", size_bytes=1_000, left_bytes=900)) == []
    play.later(31 * MINUTE)
    assert play.news(JobProgressed(download_id="D1", size_bytes=1_000, left_bytes=899)) != []
    assert play.news(JobProgressed(download_id="D9", size_bytes=1_000, left_bytes=1)) == []


def test_a_download_that_was_given_up_and_moves_again_is_taken_back() -> None:
    """Asked again, Lidarr grabs nothing new since it is still at it; that is no reason to fail."""
    play = grabbing()
    play.passes()
    play.news(RETRY)
    play.outcome(added())

    play.news(JobProgressed(download_id="D1", size_bytes=1_000, left_bytes=10))

    assert (play.state.status, play.state.attempt, play.state.hopes[0].key) == ("downloading", 2, "D1")


def test_an_outage_neither_fails_nor_completes_a_job() -> None:
    """Nobody could look: the deadline moves, and only the bound of the source ends it."""
    play = grabbing()
    passed = 0
    while play.state.is_active:
        play.passes(unreachable=frozenset({"lidarr"}))
        passed += 1
        assert passed < 100

    assert (play.now, passed) == (NOW + timedelta(seconds=LIDARR.total_seconds), 24)
    assert types(play.history[-2:]) == [JobDeadlinePassed, JobFailed]


def test_lidarr_that_is_down_has_all_the_time_unless_another_source_waits() -> None:
    """Alone it is waited for; with a fallback nobody waits long."""
    assert asked(LIDARR).left_seconds == LIDARR.total_seconds

    play = asked(BOTH)
    assert play.left_seconds == 10 * MINUTE
    play.passes()
    assert (play.state.source, play.wanted) == ("soulseek", ["soulseek.acquire"])
    assert any(isinstance(event, EffectWithdrawn) for event in play.history)


def test_a_deadline_is_past_only_when_it_is_and_only_once() -> None:
    """One that was moved, one that is to come and one that was handled change nothing."""
    play = asked(NONE)
    passed = JobDeadlinePassed(deadline_at=play.state.deadline_at)

    assert play.news(passed) == []
    assert play.news(JobDeadlinePassed(deadline_at=NOW)) == []
    play.later(5 * MINUTE)
    assert types(play.news(passed)) == [JobDeadlinePassed, JobFailed]
    assert play.news(passed) == []


def test_a_job_of_before_there_were_deadlines_gets_one() -> None:
    """Nothing waits for ever, whoever wrote its history."""
    play = Play()
    play._record([a_request(), JobAttemptOpened(attempt=1)])

    assert types(play.news(JobDeadlinePassed(deadline_at=None))) == [JobDeadlinePassed, JobDeadlineSet]
    assert play.left_seconds == 5 * MINUTE
    assert play.news(JobDeadlinePassed(deadline_at=None)) == []


def test_an_import_failure_takes_another_release_up_to_the_cap() -> None:
    """Each is blocked once, then the job fails: never the endless download of one album."""
    play = grabbing(msgspec.structs.replace(LIDARR, max_releases=100))
    for number in range(1, 4):
        play.news(import_failed(f"D{number}"))
        assert [(each.kind, each.target) for each in play.state.effects] == [("lidarr.blocklist", f"D{number}")]
        play.outcome(JobDownloadBlocked(download_id=f"D{number}"))
        assert play.state.deadline_kind == "grab"
        play.news(a_grab(f"D{number + 1}"))

    play.news(import_failed("D4"))

    assert (play.state.status, play.state.code, play.wanted) == ("failed", "import_failed", [])
    assert "close enough" in (play.state.reason or "")


def test_a_grab_that_is_told_after_its_import_failed_is_no_second_one() -> None:
    """Seen in the history, the webhook came late: the job is over, and stays so; a retry may take it again."""
    play = grabbing(msgspec.structs.replace(LIDARR, max_blocklists=0))
    play.news(import_failed())
    assert play.state.status == "failed"

    assert play.news(a_grab()) == []
    play.news(RETRY)
    play.outcome(added())
    play.news(a_grab())
    assert (play.state.status, play.state.attempt) == ("downloading", 2)


def test_a_download_failure_is_followed_by_lidarrs_next_grab_up_to_the_cap() -> None:
    """Lidarr searches again by itself; after so many releases the source is given up."""
    play = grabbing(BOTH)
    for number in range(1, 4):
        play.news(JobDownloadFailed(download_id=f"D{number}"))
        assert (play.state.status, play.state.deadline_kind) == ("searching", "grab")
        play.news(a_grab(f"D{number + 1}"))

    play.news(JobDownloadFailed(download_id="D4"))

    assert (play.state.source, play.wanted) == ("soulseek", ["soulseek.acquire"])


def test_lidarr_that_goes_on_for_ever_opens_no_attempts_for_ever() -> None:
    """After the cap its grabs are recorded, and nothing more; an import still completes the job."""
    play = asked(NONE)
    for number in range(30):
        play.news(a_grab(f"D{number}"))
        play.news(JobDownloadFailed(download_id=f"D{number}"))

    assert (play.state.status, play.state.attempt) == ("failed", 1 + NONE.max_releases)
    play.news(an_import("D29"))
    assert play.state.status == "completed"


def test_many_releases_are_remembered_but_not_all() -> None:
    """The state stays small, and what runs is never forgotten."""
    play = asked(NONE)
    play.news(a_grab("kept"))
    for number in range(300):
        play.news(a_grab(f"D{number}"))
        play.news(JobDownloadFailed(download_id=f"D{number}"))

    assert len(play.state.downloads) == 100
    assert [hope.key for hope in play.state.hopes] == ["kept"]


def test_a_part_of_the_album_is_never_completed() -> None:
    """The other tracks have their time; then the job fails, and says what is there."""
    play = grabbing()
    play.news(an_import(files=8))
    assert (play.state.status, play.state.deadline_kind) == ("importing", "import")

    play.passes()

    assert (play.state.status, play.state.code, play.state.is_partial) == ("failed", "partial", True)
    assert "8 of 10" in (play.state.reason or "")
    play.news(an_import(files=2, first=9))
    assert play.state.status == "completed"


def test_a_part_is_enough_where_the_setting_says_so() -> None:
    """It is completed, and still called partial."""
    play = grabbing(msgspec.structs.replace(LIDARR, requires_all_tracks=False))

    play.news(an_import(files=8))

    assert (play.state.status, play.state.is_partial) == ("completed", True)
    assert "8 of 10" in (play.state.reason or "")


def test_two_halves_are_a_whole() -> None:
    """Imports add up, whatever download they come from; upgrades bring nothing new."""
    play = grabbing()
    play.news(an_import(files=5))
    play.news(msgspec.structs.replace(an_import(None, files=5, first=100), is_upgrade=True))
    assert play.state.status == "importing"
    play.news(an_import("D2", files=5, first=6))

    assert (play.state.status, play.state.is_partial) == ("completed", False)


def test_an_import_before_lidarr_said_how_many_tracks_there_are_waits_for_that() -> None:
    """Somebody had grabbed it already: nobody knows yet whether this is all."""
    play = asked(LIDARR)
    play.news(a_grab())
    play.news(an_import(files=8))
    assert play.state.status == "importing"

    play.outcome(added(present=8))
    assert (play.state.status, play.wanted) == ("searching", ["lidarr.search"])
    play.news(JobTracksCounted(lidarr_instance="Lidarr", lidarr_album_id=317, tracks_total=10, tracks_present=10))
    assert (play.state.status, play.wanted) == ("completed", [])


@pytest.mark.parametrize("end", ["fails", "passes"])
def test_an_import_of_which_nobody_says_that_it_is_a_part_is_the_album(end: str) -> None:
    """Lidarr could not be asked; what it imported is there all the same."""
    play = asked(LIDARR)
    play.news(a_grab())
    play.news(an_import(files=8))

    if end == "fails":
        play.fails()
    else:
        play.passes()

    assert play.state.status == "completed"


def test_what_lidarr_has_already_is_complete_at_once() -> None:
    """No search for an album that is there; with a part of it there is one."""
    play = asked(LIDARR)
    assert types(play.outcome(added(present=10))) == [JobAddedToLidarr, JobCompleted]

    play = asked(msgspec.structs.replace(LIDARR, requires_all_tracks=False))
    play.outcome(added(present=1))
    assert play.wanted == ["lidarr.search"]


@pytest.mark.parametrize(("policy", "status"), [(SOULSEEK, "failed"), (TURNED, "searching")])
def test_a_part_from_soulseek_is_partial(policy: Policy, status: str) -> None:
    """Lidarr is asked for the rest if it is the fallback; the files stay, the library hears of them."""
    play = asked(policy)

    play.outcome(soulseek(7))

    assert play.state.status == status
    assert "library.scan" in play.wanted
    assert (play.state.tracks_present, play.state.tracks_total, play.state.peers) == (7, 10, ("peer", "other"))
    assert play.state.is_partial is (status == "failed")


def test_all_of_a_folder_is_a_part_of_an_album_that_has_more() -> None:
    """Lidarr said how many tracks there are: a peer's best folder with fewer is no album, and the number stays."""
    play = asked(BOTH)
    play.outcome(added())
    play.outcome(searched(0))

    play.outcome(soulseek(8, wanted=8))

    assert (play.state.status, play.state.code, play.state.is_partial) == ("failed", "partial", True)
    assert (play.state.tracks_present, play.state.tracks_total) == (8, 10)


def test_what_two_sources_brought_is_never_added_up() -> None:
    """Lidarr imports, one by one, what Soulseek brought before: seven tracks and three of the same are seven."""
    play = asked(TURNED)
    play.outcome(soulseek(7))
    play.outcome(added(), "lidarr.add")
    for file in range(1, 8):
        play.news(an_import(f"D{file}", files=1, first=file))
        assert (play.state.status, play.state.tracks_present) == ("importing", 7)

    play.news(an_import("D8", files=3, first=8))
    assert (play.state.status, play.state.is_partial) == ("completed", False)


def test_what_lidarr_has_is_counted_from_what_it_had() -> None:
    """It found in its folder what Soulseek brought: with the three tracks that it imports the album is whole."""
    play = asked(TURNED)
    play.outcome(soulseek(7))
    play.outcome(added(), "lidarr.add")
    counted = JobTracksCounted(lidarr_instance="Lidarr", lidarr_album_id=317, tracks_total=10, tracks_present=7)
    assert types(play.news(counted)) == [JobTracksCounted]
    assert play.news(counted) == []

    play.news(an_import(files=3, first=8))

    assert (play.state.status, play.state.is_partial) == ("completed", False)


def test_a_smaller_number_of_tracks_counts_once_lidarr_has_them_all() -> None:
    """It may take another edition than a peer had; until all of that is there, a part does not become the album."""
    counted = JobTracksCounted(lidarr_instance="Lidarr", lidarr_album_id=317, tracks_total=8, tracks_present=7)
    play = asked(TURNED)
    play.outcome(soulseek(9, wanted=12))
    play.outcome(added(total=8), "lidarr.add")
    play.news(counted)
    assert (play.state.status, play.state.tracks_total) == ("searching", 12)

    play.news(msgspec.structs.replace(counted, tracks_present=8))

    assert (play.state.status, play.state.tracks_total, play.state.is_partial) == ("completed", 8, False)


def test_soulseek_that_finds_nothing_is_not_partial() -> None:
    """There is nothing to scan."""
    play = asked(SOULSEEK)

    play.outcome(soulseek(0))

    assert (play.state.status, play.state.code, play.state.is_partial) == ("failed", "nothing_found", False)
    assert play.wanted == []


def test_whoever_brings_the_album_first_ends_the_search_of_the_other() -> None:
    """Lidarr imports while Soulseek still looks: that call is withdrawn."""
    play = asked(SOULSEEK)
    play.news(a_grab())
    assert (play.state.status, play.wanted) == ("downloading", ["soulseek.acquire"])

    play.news(an_import())

    assert (play.state.status, play.wanted) == ("completed", [])


def test_soulseek_goes_on_when_lidarrs_own_grab_fails() -> None:
    """The job waits for what is still under way, also when that download only stands still."""
    for end in ("fails", "stands still"):
        play = asked(SOULSEEK)
        play.news(a_grab())
        if end == "fails":
            play.news(JobDownloadFailed(download_id="D1"))
        else:
            play.passes()
        assert (play.state.status, play.state.deadline_kind) == ("searching", "answer")
        play.outcome(soulseek(10))
        assert play.state.status == "completed"


def test_cancel_reaches_what_is_queued_and_what_runs() -> None:
    """Open calls are withdrawn, the download is removed; the answer of Lidarr changes no outcome."""
    play = asked(LIDARR)
    play.outcome(added())
    play.news(a_grab())
    assert play.wanted == ["lidarr.search"]

    facts = play.news(CANCEL)

    assert types(facts) == [JobCancelRequested, EffectWithdrawn, JobCancelled, EffectIntended]
    assert (play.state.status, play.open().kind, play.open().target) == ("cancelled", "lidarr.remove", "D1")
    play.outcome(JobDownloadRemoved(download_id="D1"))
    assert (play.state.status, play.wanted, play.state.downloads[0].outcome) == ("cancelled", [], "removed")


def test_a_cancel_leaves_to_others_what_they_want() -> None:
    """Lidarr is told nothing while another job wants the album, nor where it may not be told."""
    play = grabbing()
    play.news(CANCEL, is_wanted_elsewhere=True)
    assert (play.state.status, play.wanted) == ("cancelled", [])

    play = asked(NONE)
    play.news(a_grab())
    play.news(CANCEL)
    assert (play.state.status, play.wanted) == ("cancelled", [])
    assert "goes on in Lidarr" in (play.state.reason or "")


def test_a_cancel_that_fails_at_lidarr_says_what_to_do() -> None:
    """The job is cancelled; the download is not gone."""
    play = grabbing()
    play.news(CANCEL)

    play.fails("lidarr.remove", code="unreachable")

    assert play.state.status == "cancelled"
    assert play.state.next_step


def test_a_grab_of_the_search_that_was_under_way_is_removed_after_the_cancel() -> None:
    """Within the time of a search; later grabs are Lidarr's own business."""
    for seconds, others, wanted in ((60, False, ["lidarr.remove"]), (60, True, []), (3_600, False, [])):
        play = asked(LIDARR)
        play.outcome(added())
        play.news(CANCEL)
        play.later(seconds)
        play.news(a_grab(), is_wanted_elsewhere=others)
        assert (play.state.status, play.wanted) == ("cancelled", wanted)


def test_cancelling_what_is_over_is_recorded_and_changes_nothing() -> None:
    """Completed stays completed; a job that is not there has no cancel."""
    play = grabbing()
    play.news(an_import())

    assert play.news(CANCEL) == [CANCEL]
    assert play.state.status == "completed"
    assert Play().news(CANCEL) == []


@pytest.mark.parametrize("end", [CANCEL, JobDownloadFailed(download_id="D1")])
def test_a_retry_opens_the_next_attempt(end: Event) -> None:
    """With the policy of now, a trace of its own and nothing of the last attempt but what it remembers."""
    play = asked(NONE)
    play.news(a_grab())
    play.news(end)
    play.policy = SOULSEEK

    play.news(RETRY)

    job = play.state
    assert (job.status, job.attempt, job.correlation_id, job.policy) == ("searching", 2, "second", SOULSEEK)
    assert (play.wanted, job.is_partial, job.code, len(job.downloads)) == (["soulseek.acquire"], False, None, 1)
    assert types(play.news(RETRY)) == [JobRetryRequested, JobRequestMerged]
    assert Play().news(RETRY) == []


def test_a_retry_after_a_cancel_keeps_what_was_about_to_be_removed() -> None:
    """The removal is withdrawn if nobody has made it."""
    play = grabbing()
    play.news(CANCEL)
    assert play.wanted == ["lidarr.remove"]

    play.news(RETRY)

    assert play.wanted == ["lidarr.add"]


def test_five_requests_ask_the_source_once() -> None:
    """Only the first opens an attempt and wants a call."""
    play = asked(LIDARR)
    for _ in range(4):
        assert play.news(a_request()) == [a_request(), JobRequestMerged(attempt=1)]

    assert [type(event) for event in play.history].count(EffectIntended) == 1


def test_a_changed_setting_is_for_the_next_attempt() -> None:
    """The one under way goes by the policy that it was opened with."""
    play = asked(LIDARR)
    play.policy = BOTH

    play.outcome(added())
    play.outcome(searched(found=0))

    assert play.state.status == "failed"


def test_a_late_grab_after_completion_is_recorded_with_the_job() -> None:
    """The search of the attempt grabbed twice; an upgrade an hour later is no part of it."""
    play = grabbing()
    play.news(an_import())

    assert play.news(a_grab("D2")) == [a_grab("D2")]
    assert play.state.status == "completed"
    assert play.news(a_grab("D2")) == []
    play.later(3_600)
    assert play.news(a_grab("D3")) == []


def test_what_nobody_asked_for_has_a_deadline_too() -> None:
    """Lidarr's own job follows what it does, for so long, and asks no source of ours."""
    facts = decide_unasked(Play().state, a_request(), a_grab(), NOW).facts

    assert types(facts) == [JobRequested, JobAttemptOpened, JobGrabbed, JobDeadlineSet]
    play = Play()
    play._record(facts)
    play.news(import_failed())
    assert (play.state.status, play.wanted) == ("failed", [])


def test_the_outcome_of_a_withdrawn_call_is_recorded_and_moves_nothing() -> None:
    """Lidarr had added the album, Soulseek had brought files, when the job was cancelled."""
    play = asked(LIDARR)
    play.news(CANCEL)
    assert play.news(added()) == [added()]
    assert play.news(added()) == []
    assert play.news(searched(found=0)) == []

    play = asked(SOULSEEK)
    play.news(CANCEL)
    assert types(play.news(soulseek(10))) == [JobSoulseekFinished, EffectIntended]
    assert (play.state.status, play.wanted) == ("cancelled", ["library.scan"])
    assert play.news(soulseek(10)) == []


def test_a_failure_of_another_attempts_call_changes_nothing() -> None:
    """It was given up while somebody had asked again."""
    play = asked(LIDARR)
    old = play.open()
    play.news(CANCEL)
    play.news(RETRY)

    assert play.news(EffectFailed(effect_id=old.effect_id, kind=old.kind, code="refused", reason="")) == []
    assert play.state.is_active


def test_the_same_decision_names_the_same_call() -> None:
    """Deciding twice intends once; another attempt intends another."""
    play = asked(LIDARR)
    twin = asked(LIDARR)
    assert play.state.effects == twin.state.effects
    first: UUID = play.open().effect_id

    play.news(CANCEL)
    play.news(RETRY)

    assert play.open().effect_id != first
    assert decide(twin.state, added(), NOW).facts == decide(twin.state, added(), NOW).facts
