"""Table ``dead_letters``: what a group could not handle: retrying, parked, or discarded.

A stream waits at one version at a time. Parked means that this stream stops there for this
group, and nothing else does. Discarded is for ever: replay and verify step over it too.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kima_stream.database import Connection

MAX_ATTEMPTS = 5
RETRY_SECONDS = 1.0  # after the first failure, doubled each time
ERROR_CHARACTERS = 2_000  # kept of an error's text
STOP_AFTER_PARKED = 20  # streams parked within STOP_WINDOW_SECONDS stop the whole group
STOP_WINDOW_SECONDS = 60.0


class DeadLetter(msgspec.Struct, frozen=True):
    """One stream that waits, or one event that was given up, for one group."""

    group_name: str
    stream: str
    version: int
    status: str  # retrying | parked | discarded
    attempts: int
    error_type: str
    error: str
    first_failed_at: datetime
    last_failed_at: datetime
    next_attempt_at: datetime
    parked_at: datetime | None


_COLUMNS = """group_name, stream, version, status, attempts, error_type, error,
           first_failed_at, last_failed_at, next_attempt_at, parked_at"""


class Waiting(msgspec.Struct, frozen=True):
    """What a batch must respect: streams to leave alone now, and versions to step over."""

    held: frozenset[str]
    retrying: frozenset[str]
    discarded: frozenset[tuple[str, int]]


_WAITING = """
    SELECT stream, version, status, status = 'parked' OR next_attempt_at > clock_timestamp() AS held
      FROM dead_letters
     WHERE group_name = $1 AND stream = ANY($2::text[])
"""


async def waiting(conn: Connection, group_name: str, streams: Sequence[str]) -> Waiting:
    """Return which of ``streams`` are parked or wait for their next attempt, and what was discarded in them."""
    rows = await conn.fetch(_WAITING, group_name, list(streams))
    open_rows = [row for row in rows if row["status"] != "discarded"]
    return Waiting(
        held=frozenset(row["stream"] for row in open_rows if row["held"]),
        retrying=frozenset(row["stream"] for row in open_rows if not row["held"]),
        discarded=frozenset((row["stream"], row["version"]) for row in rows if row["status"] == "discarded"),
    )


_ALL_DISCARDED = "SELECT stream, version FROM dead_letters WHERE group_name = $1 AND status = 'discarded'"


async def all_discarded(conn: Connection, group_name: str) -> frozenset[tuple[str, int]]:
    """Return every (stream, version) that was given up for the group."""
    return frozenset((row["stream"], row["version"]) for row in await conn.fetch(_ALL_DISCARDED, group_name))


_RECORD_FAILURE = """
    INSERT INTO dead_letters AS d (group_name, stream, version, status, attempts, error_type, error,
                                   next_attempt_at, parked_at)
    VALUES ($1, $2, $3, CASE WHEN $6 <= 1 THEN 'parked' ELSE 'retrying' END, 1, $4, $5,
            clock_timestamp() + make_interval(secs => $7),
            CASE WHEN $6 <= 1 THEN clock_timestamp() END)
        ON CONFLICT (group_name, stream, version) DO UPDATE
       SET attempts = d.attempts + 1, error_type = excluded.error_type, error = excluded.error,
           last_failed_at = clock_timestamp(),
           next_attempt_at = clock_timestamp() + make_interval(secs => $7 * 2 ^ least(d.attempts, 10)),
           status = CASE WHEN d.status = 'retrying' AND d.attempts + 1 >= $6 THEN 'parked' ELSE d.status END,
           parked_at = CASE WHEN d.status = 'retrying' AND d.attempts + 1 >= $6 THEN clock_timestamp()
                            ELSE d.parked_at END
    RETURNING status, attempts
"""


async def record_failure(
    conn: Connection,
    group_name: str,
    stream: str,
    version: int,
    error: BaseException,
    *,
    max_attempts: int = MAX_ATTEMPTS,
) -> str:
    """Count one failed attempt at ``version`` of ``stream``; return ``retrying`` or ``parked``."""
    text = str(error).replace("\x00", "�")[:ERROR_CHARACTERS]
    row = await conn.fetchrow(
        _RECORD_FAILURE, group_name, stream, version, type(error).__name__, text, max_attempts, RETRY_SECONDS
    )
    assert row is not None  # noqa: S101 - an upsert always answers
    return str(row["status"])


_CLEAR = """
    DELETE FROM dead_letters
     WHERE group_name = $1 AND status = 'retrying' AND stream = ANY($2::text[])
