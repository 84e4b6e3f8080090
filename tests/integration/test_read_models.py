"""Read-model tables: columns say what the state says, old versions lose, keys are locked in order."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec
import pytest

from kima_stream import correlation_keys, projector
from kima_stream.database import Connection, Pool
from kima_stream.projector import Row
from kima_stream.read_models import download_jobs
from kima_stream.read_models.download_jobs import PROJECTION, TABLE, Cursor, Filter, list_page
from kima_stream.read_models.table import KEY_COLUMNS, Table
from projections.download_job import Download, DownloadJob

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)


def a_row(number: int = 1, version: int = 0, **fields: object) -> Row[DownloadJob]:
    """Return a row as a fold would leave it; a higher number moved later."""
    state = msgspec.structs.replace(
        DownloadJob(
            job_id=UUID(int=number), user_id="ann", target_mbid=UUID(int=number), status="requested",
            artist="Björk", album=f"Album {number}", attempt=1, reason="asked for",
            downloads=(Download(key="D", attempt=1, outcome="running"),), track_file_ids={"Lidarr": (1, 2)},
        ),
        **fields,
    )  # fmt: skip
    moment = NOW + timedelta(seconds=number)
    return Row(f"download_job-{UUID(int=number)}", version, state, created_at=NOW, updated_at=moment)


_COLUMNS = """
    SELECT column_name FROM information_schema.columns
     WHERE table_name = 'download_jobs' ORDER BY ordinal_position
