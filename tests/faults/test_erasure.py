"""Two thousand persons, half of them erased: nothing of these is anywhere, nothing of the others is lost."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kima_stream import audit, database
from kima_stream.database import Connection
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey
from kima_stream.read_models import PROJECTIONS
from kima_stream.replay import replay
from tests.faults import plaintext
from tests.faults.campaign import API_KEY, Role, answers
from tests.faults.plaintext import Search
from tests.faults.test_campaign import free_port, is_settled
from tests.front_door import ROOT
from tests.polling import eventually

SUBJECTS = 2_000
AT_ONCE = 8
# Nobody answers the searches, and their time passes, in a long run before the end of it.
SEARCH_IS_OVER = {"effect.failed", "search_session.failed"}
# In everything that a person says, so that whatever is left of it has one of them; and a word of each, that no
# escape changes.
GONE, KEPT = "Gänseblümchen+Wörtmann ¿Aster-Wolkenstein", "Löwenzahn&Ölschläger ¡Malve-Immergrün"
ARTIST = "The Harbour Lights"  # stays, in clear: what shows that the search finds what is there


@dataclass
class Person:
    """What one person said, and what they were told."""

    number: int
    name: str
    note: str
    query: str
    address: str
    is_erased: bool
    key: str = ""
    user_id: str = ""
    job_id: str = ""
    session_id: str = ""


def a_person(number: int, rng: random.Random) -> Person:
    """Return the next person; every other one will be erased."""
    is_erased = number % 2 == 0
    mark, token = GONE if is_erased else KEPT, rng.randbytes(6).hex()
    address = f"203.0.{113 if is_erased else 114}.{number % 250}"
    note, query = f'"{mark}" ♥ {token}\n\t{mark}', f"{mark} {token}"
    return Person(number, f"{token} {mark}", note, query, address, is_erased)


class Doors:
    """Two processes that serve, asked in turn; whoever is away is asked again."""

    def __init__(self, roles: Sequence[Role], urls: Sequence[str], session: aiohttp.ClientSession) -> None:
        """Send with ``session``."""
        self.roles, self.urls, self._session = roles, urls, session

    async def call(
        self, door: int, method: str, path: str, body: object = None, key: str = API_KEY, **headers: str
    ) -> tuple[int, Any]:
        """Return status and answer of one of the doors."""
        named = {"X-Api-Key": key} | {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            try:
                async with self._session.request(
                    method, self.urls[door % 2] + path, json=body, headers=named
                ) as answer:
                    if answer.status != 503:
                        return answer.status, await answer.json(content_type=None)
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.1)  # a client's manners


@asynccontextmanager
async def opened(postgres: Postgres, valkey: Valkey, folder: Path) -> AsyncIterator[Doors]:
    """Run every role over a Postgres and a Valkey of their own, two of those that serve."""
    ports = [free_port(), free_port()]
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "KIMA_DATABASE_URL": postgres.url,
        "KIMA_REDIS_URL": valkey.url,
        "KIMA_API_KEY": API_KEY,
        "KIMA_SECRET_KEY": ROOT,
        "KIMA_DATA_DIR": str(folder),
        "KIMA_TRUSTED_PROXIES": "127.0.0.1",
        "KIMA_SOULSEEK_USERNAME": "kima",
        "KIMA_SOULSEEK_PASSWORD": "secret-enough",
        "KIMA_SOULSEEK_SERVER": "127.0.0.1:1",  # nobody is there: what is searched for waits
        "KIMA_LOG_FORMAT": "json",
        "KIMA_LOG_LEVEL": "debug",
    }
    commands = [("serve",), ("serve",), ("publish",), ("consume",), ("reconcile",)]
    roles = [
        Role(f"{command[0]}-{number}", command, env | {"KIMA_PORT": str(ports[number % 2])}, folder / f"{number}.log")
        for number, command in enumerate(commands)
    ]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        for role in roles[:-1]:  # entries stay in Redis as long as nobody has verified them
            role.start()
        for url in urls:
            await eventually(lambda url=url: answers(url), timeout=30)  # type: ignore[misc]
        async with aiohttp.ClientSession() as session:
            yield Doors(roles, urls, session)
        assert [role.name for role in roles if role.process and role.process.poll() is not None] == []
    finally:
        for role in roles:
            role.kill()


async def many(persons: Sequence[Person], work: Callable[[Person], Any]) -> None:
    """Do something with each, some at once."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(person: Person) -> None:
        async with turn:
            await work(person)

    async with asyncio.TaskGroup() as tasks:
        for person in persons:
            tasks.create_task(one(person))


