"""A download job as the shell moves it, without a shell: news is decided at a moment, calls get their outcome."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from kima_stream.events import (
    Effect,
    EffectDone,
    EffectFailed,
    Event,
    JobDeadlinePassed,
    JobGrabbed,
    JobImported,
    JobRequested,
    Policy,
    SoulseekFile,
)
from projections.download_job import INITIAL, DownloadJob, apply, fold
from projections.download_job_decider import decide

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
TARGET = UUID("0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f")

NONE = Policy()
LIDARR = Policy(sources=("lidarr",))
SOULSEEK = Policy(sources=("soulseek",))
BOTH = Policy(sources=("lidarr", "soulseek"))
TURNED = Policy(sources=("soulseek", "lidarr"))


class Play:
    """One job; ``now`` is the clock, ``history`` all that was recorded."""

    def __init__(self, policy: Policy = NONE) -> None:
        """Begin before anybody asked; ``policy`` is what the settings say."""
        self.policy = policy
        self.state: DownloadJob = INITIAL
        self.now = NOW
        self.history: list[Event] = []

    def news(
        self, fact: Event, *, is_wanted_elsewhere: bool = False, unreachable: frozenset[str] = frozenset()
    ) -> list[Event]:
        """Decide on ``fact`` and record what follows."""
        facts = decide(
            self.state, fact, self.now, policy=self.policy, is_wanted_elsewhere=is_wanted_elsewhere,
            unreachable=unreachable,
        ).facts  # fmt: skip
        self._record(facts)
        return facts

    def outcome(self, fact: Event, kind: str | None = None) -> list[Event]:
        """Record the outcome of an open call, the one of ``kind``, and what follows from its news."""
        effect = self.open(kind)
        if isinstance(fact, EffectFailed):
            self._record([fact])
        else:
            self._record([EffectDone(effect_id=effect.effect_id)])
        return self.news(fact)

    def fails(self, kind: str | None = None, *, code: str = "refused", reason: str = "It was refused.") -> list[Event]:
        """Let an open call fail."""
        effect = self.open(kind)
        return self.outcome(EffectFailed(effect_id=effect.effect_id, kind=effect.kind, code=code, reason=reason), kind)

    def open(self, kind: str | None = None) -> Effect:
        """Return the one open call, of ``kind`` if that is given."""
        [effect] = [each for each in self.state.effects if kind in {None, each.kind}]
        return effect

    @property
    def wanted(self) -> list[str]:
        """Return the kinds of the open calls."""
        return [effect.kind for effect in self.state.effects]

    def passes(self, *, unreachable: frozenset[str] = frozenset()) -> list[Event]:
        """Let the time of the deadline come, and the sweep with it."""
        assert self.state.deadline_at is not None
        self.now = max(self.now, self.state.deadline_at)
        return self.news(JobDeadlinePassed(deadline_at=self.state.deadline_at), unreachable=unreachable)

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    @property
    def left_seconds(self) -> float:
        """Return how long the job still waits."""
        assert self.state.deadline_at is not None
        return (self.state.deadline_at - self.now).total_seconds()

    def _record(self, facts: Sequence[Event]) -> None:
        self.history += facts
        self.state = fold(facts, self.state)


def asked(policy: Policy = NONE) -> Play:
    """Return a job that ann has asked for."""
    play = Play(policy)
    play.news(a_request())
    return play


def refold(play: Play) -> DownloadJob:
    """Return the fold of everything recorded."""
    state = INITIAL
    for event in play.history:
        state = apply(state, event)
    return state


def a_request(correlation_id: str = "first") -> JobRequested:
    """Somebody asks for Tidewater."""
    return JobRequested(
        job_id=UUID(int=7), user_id="ann", artist="The Harbour Lights", album="Tidewater", target_mbid=TARGET,
        target_is_derived=False, origin="user", correlation_id=correlation_id,
    )  # fmt: skip


def a_grab(download_id: str | None = "D1") -> JobGrabbed:
    """Lidarr grabs a release."""
    return JobGrabbed(
        download_id=download_id, lidarr_instance="Lidarr", lidarr_album_id=317, release_title=f"release {download_id}",
        indexer="an indexer", quality="FLAC", size_bytes=1_000,
    )  # fmt: skip


def an_import(download_id: str | None = "D1", files: int = 10, first: int = 1) -> JobImported:
    """Lidarr imports files of the album."""
    numbers = tuple(range(first, first + files))
    return JobImported(
        download_id=download_id, lidarr_instance="Lidarr", lidarr_album_id=317, track_file_ids=numbers, tracks=files
    )


def peer_files(count: int) -> tuple[SoulseekFile, ...]:
    """Return files that a peer sent."""
    return tuple(SoulseekFile(path=f"album/{n:02}.flac", size_bytes=1_000, peer="peer") for n in range(1, count + 1))
