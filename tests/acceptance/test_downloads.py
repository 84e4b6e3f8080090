"""Ask for albums over a real server: one job for all who ask, final answers, nobody else's business."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import aiohttp
import pytest

from consumers import download_jobs, intake
from kima_stream.database import Connection, Pool
from kima_stream.reconciler import sweep_once
from kima_stream.settings import api_keys
from tests import front_door
from tests.factories import number_all
from tests.front_door import OpenDoor, make_key, webhook

PATH = "/api/downloads"
MBID = "0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f"
TIDEWATER = {"artist": "The Harbour Lights", "album": "Tidewater", "mbid": MBID}


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """A door without Redis."""
    async with front_door.opened(pool) as opened:
        yield opened


async def ask(door: OpenDoor, body: object = TIDEWATER, key: str | None = None) -> tuple[int, dict[str, object]]:
    """Post a request as the holder of ``key``, the admin unless given."""
    headers = {"X-Api-Key": key} if key else {}
    async with door.client.post(PATH, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def get(door: OpenDoor, path: str, key: str | None = None) -> tuple[aiohttp.ClientResponse, dict[str, object]]:
    """Get ``path`` as the holder of ``key``; return the response and its body."""
    async with door.client.get(path, headers={"X-Api-Key": key} if key else {}) as answer:
        return answer, json.loads(await answer.read() or b"{}")


async def test_a_request_is_answered_with_its_job(door: OpenDoor) -> None:
    """202 with the job, which can be read at once; the event id is that of the request."""
    status, asked = await ask(door)

    assert (status, asked["status"], asked["duplicate"]) == (202, "requested", False)
    answer, job = await get(door, f"{PATH}/{asked['id']}")
    assert answer.headers["ETag"] == f'"{job["version"]}"'
    assert (job["artist"], job["album"], job["mbid"]) == ("The Harbour Lights", "Tidewater", MBID)
    assert job["reason"]
    assert job["next_step"]
    _, history = await get(door, f"{PATH}/{asked['id']}/events")
    events = history["events"]
    assert isinstance(events, list)
    assert [event["type"] for event in events] == [
        "download_job.requested", "download_job.attempt_opened", "download_job.deadline_set",
    ]  # fmt: skip
    assert events[0]["event_id"] == asked["event_id"]


async def test_an_unchanged_job_is_not_sent_again(door: OpenDoor) -> None:
    """The ETag is good for 304 until the job moves."""
    _, asked = await ask(door)
    answer, _ = await get(door, f"{PATH}/{asked['id']}")
    headers = {"If-None-Match": answer.headers["ETag"]}

    async with door.client.get(f"{PATH}/{asked['id']}", headers=headers) as unchanged:
        assert unchanged.status == 304
    await ask(door)
    async with door.client.get(f"{PATH}/{asked['id']}", headers=headers) as changed:
        assert changed.status == 200


async def test_two_hundred_at_once_get_one_job(door: OpenDoor, pool: Pool) -> None:
    """One id for all, one of them first; each request is recorded, and there is no Redis anywhere."""
    answers = await asyncio.gather(*(ask(door) for _ in range(200)))

    assert {status for status, _ in answers} == {202}
    assert len({body["id"] for _, body in answers}) == 1
    assert len({body["event_id"] for _, body in answers}) == 200
    assert Counter(body["duplicate"] for _, body in answers) == {False: 1, True: 199}
    assert await pool.fetchval("SELECT count(*) FROM download_jobs") == 1
    types = Counter(
        {row["type"]: row["n"] for row in await pool.fetch("SELECT type, count(*) AS n FROM events GROUP BY type")}
    )
    assert types == {
        "download_job.requested": 200, "download_job.attempt_opened": 1, "download_job.deadline_set": 1,
        "download_job.request_merged": 199,
    }  # fmt: skip


async def test_names_that_differ_in_typing_only_are_one_job(door: OpenDoor) -> None:
    """Without an MBID the normalised names are the target."""
    first = await ask(door, {"artist": "The Harbour Lights", "album": "Sgt. Tide's"})
    second = await ask(door, {"artist": " the  harbour lights", "album": "sgt tide\u2019s"})
    third = await ask(door, {"artist": "The Harbour Lights", "album": "Sgt. Tide's (Deluxe)"})

    assert first[1]["id"] == second[1]["id"] != third[1]["id"]


@pytest.mark.parametrize(
    "body",
    [
        {"artist": "A"},
        {"artist": "", "album": "B"},
        {"artist": " \0\t", "album": "B"},
        {"artist": "A" * 301, "album": "B"},
        {"artist": "A", "album": 1},
        {"artist": "A", "album": "B", "mbid": "nonsense"},
        {"artist": "A", "album": "B", "user_id": "ben"},
        {"artist": "A", "album": "B", "discovery_batch_id": str(uuid4())},
        [],
    ],
)
async def test_what_cannot_be_asked_for_is_a_clear_problem(door: OpenDoor, pool: Pool, body: object) -> None:
    """422 with the reason; nothing is recorded."""
    status, problem = await ask(door, body)

    assert (status, problem["code"]) == (422, "invalid")
    assert problem["detail"]
    assert await pool.fetchval("SELECT count(*) FROM events") == 0


async def test_another_users_job_does_not_exist(door: OpenDoor, pool: Pool) -> None:
    """404 on each of its addresses, and it is in no list; an admin sees it."""
    ann = await make_key(pool, "user")
    async with pool.acquire() as conn:
        ben, _ = await api_keys.create(conn, name="ben", role="user")
    _, asked = await ask(door, key=ann)

    for path in (f"{PATH}/{asked['id']}", f"{PATH}/{asked['id']}/events", f"{PATH}/{uuid4()}", f"{PATH}/nonsense"):
        answer, problem = await get(door, path, ben)
        assert (answer.status, problem["code"]) == (404, "not_found")
    assert (await get(door, PATH, ben))[1]["downloads"] == []
    assert (await get(door, f"{PATH}?user_id=a%20user", ben))[1]["downloads"] == []
    assert (await get(door, f"{PATH}/{asked['id']}", ann))[0].status == 200
    for query in ("", "?user_id=a%20user", "?q=tidewater&status=requested"):
        downloads = (await get(door, PATH + query))[1]["downloads"]
        assert isinstance(downloads, list)
        assert [job["id"] for job in downloads] == [asked["id"]]


async def test_the_same_album_of_two_users_is_two_jobs(door: OpenDoor, pool: Pool) -> None:
    """Nobody is answered with a job that is not theirs."""
    ann = await make_key(pool, "user")

    assert (await ask(door, key=ann))[1]["id"] != (await ask(door))[1]["id"]


async def test_pages_are_walked_by_next(door: OpenDoor) -> None:
    """Every job once, the last asked first, and no next on the last page."""
    ids = [(await ask(door, {"artist": "A", "album": f"B {number}"}))[1]["id"] for number in range(5)]

    walked: list[object] = []
    following: object = ""
    while following is not None:
        _, page = await get(door, f"{PATH}?limit=2&after={following}")
        assert isinstance(page["downloads"], list)
        walked += [job["id"] for job in page["downloads"]]
        following = page["next"]

    assert walked == ids[::-1]
    assert (await get(door, f"{PATH}?after=nonsense"))[0].status == 422


async def test_keys_of_other_roles_cannot_ask(door: OpenDoor, pool: Pool) -> None:
    """A webhook's key records webhooks and nothing else."""
    status, _ = await ask(door, key=await make_key(pool, "webhook"))

    assert status == 403


