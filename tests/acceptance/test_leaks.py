"""No secret leaves: what was stored, given or sent as one is in no dump, log, answer, metric, event or Redis key."""

import asyncio
import json
import random
import string
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest

from kima_stream import database
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey
from kima_stream.http.table import ROUTES
from kima_stream.settings.definitions import DEFINITIONS, LASTFM_USER_KEY, AnyDefinition
from tests import front_door, leaks
from tests.acceptance.test_settings_processes import environment, running
from tests.polling import eventually

ROLES = {"serve": ("serve",), "publish": ("publish",), "consume": ("consume",), "reconcile": ("reconcile",)}
LIVE_SECONDS = 1.0  # for how long the one answer that never ends is read


@dataclass
class Secrets:
    """All that must not leave; ``mark`` is in each of them, ``canary`` in what may be seen."""

    mark: str
    canary: str
    made: list[str] = field(default_factory=list)  # keys that we made, which nobody could mark

    @classmethod
    def drawn(cls, rng: random.Random) -> "Secrets":
        """Draw both; letters and digits, so that no escaping changes them."""
        letters = string.ascii_letters + string.digits
        mark, canary = ("".join(rng.choices(letters, k=20)) for _ in range(2))
        return cls(mark=mark, canary=canary)

    def of(self, definition: AnyDefinition) -> object:
        """Return a value for a secret setting, full of what is escaped somewhere."""
        if definition == LASTFM_USER_KEY:
            return f"{definition.key}-{self.mark}"  # one that can be a correlation id
        url = f"https://user:{self.mark}{definition.key}@127.0.0.1:1/{self.mark}?t={self.mark}"
        for value in (f'{definition.key} "{self.mark}" é&/+\\ %41 {self.mark}', url, [url]):
            with suppress(ValueError):
                definition.from_json(value)
                return value
        raise AssertionError(f"{definition.key}: teach this test a value that fits")


