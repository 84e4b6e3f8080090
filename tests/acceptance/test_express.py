"""The short way of a webhook: its answers are those of the long way, and only what is plain takes it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from asyncpg.transaction import Transaction

from kima_stream import database
from kima_stream.database import Pool
from kima_stream.http import app, server
from kima_stream.http.connection import Connection
from kima_stream.http.table import ROUTES
from kima_stream.settings import api_keys
from kima_stream.settings.config import Settings
from tests import front_door
from tests.front_door import LIDARR, OpenDoor, Watched, webhook
from tests.polling import eventually

_HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\nX-Api-Key: KEY\r\nX-Correlation-Id: c-1\r\nContent-Length: %d\r\n\r\n"


class Ways:
    """A door whose short way is watched."""

    express: Watched

    def __call__(self, application: web.Application) -> Watched:
        """Make it, and remember it."""
        self.express = front_door.watched(application)
        return self.express


@asynccontextmanager
async def opened(pool: Pool, *, url_base: str = "") -> AsyncIterator[tuple[OpenDoor, Watched]]:
    """Open a door that knows its key."""
    ways = Ways()
    async with front_door.opened(pool, express=ways, settings=Settings(url_base=url_base)) as door:
        async with door.client.get(f"{url_base}{LIDARR}/verify") as answer:
            assert answer.status == 200
        yield door, ways.express


def raw(door: OpenDoor, body: bytes, *, path: str = LIDARR, headers: str = "", method: str = "POST") -> bytes:
    """Return a request as one piece."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {door.key}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


async def read(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Return status line, headers and body of the next answer."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
    status, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.title(): value for name, _, value in (line.partition(": ") for line in lines)}
    return status, headers, await reader.readexactly(int(headers["Content-Length"]))


@asynccontextmanager
async def speaking(door: OpenDoor) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()


async def both(
    pool: Pool, request: bytes, *, key_role: api_keys.Role = "admin"
) -> list[tuple[str, dict[str, str], bytes]]:
    """Return the answers of the short way and of the long way to the same request."""
    answers = []
    for ways in (app.express_to, front_door.closed):
        async with front_door.opened(pool, express=ways) as door:
            async with door.client.get(f"{LIDARR}/verify") as answer:
                assert answer.status == 200
            async with speaking(door) as (reader, writer):
                writer.write(request.replace(b"KEY", door.key.encode()))
                answers.append(await read(reader))
    return answers


