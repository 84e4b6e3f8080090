"""Looking at Lidarr's history: nothing is lost or told twice, however much there is and wherever a look ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import stamina

from consumers.reconcilers import lidarr_sight
from consumers.reconcilers.lidarr_watch import LidarrWatch
from kima_stream import correlation_keys, event_store
from kima_stream.database import Connection, Pool
from kima_stream.event_store import Append
from kima_stream.events import new_event_id
from kima_stream.integrations import lidarr_http, lidarr_webhooks
from kima_stream.integrations.lidarr import LidarrError, session
from kima_stream.settings.config import Settings
from kima_stream.settings.store import SettingsStore, Sources
from kima_stream.simulator.library import Album
from kima_stream.simulator.lidarr import Luck
from kima_stream.simulator.weather import Strike
from tests import lidarr
from tests.lidarr import KEY, LidarrHouse
from tests.polling import eventually

MINUTE = 60.0


@dataclass
class Sight:
    """A Lidarr, and who looks at it."""

    house: LidarrHouse
    watch: LidarrWatch

    async def albums(self, count: int) -> list[Album]:
        """Add albums to the library."""
        found = []
        for known in self.house.lidarr.catalogue.albums[:count]:
            maker = self.house.lidarr.catalogue.artist_of(known)
            artist = self.house.lidarr.artists.get(maker.mbid) or await self.house.lidarr.add_artist(maker)
            found.append(self.house.lidarr.add_album(known, artist))
        return found

    async def imported(self, albums: Sequence[Album]) -> None:
        """Import albums by hand, one a minute."""
        for album in albums:
            await self.house.lidarr.import_album(album, range(len(album.known.tracks)), download=None)
            await self.house.pause(MINUTE)

    @property
    def watched(self) -> list[int]:
        """The lines of the history that are to be told."""
        return [row.id for row in self.house.lidarr.history if row.event_type in lidarr_sight.WATCHED]


@asynccontextmanager
async def sighted(pool: Pool) -> AsyncIterator[Sight]:
    """Run a Lidarr whose downloads do not end by themselves; its clock was ours some hours ago."""
    begin = datetime.now(UTC) - timedelta(hours=6)
    async with lidarr.opened(luck=Luck(ends=0.0), begin=begin) as house, session() as connections:
        store = SettingsStore(pool, Sources.of(Settings(environment={"lidarrUrl": house.url, "lidarrApiKey": KEY})))
        await store.refresh()
        yield Sight(house, LidarrWatch(pool, store, connections, holder="test"))


async def told(conn: Connection) -> list[int]:
    """Return the lines of the history that are in the log, as often as they are."""
    rows = await conn.fetch("SELECT data FROM events WHERE type IN ('lidarr.history_seen', 'lidarr.failure_seen')")
    return sorted(msgspec.json.decode(row["data"])["history_id"] for row in rows)


async def cursor(conn: Connection) -> datetime | None:
    """Return up to when the history was read."""
    moment: datetime | None = await conn.fetchval("SELECT cursor_at FROM polls")
    return moment


async def test_a_look_that_is_cut_off_goes_on_where_it_was(pool: Pool, conn: Connection) -> None:
    """What was read before is kept, with the cursor, and is not asked for again; no line is told twice."""
    async with sighted(pool) as sight:
        albums = await sight.albums(30)
        await sight.imported(albums)
        strike = sight.house.strike(Strike(kind="hold", path=f"/api/v1/album/{albums[-1].id}", until=asyncio.Event()))
        looking = asyncio.create_task(sight.watch.look_once())
        await eventually(lambda: strike.times == 0, timeout=20)
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        assert strike.until is not None
        strike.until.set()

        before, reached = await told(conn), await cursor(conn)
        assert len(before) > len(sight.watched) // 2
        assert reached is not None
        looked = await sight.watch.look_once()

        assert looked.history == len(sight.watched) - len(before)
        assert await told(conn) == sight.watched
        assert await cursor(conn) == sight.house.lidarr.history[-1].date
        assert len(sight.house.happened("GET", f"/album/{albums[0].id}")) == 1


async def test_lines_that_nobody_wants_move_the_cursor_too(pool: Pool, conn: Connection) -> None:
    """Else each look would read them all again."""
    async with sighted(pool) as sight:
        [album] = await sight.albums(1)
        await sight.imported([album])
        await sight.watch.look_once()
        await sight.house.pause(60 * MINUTE)
        await sight.house.lidarr.import_album(album, (), download=None)
        looked = await sight.watch.look_once()

        assert sight.house.lidarr.history[-1].event_type not in lidarr_sight.WATCHED
        assert looked.history == 0
        assert await cursor(conn) == sight.house.lidarr.history[-1].date


async def test_a_history_too_long_for_one_answer_is_read_in_pages(
    pool: Pool, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long absence: every line is told, oldest first, and the cursor comes to the end."""
    monkeypatch.setattr(lidarr_http, "MAX_ANSWER_BYTES", 200_000)
    async with sighted(pool) as sight:
        albums = await sight.albums(30)
        for _ in range(3):
            await sight.imported(albums)
        looked = await sight.watch.look_once()

        assert looked.history == len(sight.watched)
        assert await told(conn) == sight.watched
        assert await cursor(conn) == sight.house.lidarr.history[-1].date


