"""What the door bears: many requests, wrong keys, slow clients, liars about their address, and no HTTP at all."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kima_stream.database import Pool
from kima_stream.http.limits import Policies, Policy
from kima_stream.settings import api_keys
from kima_stream.settings.config import Settings
from tests import front_door
from tests.front_door import LIDARR, OpenDoor, webhook

HEAD = "Host: x\r\nConnection: close\r\n"
FEW = Policies(
    key=Policy("key", 5, 3_600), address=Policy("address", 4, 3_600), refused=Policy("refused", 3, 3_600),
)  # fmt: skip
HUNG_SECONDS = 30  # no promise: whoever is not cut by then never is


@asynccontextmanager
async def speaking(door: OpenDoor) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(door: OpenDoor, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send ``request`` as it is and return status, headers and body of the answer."""
    async with speaking(door) as (reader, writer):
        writer.write(request)
        head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]), headers, body


async def statuses(door: OpenDoor, path: str, count: int, **headers: str) -> list[int]:
    """Ask ``count`` times and return how each was answered."""
    found = []
    for _ in range(count):
        async with door.client.get(path, headers=headers) as answer:
            found.append(answer.status)
    return found


async def test_a_key_has_so_many_requests(pool: Pool) -> None:
    """Told with every answer; above it 429 with Retry-After; another key is not touched."""
    other = await front_door.make_key(pool)
    async with front_door.opened(pool, policies=FEW) as door:
        for left in (4, 3, 2, 1, 0):
            async with door.client.get("/api/keys") as answer:
                assert answer.status == 200
                assert answer.headers["RateLimit-Policy"] == '"key";q=5;w=3600'
                assert answer.headers["RateLimit"].startswith(f'"key";r={left};t=')
        async with door.client.get("/api/keys") as answer:
            problem = await answer.json(content_type=None)
            assert (answer.status, answer.content_type) == (429, "application/problem+json")
            assert problem["code"] == "rate_limited"
            assert 1 <= int(answer.headers["Retry-After"]) <= 3_600
        assert await statuses(door, "/api/keys", 1, **{"X-Api-Key": other}) == [200]


async def test_a_wrong_role_counts_too(pool: Pool) -> None:
    """A key cannot knock without end at what it may not open."""
    sender = await front_door.make_key(pool, "webhook")
    async with front_door.opened(pool, policies=FEW) as door:
        assert await statuses(door, "/api/keys", 6, **{"X-Api-Key": sender}) == [403] * 5 + [429]


async def test_webhooks_are_never_limited(pool: Pool) -> None:
    """Lidarr sends each once: whatever it sends is taken, also from an address full of wrong keys."""
    async with front_door.opened(pool, policies=FEW) as door:
        assert await statuses(door, "/api/keys", 5, **{"X-Api-Key": "wrong"}) == [401] * 3 + [429] * 2
        answers = await asyncio.gather(*(door.post(webhook("health")) for _ in range(30)))
        assert {status for status, _ in answers} == {200}


async def test_guessing_ends(pool: Pool) -> None:
    """Above the limit of wrong keys even the right guess opens nothing, unless it is one that nobody can guess."""
    guessable = "0123456789abcdef"
    async with pool.acquire() as conn, front_door.opened(pool, policies=FEW) as door:
        await api_keys.ensure_admin(conn, given=guessable, data_dir=front_door.FIXTURES)
        assert await statuses(door, "/api/keys", 1, **{"X-Api-Key": guessable}) == [200]
        assert await statuses(door, "/api/keys", 3, **{"X-Api-Key": "wrong"}) == [401] * 3
        assert await statuses(door, "/api/keys", 2, **{"X-Api-Key": guessable}) == [429] * 2
        assert await statuses(door, "/api/keys", 1) == [200]
        assert await statuses(door, "/api/keys", 1, **{"X-Api-Key": ""}) == [401]


