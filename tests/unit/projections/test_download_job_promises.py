"""What no sequence of news can break: a job always ends, once, within its caps, whatever comes in whatever order."""

from collections import Counter
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from hypothesis import given as drawn, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from kima_stream.events import (
    Effect,
    EffectDone,
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
    JobImportFailed,
    JobProgressed,
    JobRequestMerged,
    JobRetryRequested,
    JobScanRequested,
    JobSearched,
    JobSoulseekFinished,
    JobSourceChosen,
    JobTracksCounted,
    Policy,
)
from projections.download_job import ACTIVE, INITIAL, DownloadJob, apply, fold
from projections.download_job_decider import decide
from projections.download_job_state import STEPS
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
    peer_files,
    refold,
)

MOST_SWEEPS: Final = 200  # of an active job that nobody brings news: an hour each of two sources of a day, and some
CAPPED = msgspec.structs.replace(BOTH, max_releases=1, max_blocklists=1, requires_all_tracks=False)
REQUESTS = (JobRetryRequested, JobCancelRequested, type(a_request()))

policies = st.sampled_from([NONE, LIDARR, SOULSEEK, BOTH, TURNED, CAPPED])
download_ids = st.sampled_from(["D1", "D2", "D3"])
counts = st.integers(0, 3)
totals = st.none() | st.integers(0, 3)
lidarr_album: Final = {"lidarr_instance": "Lidarr", "lidarr_album_id": 317}

news = st.one_of(
    (download_ids | st.none()).map(a_grab),
    st.builds(an_import, download_ids | st.none(), counts, st.integers(1, 3)),
    st.builds(JobDownloadFailed, download_id=download_ids),
    st.builds(JobImportFailed, download_id=download_ids, reason=st.just("")),
    st.builds(JobDownloadFinished, download_id=download_ids),
    st.builds(JobProgressed, download_id=download_ids, size_bytes=st.just(1_000), left_bytes=st.integers(0, 1_000)),
    st.builds(
        JobTracksCounted, tracks_total=totals, tracks_present=counts, **{k: st.just(v) for k, v in lidarr_album.items()}
    ),
)
answers = {
    "lidarr.add": st.builds(
        JobAddedToLidarr, tracks_total=totals, tracks_present=counts, **{k: st.just(v) for k, v in lidarr_album.items()}
    ),
    "lidarr.search": st.builds(JobSearched, source=st.just("lidarr"), found=st.none() | counts),
    "lidarr.remove": st.builds(JobDownloadRemoved, download_id=download_ids),
    "lidarr.blocklist": st.builds(JobDownloadBlocked, download_id=download_ids),
    "soulseek.acquire": st.builds(
        lambda found, missing: JobSoulseekFinished(
            files=peer_files(found), tracks_wanted=found + missing, tracks_found=found, peers=("p",)
        ),
        counts, counts,
    ),
    "library.scan": st.just(JobScanRequested()),
}  # fmt: skip