@pytest.mark.parametrize("name", ["health", "grab", "test"])
async def test_the_answers_are_alike(pool: Pool, name: str) -> None:
    """Status, every header and the shape of the body: the second delivery of a fact is a duplicate on either way."""
    body = webhook(name)
    short, long = await both(pool, _HEAD % (LIDARR.encode(), len(body)) + body)

    assert short[0] == long[0] == "HTTP/1.1 200 OK"
    lengths = {answer[1].pop("Content-Length") for answer in (short, long)}
    assert len(lengths) <= 2
    assert {k: v for k, v in short[1].items() if k != "Date"} == {k: v for k, v in long[1].items() if k != "Date"}
    assert short[1]["X-Correlation-Id"] == "c-1"
    assert json.loads(short[2]).keys() == json.loads(long[2]).keys()
    assert json.loads(long[2])["duplicate"] is (name == "grab")


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"a": "\xff"}', b'{"a":' * 200 + b"1" + b"}" * 200])
async def test_refusals_are_alike(pool: Pool, body: bytes) -> None:
    """The same problem with the same headers, to the byte."""
    (status, headers, problem), long = await both(pool, _HEAD % (LIDARR.encode(), len(body)) + body)

    assert status.startswith("HTTP/1.1 400")
    assert (status, problem) == (long[0], long[2])
    assert {k: v for k, v in headers.items() if k != "Date"} == {k: v for k, v in long[1].items() if k != "Date"}


async def test_a_plain_webhook_takes_it(pool: Pool) -> None:
    """On a kept connection, under a base path, by POST and PUT, with and without a slash; counted like any other."""
    async with opened(pool, url_base="/kima") as (door, express), speaking(door) as (reader, writer):
        for number, (method, slash) in enumerate((("POST", ""), ("PUT", ""), ("POST", "/"), ("PUT", "/")), 1):
            writer.write(raw(door, webhook("health"), path=f"/kima{LIDARR}{slash}", method=method))
            status, _, body = await read(reader)
            assert (status, express.taken) == ("HTTP/1.1 200 OK", number)
            assert await pool.fetchval(
                "SELECT data::text FROM events WHERE event_id = $1", UUID(json.loads(body)["event_id"])
            )
        async with door.client.get("/kima/metrics") as answer:
            figures = await answer.text()
    assert 'kima_http_requests_total{method="PUT",route="/api/webhooks/lidarr",status="200"}' in figures


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("POST {path}?a=b HTTP/1.1", "X-Api-Key: {key}", 200),
        ("POST {path} HTTP/1.0", "X-Api-Key: {key}", 200),
        ("POST {path} HTTP/1.1", "X-Api-Key: {key}\r\nConnection: close", 200),
        ("POST {path} HTTP/1.1", "X-Api-Key: {key}\r\nExpect: odd", 417),
        ("POST {path} HTTP/1.1", "X-Api-Key: other", 401),
        ("POST {path} HTTP/1.1", "X-Other: {key}", 401),
        ("GET {path} HTTP/1.1", "X-Api-Key: {key}", 405),
    ],
)
async def test_what_is_odd_goes_the_long_way(pool: Pool, line: str, headers: str, status: int) -> None:
    """A query, an old version, a connection that ends, an expectation, another key, another method."""
    async with opened(pool) as (door, express), speaking(door) as (reader, writer):
        body = webhook("health")
        head = f"{line}\r\nHost: x\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.format(path=LIDARR, key=door.key).encode() + body)

        assert (await read(reader))[0].split()[1] == str(status)
        assert express.taken == 0


async def test_what_does_not_come_whole_goes_the_long_way(pool: Pool) -> None:
    """A body that waits to be asked for, and one that is large."""
    async with opened(pool) as (door, express), speaking(door) as (reader, writer):
        head, _, body = raw(door, webhook("health"), headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read(reader))[0] == "HTTP/1.1 200 OK"

        writer.write(raw(door, b'{"eventType": "Odd", "x": "%b"}' % (b"x" * 40_000)))
        assert (await read(reader))[0] == "HTTP/1.1 200 OK"
        assert express.taken == 0


async def test_requests_one_behind_the_other_are_answered_in_order(pool: Pool) -> None:
    """Sent at once, or while the first is being committed: each has its answer, in its place."""
    async with opened(pool) as (door, _), speaking(door) as (reader, writer):
        ids = [f"c-{number}" for number in range(20)]
        for correlation_id in ids:
            path = LIDARR if int(correlation_id[2:]) % 3 else "/ping"
            writer.write(raw(door, webhook("health"), path=path, headers=f"X-Correlation-Id: {correlation_id}\r\n",
                             method="POST" if path == LIDARR else "GET"))  # fmt: skip
            if int(correlation_id[2:]) % 2:
                await writer.drain()
        answers = [await read(reader) for _ in ids]

        assert [headers["X-Correlation-Id"] for _, headers, _ in answers] == ids
        assert {status for status, _, _ in answers} == {"HTTP/1.1 200 OK"}
        assert await pool.fetchval("SELECT count(*) FROM events") == 13