async def test_guesses_beside_a_key_of_ours_are_guesses(pool: Pool) -> None:
    """Whoever has a small key tries for a large one; a key that opens the route has nothing to guess."""
    guessable = "0123456789abcdef"
    async with pool.acquire() as conn, front_door.opened(pool, policies=FEW) as door:
        await api_keys.ensure_admin(conn, given=guessable, data_dir=front_door.FIXTURES)
        small, _ = await api_keys.create(conn, name="figures", role="metrics")
        guesses = {"X-Api-Key": "wrong", "X-Webhook-Secret": small}
        assert await statuses(door, "/api/keys", 3, **guesses) == [403] * 3
        assert await statuses(door, "/api/keys", 1, **guesses) == [429]
        assert await statuses(door, "/api/keys", 2, **{"X-Api-Key": guessable}) == [429] * 2
        both = {"X-Api-Key": door.key, "X-Webhook-Secret": "wrong"}
        assert await statuses(door, "/api/keys", 1, **both) == [200]


async def test_one_request_is_not_a_hundred_guesses(pool: Pool) -> None:
    """Of many keys in one request only the first few are looked at."""
    async with front_door.opened(pool) as door:
        keys = [("X-Api-Key", f"wrong{n}") for n in range(20)]
        async with door.client.get("/api/keys", headers=[*keys, ("X-Api-Key", door.key)]) as answer:
            assert answer.status == 401


async def test_open_routes_are_limited_by_address(pool: Pool) -> None:
    """Nobody keeps this process busy for nothing."""
    async with front_door.opened(pool, policies=FEW) as door:
        assert await statuses(door, "/readyz", 5) == [200] * 4 + [429]


@pytest.mark.parametrize(
    ("trusted", "forwarded", "counted"),
    [
        ("", ["198.51.100.7"], "127.0.0.1"),  # nobody is trusted: a claim is only a claim
        ("10.0.0.0/8", ["198.51.100.7"], "127.0.0.1"),  # the peer is no proxy of ours
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["192.0.2.66, 198.51.100.7"], "198.51.100.7"),  # the caller wrote the first one
        ("127.0.0.1", ["192.0.2.66", "198.51.100.7"], "198.51.100.7"),  # HAProxy adds a line of its own
        ("127.0.0.0/8, 10.0.0.1", ["192.0.2.66, 198.51.100.7, 10.0.0.1"], "198.51.100.7"),
        ("127.0.0.1", ["rubbish, 198.51.100.7:4711"], "198.51.100.7"),
        ("127.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::"),
        ("127.0.0.1", ["2001:db8::8"], "2001:db8::"),  # one customer's network
        ("127.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["rubbish"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
    ],
)
async def test_an_address_is_that_which_our_proxies_saw(
    pool: Pool, trusted: str, forwarded: list[str], counted: str
) -> None:
    """Behind ``KIMA_TRUSTED_PROXIES`` the address is the caller's, and a caller cannot make one up."""
    async with front_door.opened(pool, policies=FEW, settings=Settings(trusted_proxies=trusted)) as door:
        claims = [("X-Forwarded-For", claim) for claim in forwarded]
        for status in (200, 200, 200, 200, 429):
            async with door.client.get("/ping", headers=claims) as answer:
                assert answer.status == status
        honest = [("X-Forwarded-For", counted)] if counted != "127.0.0.1" else []
        async with door.client.get("/ping", headers=honest) as answer:
            assert answer.status == 429
        async with door.client.get("/ping", headers=[*claims, ("X-Forwarded-For", "203.0.113.9")]) as answer:
            assert answer.status == (200 if trusted.startswith("127") else 429)