"""


async def clear(conn: Connection, group_name: str, streams: Sequence[str]) -> None:
    """Forget the failures of streams that were handled after all."""
    await conn.execute(_CLEAR, group_name, list(streams))


_PARKED_LATELY = """
    SELECT count(*) FROM dead_letters
     WHERE group_name = $1 AND status = 'parked' AND parked_at > clock_timestamp() - make_interval(secs => $2)
"""


async def parked_lately(conn: Connection, group_name: str) -> int:
    """Return how many streams the group parked within the last STOP_WINDOW_SECONDS."""
    return int(await conn.fetchval(_PARKED_LATELY, group_name, STOP_WINDOW_SECONDS))


_LIST = f"""
    SELECT {_COLUMNS} FROM dead_letters
     WHERE ($1::text IS NULL OR group_name = $1) AND ($2::text IS NULL OR stream = $2)
       AND ($3::text IS NULL OR status = $3)
     ORDER BY last_failed_at DESC, group_name, stream, version
     LIMIT $4
"""  # noqa: S608 - the columns are a constant


async def find(
    conn: Connection,
    *,
    group_name: str | None = None,
    stream: str | None = None,
    status: str | None = None,
    limit: int = 100,
) -> list[DeadLetter]:
    """Return dead letters, the latest failure first."""
    return [DeadLetter(**dict(row)) for row in await conn.fetch(_LIST, group_name, stream, status, limit)]


_REVIVE = """
    UPDATE dead_letters
       SET status = 'retrying', attempts = 0, parked_at = NULL, next_attempt_at = clock_timestamp()
     WHERE group_name = $1 AND status = 'parked' AND ($2::text IS NULL OR stream = $2)
    RETURNING stream
"""


async def revive(conn: Connection, group_name: str, stream: str | None = None) -> list[str]:
    """Let parked streams (one, or all of the group) be tried again from where they stopped; return them."""
    return [row["stream"] for row in await conn.fetch(_REVIVE, group_name, stream)]


_REVIVE_BURST = """
    UPDATE dead_letters AS d
       SET status = 'retrying', attempts = 0, parked_at = NULL, next_attempt_at = clock_timestamp()
      FROM group_checkpoints AS c
     WHERE c.group_name = $1 AND d.group_name = $1 AND d.status = 'parked'
       AND d.parked_at >= c.stopped_at - make_interval(secs => $2)
"""


async def revive_burst(conn: Connection, group_name: str) -> None:
    """Let the streams whose parking stopped the group be tried again; those parked before it stay parked."""
    await conn.execute(_REVIVE_BURST, group_name, STOP_WINDOW_SECONDS)


_DISCARD = """
    UPDATE dead_letters SET status = 'discarded'
     WHERE group_name = $1 AND stream = $2 AND status <> 'discarded'
    RETURNING version
"""


async def discard(conn: Connection, group_name: str, stream: str) -> int | None:
    """Give up the event at which ``stream`` waits, for ever; return its version, None when none waits."""
    version: int | None = await conn.fetchval(_DISCARD, group_name, stream)
    return version


_DUE = """
    SELECT stream FROM dead_letters
     WHERE group_name = $1 AND status = 'retrying' AND next_attempt_at <= clock_timestamp()
     ORDER BY next_attempt_at
     LIMIT $2
"""


async def due(conn: Connection, group_name: str, *, limit: int = 100) -> list[str]:
    """Return streams whose next attempt is due, wherever the checkpoint stands."""
    return [row["stream"] for row in await conn.fetch(_DUE, group_name, limit)]


_COUNT_PARKED = "SELECT count(*) FROM dead_letters WHERE group_name = $1 AND status = 'parked'"


async def count_parked(conn: Connection, group_name: str) -> int:
    """Return how many streams are parked for the group."""
    return int(await conn.fetchval(_COUNT_PARKED, group_name))