async def test_what_comes_meanwhile_waits(pool: Pool) -> None:
    """What could be answered at once, and half a webhook, sent while one is being committed: in their order."""
    async with opened(pool) as (door, express), speaking(door) as (reader, writer), pool.acquire() as blocker:
        lock = blocker.transaction()
        await lock.start()
        await blocker.execute("LOCK TABLE events")
        requests = [raw(door, webhook("health"), headers=f"X-Correlation-Id: c-{number}\r\n") for number in range(4)]
        requests[1] = raw(door, b"", path="/ping", method="GET", headers="X-Correlation-Id: c-1\r\n")
        writer.write(requests[0])
        await eventually(lambda: express.taken == 1)
        writer.write(requests[1] + requests[2][:100])
        await writer.drain()
        writer.write(requests[2][100:])
        await lock.rollback()
        answers = [await read(reader) for _ in range(3)]
        writer.write(requests[3])
        answers.append(await read(reader))

        assert [headers["X-Correlation-Id"] for _, headers, _ in answers] == ["c-0", "c-1", "c-2", "c-3"]
        assert {status for status, _, _ in answers} == {"HTTP/1.1 200 OK"}


async def test_a_revoked_key_opens_neither_way(pool: Pool) -> None:
    """Within a second, also for a sender that has just been let in."""
    async with opened(pool) as (door, _):
        status, _body = await door.post(webhook("health"))
        assert status == 200
        await pool.execute("UPDATE api_keys SET revoked_at = clock_timestamp()")
        door.door.keys.forget()
        status, _body = await door.post(webhook("health"))
    assert status == 401


async def test_an_outage_is_503(pool: Pool, dsn: str) -> None:
    """When Postgres does not take the commit, nothing is acknowledged, on the short way either."""
    key = await front_door.make_key(pool)
    connections = await database.open_pool(dsn, role="serve", max_size=4)
    async with (
        app.opened(Settings(), connections) as door,
        server.serving(
            application := app.build(door, ROUTES), host="127.0.0.1", port=0, drain_seconds=0,
            express=(express := front_door.watched(application)),
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers={"X-Api-Key": key}) as client,
    ):  # fmt: skip
        async with client.get(f"{LIDARR}/verify") as answer:
            assert answer.status == 200
        await connections.close()
        async with client.post(LIDARR, data=webhook("grab")) as answer:
            problem = await answer.json(content_type=None)
            assert (answer.status, problem["code"], answer.headers["Retry-After"]) == (503, "unavailable", "5")
            assert problem["instance"] == answer.headers["X-Correlation-Id"]
        assert express.taken == 1
    assert await pool.fetchval("SELECT count(*) FROM events") == 0


async def test_a_stop_waits_for_it(dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook whose commit is awaited when connections end is answered, told to leave, and in the log."""
    ending, end = asyncio.Event(), Connection.shutdown

    async def shutdown(self: Connection, timeout: float | None = 15.0) -> None:
        ending.set()
        await end(self, timeout)

    monkeypatch.setattr(Connection, "shutdown", shutdown)
    key = await front_door.make_key(pool)
    connections = await database.open_pool(dsn, role="serve", max_size=4)
    async with pool.acquire() as blocker, aiohttp.ClientSession(headers={"X-Api-Key": key}) as client:
        lock = blocker.transaction()
        await lock.start()
        await blocker.execute("LOCK TABLE events")
        async with app.opened(Settings(), connections) as door:
            application = app.build(door, ROUTES)
            express = front_door.watched(application)
            async with server.serving(
                application, host="127.0.0.1", port=0, drain_seconds=0.1, express=express
            ) as port:
                url = f"http://127.0.0.1:{port}{LIDARR}"
                async with client.get(f"{url}/verify") as answer:
                    assert answer.status == 200
                posted = asyncio.create_task(_post(client, url))
                await eventually(lambda: express.taken == 1)
                freed = asyncio.create_task(_when(ending, lock))
            await freed
        await connections.close()
        status, goodbye, event_id = await posted
    assert (status, goodbye) == (200, "close")
    assert await pool.fetchval("SELECT count(*) FROM events WHERE event_id = $1::uuid", event_id) == 1


async def _post(client: aiohttp.ClientSession, url: str) -> tuple[int, str | None, str]:
    async with client.post(url, data=webhook("grab")) as answer:
        return answer.status, answer.headers.get("Connection"), (await answer.json())["event_id"]


async def _when(event: asyncio.Event, lock: Transaction) -> None:
    await event.wait()
    await lock.rollback()
