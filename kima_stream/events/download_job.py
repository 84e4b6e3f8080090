"""What happens to a download job: one user's wish for one album."""

from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from kima_stream.events.shapes import Event

Source: TypeAlias = Literal["lidarr", "soulseek"]  # who can bring an album
# What a job waits for until its deadline; ``source``: for somebody who can take it, ``answer``: for its source to say
# what it found.
Deadline: TypeAlias = Literal["source", "answer", "grab", "progress", "import"]


class Policy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one attempt may do, as the settings were when it was opened; bounds in seconds.

    ``sources`` are asked in this order and no others; without any the job only follows what Lidarr does by itself.
    ``total_seconds`` is the most that one source gets, whatever progress it makes.
    """

    sources: tuple[Source, ...] = ()
    max_releases: int = 4  # of one attempt; so often, too, is a failed job opened again by what Lidarr grabs
    max_blocklists: int = 3  # of one attempt: releases that could not be imported
    requires_all_tracks: bool = True
    no_source_seconds: int = 5 * 60
    no_grab_seconds: int = 10 * 60
    no_progress_seconds: int = 60 * 60
    import_seconds: int = 15 * 60
    soulseek_seconds: int = 2 * 60 * 60
    total_seconds: int = 24 * 60 * 60


class JobRequested(Event, frozen=True, kw_only=True, tag="download_job.requested"):
    """Somebody wants an album. Source: ``POST /api/downloads``, or Lidarr for what nobody here asked for.

    ``target_mbid`` is the MusicBrainz release group, or derived from artist and album.
    ``correlation_id`` is that of the whole attempt when this request opens one. ``note`` is what the user wrote
    along with it, a sealed string.
    """

    job_id: UUID
    user_id: str
    artist: str
    album: str
    target_mbid: UUID
    target_is_derived: bool
    discovery_batch_id: UUID | None = None
    origin: Literal["user", "lidarr"]
    correlation_id: str
    note: str | None = None


class JobRequestMerged(Event, frozen=True, kw_only=True, tag="download_job.request_merged"):
    """The request came while ``attempt`` was under way: it changes nothing."""

    attempt: int


class JobAttemptOpened(Event, frozen=True, kw_only=True, tag="download_job.attempt_opened"):
    """The search for the album begins, or begins again; ``attempt`` counts from 1.

    ``is_reopened``: nobody asked, Lidarr went on by itself.
    """

    attempt: int
    policy: Policy = Policy()
    is_reopened: bool = False


class JobSourceChosen(Event, frozen=True, kw_only=True, tag="download_job.source_chosen"):
    """The attempt turns to ``source``; ``reason`` says why the one before is given up, None for the first."""

    source: Source
    reason: str | None = None


class JobDeadlineSet(Event, frozen=True, kw_only=True, tag="download_job.deadline_set"):
    """What the job waits for has to come by ``deadline_at``; no later deadline of this source is after ``until``.

    ``reason``: why the one before did not count.
    """

    deadline_at: datetime
    kind: Deadline
    until: datetime
    reason: str | None = None


class JobDeadlinePassed(Event, frozen=True, kw_only=True, tag="download_job.deadline_passed"):
    """The time is up; ``deadline_at`` None for a job that was left without a deadline."""

    deadline_at: datetime | None


class JobAddedToLidarr(Event, frozen=True, kw_only=True, tag="download_job.added_to_lidarr"):
    """Lidarr has artist and album and watches it; of ``tracks_total`` (None: unknown) it has ``tracks_present``."""

    lidarr_instance: str
    lidarr_album_id: int
    tracks_total: int | None
    tracks_present: int


class JobTracksCounted(Event, frozen=True, kw_only=True, tag="download_job.tracks_counted"):
    """How much of the album Lidarr has. Source: its ``statistics`` of the album."""

    lidarr_instance: str
    lidarr_album_id: int
    tracks_total: int | None
    tracks_present: int


class JobSearched(Event, frozen=True, kw_only=True, tag="download_job.searched"):
    """The search is over; ``found`` releases were grabbed or could be, 0 is none, None is unknown."""

    source: Source
    found: int | None


class JobGrabbed(Event, frozen=True, kw_only=True, tag="download_job.grabbed"):
    """A release was handed to a download client. Source: Lidarr webhook ``Grab``.

    ``download_id`` is the client's, None where it gives none; ``size_bytes`` is what the indexer says.
    """

    download_id: str | None
    lidarr_instance: str
    lidarr_album_id: int
    release_title: str | None = None
    indexer: str | None = None
    quality: str | None = None
    size_bytes: int | None = None


class JobImported(Event, frozen=True, kw_only=True, tag="download_job.imported"):
    """Files of the album are in the library. Source: Lidarr webhook ``Download``.

    ``tracks`` counts those of this import; it may be a part of the album.
    """

    download_id: str | None
    lidarr_instance: str
    lidarr_album_id: int
    track_file_ids: tuple[int, ...] = ()
    tracks: int = 0
    is_upgrade: bool = False


class JobCompleted(Event, frozen=True, kw_only=True, tag="download_job.completed"):
    """The album is there; the attempt is over.

    ``is_partial``: not all of it, and the policy asks for no more. What is grabbed by ``grabs_until`` was searched
    for by this attempt.
    """

    reason: str
    is_partial: bool = False
    grabs_until: datetime | None = None


class JobProgressed(Event, frozen=True, kw_only=True, tag="download_job.progressed"):
    """More of a download has come. Source: Lidarr's queue."""

    download_id: str
    size_bytes: int
    left_bytes: int


