"""The steps that a job can take: the next source, a call to the outside, a deadline, the end of an attempt.

Pure. A ``Course`` begins with a state and a moment, gathers facts and shows the state after them; so each step
is decided on what the steps before it left. Every step that leaves the job active leaves it a deadline.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import uuid5

from msgspec.structs import replace

from kima_stream.events import (
    Deadline,
    Effect,
    EffectIntended,
    EffectWithdrawn,
    Event,
    JobAttemptOpened,
    JobCancelled,
    JobCompleted,
    JobDeadlineSet,
    JobFailed,
    JobSourceChosen,
    Policy,
    Source,
)
from projections.download_job import apply
from projections.download_job_state import STEPS, DownloadJob

_FIRST_STEP: Final[dict[Source, str]] = {"lidarr": "lidarr.add", "soulseek": "soulseek.acquire"}
IMPORTED: Final = "Lidarr imported the album."
_ASK_AGAIN: Final = "Asking again opens a new attempt."


class Course:
    """What a decision makes of a job at one moment; ``facts`` are to be appended, ``state`` is the job after them."""

    def __init__(self, state: DownloadJob, at: datetime) -> None:
        """Begin where the job stands."""
        self.state = state
        self.facts: list[Event] = []
        self._at = at

    def add(self, *facts: Event) -> None:
        """Let facts happen."""
        self.facts += facts
        for fact in facts:
            self.state = apply(self.state, fact)

    def open_attempt(self, policy: Policy) -> None:
        """Begin anew with the first source; without any somebody has to act within a bound."""
        self.withdraw("lidarr.remove")  # wanted again
        self.add(JobAttemptOpened(attempt=self.state.attempt + 1, policy=policy))
        if not self._next_source(None):
            self.wait("source")

    def reopen(self) -> None:
        """Begin an attempt that nobody asked for: the sources are Lidarr's own business, the bounds are ours."""
        policy = replace(self.state.policy, sources=())
        self.add(JobAttemptOpened(attempt=self.state.attempt + 1, policy=policy, is_reopened=True))

    def intend(self, kind: str, target: str | None = None) -> None:
        """Want a call to be made; the same decision names the same call, and no other does."""
        name = f"{self.state.attempt}/{kind}/{self.state.intended}"
        effect = Effect(effect_id=uuid5(self.state.job_id, name), kind=kind, target=target)
        self.add(EffectIntended(effect=effect))

    def withdraw(self, *kinds: str) -> None:
        """Want none of the calls of these kinds any more; without kinds: none of those that bring an album."""
        unwanted = kinds or STEPS
        self.add(*(EffectWithdrawn(effect_id=each.effect_id) for each in self.state.effects if each.kind in unwanted))

    def wait(self, kind: Deadline, *, reason: str | None = None) -> None:
        """Set the deadline of what has to come next; progress moves it, up to the bound of the source."""
        until = self.state.until or self._after(self.state.policy.total_seconds)
        deadline_at = min(self._after(self._seconds(kind)), until)
        self.add(JobDeadlineSet(deadline_at=deadline_at, kind=kind, until=until, reason=reason))

    def give_up(self, code: str, reason: str, next_step: str | None = None) -> None:
        """Leave the source: the next one is asked, and when there is none the attempt has failed.

        With files in the library and nobody to say that some are missing, it is complete.
        """
        if self.state.is_imported:
            self.complete(IMPORTED)
            return
        self.withdraw()
        if not self._next_source(reason):
            self.fail(code, reason, next_step)

    def fail(self, code: str, reason: str, next_step: str | None = None) -> None:
        """End the attempt without the album, or with a part of it."""
        job = self.state
        is_partial = job.tracks_present > 0 and job.tracks_total is not None
        if is_partial:
            code, reason = "partial", f"{reason} {job.tracks_present} of {job.tracks_total} tracks are there."
        self.add(JobFailed(reason=reason, next_step=next_step or _ASK_AGAIN, code=code, is_partial=is_partial))

    def complete(self, reason: str) -> None:
        """End the attempt: the album is there, or as much of it as the policy asks for."""
        self.withdraw()
        job = self.state
        if job.is_short:
            reason = f"{reason} {job.tracks_present} of {job.tracks_total} tracks are there, which is enough."
        grabs_until = self._after(job.policy.no_grab_seconds)
        self.add(JobCompleted(reason=reason, is_partial=job.is_short, grabs_until=grabs_until))

    def cancel(self, reason: str) -> None:
        """End the attempt: nobody wants the album."""
        self.withdraw()
        self.add(JobCancelled(reason=reason, grabs_until=self._after(self.state.policy.no_grab_seconds)))

    def _next_source(self, reason: str | None) -> bool:
        """Turn to the first source of the policy that this attempt has not tried; say whether there is one."""
        source = next((each for each in self.state.policy.sources if each not in self.state.sources), None)
        if source is None:
            return False
        self.add(JobSourceChosen(source=source, reason=reason))
        self.intend(_FIRST_STEP[source])
        self.wait("answer")
        return True

    def _seconds(self, kind: Deadline) -> int:
        policy = self.state.policy
        match kind:
            case "source":
                return policy.no_source_seconds
            case "answer":
                return self._answer_seconds(policy)
            case "grab":
                return policy.no_grab_seconds
            case "progress":
                return policy.no_progress_seconds
            case "import":
                return policy.import_seconds

    def _answer_seconds(self, policy: Policy) -> int:
        """Lidarr answers when it is up; with another source to ask nobody waits for that."""
        if self.state.source == "soulseek":
            return policy.soulseek_seconds
        has_other = any(each not in self.state.sources for each in policy.sources)
        return policy.no_grab_seconds if has_other else policy.total_seconds

    def _after(self, seconds: int) -> datetime:
        return self._at + timedelta(seconds=seconds)
