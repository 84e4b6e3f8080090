"""People at the door: opaque ids, names and notes for those who may see them, and what an erasure leaves."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import redis.asyncio as redis_client

from kima_stream.database import Connection, Pool
from kima_stream.read_models import search_sessions
from kima_stream.settings.config import Settings
from tests import front_door
from tests.front_door import OpenDoor

DOWNLOADS = "/api/downloads"
TIDEWATER = {"artist": "The Harbour Lights", "album": "Tidewater"}
NOTE = 'für Tante Käthe,\nzum "Achtzigsten" 🎂'


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


async def call(
    door: OpenDoor, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, dict[str, object]]:
    """Call as the admin, or with the headers given."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with door.client.request(method, path, json=body, headers=named) as answer:
        return answer.status, await answer.json(content_type=None)


async def make_user(door: OpenDoor, name: str = "Anna Brandt", **more: str) -> tuple[str, str]:
    """Make a key and return it with its user's id."""
    status, made = await call(door, "POST", "/api/keys", {"name": name, "role": "user", **more})
    assert (status, made["name"]) == (201, name)
    return str(made["key"]), str(made["user_id"])


async def ask(door: OpenDoor, key: str, note: str | None = NOTE, **headers: str) -> tuple[int, dict[str, object]]:
    """Ask for an album with a note."""
    return await call(door, "POST", DOWNLOADS, {**TIDEWATER, "note": note}, X_Api_Key=key, **headers)


async def test_a_user_has_an_opaque_id_and_a_name_for_admins(door: OpenDoor, conn: Connection) -> None:
    """The name is in no row in clear; a second key of the same user does not rename them."""
    key, user_id = await make_user(door)
    _, same = await make_user(door, "Anna's phone", user_id=user_id)

    assert (UUID(user_id).version, same) == (4, user_id)
    _, page = await call(door, "GET", "/api/users")
    assert page["users"] == [
        {
            "user_id": user_id, "name": "Anna Brandt", "is_erased": False, "erased_by": None,
            "created_at": page["users"][0]["created_at"], "updated_at": page["users"][0]["updated_at"],  # type: ignore[index]
        }
    ]  # fmt: skip
    _, listed = await call(door, "GET", "/api/keys")
    assert isinstance(listed["keys"], list)
    assert [row["name"] for row in listed["keys"]] == ["a admin", "Anna Brandt", "Anna's phone"]
    for table in ("events", "users", "api_keys"):
        assert "Anna" not in str(await conn.fetch(f"SELECT t::text FROM {table} AS t"))
    assert (await call(door, "GET", "/api/users", X_Api_Key=key))[0] == 403
    _, verified = await call(door, "GET", "/api/webhooks/lidarr/verify", X_Api_Key=(await make_admin(door))[0])
    assert verified["name"] == "Root"


async def make_admin(door: OpenDoor) -> tuple[str, str]:
    """Make another admin."""
    _, made = await call(door, "POST", "/api/keys", {"name": "Root", "role": "admin"})
    return str(made["key"]), str(made["user_id"])


async def test_users_come_in_pages(door: OpenDoor) -> None:
    """Each once, and no next on the last page."""
    ids = {(await make_user(door, f"User {number}"))[1] for number in range(5)}

    walked: list[str] = []
    following: object = ""
    while following is not None:
        _, page = await call(door, "GET", f"/api/users?limit=2&after={following}")
        assert isinstance(page["users"], list)
        walked += [user["user_id"] for user in page["users"]]
        following = page["next"]
    assert (len(walked), set(walked)) == (5, ids)


