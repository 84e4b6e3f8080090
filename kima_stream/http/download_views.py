"""A download job as people and programs see it: what it waits for, until when, and what comes next."""

from datetime import datetime
from uuid import UUID

import msgspec

from kima_stream.projector import Row
from kima_stream.settings.subject_keys import Reader
from projections.download_job import Download, DownloadJob


class EffectView(msgspec.Struct, frozen=True, kw_only=True):
    """A call to the outside that is wanted; ``target`` is e.g. the download to remove."""

    kind: str
    target: str | None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands; ``reason`` and ``next_step`` are for people, ``code`` is for programs.

    ``sources`` are those that this attempt may ask, in order, ``source`` is the one that it asks now. By
    ``deadline_at`` there is a ``deadline_kind`` (``source``: of somebody who takes it, ``answer``, ``grab``,
    ``progress``, ``import``), or it goes on without. ``effects`` are the calls that have no outcome yet.
    ``downloads`` are oldest first.
    """

    id: UUID
    user_id: str
    artist: str
    album: str
    mbid: UUID | None
    discovery_batch_id: UUID | None
    origin: str
    status: str
    reason: str | None
    next_step: str | None
    code: str | None
    is_partial: bool
    source: str | None
    sources: tuple[str, ...]
    deadline_at: datetime | None
    deadline_kind: str | None
    effects: tuple[EffectView, ...]
    attempt: int
    requests: int
    files: int
    tracks_total: int | None
    tracks_present: int
    downloads: tuple[Download, ...]
    note: str | None
    correlation_id: str
    version: int
    created_at: datetime
    updated_at: datetime


def view(row: Row[DownloadJob], reader: Reader) -> JobView:
    """Return a row for people; ``reader`` opens what is sealed."""
    job = row.state
    return JobView(
        id=job.job_id,
        user_id=job.user_id,
        artist=job.artist,
        album=job.album,
        mbid=None if job.target_is_derived else job.target_mbid,
        discovery_batch_id=job.discovery_batch_id,
        origin=job.origin,
        status=job.status,
        reason=job.reason,
        next_step=job.next_step,
        code=job.code,
        is_partial=job.is_partial,
        source=job.source,
        sources=job.policy.sources,
        deadline_at=job.deadline_at,
        deadline_kind=job.deadline_kind,
        effects=tuple(EffectView(kind=effect.kind, target=effect.target) for effect in job.effects),
        attempt=job.attempt,
        requests=job.requests,
        files=sum(map(len, job.track_file_ids.values())) + len(job.soulseek_files),
        tracks_total=job.tracks_total,
        tracks_present=job.tracks_present,
        downloads=job.downloads,
        note=reader.show("note", job.note),
        correlation_id=job.correlation_id,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
