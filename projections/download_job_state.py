"""What is known of a download job: one user's wish for one album, through all its attempts.

Pure. All that a later decision needs is in here: what the attempt may do, what it has tried, which calls
it waits for and until when; so no decision asks a setting, a table or a clock.
"""

from datetime import datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec.structs import replace

from kima_stream.events import (
    Deadline,
    Effect,
    JobCancelled,
    JobCompleted,
    JobFailed,
    Policy,
    SoulseekFile,
    Source,
)

Status: TypeAlias = Literal[
    "none", "requested", "searching", "downloading", "importing", "completed", "failed", "cancelled"
]
ACTIVE: Final[frozenset[Status]] = frozenset({"requested", "searching", "downloading", "importing"})

# The calls that an attempt waits for, one at a time; what else it wants done goes on beside them.
STEPS: Final = frozenset({"lidarr.add", "lidarr.search", "lidarr.blocklist", "soulseek.acquire"})

MAX_REMEMBERED: Final = 100  # downloads and peers; who has more than this has a loop, not an album
MAX_FILES: Final = 1_000  # of Soulseek; no album has as many


class LidarrAlbum(msgspec.Struct, frozen=True, gc=False):
    """An album as one Lidarr numbers it."""

    instance: str
    album_id: int


class Download(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One release on its way; ``key`` is the client's ``download_id``, or what stands for it.

    ``finished``: the client has all of it, Lidarr has not imported it yet. ``abandoned``: its time was up, though it
    may still come. Sizes are bytes.
    """

    key: str
    attempt: int
    outcome: Literal["running", "finished", "imported", "failed", "not_imported", "blocked", "removed", "abandoned"]
    download_id: str | None = None
    was_grabbed: bool = False  # False while the grab itself has not been seen
    release_title: str | None = None
    indexer: str | None = None
    quality: str | None = None
    size_bytes: int | None = None
    left_bytes: int | None = None

    @property
    def is_running(self) -> bool:
        """Return whether it is on its way, as far as anybody knows."""
        return self.outcome in {"running", "finished"}

    @property
    def may_come(self) -> bool:
        """Return whether it may still bring the album."""
        return self.is_running or self.outcome == "abandoned"

    def may_be_grabbed_again(self, attempt: int) -> bool:
        """Return whether another grab of it during ``attempt`` is a new one: a client that failed can be asked again.

        Otherwise it is the grab that we know, told by webhook and seen in the history: those overtake each other.
        """
        return self.outcome == "failed" or (
            not self.is_running and self.outcome != "imported" and attempt > self.attempt
        )


class DownloadJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The job as it stands; ``reason`` and ``next_step`` are for people.

    Of this attempt: ``policy``, ``sources`` tried, ``releases`` grabbed, ``blocklists`` and ``intended`` calls,
    ``awaits`` (the call whose news decides how it goes on), ``deadline_at`` for what ``deadline_kind`` says, none
    of them after ``until``; ``tracks_present`` of ``tracks_total``, where that is known: what one source has, the one
    that has most, since two may have the same tracks. ``reopened`` counts the attempts since somebody asked that were
    Lidarr's own. What is grabbed until ``grabs_until`` was searched for by the attempt that is over.
    """

    job_id: UUID = UUID(int=0)
    user_id: str = ""
    target_mbid: UUID = UUID(int=0)
    target_is_derived: bool = False
    discovery_batch_id: UUID | None = None
    status: Status = "none"
    artist: str = ""
    album: str = ""
    source: str | None = None
    attempt: int = 0
    reason: str | None = None
    next_step: str | None = None
    code: str | None = None  # why it failed, for programs
    is_partial: bool = False
    origin: Literal["user", "lidarr"] = "user"
    correlation_id: str = ""
    requests: int = 0
    reopened: int = 0
    policy: Policy = Policy()
    sources: tuple[Source, ...] = ()
    releases: int = 0
    blocklists: int = 0
    intended: int = 0
    awaits: Effect | None = None
    effects: tuple[Effect, ...] = ()
    is_scan_wanted: bool = False
    deadline_at: datetime | None = None
    deadline_kind: Deadline | None = None
    until: datetime | None = None
    grabs_until: datetime | None = None
    tracks_total: int | None = None
    tracks_present: int = 0
    lidarr_tracks: int | None = None  # of those present, where it is not all of them
    downloads: tuple[Download, ...] = ()
    lidarr_albums: tuple[LidarrAlbum, ...] = ()
    track_file_ids: dict[str, tuple[int, ...]] = {}  # by Lidarr instance, each ascending
    soulseek_files: tuple[SoulseekFile, ...] = ()
    peers: tuple[str, ...] = ()
    note: str | None = None  # the newest of its user, as it was sealed

    @property
    def is_active(self) -> bool:
        """Return whether an attempt is under way."""
        return self.status in ACTIVE

    @property
    def hopes(self) -> tuple[Download, ...]:
        """Return the downloads of this attempt that are on their way."""
        return tuple(each for each in self.downloads if each.is_running and each.attempt == self.attempt)

    @property
    def tracks_in_lidarr(self) -> int:
        """Return how many tracks Lidarr has, as far as it said."""
        return self.tracks_present if self.lidarr_tracks is None else self.lidarr_tracks

    @property
    def is_short(self) -> bool:
        """Return whether tracks are known to be missing."""
        return self.tracks_total is not None and self.tracks_present < self.tracks_total

    @property
    def is_enough(self) -> bool:
        """Return whether what is there is what the attempt wants, as far as anybody knows."""
        return not (self.is_short and self.policy.requires_all_tracks)

    @property
    def is_imported(self) -> bool:
        """Return whether files are in the library, none is on its way, and nobody can say that some are missing."""
        return self.status == "importing" and not self.hopes and self.is_enough

    def download(self, key: str | None) -> Download | None:
        """Return the download of this key, if the job knows it."""
        for download in self.downloads:  # a generator costs more than the one or two that there are
            if download.key == key:
                return download
        return None

    def is_open(self, effect: Effect | None) -> bool:
        """Return whether the call is still wanted and has no outcome."""
        return effect is not None and effect in self.effects


INITIAL: Final = DownloadJob()


def moved(state: DownloadJob, status: Status, reason: str, next_step: str) -> DownloadJob:
    """Return the job in its new status; what is over stays over."""
    return replace(state, status=status, reason=reason, next_step=next_step) if state.is_active else state


def answered(state: DownloadJob, kind: str) -> DownloadJob:
    """Return the job that no longer waits for the news of a call of this kind."""
    return replace(state, awaits=None) if state.awaits is not None and state.awaits.kind == kind else state


def ended(
    state: DownloadJob,
    status: Literal["completed", "failed", "cancelled"],
    event: JobCompleted | JobFailed | JobCancelled,
) -> DownloadJob:
    """Return the job whose attempt is over; it waits for nothing any more."""
    if not state.is_active:
        return state
    return replace(
        state,
        status=status,
        reason=event.reason,
        next_step=event.next_step if isinstance(event, JobFailed) else None,
        code=event.code if isinstance(event, JobFailed) else None,
        is_partial=not isinstance(event, JobCancelled) and event.is_partial,
        awaits=None,
        deadline_at=None,
        deadline_kind=None,
        until=None,
        grabs_until=None if isinstance(event, JobFailed) else event.grabs_until,
    )