async def test_a_note_is_shown_to_its_user_and_is_stored_sealed(door: OpenDoor, conn: Connection) -> None:
    """In the job and in the list; the log shows it as it is stored; the next one takes its place."""
    key, _ = await make_user(door)
    _, asked = await ask(door, key)

    path = f"{DOWNLOADS}/{asked['id']}"
    assert (await call(door, "GET", path, X_Api_Key=key))[1]["note"] == NOTE
    _, page = await call(door, "GET", f"{DOWNLOADS}?q=tidewater&artist=the%20harbour%20lights", X_Api_Key=key)
    assert [job["note"] for job in page["downloads"]] == [NOTE]  # type: ignore[attr-defined]
    _, event = await call(door, "GET", f"/api/events/{asked['event_id']}")
    sealed = event["data"]["note"]  # type: ignore[index]
    assert sealed.startswith("kima1.")
    assert sealed.endswith(UUID(str(asked["event_id"])).hex)
    assert "Tante" not in str(await conn.fetch("SELECT t::text FROM download_jobs AS t"))

    assert (await ask(door, key, None))[0] == 202
    assert (await call(door, "GET", path, X_Api_Key=key))[1]["note"] == NOTE
    await ask(door, key, "another")
    assert (await call(door, "GET", path, X_Api_Key=key))[1]["note"] == "another"


@pytest.mark.parametrize("note", ["", "x" * 501, 7, ["a"]])
async def test_what_is_no_note_is_refused(door: OpenDoor, conn: Connection, note: object) -> None:
    """422, and nothing is stored; 500 characters of any kind are one."""
    assert (await call(door, "POST", DOWNLOADS, {**TIDEWATER, "note": note}))[0] == 422
    assert await conn.fetchval("SELECT count(*) FROM events") == 0
    assert (await call(door, "POST", DOWNLOADS, {**TIDEWATER, "note": "\0🎂" * 250}))[0] == 202


async def test_a_request_sent_again_is_compared_without_being_opened(door: OpenDoor, conn: Connection) -> None:
    """The same note is the same request; another one, or none, is not."""
    key, _ = await make_user(door)
    first = await ask(door, key, Idempotency_Key="k-1")
    before = await conn.fetchval("SELECT count(*) FROM events")

    assert await ask(door, key, Idempotency_Key="k-1") == first
    for other in (NOTE + ".", None):
        status, problem = await ask(door, key, other, Idempotency_Key="k-1")
        assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert await conn.fetchval("SELECT count(*) FROM events") == before


async def test_a_query_is_shown_to_its_user_and_is_stored_sealed(pool: Pool, conn: Connection, redis_url: str) -> None:
    """In Postgres and in the copy in Redis; who makes the search opens it, until nobody can."""
    environment = {"soulseekUsername": "kima", "soulseekPassword": "secret-enough"}
    settings = Settings(redis_url=redis_url, environment=environment)
    async with front_door.opened(pool, settings=settings) as door:
        key, user_id = await make_user(door)
        body = {"query": "tante käthes lied"}
        status, started = await call(door, "POST", "/api/searches", body, X_Api_Key=key)
        assert status == 202
        _, session = await call(door, "GET", f"/api/searches/{started['id']}", X_Api_Key=key)
        assert session["query"] == body["query"]
        stored = str(await conn.fetch("SELECT s::text FROM search_sessions AS s UNION SELECT e::text FROM events AS e"))
        async with redis_client.Redis.from_url(redis_url, protocol=3) as client:
            kept = await client.get(f"kima:session:{started['id']}")
        assert isinstance(kept, bytes)
        assert "kima1." in stored
        assert b"kima1." in kept
        for text in ("käthe", "k\\u00e4the", "lied"):
            assert text not in stored
            assert text.encode() not in kept
        stream, roots = search_sessions.stream_of(UUID(str(started["id"]))), door.door.settings_store.sources.roots
        assert await search_sessions.query_of(pool, roots, stream) == body["query"]

        await call(door, "POST", f"/api/users/{user_id}/erase")
        assert await search_sessions.query_of(pool, roots, stream) is None