async def live(doors: Doors, person: Person) -> None:
    """Come, and ask for an album twice, at one door and the other, and look for something in Soulseek."""
    status, made = await doors.call(person.number, "POST", "/api/keys", {"name": person.name, "role": "user"})
    assert status == 201
    person.key, person.user_id = made["key"], made["user_id"]
    body = {"artist": ARTIST, "album": f"Album {person.number}", "note": person.note}
    more = {"Idempotency_Key": f"k {person.number}", "X_Forwarded_For": person.address}

    async def asked(door: int) -> Any:  # noqa: ANN401 - JSON
        status, answer = await doors.call(door, "POST", "/api/downloads", body, person.key, **more)
        assert status == 202, answer  # a key that was just made is known at the other door in a moment
        return answer

    first, again = [await eventually(lambda door=door: asked(door)) for door in (person.number, person.number + 1)]  # type: ignore[misc]
    assert first == again
    person.job_id = first["id"]
    status, started = await doors.call(person.number, "POST", "/api/searches", {"query": person.query}, person.key)
    assert status == 202
    person.session_id = started["id"]
    await read_session(doors, person)  # which leaves a copy in Redis


async def read_session(doors: Doors, person: Person) -> None:
    """Look for what came, at the other door."""
    path = f"/api/searches/{person.session_id}"
    status, session = await doors.call(person.number + 1, "GET", path, key=person.key)
    assert (status, session["query"]) == (200, person.query)


async def erase(doors: Doors, person: Person) -> None:
    """Be erased at both doors at once; one of them is killed in the middle of it all."""
    if person.number == 10:
        doors.roles[0].kill()
        doors.roles[0].start()
    path = f"/api/users/{person.user_id}/erase"
    outcomes = await asyncio.gather(*(doors.call(door, "POST", path) for door in (0, 1)))
    assert [status for status, _ in outcomes] == [200, 200]
    assert outcomes[0][1]["event_id"] == outcomes[1][1]["event_id"]


async def told(doors: Doors) -> list[tuple[str, bytes]]:
    """Return all that an admin is told by either door, page by page."""
    found = []
    for door in (0, 1):
        for path, items in (("/api/users", "users"), ("/api/downloads", "downloads"), ("/api/events", "events")):
            following: object = ""
            while following is not None:
                after = f"&after={following}" if following else ""
                status, page = await doors.call(door, "GET", f"{path}?limit=200{after}")
                assert status == 200
                found.append((path, repr(page[items]).encode()))
                following = page["next"]
        for path in ("/api/keys", "/api/groups", "/api/dead-letters"):
            _, answer = await doors.call(door, "GET", path)
            found += [(path, repr(answer).encode())]
    return found


async def is_numbered(conn: Connection) -> bool:
    """Whether nothing waits for the publisher."""
    return (await audit.verify(conn)).unnumbered == 0


async def check_log(conn: Connection) -> tuple[int, str]:
    """See that the log verifies and that every read model is its fold, byte for byte; return its head."""
    verified = await audit.verify(conn)
    assert (verified.faults, verified.unnumbered) == ((), 0)
    for projection in PROJECTIONS.values():
        assert (await replay(conn, projection)).differences == ()
    return verified.last_position, verified.chain_hash


async def check_living(doors: Doors, living: Sequence[Person]) -> None:
    """Everybody else reads what they wrote, with their own key, and is called what they were called."""

    async def read(person: Person) -> None:
        status, job = await doors.call(person.number, "GET", f"/api/downloads/{person.job_id}", key=person.key)
        assert (status, job["note"]) == (200, person.note)
        await read_session(doors, person)

    await many(living, read)
    names: dict[str, str] = {}
    following: object = ""
    while following is not None:
        _, page = await doors.call(0, "GET", f"/api/users?limit=200&after={following}")
        names |= {user["user_id"]: user["name"] for user in page["users"]}
        following = page["next"]
    assert {person.user_id: names[person.user_id] for person in living} == {p.user_id: p.name for p in living}


