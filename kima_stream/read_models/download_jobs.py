"""Table ``download_jobs``: one row per job, and the questions people ask about them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from kima_stream.database import Connection
from kima_stream.projector import Projection, Row
from kima_stream.read_models.table import Table
from projections import download_job
from projections.correlation import stream_of
from projections.download_job import DownloadJob, Status

TABLE: Final = Table(
    "download_jobs",
    DownloadJob,
    columns=(
        "job_id",
        "user_id",
        "target_mbid",
        "target_is_derived",
        "discovery_batch_id",
        "status",
        "artist",
        "album",
        "source",
        "attempt",
        "reason",
        "deadline_at",
        "is_partial",
    ),
)
PROJECTION: Final = Projection(
    name="download_jobs",
    category="download_job",
    initial=download_job.INITIAL,
    apply=download_job.apply,
    read_model=TABLE,
)


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs; None means any. ``artist`` and ``album`` are whole names, ``q`` is part of either."""

    user_id: str | None = None
    status: Status | None = None
    artist: str | None = None
    album: str | None = None
    q: str | None = None


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last row of a page; the next page begins after it."""

    updated_at: datetime
    stream: str


_CONDITIONS: Final = {
    "user_id": "user_id = ${}",
    "status": "status = ${}",
    "artist": "lower(artist) = lower(${})",
    "album": "lower(album) = lower(${})",
    "q": "strpos(lower(artist || ' ' || album), lower(${})) > 0",
}
_LIST = """
    SELECT stream, version, created_at, updated_at, state
      FROM download_jobs
     WHERE version >= 0 {conditions}
     ORDER BY updated_at DESC, stream
     LIMIT $1
"""
_AFTER: Final = "AND (updated_at < $2 OR (updated_at = $2 AND stream > $3))"


_FIND_DUE = """
    SELECT stream, deadline_at
      FROM download_jobs
     WHERE status IN ('requested', 'searching', 'downloading', 'importing') AND version >= 0
       AND coalesce(deadline_at, '-infinity'::timestamptz) <= $1
       AND (coalesce(deadline_at, '-infinity'::timestamptz), stream) > (coalesce($2, '-infinity'::timestamptz), $3)
     ORDER BY coalesce(deadline_at, '-infinity'::timestamptz), stream
     LIMIT $4
"""


class Due(msgspec.Struct, frozen=True):
    """An active job whose deadline is past; None: it has none, which is no state to stay in."""

    stream: str
    deadline_at: datetime | None


async def find_due(conn: Connection, now: datetime, *, after: Due | None = None, limit: int) -> list[Due]:
    """Return at most ``limit`` jobs that are due, the longest first; the next chunk begins ``after`` the last one."""
    rows = await conn.fetch(_FIND_DUE, now, after and after.deadline_at, after.stream if after else "", limit)
    return [Due(**dict(row)) for row in rows]


_FIND_MANY = "SELECT stream, version, created_at, updated_at, state FROM download_jobs WHERE stream = ANY($1::text[])"


async def find_many(conn: Connection, streams: Sequence[str]) -> list[Row[DownloadJob]]:
    """Return the jobs of ``streams`` that there are, without locking them."""
    return [TABLE.row(row) for row in await conn.fetch(_FIND_MANY, list(streams))] if streams else []


async def get(conn: Connection, job_id: UUID) -> Row[DownloadJob] | None:
    """Return the job of this id, or None."""
    return await TABLE.find(conn, stream_of(job_id))


async def list_page(
    conn: Connection, which: Filter, *, limit: int, after: Cursor | None = None
) -> list[Row[DownloadJob]]:
    """Return at most ``limit`` jobs, those that moved last first; only the filters asked for are in the statement."""
    values: list[object] = [limit] if after is None else [limit, after.updated_at, after.stream]
    conditions = [] if after is None else [_AFTER]
    for name, condition in _CONDITIONS.items():
        value = getattr(which, name)
        if value is not None:
            values.append(value)
            conditions.append("AND " + condition.format(len(values)))
    rows = await conn.fetch(_LIST.format(conditions=" ".join(conditions)), *values)
    return [TABLE.row(row) for row in rows]


_COUNT_ACTIVE: Final = """
    SELECT coalesce(source, 'none') AS source, count(*) AS n
      FROM download_jobs
     WHERE status IN ('requested', 'searching', 'downloading', 'importing')
     GROUP BY 1
"""


async def count_active(conn: Connection) -> dict[str, int]:
    """Return how many jobs are under way, by source; ``none`` while none has taken it."""
    return {row["source"]: row["n"] for row in await conn.fetch(_COUNT_ACTIVE)}