@asynccontextmanager
async def client_of(address: str, key: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client of the door."""
    async with aiohttp.ClientSession(address, headers={"X-Api-Key": key}) as client:
        yield client


async def act(client: aiohttp.ClientSession, secrets: Secrets, answers: dict[str, bytes]) -> None:
    """Do what brings secrets in: set them, try them, use them, misuse them, rotate, make keys."""
    values = {key: secrets.of(definition) for key, definition in DEFINITIONS.items() if definition.is_secret}
    nobody = {"lidarrUrl": "http://127.0.0.1:1", "slskdUrl": "http://127.0.0.1:1", "musicPath": f"/{secrets.canary}"}
    mark = secrets.mark
    wrong = {"soulseekServer": mark, "lidarrEnabled": mark, "musicPath": mark, "lidarrApiKey": 7}
    steps: list[tuple[int, str, str, object]] = [
        (200, "PUT", "/api/settings", {**values, **nobody, "soulseekUsername": "somebody"}),
        (200, "POST", "/api/settings/lidarr/test", {}),
        (200, "POST", "/api/settings/lidarr/test", {"lidarrUrl": "http://127.0.0.1:1", "lidarrApiKey": mark}),
        (200, "POST", "/api/settings/lastfm/test", {"lastfmUrl": "http://127.0.0.1:1", "lastfmApiKey": mark}),
        (400, "PUT", "/api/settings", wrong),
        (200, "POST", "/api/settings/rotate-key", {}),
        (200, "PUT", "/api/settings", {**values, "lidarrApiKey": f"{mark} anew"}),
        (200, "PUT", "/api/settings", {"slskdApiKey": None}),
        (202, "POST", "/api/downloads", {"artist": "The Harbour Lights", "album": secrets.canary}),
    ]
    for number, (status, method, path, body) in enumerate(steps):
        async with client.request(method, path, json=body) as answer:
            assert answer.status == status, await answer.text()
            answers[f"{number} {method} {path}"] = str(answer.headers).encode() + await answer.read()
    for role in ("admin", "user", "webhook", "metrics"):
        async with client.post("/api/keys", json={"name": f"of a {role}", "role": role}) as made:
            assert made.status == 201
            secrets.made.append((await made.json())["key"])
    for headers in _misuses(mark, secrets.made[2]):
        async with client.post(front_door.LIDARR, data=front_door.webhook("grab"), headers=headers) as answer:
            answers[f"webhook {len(answers)}"] = str(answer.headers).encode() + await answer.read()
    # A log line has the caller's own id: the one place where a caller can make any process write a secret.
    for value in (str(values["lastfmUserKey"]), f"{mark}-of-the-operator", secrets.made[0], secrets.canary):
        async with client.get("/ping", headers={"X-Correlation-Id": value}) as answer:
            assert answer.headers["X-Correlation-Id"] == value


def _misuses(mark: str, key: str) -> list[Mapping[str, str]]:
    """Return the headers of those who send a key where and how they can, wrong ones too."""
    return [
        {"X-Webhook-Secret": key},
        {"X-Webhook-Secret": f"wrong {mark}", "X-Api-Key": ""},
        {"Authorization": basic(mark, key), "X-Api-Key": ""},
        {"Authorization": basic("lidarr", mark), "X-Api-Key": ""},
        {"Authorization": f"Bearer {mark}", "X-Api-Key": ""},
    ]


def basic(user: str, password: str) -> str:
    """Return the header of Basic authentication."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


async def visit(client: aiohttp.ClientSession, answers: dict[str, bytes]) -> None:
    """Ask every GET route of the table, with every id that there is, and keep all that is answered."""
    async with client.get("/api/events?limit=100") as answer:
        page = await answer.json()
    assert page["events"]
    async with client.get("/api/downloads") as answer:
        jobs = [job["id"] for job in (await answer.json())["downloads"]]
    ids = [*{event["event_id"] for event in page["events"]}, *jobs, str(uuid4())]
    for route in ROUTES:
        if route.method == "GET":
            for path in _addresses(route.path, ids):
                async with client.get(path) as answer:
                    answers[f"GET {path}"] = str(answer.headers).encode() + await _body(answer)


def _addresses(path: str, ids: list[str]) -> list[str]:
    """Return addresses of a route; a name in its path that this does not know is an id."""
    path = path.replace("{projection}/{id}", "settings/global")
    if path == "/api/live":
        return [f"{path}?after=0"]
    before, brace, rest = path.partition("{")
    return [before + id_ + rest.partition("}")[2] for id_ in ids] if brace else [path]


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    if answer.content_type != "text/event-stream":
        return await answer.read()
    read = bytearray()
    with suppress(TimeoutError):
        async with asyncio.timeout(LIVE_SECONDS):
            async for chunk in answer.content.iter_any():
                read += chunk
    return bytes(read)


async def dump(postgres: Postgres) -> dict[str, bytes]:
    """Return every row of every table as text, pg_dump's own, and the server's files with its log of writes."""
    conn = await database.connect(postgres.url, role="test")
    try:
        await conn.execute("CHECKPOINT")
        tables = await conn.fetch(
            """SELECT oid::regclass::text AS name FROM pg_class
                WHERE relkind IN ('r', 'm', 'v') AND relnamespace::regnamespace::text NOT LIKE 'pg\\_%'"""
        )
        rows = {
            f"table {table['name']}": str(await conn.fetch(f"SELECT t::text FROM {table['name']} AS t")).encode()
            for table in tables
        }
    finally:
        await conn.close()
    program = postgres._programs / "pg_dump"
    if program.exists():
        process = await asyncio.create_subprocess_exec(
            program, postgres.url, stdout=asyncio.subprocess.PIPE, user=postgres.home.user
        )
        rows["pg_dump"], _ = await process.communicate()
        assert process.returncode == 0
    return rows | leaks.files(postgres.home.files)


@pytest.fixture
def secrets(rng: random.Random) -> Secrets:
    """Return the secrets of this test."""
    return Secrets.drawn(rng)


async def test_no_secret_is_anywhere(postgres: Postgres, valkey: Valkey, tmp_path: Path, secrets: Secrets) -> None:
    """All roles at their most talkative; the search is proved by what it finds of what may be seen."""
    api_key, root = f"{secrets.mark}-of-the-operator", f"a-root-{secrets.mark}-0451-nobody-guesses"
    env = environment(tmp_path, postgres.url, valkey.url, KIMA_API_KEY=api_key, KIMA_SECRET_KEY=root)
    answers: dict[str, bytes] = {}
    async with (
        leaks.listening(valkey.url) as commands,
        running(env, ROLES, tmp_path) as addresses,
        client_of(addresses["serve"], api_key) as client,
    ):
        await act(client, secrets, answers)
        # The last of all events to be published is one that may be seen.
        await eventually(lambda: b"download_job.requested" in commands and b"settings.key_rotated" in commands, 20)
        await visit(client, answers)
        for name, address in addresses.items():
            async with client.get(f"{address}/metrics") as answer:
                answers[f"metrics of {name}"] = await answer.read()
        places = {
            "answers": answers,
            "postgres": await dump(postgres),
            "redis": {"commands": bytes(commands), **await leaks.redis_content(valkey.url)},
        }
    places["logs"] = leaks.files(tmp_path)

    for name, place in places.items():
        assert leaks.found(place, secrets.canary), f"the search does not reach {name}"
        assert leaks.found(place, secrets.mark) == [], name
        for key in secrets.made:
            assert leaks.found(place, key.removeprefix("kima_")) == [], name
    assert places["logs"].keys() >= {str(tmp_path / f"{role}.log") for role in ROLES}
    assert places["logs"][str(tmp_path / "serve.log")].count(b'"correlation_id": "***"') == 3
    assert b"settings.key_rotated" in places["postgres"]["table events"]


def test_the_search_finds_every_spelling(secrets: Secrets) -> None:
    """What it is for: text, JSON, URLs, hex, base64 at any place, dumps of bytes."""
    text = f'before "{secrets.mark}" é after'
    for n, spelled in enumerate(
        (text.encode(), json.dumps(text).encode(), quote(text).encode(), text.encode().hex().encode(),
         *(b64encode(f"{'x' * n}{text}".encode()) for n in range(3)), text.encode("utf-16"))
    ):  # fmt: skip
        assert leaks.found({"here": spelled}, secrets.mark), n
    assert leaks.found({"here": secrets.mark[:-1].encode()}, secrets.mark) == []