async def test_from_the_webhook_to_the_list(door: OpenDoor, pool: Pool, conn: Connection) -> None:
    """What was asked for here and grabbed and imported by Lidarr is completed in the list."""
    _, asked = await ask(door)
    await door.post(webhook("grab"))
    await door.post(webhook("download"))

    for group in (intake.GROUP, download_jobs.GROUP):
        await number_all(conn)
        assert (await sweep_once(pool, group)).behind == 0

    _, job = await get(door, f"{PATH}/{asked['id']}")
    assert (job["status"], job["files"], job["source"]) == ("completed", 3, "lidarr")
    assert UUID(str(job["id"])) == UUID(str(asked["id"]))


async def wish(
    door: OpenDoor, job: object, verb: str, key: str | None = None, **headers: str
) -> tuple[int, dict[str, object]]:
    """Cancel or retry a job; return status and answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        named["X-Api-Key"] = key
    async with door.client.post(f"{PATH}/{job}/{verb}", headers=named) as answer:
        if answer.status == 202:
            assert answer.headers["Location"] == f"{PATH}/{job}"
        return answer.status, await answer.json(content_type=None)


async def configured(door: OpenDoor, **settings: object) -> None:
    """Set settings as an admin."""
    async with door.client.put("/api/settings", json=settings) as answer:
        assert answer.status == 200, await answer.text()


LIDARR_IS_THERE = {"lidarrUrl": "http://127.0.0.1:9", "lidarrApiKey": "k" * 32}
SOULSEEK_IS_THERE = {"soulseekUsername": "ann", "soulseekPassword": "secret"}


async def test_the_settings_say_who_is_asked_first(door: OpenDoor) -> None:
    """One that is set up is asked; of two the first, and its fallback; `none` asks nobody else."""
    await configured(door, **LIDARR_IS_THERE)
    asked = [(await ask(door, {"artist": "A", "album": "1"}))[1]["id"]]
    await configured(door, **SOULSEEK_IS_THERE, downloadSource="lidarr", pendingTimeoutMinutes=3)
    asked.append((await ask(door, {"artist": "A", "album": "2"}))[1]["id"])
    await configured(door, primaryFailureFallback="soulseek")
    asked.append((await ask(door, {"artist": "A", "album": "3"}))[1]["id"])
    await configured(door, lidarrEnabled=False)
    asked.append((await ask(door, {"artist": "A", "album": "4"}))[1]["id"])

    jobs = [(await get(door, f"{PATH}/{job_id}"))[1] for job_id in asked]
    assert [job["sources"] for job in jobs] == [["lidarr"], ["lidarr"], ["lidarr", "soulseek"], ["soulseek"]]
    kinds = [[effect["kind"] for effect in job["effects"]] for job in jobs]  # type: ignore[attr-defined]
    assert kinds == [["lidarr.add"], ["lidarr.add"], ["lidarr.add"], ["soulseek.acquire"]]
    assert {(job["status"], job["deadline_kind"]) for job in jobs} == {("searching", "answer")}


async def test_a_job_says_what_it_waits_for_and_until_when(door: OpenDoor) -> None:
    """Also where nobody can act: then it says so, and what to do comes when its time is up."""
    _, asked = await ask(door)

    _, job = await get(door, f"{PATH}/{asked['id']}")

    assert (job["status"], job["deadline_kind"], job["sources"], job["effects"]) == ("requested", "source", [], [])
    left = datetime.fromisoformat(str(job["deadline_at"])) - datetime.fromisoformat(str(job["created_at"]))
    assert abs(left - timedelta(minutes=5)) < timedelta(seconds=5)
    assert (job["is_partial"], job["tracks_total"], job["tracks_present"], job["code"]) == (False, None, 0, None)


async def test_a_cancel_ends_the_attempt_and_a_retry_opens_the_next(door: OpenDoor) -> None:
    """Each answer is final: the job is as it says when it is given; a second click changes nothing."""
    await configured(door, **LIDARR_IS_THERE)
    _, asked = await ask(door)
    job_id = asked["id"]

    assert (await wish(door, job_id, "retry"))[1] | {"event_id": None} == {
        "id": job_id, "status": "searching", "duplicate": True, "event_id": None,
    }  # fmt: skip
    status, cancelled = await wish(door, job_id, "cancel")
    assert (status, cancelled["status"], cancelled["duplicate"]) == (202, "cancelled", False)
    _, job = await get(door, f"{PATH}/{job_id}")
    assert (job["status"], job["effects"], job["deadline_at"]) == ("cancelled", [], None)
    assert (await wish(door, job_id, "cancel"))[1]["duplicate"] is True

    status, again = await wish(door, job_id, "retry")
    assert (status, again["status"], again["duplicate"]) == (202, "searching", False)
    _, job = await get(door, f"{PATH}/{job_id}")
    assert (job["attempt"], [effect["kind"] for effect in job["effects"]]) == (2, ["lidarr.add"])  # type: ignore[attr-defined]


async def test_the_calls_of_a_job_are_those_that_the_workers_see(door: OpenDoor, conn: Connection) -> None:
    """Asked for: one call waits; cancelled: none."""
    await configured(door, **LIDARR_IS_THERE)
    _, asked = await ask(door)
    assert [row["kind"] for row in await conn.fetch("SELECT kind FROM effects")] == ["lidarr.add"]

    await wish(door, asked["id"], "cancel")

    assert await conn.fetchval("SELECT count(*) FROM effects") == 0


async def test_a_key_names_a_cancel_and_a_retry(door: OpenDoor, conn: Connection) -> None:
    """Sent again it gets the same answer, though the job has moved since; it names nothing else."""
    _, asked = await ask(door)
    _, other = await ask(door, {"artist": "A", "album": "B"})
    first = await wish(door, asked["id"], "cancel", Idempotency_Key="k-1")
    retried = await wish(door, asked["id"], "retry", Idempotency_Key="k-1")
    assert (first[1]["status"], retried[1]["status"]) == ("cancelled", "requested")
    before = await conn.fetchval("SELECT count(*) FROM events")

    assert await wish(door, asked["id"], "cancel", Idempotency_Key="k-1") == first
    assert await wish(door, asked["id"], "retry", Idempotency_Key="k-1") == retried
    assert await conn.fetchval("SELECT count(*) FROM events") == before
    assert (await wish(door, other["id"], "cancel", Idempotency_Key="k-1"))[1]["id"] == other["id"]


async def test_only_its_user_cancels_a_job(door: OpenDoor, pool: Pool) -> None:
    """Another's job is not there; an admin may. Nothing is recorded of what was refused."""
    ann = await make_key(pool, "user")
    async with pool.acquire() as conn:
        ben, _ = await api_keys.create(conn, name="ben", role="user")
    _, asked = await ask(door, key=ann)
    before = await pool.fetchval("SELECT count(*) FROM events")

    for verb in ("cancel", "retry"):
        for job_id in (asked["id"], uuid4(), "nonsense"):
            status, problem = await wish(door, job_id, verb, ben)
            assert (status, problem["code"]) == (404, "not_found")
    assert await pool.fetchval("SELECT count(*) FROM events") == before
    assert (await wish(door, asked["id"], "cancel", ann))[0] == 202
    assert (await wish(door, asked["id"], "retry"))[0] == 202


