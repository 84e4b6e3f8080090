"""Track lists: asked politely, kept, and nobody depends on them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from kima_stream.cache import Cache, Copies
from kima_stream.integrations import musicbrainz
from kima_stream.integrations.musicbrainz import MusicBrainz

ALBUM = UUID("0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f")


def release(date: str, *titles: str, status: str = "Official") -> dict[str, object]:
    """An edition, its tracks on two media."""
    half = len(titles) // 2
    media = [{"tracks": [{"title": title} for title in part]} for part in (titles[:half], titles[half:])]
    return {"date": date, "status": status, "media": media}


@dataclass
class Service:
    """A MusicBrainz that keeps what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    asked: list[web.Request] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer as it was told to."""
        self.asked.append(request)
        return web.Response(body=self.body, status=self.status, content_type="application/json")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service on 127.0.0.1."""
    made = Service()
    app = web.Application()
    app.router.add_get("/ws/2/release", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/ws/2"
    yield made
    await runner.cleanup()


@asynccontextmanager
async def asking(url: str | None, redis_url: str | None) -> AsyncIterator[MusicBrainz]:
    """Somebody who asks."""
    async with Copies(redis_url) as copies, aiohttp.ClientSession() as connections:
        yield MusicBrainz(lambda: url, Cache(copies), connections)


async def test_the_usual_edition_is_taken_and_kept(service: Service, redis_url: str) -> None:
    """The oldest official one with as many tracks as most have; asked once, and by name."""
    service.body = json.dumps(
        {
            "releases": [
                release("2021", "a", "b", "c", "d", "bonus"),
                release("2004-05", "A", "B", "C", "D"),
                release("1999", "x", "y", "z", "w", status="Bootleg"),
                release("2001", "first", "second", "third", "fourth"),
                release("2001", "", "unnamed"),
            ]
        }
    ).encode()
    async with asking(service.url, redis_url) as known:
        assert await known.tracks_of(ALBUM) == ("first", "second", "third", "fourth")
    async with asking(service.url, redis_url) as another:
        assert await another.tracks_of(ALBUM) == ("first", "second", "third", "fourth")

    [request] = service.asked
    assert dict(request.query)["release-group"] == str(ALBUM)
    assert request.headers["User-Agent"].startswith("kima-stream/")


@pytest.mark.parametrize(
    ("status", "body", "asked"),
    [(404, b'{"error":"Not Found"}', 1), (200, b'{"releases":[]}', 1), (503, b"", 2), (200, b"<html>", 2)],
)
async def test_what_is_not_known_is_no_failure(
    service: Service, redis_url: str, status: int, body: bytes, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there is none is kept for a while, that it could not be asked is not."""
    monkeypatch.setattr(musicbrainz, "PACE_SECONDS", 0.0)
    service.status, service.body = status, body
    async with asking(service.url, redis_url) as known:
        assert await known.tracks_of(ALBUM) == ()
        assert await known.tracks_of(ALBUM) == ()

    assert len(service.asked) == asked


async def test_nobody_is_asked_where_nobody_is_set_up_or_answers() -> None:
    """No address, or none that answers: no titles."""
    for url in (None, "http://127.0.0.1:1/ws/2"):
        async with asking(url, None) as known:
            assert await known.tracks_of(ALBUM) == ()