NO_HTTP = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50, 400),  # a TLS greeting
    (b"GET\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
    (b"GET /ping HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
    (b"GET /ping HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
    (b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n", 400),
    (b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    (b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"GET /ping HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n", 400),
    (b"GET /ping HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
    (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
]


@pytest.mark.parametrize(("request_", "status"), NO_HTTP)
async def test_what_is_no_http_is_told_so(pool: Pool, request_: bytes, status: int) -> None:
    """A problem with its protection like every other answer; the connection ends, and nobody else notices."""
    async with front_door.opened(pool) as door:
        code, headers, body = await exchange(door, request_)
        problem = json.loads(body)

        assert (code, problem["status"], headers["content-type"]) == (status, status, "application/problem+json")
        assert (headers["server"], headers["x-content-type-options"]) == ("kima-stream", "nosniff")
        assert problem["instance"] == headers["x-correlation-id"]
        assert await statuses(door, "/ping", 1) == [200]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "nonsense"])
async def test_a_body_that_does_not_fit_its_encoding_is_refused(pool: Pool, coding: str) -> None:
    """400, or taken as it is where nobody knows the encoding; never 500."""
    async with front_door.opened(pool) as door:
        headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
        async with door.client.post("/api/keys", data=b"not packed", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (400, "application/problem+json")


async def test_a_packed_bomb_is_refused(pool: Pool) -> None:
    """100 MB in 100 kB: 413 as soon as it is above the limit."""
    async with front_door.opened(pool) as door:
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        bomb = gzip.compress(b" " * 100_000_000)
        async with door.client.post(LIDARR, data=bomb, headers=headers) as answer:
            assert answer.status == 413


async def test_a_late_head_ends_the_connection(pool: Pool) -> None:
    """Nothing, half a head, or half of the second: given up in time, each byte of it notwithstanding."""
    async with front_door.opened(pool, head_seconds=0.3) as door:
        for beginning in (
            b"",
            b"GET /ping HTTP/1.1\r\nHost: x\r\nX-A",
            b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /pi",
        ):
            began = time.monotonic()
            async with speaking(door) as (reader, writer):
                writer.write(beginning)
                trickle = asyncio.create_task(drip(writer) if beginning else asyncio.sleep(0))
                await asyncio.wait_for(reader.read(), HUNG_SECONDS)
                trickle.cancel()
            assert time.monotonic() - began > 0.2


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send a byte now and then, as a slow loris does."""
    while not writer.is_closing():
        writer.write(b"A")
        await asyncio.sleep(0.05)


async def test_an_idle_connection_is_kept(pool: Pool) -> None:
    """Between two requests a connection may rest for longer than a head may take."""
    async with front_door.opened(pool, head_seconds=0.2) as door, speaking(door) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b'"}'), 5)).startswith(b"HTTP/1.1 200")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.5)


async def test_a_late_body_is_refused(pool: Pool) -> None:
    """408, nothing stored, and the connection ends."""
    async with front_door.opened(pool, body_seconds=0.3) as door:
        request = f"POST {LIDARR} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {door.key}\r\nContent-Length: 100\r\n\r\n{{"
        code, headers, body = await exchange(door, request.encode())

        assert (code, json.loads(body)["code"]) == (408, "request_timeout")
        assert headers["connection"] == "close"
        assert await pool.fetchval("SELECT count(*) FROM events") == 0


async def test_slow_clients_do_not_stop_others(pool: Pool) -> None:
    """With 200 heads and 200 bodies on their way at a byte now and then, webhooks are answered as ever."""
    async with front_door.opened(pool) as door:
        port = int(door.url.rpartition(":")[2])
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(400)]
        for number, (_, writer) in enumerate(opened):
            body = f"X-Api-Key: {door.key}\r\nContent-Length: 1000\r\n\r\n{{" if number % 2 else "X-Sl"
            writer.write(f"POST {LIDARR} HTTP/1.1\r\nHost: x\r\n{body}".encode())
        drops = [asyncio.create_task(drip(writer)) for _, writer in opened]

        async with asyncio.timeout(HUNG_SECONDS):
            answers = await asyncio.gather(*(door.post(webhook("health")) for _ in range(50)))
        assert {status for status, _ in answers} == {200}

        for task in drops:
            task.cancel()
        for _, writer in opened:
            writer.transport.abort()


@pytest.mark.parametrize("path", ["/api/webhooks/lidarr", "/nothing/here"])
async def test_an_odd_expectation_is_refused(pool: Pool, path: str) -> None:
    """417 as a problem, whatever bytes are expected and wherever they are sent."""
    async with front_door.opened(pool) as door:
        request = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: \xff\xfe\r\n\r\n" % path.encode()
        status, headers, _ = await exchange(door, request)
    assert (status, headers["content-type"]) == (417, "application/problem+json")


async def test_settings_that_are_no_text_are_refused(pool: Pool) -> None:
    """400, also where no setting is known whose value could be read."""
    async with front_door.opened(pool) as door:
        for method, path in (("PUT", "/api/settings"), ("POST", "/api/settings/lidarr/test")):
            async with door.client.request(
                method, path, data=b'{"unknown":"\xd8"}', headers={"Content-Type": "application/json"}
            ) as answer:
                assert answer.status == 400, (path, await answer.text())