"""


async def test_the_table_has_the_columns_of_the_state(conn: Connection) -> None:
    """Migration and read model agree on names and order."""
    names = [row["column_name"] for row in await conn.fetch(_COLUMNS)]

    assert names == [*KEY_COLUMNS, *TABLE._columns]


async def test_what_is_saved_is_what_is_read(conn: Connection) -> None:
    """State, times and version come back as they were; the columns hold the same."""
    row = a_row()
    await TABLE.save(conn, [row])

    async with conn.transaction():
        assert await TABLE.lock(conn, [row.stream, "download_job-none"]) == {row.stream: row}
    stored = await conn.fetchrow("SELECT * FROM download_jobs")
    assert stored is not None
    for column in list(stored.keys())[len(KEY_COLUMNS) :]:
        assert stored[column] == getattr(row.state, column), column


async def test_an_older_version_never_wins(conn: Connection) -> None:
    """Of a batch only the rows that are newer are written."""
    await TABLE.save(conn, [a_row(1, version=5), a_row(2, version=5)])

    await TABLE.save(conn, [a_row(1, version=4, status="failed"), a_row(2, version=6, status="failed")])

    assert [(row.version, row.state.status) for row in await list_page(conn, Filter(), limit=9)] == [
        (6, "failed"), (5, "requested"),
    ]  # fmt: skip


async def test_a_blank_row_is_never_shown(conn: Connection) -> None:
    """A row that only holds a lock is no job."""
    blank = projector.blank(PROJECTION, f"download_job-{UUID(int=1)}")

    assert await TABLE.lock_new(conn, blank.stream, blank) == blank
    assert await TABLE.lock_new(conn, blank.stream, blank) == blank

    assert await list_page(conn, Filter(), limit=9) == []
    assert await download_jobs.get(conn, UUID(int=1)) is None


@pytest.mark.parametrize("batch", [None, UUID(int=9)])
async def test_a_second_active_job_is_refused_by_the_database(conn: Connection, batch: UUID | None) -> None:
    """One user, one target, one batch, also where the batch is NULL; finished jobs do not count."""
    first = a_row(1, discovery_batch_id=batch)
    await TABLE.save(conn, [first])
    second = a_row(2, target_mbid=first.state.target_mbid, discovery_batch_id=batch)

    for status in ("requested", "searching", "downloading", "importing"):
        with pytest.raises(asyncpg.UniqueViolationError, match="download_jobs_one_active_idx"):
            await TABLE.save(conn, [msgspec.structs.replace(second, state=_with_status(second.state, status))])
    for status in ("completed", "failed", "cancelled"):
        await TABLE.save(conn, [msgspec.structs.replace(second, state=_with_status(second.state, status))])


def _with_status(state: DownloadJob, status: str) -> DownloadJob:
    return msgspec.convert(msgspec.to_builtins(state) | {"status": status}, DownloadJob)


async def test_filters_can_be_joined(conn: Connection) -> None:
    """By user, status, whole names and parts of names, whatever signs they hold."""
    await TABLE.save(
        conn,
        [
            a_row(1, user_id="ann", artist="100% Pure", album="It's_here"),
            a_row(2, user_id="ann", status="failed", artist="Harbour", album="Tidewater"),
            a_row(3, user_id="ben", artist="Harbour", album="Low Water Mark"),
        ],
    )

    async def found(**which: object) -> list[int]:
        rows = await list_page(conn, msgspec.convert(which, Filter), limit=9)
        return [row.state.job_id.int for row in rows]

    assert await found() == [3, 2, 1]
    assert await found(user_id="ann") == [2, 1]
    assert await found(user_id="ann", status="failed") == [2]
    assert await found(artist="harbour") == [3, 2]
    assert await found(artist="harbour", album="TIDEWATER") == [2]
    assert await found(q="water") == [3, 2]
    assert await found(q="0%") == [1]
    assert await found(q="s_h") == [1]
    assert await found(q="%", user_id="ben") == []


async def test_pages_meet_without_gap_or_overlap(conn: Connection) -> None:
    """Also where many rows moved at the same moment."""
    rows = [a_row(number) for number in range(1, 26)]
    await TABLE.save(conn, [msgspec.structs.replace(row, updated_at=NOW) for row in rows])

    walked: list[str] = []
    after = None
    while page := await list_page(conn, Filter(user_id="ann"), limit=7, after=after):
        walked += [row.stream for row in page]
        after = Cursor(page[-1].updated_at, page[-1].stream)

    assert walked == sorted(row.stream for row in rows)


def test_a_column_must_be_a_plain_field_of_the_state() -> None:
    """A typo or a list is found when the program starts."""
    with pytest.raises(TypeError, match=r"download_jobs\.nonsense"):
        Table("download_jobs", DownloadJob, ["nonsense"])
    with pytest.raises(TypeError, match=r"download_jobs\.downloads"):
        Table("download_jobs", DownloadJob, ["downloads"])
    with pytest.raises(ValueError, match="no name of a table"):
        Table("jobs; DROP TABLE events", DownloadJob, ["status"])


async def test_keys_lead_to_their_streams(conn: Connection) -> None:
    """A stream is added once, to each key."""
    keys = ["b", "a", "b"]
    found = await correlation_keys.lock(conn, keys)
    assert found == {"a": [], "b": []}

    await correlation_keys.add(conn, "one", keys, known=found)
    await correlation_keys.add(conn, "one", keys, known=found)
    await correlation_keys.add(conn, "two", ["b"], known={})

    assert await correlation_keys.lock(conn, keys) == {"a": ["one"], "b": ["one", "two"]}


async def test_whoever_asks_later_sees_what_the_first_made(pool: Pool) -> None:
    """Fifty at once on keys that are new, in any order: one after the other, and no deadlock."""

    async def one(number: int) -> int:
        keys = [f"key {(number + offset) % 5}" for offset in range(3)] + ["all"]
        async with pool.acquire() as conn, conn.transaction():
            found = await correlation_keys.lock(conn, keys)
            await correlation_keys.add(conn, f"stream {number}", keys, known=found)
            return len(found["all"])

    assert sorted(await asyncio.gather(*map(one, range(50)))) == list(range(50))


def test_keys_fit_whatever_a_sender_makes_up() -> None:
    """NUL and length are hashed away; different ids stay different."""
    long = "x" * 100_000
    keys = {correlation_keys.of_download(text) for text in ("a", "a\0", "a\0\0", long, long + "y")}

    assert len(keys) == 5
    assert all("\0" not in key and len(key) < 400 for key in keys)