async def test_clicks_at_once_cancel_and_retry_once(door: OpenDoor, pool: Pool) -> None:
    """Twenty of each, in any order: no deadlock, and after each cancel at most one attempt."""
    _, asked = await ask(door)

    answers = await asyncio.gather(*(wish(door, asked["id"], ("cancel", "retry")[n % 2]) for n in range(40)))

    assert {status for status, _ in answers} == {202}
    rows = await pool.fetch("SELECT type FROM events WHERE category = 'download_job' ORDER BY version")
    moves = [row["type"] for row in rows if row["type"].endswith((".cancelled", ".attempt_opened"))]
    assert moves[::2] == ["download_job.attempt_opened"] * len(moves[::2])
    assert moves[1::2] == ["download_job.cancelled"] * len(moves[1::2])


async def test_a_download_that_another_user_waits_for_is_not_removed(
    door: OpenDoor, pool: Pool, conn: Connection
) -> None:
    """The first who cancels leaves it alone, the second has Lidarr remove it."""
    await configured(door, **LIDARR_IS_THERE)
    ann = await make_key(pool, "user")
    _, hers = await ask(door, key=ann)
    _, ours = await ask(door, {**TIDEWATER, "mbid": None})  # the same album by its names
    await door.post(webhook("grab"))
    await number_all(conn)
    await sweep_once(pool, intake.GROUP)
    assert {(await get(door, f"{PATH}/{job['id']}"))[1]["status"] for job in (hers, ours)} == {"downloading"}

    await wish(door, hers["id"], "cancel", ann)
    assert (await get(door, f"{PATH}/{hers['id']}"))[1]["effects"] == []
    await wish(door, ours["id"], "cancel")
    assert (await get(door, f"{PATH}/{ours['id']}"))[1]["effects"] == [
        {"kind": "lidarr.remove", "target": "3F2504E04F8911D39A0C0305E82C3301A1B2C3D4"}
    ]


async def test_a_setting_that_cannot_be_used_refuses_the_request(door: OpenDoor, pool: Pool) -> None:
    """400 with the name of the setting; nothing is recorded, so nothing is asked of a source that nobody meant."""
    await configured(door, **LIDARR_IS_THERE)
    await pool.execute("UPDATE secret_keys SET wrapped = 'nonsense', root_id = root_id")
    before = await pool.fetchval("SELECT count(*) FROM download_jobs")

    async with front_door.opened(pool) as other:
        status, problem = await ask(other)

    assert status == 400
    assert "lidarrApiKey" in str(problem)
    assert await pool.fetchval("SELECT count(*) FROM download_jobs") == before
