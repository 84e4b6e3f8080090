"""``GET /api/live``: whoever watches sees every position once, in order, however often they are cut."""

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from kima_stream import database, event_store
from kima_stream.database import Connection, Pool
from kima_stream.embedded.postgres import Postgres
from kima_stream.event_store import Append
from kima_stream.http import app, feed as feeds, server
from kima_stream.http.event_views import Numbered
from kima_stream.http.feed import Feed
from kima_stream.http.table import ROUTES
from kima_stream.numbering import Numberer
from kima_stream.settings.config import Settings
from tests import front_door
from tests.factories import a_note, append_notes, number_all
from tests.front_door import OpenDoor
from tests.polling import eventually
from tests.watcher import LIVE, Watcher


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


async def write(conn: Connection, *, rounds: int, each: int = 10) -> None:
    """Append and number, as ingest and a publisher do."""
    numberer = Numberer(conn, holder="test")
    assert await numberer.lead()
    for _ in range(rounds):
        await append_notes(conn, each=each, streams=1)
        while await numberer.number_once():
            pass
        await asyncio.sleep(0)
    await numberer.resign()


async def test_a_reader_cut_twenty_times_over_two_processes_misses_nothing(
    pool: Pool, dsn: str, conn: Connection, rng: random.Random
) -> None:
    """Each time at the other server, each time at another point: every position once, in order."""
    other_pool = await database.open_pool(dsn, role="other")
    watcher = Watcher()
    cuts = 0
    async with front_door.opened(pool) as one, front_door.opened(other_pool) as other, asyncio.TaskGroup() as group:
        async with watcher.watching(one.client):  # from here on
            group.create_task(write(conn, rounds=60))
        while len(watcher.seen) < 600:
            async with watcher.watching((one, other)[cuts % 2].client) as messages:
                await watcher.take(messages, min(rng.randint(0, 30), 600 - len(watcher.seen)))
            cuts += 1
    await other_pool.close()

    assert cuts >= 20
    assert watcher.positions == list(range(1, 601))


async def test_a_slow_reader_is_cut_and_comes_back_without_loss(door: OpenDoor, pool: Pool, conn: Connection) -> None:
    """It costs the process a bounded memory and its neighbours nothing."""
    neighbour, slow = Watcher(), Watcher()
    text = json.dumps("x" * 400_000)
    connector = aiohttp.TCPConnector(socket_factory=_small_socket)
    async with (
        aiohttp.ClientSession(door.url, headers={"X-Api-Key": door.key}, connector=connector) as client,
        neighbour.watching(door.client) as messages,
        client.get(LIVE, read_bufsize=2**10) as answer,
    ):
        await eventually(lambda: len(door.door.feed._readers) == 2)
        for number in range(40):
            await event_store.append_many(conn, [Append("note-1", [a_note(text)])])
            await number_all(conn)
            await neighbour.take(messages, 1)
            if number == 0:
                slow.last_id = "0"
        await eventually(lambda: len(door.door.feed._readers) == 1)
        with suppress(aiohttp.ClientError):
            async for _ in slow.messages(answer.content):
                pass
    assert neighbour.positions == list(range(1, 41))
    assert len(slow.seen) < 40
    async with slow.watching(door.client) as messages:
        await slow.take(messages, 40 - len(slow.seen))
    assert slow.positions == list(range(1, 41))


def _small_socket(address: Any) -> socket.socket:  # noqa: ANN401 - aiohttp's own tuple
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    return made


async def test_from_now_on_or_from_a_position(door: OpenDoor, conn: Connection) -> None:
    """Without anything: what comes; ``after``: from there; ``Last-Event-ID`` counts more than ``after``."""
    await append_notes(conn)
    await number_all(conn)
    now, start, middle = Watcher(), Watcher(), Watcher(last_id="10")
    async with (
        now.watching(door.client) as coming,
        start.watching(door.client, "?after=0") as all_,
        middle.watching(door.client, "?after=2") as rest,
    ):
        assert now.last_id == "12"
        await append_notes(conn, streams=1, each=1)
        await number_all(conn)
        await now.take(coming, 1)
        await start.take(all_, 13)
        await middle.take(rest, 3)
    assert (now.positions, start.positions, middle.positions) == ([13], list(range(1, 14)), [11, 12, 13])