class AnyLife(RuleBasedStateMachine):
    """A job to which anything happens at any time, also twice, late, and on clocks that differ by seconds."""

    def __init__(self) -> None:
        """Begin before anybody asked."""
        super().__init__()
        self.play = Play()
        self.calls: list[Effect] = []  # every call that was ever wanted

    def tell(self, fact: Event, *, others: bool = False, unreachable: frozenset[str] = frozenset()) -> None:
        """Bring news, and see that bringing it again changes nothing."""
        self.play.news(fact, is_wanted_elsewhere=others, unreachable=unreachable)
        self.note()
        again = decide(self.play.state, fact, self.play.now, policy=self.play.policy, unreachable=unreachable).facts
        if isinstance(fact, REQUESTS):
            assert (
                all(isinstance(each, (*REQUESTS, JobRequestMerged)) for each in again) or not self.play.state.is_active
            )
        else:
            assert again == []

    def note(self) -> None:
        """Remember the calls that are wanted."""
        self.calls += [effect for effect in self.play.state.effects if effect not in self.calls]

    @rule(policy=policies, retry=st.booleans())
    def ask(self, policy: Policy, retry: bool) -> None:
        """Somebody asks, for the first time or again, and the settings may be others by now."""
        self.play.policy = policy
        self.tell(JobRetryRequested(user_id="ann", correlation_id="again") if retry else a_request())

    @rule(others=st.booleans())
    def cancel(self, others: bool) -> None:
        """Somebody cancels."""
        self.tell(JobCancelRequested(user_id="ann"), others=others)

    @rule(fact=news, others=st.booleans())
    def hear(self, fact: Event, others: bool) -> None:
        """Lidarr says something."""
        self.tell(fact, others=others)

    @precondition(lambda self: self.play.state.effects)
    @rule(data=st.data(), fails=st.booleans())
    def settle(self, data: st.DataObject, fails: bool) -> None:
        """A call has its outcome, as the worker records it."""
        effect = data.draw(st.sampled_from(self.play.state.effects))
        outcome = EffectFailed(effect_id=effect.effect_id, kind=effect.kind, code="refused", reason="No.")
        self.play._record([outcome if fails else EffectDone(effect_id=effect.effect_id)])
        self.tell(outcome if fails else data.draw(answers[effect.kind]))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), fails=st.booleans())
    def answer_late(self, data: st.DataObject, fails: bool) -> None:
        """An outcome of any call comes, of whatever attempt, though nobody waits for it."""
        effect = data.draw(st.sampled_from(self.calls))
        failed = EffectFailed(effect_id=effect.effect_id, kind=effect.kind, code="refused", reason="No.")
        self.tell(failed if fails else data.draw(answers[effect.kind]))

    @precondition(lambda self: self.play.state.is_active)
    @rule(unreachable=st.sampled_from([frozenset(), frozenset({"lidarr"}), frozenset({"lidarr", "soulseek"})]))
    def sweep(self, unreachable: frozenset[str]) -> None:
        """The deadline comes, and the sweep."""
        assert self.play.state.deadline_at is not None
        self.play.now = max(self.play.now, self.play.state.deadline_at)
        self.tell(JobDeadlinePassed(deadline_at=self.play.state.deadline_at), unreachable=unreachable)

    @rule(seconds=st.integers(-5, 7_200))
    def wait(self, seconds: int) -> None:
        """Time passes, or another host's clock speaks."""
        self.play.later(seconds)

    @invariant()
    def is_bound(self) -> None:
        """An active job has a deadline within its bound and says what it waits for; what is over waits for nothing."""
        job = self.play.state
        if job.is_active:
            assert job.deadline_at is not None
            assert job.until is not None
            assert job.deadline_at <= job.until
            assert job.deadline_kind
            assert job.next_step
        else:
            assert (job.deadline_at, job.deadline_kind, job.until, job.awaits) == (None, None, None, None)
            assert not any(effect.kind in STEPS for effect in job.effects)
        assert job.reason or job.status == "none"

    @invariant()
    def keeps_its_caps(self) -> None:
        """Sources, releases, calls and attempts: no more than the policy of each attempt allows."""
        job = self.play.state
        assert job.blocklists <= job.policy.max_blocklists
        assert job.reopened <= job.policy.max_releases + 1  # and once more, to complete
        assert set(job.sources) <= set(job.policy.sources)
        assert len(job.sources) == len(set(job.sources))
        asked = Counter[str]()
        for event in self.play.history:
            match event:
                case JobAttemptOpened():
                    asked.clear()
                case JobSourceChosen(source=source):
                    asked[source] += 1
                    assert asked[source] == 1
                case _:
                    continue

    @invariant()
    def ends_each_attempt_once(self) -> None:
        """Between two openings there is one end at most, and every call is intended once."""
        ends = 0
        for event in self.play.history:
            ends += isinstance(event, JobCompleted | JobFailed | JobCancelled)
            if isinstance(event, JobAttemptOpened):
                ends = 0
            assert ends <= 1
        intended = [event.effect.effect_id for event in self.play.history if isinstance(event, EffectIntended)]
        assert len(intended) == len(set(intended))

    @invariant()
    def is_the_fold(self) -> None:
        """The state is what the history says, and survives being written down."""
        assert refold(self.play) == self.play.state
        assert msgspec.json.decode(msgspec.json.encode(self.play.state), type=DownloadJob) == self.play.state

    def teardown(self) -> None:
        """Nobody says anything any more, and no system can be asked: it ends all the same."""
        sweeps = 0
        while self.play.state.is_active:
            self.play.passes(unreachable=frozenset({"lidarr", "soulseek"}))
            sweeps += 1
            assert sweeps < MOST_SWEEPS