async def test_a_history_that_takes_too_long_is_read_in_pages(pool: Pool, conn: Connection) -> None:
    """What stands before Lidarr lost its patience: less at once may be answered."""
    async with sighted(pool) as sight:
        await sight.imported(await sight.albums(3))
        times = lidarr_http.READ_ATTEMPTS
        with stamina.set_testing(True, attempts=times):
            sight.house.strike(Strike(path="/api/v1/history/since", status=504, times=times))
            await sight.watch.look_once()

        assert await told(conn) == sight.watched


async def test_a_look_that_has_little_time_leaves_the_rest_to_the_next(pool: Pool, conn: Connection) -> None:
    """Each comes further, and says whether it came to the end."""
    async with sighted(pool) as sight:
        await sight.imported(await sight.albums(20))
        reached: list[datetime | None] = [None]
        while not (await sight.watch.look_once(history_seconds=0.0)).is_whole:
            reached.append(await cursor(conn))
            assert reached[-1] != reached[-2]

        assert len(reached) > 3
        assert await told(conn) == sight.watched


async def test_what_webhooks_told_is_counted_from_the_first_line(pool: Pool, conn: Connection) -> None:
    """A download that was grabbed again and again: its first lines are told, wherever a chunk ends."""
    async with sighted(pool) as sight:
        [album] = await sight.albums(1)
        release = sight.house.lidarr.releases(album)[0]
        for _ in range(20):
            download = await sight.house.lidarr.grab([album], release, download_id="A" * 40)
            await sight.house.pause(MINUTE)
            await sight.house.lidarr.fail(download, "The torrent has no seeds.")
            await sight.house.pause(MINUTE)
        lines = [row.id for row in sight.house.lidarr.history]
        facts = [fact for fact in sight.house.lidarr.records.facts if fact.kind in {"grab", "failure"}]
        await receive(conn, [fact.body for fact in facts[:3]])
        while not (await sight.watch.look_once(history_seconds=0.0)).is_whole:
            pass

        assert await told(conn) == lines[3:]


async def receive(conn: Connection, bodies: Sequence[bytes]) -> None:
    """Append webhooks as the door does."""
    for body in bodies:
        received, event_id = lidarr_webhooks.receive(body), new_event_id()
        event = received.new_event(event_id, metadata="{}", correlation_id="trace")
        await event_store.append_many(conn, [Append(received.stream(event_id), [event])])


async def test_a_history_that_cannot_be_read_keeps_nobody_from_the_queue(pool: Pool, conn: Connection) -> None:
    """The look has failed and says so, but what the queue has is told."""
    async with sighted(pool) as sight:
        [album] = await sight.albums(1)
        download = await sight.house.lidarr.grab([album], sight.house.lidarr.releases(album)[0])
        await conn.execute(
            "INSERT INTO correlation_keys (key, streams) VALUES ($1, ARRAY['download_job-x'])",
            correlation_keys.of_download(download.id or ""),
        )
        sight.house.strike(Strike(path="/api/v1/history", status=400, body=b"[]", content_type="application/json"))

        with pytest.raises(LidarrError, match="400"):
            await sight.watch.look_once()

        assert await conn.fetchval("SELECT count(*) FROM events WHERE type = 'lidarr.queue_seen'") == 1