async def test_erased_is_said_wherever_a_text_was(door: OpenDoor, conn: Connection) -> None:
    """Jobs stay, to be found as before; what their user said and was called is gone, and their keys open nothing."""
    key, user_id = await make_user(door)
    _, asked = await ask(door, key)
    path = f"/api/users/{user_id}/erase"

    status, erased = await call(door, "POST", path)
    assert (status, erased["user_id"], erased["duplicate"], erased["keys_revoked"]) == (200, user_id, False, 1)
    assert (await call(door, "POST", path))[1] == {**erased, "duplicate": True, "keys_revoked": 0}
    _, job = await call(door, "GET", f"{DOWNLOADS}/{asked['id']}")
    assert (job["note"], job["album"], job["user_id"]) == ("[erased]", "Tidewater", user_id)
    _, page = await call(door, "GET", f"{DOWNLOADS}?album=tidewater&user_id={user_id}")
    assert [found["note"] for found in page["downloads"]] == ["[erased]"]  # type: ignore[attr-defined]
    _, people = await call(door, "GET", "/api/users")
    assert [(user["name"], user["is_erased"]) for user in people["users"]] == [("[erased]", True)]  # type: ignore[attr-defined]
    _, listed = await call(door, "GET", "/api/keys")
    assert [row["name"] for row in listed["keys"]] == ["a admin", "[erased]"]  # type: ignore[attr-defined]
    assert (await ask(door, key))[0] == 401
    _, event = await call(door, "GET", f"/api/events/{erased['event_id']}")
    assert event["data"] == {"type": "user.erased", "user_id": user_id, "erased_by": "a admin"}
    assert (await call(door, "POST", "/api/keys", {"name": "A", "role": "user", "user_id": user_id}))[0] == 409


async def test_a_request_under_way_learns_that_its_user_is_gone(door: OpenDoor, pool: Pool) -> None:
    """Another process does not know yet that the key is revoked: the answer is clear, and nothing is stored."""
    key, user_id = await make_user(door)
    settings = Settings(environment={"soulseekUsername": "kima", "soulseekPassword": "secret-enough"})
    async with front_door.opened(pool, settings=settings) as other:
        assert (await ask(other, key))[0] == 202
        await call(door, "POST", f"/api/users/{user_id}/erase")
        before = await pool.fetchval("SELECT count(*) FROM events")
        asked = [("/api/downloads", {**TIDEWATER, "note": note}) for note in (NOTE, None)]
        for path, body in (*asked, ("/api/searches", {"query": "tidewater"})):
            status, problem = await call(other, "POST", path, body, X_Api_Key=key)
            assert (status, problem["code"]) == (409, "user_erased")
        other.door.keys.forget()
        assert (await ask(other, key))[0] == 401
        assert await pool.fetchval("SELECT count(*) FROM events") == before


async def test_nobody_and_the_last_admin_cannot_be_erased(door: OpenDoor, conn: Connection) -> None:
    """404 and 409, and nothing was changed."""
    for nobody in (uuid4(), "lidarr", "a%2Fb", "%00"):
        assert (await call(door, "POST", f"/api/users/{nobody}/erase"))[0] == 404
    status, problem = await call(door, "POST", "/api/users/a%20admin/erase")
    assert (status, problem["code"]) == (409, "conflict")
    assert await conn.fetchval("SELECT count(*) FROM events") == 0
    assert await conn.fetchval("SELECT count(*) FROM subject_keys") == 0

    key, _ = await make_admin(door)
    assert (await call(door, "POST", "/api/users/a%20admin/erase", X_Api_Key=key))[0] == 200
    assert (await call(door, "GET", "/api/keys"))[0] == 401


async def test_addresses_are_not_kept(pool: Pool, conn: Connection) -> None:
    """Neither the peer's nor a forwarded one: nothing that is stored says where a request came from."""
    settings = Settings(secret_key=front_door.ROOT, trusted_proxies="127.0.0.1")
    async with front_door.opened(pool, settings=settings) as door:
        key, _ = await make_user(door)
        assert (await ask(door, key, X_Forwarded_For="203.0.113.77", User_Agent="Anna's browser"))[0] == 202
    tables = await conn.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    for table in tables:
        stored = str(await conn.fetch(f"SELECT t::text FROM {table['name']} AS t"))
        assert "203.0.113" not in stored
        assert "browser" not in stored