async def check_erased(doors: Doors, erased: Sequence[Person]) -> None:
    """Their jobs are there, to be found by artist and album, and say that the note is gone; their keys open nothing."""

    async def is_refused(person: Person) -> bool:
        return [(await doors.call(door, "GET", "/api/downloads", key=person.key))[0] for door in (0, 1)] == [401, 401]

    async def read(person: Person) -> None:
        _, job = await doors.call(person.number, "GET", f"/api/downloads/{person.job_id}")
        assert (job["note"], job["album"]) == ("[erased]", f"Album {person.number}")
        await eventually(lambda: is_refused(person), timeout=3)

    await many(erased[:20], read)  # an address has 60 wrong keys a minute


@pytest.mark.fault
@pytest.mark.timeout(600)
async def test_nothing_is_left_of_those_who_were_erased(
    postgres: Postgres, valkey: Valkey, tmp_path: Path, rng: random.Random, scaled: Callable[[int], int]
) -> None:
    """0 bytes in tables, files, write-ahead log, Redis, logs and answers; the chain holds and a rebuild is equal."""
    persons = [a_person(number, rng) for number in range(scaled(SUBJECTS))]
    erased, living = ([p for p in persons if p.is_erased is wanted] for wanted in (True, False))
    gone, kept = Search([GONE, "Aster-Wolkenstein"]), Search([KEPT, "Malve-Immer"])
    addresses = Search(["203.0.113.", "203.0.114."])
    pool = await database.open_pool(postgres.url, role="oracle")
    async with opened(postgres, valkey, tmp_path) as doors, pool.acquire() as conn:
        await many(persons, lambda person: live(doors, person))
        await eventually(lambda: is_numbered(conn), timeout=60)
        published = await plaintext.of_redis(valkey.url)
        doors.roles[-1].start()
        await eventually(lambda: is_settled(pool), timeout=60)
        head, chained = await check_log(conn)
        log = await conn.fetch("SELECT to_json(e)::text AS event FROM events AS e ORDER BY id")
        before = sum(gone.count(content) for _, content in await told(doors))
        assert before >= len(erased) * 4, "the search finds nothing in answers that have it"

        await many(erased, lambda person: erase(doors, person))
        await eventually(lambda: is_settled(pool), timeout=60)

        await check_log(conn)
        assert (await audit.verify(conn, last=head)).chain_hash == chained
        after = await conn.fetch("SELECT to_json(e)::text AS event FROM events AS e ORDER BY id")
        assert after[: len(log)] == log
        added = Counter(json.loads(row["event"])["type"] for row in after[len(log) :])
        assert added.pop("user.erased") == len(erased), "one event for each, at whichever door they were erased"
        assert set(added) <= SEARCH_IS_OVER, "an erasure did more than erase"
        await check_living(doors, living)
        await check_erased(doors, erased)
        await conn.execute("CHECKPOINT")
        stored = [
            *await plaintext.of_tables(conn),
            *published,
            *await plaintext.of_redis(valkey.url),
            *plaintext.of_files(postgres.home.files, valkey.home.files, tmp_path),
        ]
        said = await told(doors)
    await pool.close()
    check_places(stored)
    # Nobody's words were ever stored in clear, erased or not; only who is alive is still told of.
    for search in (gone, kept, addresses):
        assert [(place, found) for place, content in stored if (found := search.count(content))] == []
    assert [(place, found) for place, content in said if (found := gone.count(content))] == []
    assert sum(kept.count(content) for _, content in said) >= len(living) * 4
    size = sum(len(content) for _, content in (*stored, *said))
    print(f"\n{len(erased)} of {len(persons)} erased: 0 bytes of theirs in {size} of {len(stored) + len(said)} places")  # noqa: T201


def check_places(stored: Sequence[tuple[str, bytes]]) -> None:
    """See that the search looks where something is: it finds the artist, who stays, in every kind of place."""
    artist = Search([ARTIST])
    found = {place for place, content in stored if artist.count(content)}
    assert {"events.data", "download_jobs.state", "download_jobs.artist", "kima:events:{download_job}"} <= found
    assert {place for place, _ in stored} >= {"search_sessions.state", "kima:events:{search_session}"}
    assert any(place.startswith("kima:session:") for place, _ in stored)
    for part in ("/pg_wal/", "/base/"):
        assert any(part in place for place in found), part
    assert any(place.endswith("0.log") for place, _ in stored)
