"""Ask for albums over a real server: one job for all who ask, final answers, nobody else's business."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
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