async def test_an_event_is_shown_as_elsewhere(door: OpenDoor, conn: Connection) -> None:
    """The same JSON as ``GET /api/events``, on one line, whatever line ends the data has."""
    await event_store.append_many(conn, [Append("note-1", [a_note('{\r\n"a":\n[1.0, "\\n"]}')])])
    await number_all(conn)
    watcher = Watcher()
    async with watcher.watching(door.client, "?after=0") as messages:
        (event,) = await watcher.take(messages, 1)
    async with door.client.get("/api/events?stream=note-1") as answer:
        assert (await answer.json())["events"] == [event]


async def test_filters_join_live_and_in_the_past(door: OpenDoor, conn: Connection) -> None:
    """Of what was and of what comes, only what was asked for."""

    async def three() -> None:
        for stream, type_, correlation in (
            ("note-1", "note.taken", "a"), ("note-2", "note.lost", "b"), ("letter-1", "note.taken", "a"),
        ):  # fmt: skip
            await event_store.append_many(conn, [Append(stream, [a_note(type=type_, correlation_id=correlation)])])
        await number_all(conn)

    await three()
    for query, expected in (
        ("category=note", [1, 2, 4, 5]),
        ("type=note.taken", [1, 3, 4, 6]),
        ("stream=note-2", [2, 5]),
        ("correlation_id=a", [1, 3, 4, 6]),
        ("correlation_id=a&category=letter", [3, 6]),
    ):
        watcher = Watcher()
        async with watcher.watching(door.client, f"?after=0&{query}") as messages:
            await watcher.take(messages, len(expected) // 2)
            if query == "category=note":
                await three()
            await watcher.take(messages, len(expected) // 2)
        assert watcher.positions == expected, query


async def test_fifty_readers_ask_as_often_as_one(
    door: OpenDoor, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One query per tick feeds them all; each event is written down once."""
    framed: list[int] = []
    frame = feeds.frame

    def counted(event: Numbered) -> bytes:
        framed.append(event.position)
        return frame(event)

    monkeypatch.setattr(feeds, "frame", counted)
    monkeypatch.setattr(Feed, "_missed", None)  # nobody has missed anything
    watchers = [Watcher() for _ in range(50)]
    ready = asyncio.Barrier(51)

    async def watch(watcher: Watcher) -> None:
        async with watcher.watching(door.client) as messages:
            await ready.wait()
            await watcher.take(messages, 100)

    async with asyncio.TaskGroup() as group:
        for watcher in watchers:
            group.create_task(watch(watcher))
        await ready.wait()
        await write(conn, rounds=10)
    assert all(watcher.positions == list(range(1, 101)) for watcher in watchers)
    assert framed == list(range(1, 101))


async def test_the_places_are_limited(door: OpenDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is told to come back; whoever leaves makes room."""
    monkeypatch.setattr(door.door.feed, "_max_readers", 1)
    watcher = Watcher()
    async with watcher.watching(door.client), door.client.get(LIVE) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
    await eventually(lambda: not door.door.feed._readers)
    async with watcher.watching(door.client):
        pass


async def test_a_stop_ends_every_stream_in_order(pool: Pool, dsn: str, conn: Connection) -> None:
    """The readers get what was handed over and a proper end, at once."""
    connections = await database.open_pool(dsn, role="serve")
    key = await front_door.make_key(pool)
    watcher = Watcher()
    async with app.opened(Settings(), connections) as door:
        async with (
            server.serving(app.build(door, ROUTES), host="127.0.0.1", port=0, drain_seconds=10) as port,
            asyncio.timeout(5),
        ):
            session = aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers={"X-Api-Key": key})
            opened = OpenDoor(door=door, url="", key=key, client=session)
            reading = asyncio.create_task(_read_to_the_end(watcher, opened))
            await eventually(lambda: any(reader.is_live for reader in door.feed._readers))
            await append_notes(conn, streams=1, each=3)
            await number_all(conn)
            await eventually(lambda: len(watcher.seen) == 3)
        async with asyncio.timeout(5):
            await reading
        await session.close()
    await connections.close()
    assert watcher.positions == [1, 2, 3]


async def _read_to_the_end(watcher: Watcher, door: OpenDoor) -> None:
    async with watcher.watching(door.client) as messages:
        async for _ in messages:
            pass


async def test_a_revoked_key_sees_no_more(door: OpenDoor) -> None:
    """The stream ends within about a second, also when nothing happens."""
    status, made = await door.post(b'{"name": "watcher", "role": "admin"}', "/api/keys")
    assert status == 201
    async with door.client.get(LIVE, headers={"X-Api-Key": str(made["key"])}) as answer:
        assert answer.status == 200
        async with door.client.delete(f"/api/keys/{made['key_id']}") as revoked:
            assert revoked.status == 200
        async with asyncio.timeout(5):
            assert b"data:" not in await answer.read()


async def test_who_has_gone_takes_no_place(door: OpenDoor) -> None:
    """Also when nothing is sent that could fail."""
    for _ in range(3):
        async with Watcher().watching(door.client):
            pass
    await eventually(lambda: not door.door.feed._readers)


@pytest.mark.parametrize("seen", ["x", "-1", "1.5", "9" * 19, "9" * 5_000, "0" * 5_000, "\u0661"])
async def test_nonsense_is_no_position(door: OpenDoor, seen: str) -> None:
    """422, as a problem."""
    async with door.client.get(LIVE, headers={"Last-Event-ID": seen}) as answer:
        assert (answer.status, answer.content_type) == (422, "application/problem+json")


async def test_a_head_ends(door: OpenDoor) -> None:
    """Nobody waits for a stream that has no body."""
    async with door.client.head(LIVE) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")


async def test_a_position_ahead_of_the_log_is_waited_for(door: OpenDoor, conn: Connection) -> None:
    """What is at or below it was seen."""
    watcher = Watcher(last_id="2")
    async with watcher.watching(door.client) as messages:
        await append_notes(conn, streams=1, each=4)
        await number_all(conn)
        await watcher.take(messages, 2)
    assert watcher.positions == [3, 4]


async def test_an_outage_of_postgres_is_sat_out(postgres: Postgres) -> None:
    """The readers stay and get what comes after it."""
    pool = await database.open_pool(postgres.url, role="test")
    watcher = Watcher()
    async with front_door.opened(pool) as door, watcher.watching(door.client) as messages:
        await postgres.stop()
        await postgres.start()

        async def written() -> bool:
            with suppress(OSError):
                async with pool.acquire() as conn:
                    await append_notes(conn, streams=1, each=1)
                    return await number_all(conn) > 0
            return False

        await eventually(written, timeout=10)
        assert (await watcher.take(messages, 1))[0]["position"] == 1
    await pool.close()


async def test_many_large_events_are_read_in_short_pages(
    door: OpenDoor, conn: Connection, scaled: Callable[[int], int]
) -> None:
    """Whoever catches up reads everything, however large."""
    count = scaled(200)
    for _ in range(count):
        await event_store.append_many(conn, [Append("note-1", [a_note(json.dumps("x" * 900_000))])])
    await number_all(conn)
    watcher = Watcher()
    async with watcher.watching(door.client, "?after=0") as messages:
        await watcher.take(messages, count)
    assert watcher.positions == list(range(1, count + 1))