def test_no_sequence_of_news_breaks_a_promise() -> None:
    """Hundreds of lives of some forty events; what breaks is shown as the shortest story."""
    run_state_machine_as_test(AnyLife, settings=settings(max_examples=200, stateful_step_count=40, deadline=None))


facts = st.one_of(
    news,
    *answers.values(),
    policies.flatmap(lambda policy: st.integers(0, 4).map(lambda n: JobAttemptOpened(attempt=n, policy=policy))),
    st.builds(JobSourceChosen, source=st.sampled_from(["lidarr", "soulseek"])),
    st.builds(
        lambda number, kind: EffectIntended(effect=Effect(effect_id=UUID(int=number), kind=kind)),
        st.integers(0, 3), st.sampled_from(sorted(answers)),
    ),
    st.integers(0, 3).map(lambda number: EffectDone(effect_id=UUID(int=number))),
    st.integers(0, 3).map(lambda number: EffectWithdrawn(effect_id=UUID(int=number))),
    st.builds(
        lambda number, kind: EffectFailed(effect_id=UUID(int=number), kind=kind, code="refused", reason=""),
        st.integers(0, 3), st.sampled_from(sorted(answers)),
    ),
    st.integers(0, 3).map(
        lambda hours: JobDeadlineSet(deadline_at=NOW + timedelta(hours=hours), kind="progress", until=NOW)
    ),
    st.integers(0, 3).map(lambda hours: JobDeadlinePassed(deadline_at=NOW + timedelta(hours=hours))),
    st.sampled_from(
        [
            a_request(), JobRequestMerged(attempt=1), JobRetryRequested(user_id="ann", correlation_id="again"),
            JobCancelRequested(user_id="ann"), JobCancelled(reason="gone"), JobCompleted(reason="done"),
            JobFailed(reason="gone", next_step="ask again"),
        ]
    ),
)  # fmt: skip


@drawn(st.lists(facts, max_size=40))
def test_the_fold_takes_any_history(history: list[Event]) -> None:
    """No order and no repetition of facts makes it fail, and what is over stays over for its attempt."""
    state = INITIAL
    for event in history:
        before, state = state, apply(state, event)
        if before.status not in ACTIVE and state.status != before.status:
            assert isinstance(event, JobAttemptOpened)
            assert state.attempt > before.attempt
        assert msgspec.json.decode(msgspec.json.encode(state), type=DownloadJob) == state


@drawn(st.lists(st.one_of(news, *answers.values()), max_size=20))
def test_two_sources_never_add_up(history: list[Event]) -> None:
    """As many tracks are there as the source has that has most; what Soulseek looked for lowers no number of tracks."""
    present = [0, 0]
    for from_soulseek in (False, True):
        own = [event for event in history if isinstance(event, JobSoulseekFinished) is from_soulseek]
        present[from_soulseek] = fold(own).tracks_present
    assert fold(history).tracks_present == max(present)

    state = INITIAL
    for event in history:
        before, state = state, apply(state, event)
        if isinstance(event, JobSoulseekFinished):
            assert (state.tracks_total or 0) >= max(before.tracks_total or 0, event.tracks_wanted)


@drawn(st.lists(facts, max_size=30), facts, policies)
def test_the_decider_takes_any_state(history: list[Event], fact: Event, policy: Policy) -> None:
    """Whatever a history left, also one that no decider wrote: it answers, and with facts that can be written down."""
    play = Play(policy)
    play._record(history)

    for decided in play.news(fact):
        assert msgspec.json.decode(msgspec.json.encode(decided), type=type(decided)) == decided
