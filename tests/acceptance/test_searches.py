"""Search sessions over a real server: yours for an hour, at every process, with and without Redis."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis.asyncio as redis_client

from kima_stream import projector
from kima_stream.database import Connection, Pool
from kima_stream.events import EffectFailed, FoundFile, SearchCompleted, SearchResultsFound
from kima_stream.http import search_requests
from kima_stream.read_models import search_sessions
from kima_stream.settings import api_keys
from kima_stream.settings.config import Settings
from tests import front_door
from tests.front_door import OpenDoor

PATH = "/api/searches"
ENVIRONMENT = {"soulseekUsername": "kima", "soulseekPassword": "secret-enough"}
SONG = FoundFile(peer="bob", path="share\\Tidewater\\01.flac", size_bytes=31_000_000, extension="flac")


def settings(redis_url: str | None = None) -> Settings:
    """A configuration with a Soulseek account."""
    return Settings(redis_url=redis_url, environment=ENVIRONMENT)


@pytest.fixture
async def door(pool: Pool, redis_url: str) -> AsyncIterator[OpenDoor]:
    """A door with Redis."""
    async with front_door.opened(pool, settings=settings(redis_url)) as opened:
        yield opened


async def start(door: OpenDoor, body: object, **headers: str) -> tuple[int, dict[str, object]]:
    """Begin a search."""
    async with door.client.post(PATH, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def show(door: OpenDoor, session_id: object, **headers: str) -> tuple[int, dict[str, object]]:
    """Read a session."""
    async with door.client.get(f"{PATH}/{session_id}", headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def found(pool: Pool, session_id: object, *files: FoundFile) -> None:
    """Let peers answer, as the owner of the account records it, and let the search end."""
    stream = search_sessions.stream_of(UUID(str(session_id)))
    for news in (SearchResultsFound(results=files), SearchCompleted(found=len(files))):
        await search_requests.take(pool, stream, news, correlation_id=None)


async def user_key(pool: Pool, user_id: str) -> str:
    """Return a key of a user."""
    async with pool.acquire() as conn:
        return (await api_keys.create(conn, name=user_id, role="user", user_id=user_id))[0]


async def test_a_search_survives_a_restart_of_the_door(door: OpenDoor, pool: Pool, redis_url: str) -> None:
    """Another process, later, shows the same results; the copy in Redis lives for the hour."""
    status, started = await start(door, {"query": "harbour lights tidewater"})
    assert (status, started["status"], started["duplicate"]) == (202, "running", False)
    await found(pool, started["id"], SONG)
    _, before = await show(door, started["id"])

    async with front_door.opened(pool, settings=settings(redis_url)) as another:
        _, after = await show(another, started["id"], **{"X-Api-Key": door.key})

    assert after == before
    assert (before["status"], before["found"], before["query"]) == ("completed", 1, "harbour lights tidewater")
    assert [file["path"] for file in before["results"]] == [SONG.path]  # type: ignore[attr-defined]
    async with redis_client.Redis.from_url(redis_url, protocol=3) as client:
        assert 3_590 < await client.ttl(f"kima:session:{started['id']}") <= 3_600


async def test_the_log_has_it_when_redis_has_lost_it(door: OpenDoor, pool: Pool, redis_url: str) -> None:
    """Nothing of a session is lost with Redis, nor is an old copy shown."""
    _, started = await start(door, {"query": "harbour lights"})
    _, running = await show(door, started["id"])
    assert running["results"] == []
    await found(pool, started["id"], SONG)

    _, with_copy = await show(door, started["id"])
    async with redis_client.Redis.from_url(redis_url, protocol=3) as client:
        await client.flushdb()
    _, without_copy = await show(door, started["id"])
    async with redis_client.Redis.from_url(redis_url, protocol=3) as client:
        await client.set(f"kima:session:{started['id']}", b"not ours")
    _, with_nonsense = await show(door, started["id"])

    assert with_copy == without_copy == with_nonsense
    assert with_copy["found"] == 1


async def test_another_users_search_does_not_exist(door: OpenDoor, pool: Pool) -> None:
    """Nor does one that never was, or no id at all."""
    ann, bob = await user_key(pool, "ann"), await user_key(pool, "bob")
    _, started = await start(door, {"query": "harbour lights"}, **{"X-Api-Key": ann})

    assert (await show(door, started["id"], **{"X-Api-Key": ann}))[0] == 200
    for session_id in (started["id"], UUID(int=5), "nonsense"):
        status, problem = await show(door, session_id, **{"X-Api-Key": bob})
        assert (status, problem["status"]) == (404, 404)


async def test_after_its_hour_it_is_gone(door: OpenDoor, pool: Pool, conn: Connection) -> None:
    """By the clock, whether or not anybody has swept."""
    _, started = await start(door, {"query": "harbour lights"})
    row = await search_sessions.get(conn, UUID(str(started["id"])))
    assert row is not None
    assert row.state.expires_at is not None
    assert timedelta(minutes=59) < row.state.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    await conn.execute(
        "UPDATE search_sessions SET version = version + 1, state = replace(state::text, $1, $2)::json",
        row.state.expires_at.isoformat().replace("+00:00", "Z"),
        "2026-01-01T00:00:00Z",
    )

    assert (await show(door, started["id"]))[0] == 404


async def test_one_idempotency_key_begins_one_search(door: OpenDoor, conn: Connection) -> None:
    """Sent again it is the same session; with another query it is refused."""
    key = {"Idempotency-Key": "a click"}
    _, first = await start(door, {"query": "harbour lights"}, **key)
    status, again = await start(door, {"query": "harbour  lights"}, **key)

    assert (status, again["id"], again["duplicate"]) == (202, first["id"], True)
    assert (await start(door, {"query": "another"}, **key))[0] == 422
    assert await conn.fetchval("SELECT count(*) FROM search_sessions WHERE version >= 0") == 1


async def test_bad_searches_are_told_what_is_wrong(door: OpenDoor) -> None:
    """Too short, nothing, both, or too long: 422, and nothing is recorded."""
    bodies: list[object] = [{}, {"query": "ab"}, {"query": "x" * 201}, {"query": "abc", "artist": "x"},
                            {"query": "  \t "}, {"query": "a\u0000bc"}, {"artist": ""}]  # fmt: skip
    for body in bodies:
        status, problem = await start(door, body)
        assert (status, problem["status"]) == (422, 422), body
    assert (await start(door, {"artist": "The Harbour Lights", "title": "Salt"}))[0] == 202


async def test_without_soulseek_the_answer_says_what_to_set(pool: Pool) -> None:
    """An admin can mend it: 400 names the settings."""
    async with front_door.opened(pool) as door:
        status, problem = await start(door, {"query": "harbour lights"})

    assert status == 400
    assert "soulseekUsername" in str(problem)


async def test_a_result_is_fetched_once(door: OpenDoor, pool: Pool, conn: Connection) -> None:
    """Five clicks are one download; what nobody offered is 404."""
    _, started = await start(door, {"query": "harbour lights"})
    await found(pool, started["id"], SONG)
    answers = []
    for _ in range(5):
        async with door.client.post(
            f"{PATH}/{started['id']}/download", json={"peer": SONG.peer, "path": SONG.path}
        ) as answer:
            answers.append((answer.status, await answer.json()))
    async with door.client.post(f"{PATH}/{started['id']}/download", json={"peer": "bob", "path": "x"}) as answer:
        unknown = answer.status

    assert {status for status, _ in answers} == {202}
    assert len({body["effect_id"] for _, body in answers}) == 1
    assert unknown == 404
    row = await search_sessions.get(conn, UUID(str(started["id"])))
    assert row is not None
    assert [effect.kind for effect in row.state.effects] == ["soulseek.search", "soulseek.fetch"]


async def test_one_idempotency_key_is_one_download(door: OpenDoor, pool: Pool, conn: Connection) -> None:
    """Sent again after the first try failed it is still that request; of another result it is refused."""
    _, started = await start(door, {"query": "harbour lights"})
    other = msgspec.structs.replace(SONG, path=f"{SONG.path}2")
    await found(pool, started["id"], SONG, other)
    path, key = f"{PATH}/{started['id']}/download", {"Idempotency-Key": "a click"}

    async def take(file: FoundFile) -> tuple[int, Any]:
        async with door.client.post(path, json={"peer": file.peer, "path": file.path}, headers=key) as answer:
            return answer.status, await answer.json(content_type=None)

    status, first = await take(SONG)
    failed = EffectFailed(
        effect_id=UUID(first["effect_id"]), kind="soulseek.fetch", code="peer", reason="no bytes", was_unknown=False
    )
    await search_requests.take(pool, f"search_session-{started['id']}", failed, correlation_id=None)
    again = await take(SONG)

    assert (status, again[0], again[1]["effect_id"]) == (202, 202, first["effect_id"])
    assert (await take(other))[0] == 422
    assert await conn.fetchval("SELECT count(*) FROM events WHERE type = 'search_session.download_requested'") == 1


async def test_a_rebuild_gives_the_same_sessions(door: OpenDoor, pool: Pool, conn: Connection) -> None:
    """The table is a fold of the log."""
    _, started = await start(door, {"query": "harbour lights"})
    await found(pool, started["id"], SONG)
    row = await search_sessions.get(conn, UUID(str(started["id"])))
    assert row is not None
    await conn.execute("DELETE FROM search_sessions")

    async with conn.transaction():
        assert await projector.load(conn, search_sessions.PROJECTION, row.stream) == row