class JobDownloadFinished(Event, frozen=True, kw_only=True, tag="download_job.download_finished"):
    """The client has all of a download; Lidarr has not imported it yet. Source: Lidarr's queue."""

    download_id: str


class JobDownloadFailed(Event, frozen=True, kw_only=True, tag="download_job.download_failed"):
    """A download client gave up one release. Source: Lidarr webhook ``DownloadFailure``."""

    download_id: str
    release_title: str | None = None


class JobImportFailed(Event, frozen=True, kw_only=True, tag="download_job.import_failed"):
    """Lidarr could not import a download. Source: its queue and history (the webhook does not say which)."""

    download_id: str
    release_title: str | None = None
    reason: str


class JobDownloadBlocked(Event, frozen=True, kw_only=True, tag="download_job.download_blocked"):
    """Lidarr will not take this release again and looks for another one."""

    download_id: str


class JobDownloadRemoved(Event, frozen=True, kw_only=True, tag="download_job.download_removed"):
    """The download is gone from Lidarr's queue and from the client: nobody wants it any more."""

    download_id: str


class SoulseekFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A file that came from a peer; ``path`` is relative to the library's folder."""

    path: str
    size_bytes: int
    peer: str


class JobSoulseekFinished(Event, frozen=True, kw_only=True, tag="download_job.soulseek_finished"):
    """Soulseek did what it could: ``tracks_found`` of ``tracks_wanted`` are in the library; ``peers`` were tried."""

    files: tuple[SoulseekFile, ...]
    tracks_wanted: int
    tracks_found: int
    peers: tuple[str, ...]


class JobScanRequested(Event, frozen=True, kw_only=True, tag="download_job.scan_requested"):
    """The music server was told to look for the new files."""


class JobCancelRequested(Event, frozen=True, kw_only=True, tag="download_job.cancel_requested"):
    """The user does not want the album any more. Source: ``POST /api/downloads/{id}/cancel``."""

    user_id: str


class JobCancelled(Event, frozen=True, kw_only=True, tag="download_job.cancelled"):
    """The attempt is over because nobody wants it; what is grabbed by ``grabs_until`` was searched for by it."""

    reason: str
    grabs_until: datetime | None = None


class JobRetryRequested(Event, frozen=True, kw_only=True, tag="download_job.retry_requested"):
    """The user wants another attempt. Source: ``POST /api/downloads/{id}/retry``.

    ``correlation_id`` is that of the whole attempt when this request opens one.
    """

    user_id: str
    correlation_id: str


class JobFailed(Event, frozen=True, kw_only=True, tag="download_job.failed"):
    """The attempt is over without the album; both texts are for people, ``code`` is for programs.

    ``is_partial``: some of its tracks are there.
    """

    reason: str
    next_step: str
    code: str | None = None
    is_partial: bool = False
