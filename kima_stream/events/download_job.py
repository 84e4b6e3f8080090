"""What happens to a download job: one user's wish for one album."""

from typing import Literal
from uuid import UUID

from kima_stream.events.shapes import Event


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
    """The search for the album begins, or begins again; ``attempt`` counts from 1."""

    attempt: int


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
    """The album is there; the attempt is over."""

    reason: str


class JobDownloadFailed(Event, frozen=True, kw_only=True, tag="download_job.download_failed"):
    """A download client gave up one release. Source: Lidarr webhook ``DownloadFailure``."""

    download_id: str
    release_title: str | None = None


class JobFailed(Event, frozen=True, kw_only=True, tag="download_job.failed"):
    """The attempt is over without the album; both texts are for people."""

    reason: str
    next_step: str
