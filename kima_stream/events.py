"""The vocabulary: the shape of an event, and every fact that kima-stream itself can record.

Imports nothing of ours. Times are aware UTC, sizes bytes, durations seconds.
A tag is forever: a changed meaning is a new tag plus a function in ``upcasters``.
"""

from datetime import datetime
from typing import Literal
from uuid import UUID, uuid5

import msgspec
import uuid_utils

NO_STREAM = -1  # the version of a stream that has no event yet


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all facts of our own; ``type`` tells them apart on the wire."""


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fact on its way into the log.

    ``data`` and ``metadata`` are JSON text and are stored exactly as given.
    ``correlation_id`` None means the event's own id; ``occurred_at`` None means the
    database's clock.
    """

    event_id: UUID
    type: str
    data: str
    source: str
    schema_version: int = 1
    subject: str | None = None
    metadata: str = "{}"
    correlation_id: str | None = None
    causation_id: UUID | None = None
    occurred_at: datetime | None = None


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """A fact as the log has it: who, what, when, and where it stands.

    ``version`` counts from 0 within ``stream``; ``position`` from 1 over the whole log and is
    None until the publisher has numbered the event.
    """

    event_id: UUID
    stream: str
    version: int
    category: str
    type: str
    schema_version: int
    source: str
    subject: str | None
    data: str
    metadata: str
    correlation_id: str
    causation_id: UUID | None
    occurred_at: datetime
    recorded_at: datetime
    position: int | None = None


def stream_category(stream: str) -> str:
    """Return the text before the first ``-``, e.g. ``download_job`` of ``download_job-6f1c``."""
    return stream.partition("-")[0]


def new_event_id() -> UUID:
    """Return a fresh id whose order is roughly that of time (UUIDv7: near in time, near in the index)."""
    return UUID(int=uuid_utils.uuid7().int)


def derived_id(cause: UUID, name: str) -> UUID:
    """Return the id that ``cause`` gives to its consequence ``name``: handled twice, one event."""
    return uuid5(cause, name)


def new_event(
    fact: Event,
    *,
    event_id: UUID | None = None,
    source: str = "kima-stream",
    subject: str | None = None,
    cause: RecordedEvent | None = None,
    correlation_id: str | None = None,
    metadata: str = "{}",
) -> NewEvent:
    """Return ``fact`` ready to append; ``cause`` gives causation and, unless named, correlation."""
    if correlation_id is None and cause is not None:
        correlation_id = cause.correlation_id
    return NewEvent(
        event_id=event_id or new_event_id(),
        type=event_type(type(fact)),
        data=msgspec.json.encode(fact).decode(),
        source=source,
        subject=subject,
        metadata=metadata,
        correlation_id=correlation_id,
        causation_id=None if cause is None else cause.event_id,
    )


def event_type(cls: type[Event]) -> str:
    """Return the tag of an event class, which is its ``type`` in the log."""
    tag = cls.__struct_config__.tag
    if not isinstance(tag, str):
        message = f"{cls.__name__} has no tag"
        raise TypeError(message)
    return tag


class JobRequested(Event, frozen=True, kw_only=True, tag="download_job.requested"):
    """Somebody wants an album. Source: ``POST /api/downloads``, or Lidarr for what nobody here asked for.

    ``target_mbid`` is the MusicBrainz release group, or derived from artist and album.
    ``correlation_id`` is that of the whole attempt when this request opens one.
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


class UnmatchedWaiting(Event, frozen=True, kw_only=True, tag="unmatched.waiting"):
    """A fact came that no job knows. Source: Lidarr webhooks ``DownloadFailure`` and ``ImportFailure``."""

    fact_id: UUID  # of the webhook's event
    fact_type: str
    download_id: str | None
    release_title: str | None = None
    reason: str


class UnmatchedResolved(Event, frozen=True, kw_only=True, tag="unmatched.resolved"):
    """The fact found its jobs: ``streams``."""

    fact_id: UUID
    streams: tuple[str, ...]


class SettingValue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One setting as somebody left it: ``value`` in clear, or ``sealed`` when it is a secret; neither when cleared."""

    value: bool | int | str | list[str] | None = None
    sealed: str | None = None
    changed_by: str
    changed_at: datetime


class SettingsChanged(Event, frozen=True, kw_only=True, tag="settings.changed"):
    """An admin set or cleared settings, by key. Source: ``PUT /api/settings``, ``kima-stream settings``."""

    changes: dict[str, SettingValue]


class SettingsKeyRotated(Event, frozen=True, kw_only=True, tag="settings.key_rotated"):
    """A new data key seals from here on; ``sealed`` has the same secrets as before, sealed with it."""

    key_id: str
    sealed: dict[str, str]
    changed_by: str


# Streams that only kima-stream writes; what others submit goes to categories that they name.
OWN_CATEGORIES = frozenset(
    {
        "lidarr", "slskd", "soulseek", "download_job", "discovery_batch", "search_session",
        "unmatched", "settings", "user", "effect",
    }
)  # fmt: skip
