"""``settings`` at the terminal: the same table, checks and answers as over HTTP, and no secret on a command line."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from kima_stream.database import Connection, Pool
from kima_stream.settings import definitions, store
from kima_stream.settings.config import Settings
from kima_stream.settings.secrets import Roots
from kima_stream.settings.store import Sources
from tests import front_door, lidarr
from tests.front_door import OpenDoor

ROOT = "Xo9-a-root-that-nobody-guesses-0451"
PASSPHRASE = "the passphrase of the original, long"
SEALED_BY_THE_ORIGINAL = "000102030405060708090a0b0c0d0e0f:46b3e58b47b6216751dfeef7ccf0c07b"
SOURCES = Sources(environment={}, roots=Roots(given=ROOT, previous=None, data_dir=Path("/nowhere")))


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open a door that has the same root."""
    async with front_door.opened(pool, settings=Settings(secret_key=ROOT)) as opened:
        yield opened


async def run(dsn: str, *arguments: str, typed: str = "", code: int = 0, environment: Mapping[str, str] = {}) -> str:
    """Run ``settings`` as a script would and return what it answers, or what it complains about."""
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "kima_stream", "settings", *arguments],
        env={"KIMA_DATABASE_URL": dsn, "COLUMNS": "200", "KIMA_SECRET_KEY": ROOT, **environment},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return (result.stderr if code else "") or result.stdout


async def test_set_get_list_and_clear(dsn: str, conn: Connection) -> None:
    """A value given with its key; a secret on stdin, in order; the mask is all that is ever shown."""
    said = await run(
        dsn, "set", "lidarrUrl=http://lidarr:8686/", "lidarrApiKey", "soulseekConcurrentDownloads", "webhookUrls",
        typed="0123456789abcdef\n7\nhttp://a/1 http://b/2\n",
    )  # fmt: skip
    assert said == "set lidarrUrl, lidarrApiKey, soulseekConcurrentDownloads, webhookUrls: version 1\n"
    read = await store.read(conn, SOURCES)
    assert read[definitions.LIDARR_API_KEY] == "0123456789abcdef"
    assert read[definitions.WEBHOOK_URLS] == ("http://a/1", "http://b/2")
    assert read.entries["lidarrUrl"].changed_by == "cli"

    assert await run(dsn, "get", "lidarrUrl") == "http://lidarr:8686\n"
    assert await run(dsn, "get", "lidarrApiKey") == "********\n"
    assert await run(dsn, "get", "soulseekEnabled") == "\n"
    (url,) = [one for one in json.loads(await run(dsn, "list", "--json"))["settings"] if one["key"] == "lidarrUrl"]
    assert url == json.loads(await run(dsn, "get", "lidarrUrl", "--json"))
    assert (url["value"], url["source"], url["changed_by"]) == ("http://lidarr:8686", "database", "cli")
    listed = await run(dsn, "list")
    assert "lidarrApiKey" in listed
    assert "0123456789abcdef" not in listed + await run(dsn, "list", "--json")

    assert (
        await run(dsn, "set", "lidarrApiKey=********", "lidarrUrl=http://lidarr:8686") == "nothing changed: version 1\n"
    )
    assert "cleared lidarrUrl: version 2" in await run(dsn, "set", "--clear", "lidarrUrl")
    given = await run(dsn, "get", "lidarrUrl", "--json", environment={"LIDARR_URL": "http://elsewhere"})
    assert (json.loads(given)["value"], json.loads(given)["source"]) == ("http://elsewhere", "environment")


async def test_a_secret_on_the_command_line_is_refused_unless_asked_for(dsn: str, conn: Connection) -> None:
    """Other users of the machine see command lines, and shells keep them."""
    said = await run(dsn, "set", "lidarrApiKey=0123456789abcdef", code=2)
    assert "lidarrApiKey: others can see command lines" in said
    assert "0123456789abcdef" not in said
    assert (await store.read(conn, SOURCES)).version == -1

    await run(dsn, "set", "--secrets-in-arguments", "lidarrApiKey=0123456789abcdef")
    assert (await store.read(conn, SOURCES))[definitions.LIDARR_API_KEY] == "0123456789abcdef"


async def test_every_fault_comes_at_once_and_changes_nothing(dsn: str, conn: Connection) -> None:
    """Those of the command line and those of the values, one per line, without the values."""
    said = await run(
        dsn, "set", "lidarrUrl=ftp://secret-value", "noSuchThing=secret-value", "secret-value", "musicPath",
        "soulseekConcurrentDownloads=many", "slskdApiKey=secret-value", "--clear", "neverHeardOf", "musicPath=/a",
        code=2,
    )  # fmt: skip

    named = {line.removeprefix("kima-stream: ").partition(":")[0].strip("'") for line in said.splitlines()}
    assert named == {
        "lidarrUrl", "noSuchThing", "argument 3", "musicPath", "soulseekConcurrentDownloads", "slskdApiKey",
        "neverHeardOf",
    }  # fmt: skip
    assert "secret-value" not in said
    assert (await store.read(conn, SOURCES)).version == -1


async def test_a_file_says_what_http_would(dsn: str, conn: Connection, tmp_path: Path) -> None:
    """The body of ``PUT /api/settings``, from a file or stdin; a version that has passed is refused."""
    body = json.dumps({"lidarrApiKey": "0123456789abcdef", "soulseekEnabled": False, "musicPath": None})
    answer = json.loads(await run(dsn, "set", "--file", "-", "--if-version", "0", "--json", typed=body))
    assert answer["version"] == 1
    assert (await store.read(conn, SOURCES))[definitions.SOULSEEK_ENABLED] is False

    file = tmp_path / "settings.json"
    file.write_text('{"musicPath": "/music"}')
    assert "they are at version 1" in await run(dsn, "set", "--file", str(file), "--if-version", "0", code=1)
    assert "is not JSON" in await run(dsn, "set", "--file", "-", typed="musicPath: /x", code=2)
    assert "there is no such setting" in await run(dsn, "get", "noSuchThing", code=2)
    assert (await store.read(conn, SOURCES)).version == 0


async def test_http_and_the_terminal_answer_alike(dsn: str, door: OpenDoor) -> None:
    """Views and faults are the same: one function behind both."""
    await run(dsn, "set", "lidarrUrl=http://lidarr:8686", "slskdApiKey", typed="0123456789\n")
    async with door.client.get("/api/settings") as answer:
        assert await answer.json() == json.loads(await run(dsn, "list", "--json"))

    wrong = {"lidarrUrl": "nonsense", "soulseekEnabled": True, "noSuchThing": 1, "primaryFailureFallback": "soulseek"}
    async with door.client.put("/api/settings", json=wrong) as answer:
        assert answer.status == 400
        faults = (await answer.json(content_type=None))["faults"]
    said = await run(dsn, "set", "--file", "-", typed=json.dumps(wrong), code=2)
    assert [line.removeprefix("kima-stream: ") for line in said.splitlines()] == faults
    assert len(faults) == 4


async def test_a_root_is_not_made_where_nobody_else_finds_it(dsn: str, tmp_path: Path) -> None:
    """The roles of that database may run elsewhere; only who shares their data folder may make it."""
    rootless = {"KIMA_SECRET_KEY": "", "KIMA_DATA_DIR": str(tmp_path)}
    said = await run(dsn, "set", "lidarrApiKey", typed="0123456789\n", code=2, environment=rootless)
    assert said.startswith("kima-stream: KIMA_SECRET_KEY: missing")
    assert "KIMA_SECRET_KEY: missing" in await run(dsn, "rotate-key", code=2, environment=rootless)
    assert list(tmp_path.iterdir()) == []
    await run(dsn, "set", "musicPath=/music", environment=rootless)


async def test_the_key_is_rotated_and_what_is_lost_can_be_given_up(dsn: str, conn: Connection) -> None:
    """With the root at hand all is readable; with another one all is named, and cleared only when asked to."""
    await run(dsn, "set", "lidarrApiKey", "slskdApiKey", typed="0123456789\nabcdefghij\n")
    before = await conn.fetchval("SELECT key_id FROM secret_keys")
    rotated = json.loads(await run(dsn, "rotate-key", "--json"))
    assert rotated["key_id"] == await conn.fetchval("SELECT key_id FROM settings")
    assert (rotated["resealed"], rotated["given_up"]) == (["lidarrApiKey", "slskdApiKey"], [])
    assert before not in await conn.fetchval("SELECT state FROM settings")
    assert (await store.read(conn, SOURCES))[definitions.LIDARR_API_KEY] == "0123456789"

    lost = {"KIMA_SECRET_KEY": "another root: 83a1, much like it"}
    assert "KIMA_SECRET_KEY: not the root" in await run(dsn, "rotate-key", code=2, environment=lost)
    said = await run(dsn, "rotate-key", "--give-up-lost", environment=lost)
    assert "given up: lidarrApiKey, slskdApiKey" in said
    await run(dsn, "set", "lidarrApiKey", typed="a-new-value\n", environment=lost)
    assert await run(dsn, "get", "lidarrApiKey", environment=lost) == "********\n"


async def test_what_the_original_sealed_is_taken(dsn: str, conn: Connection) -> None:
    """From its table or its environment, with its key; without that key it is a fault, never a password."""
    given = {"KIMA_ORIGINAL_KEY": PASSPHRASE}
    await run(dsn, "set", "lidarrApiKey", typed=f"{SEALED_BY_THE_ORIGINAL}\n", environment=given)
    assert (await store.read(conn, SOURCES))[definitions.LIDARR_API_KEY] == "0123456789"

    said = await run(dsn, "set", "slskdApiKey", typed=f"{SEALED_BY_THE_ORIGINAL}\n", code=2)
    assert "slskdApiKey: it is sealed as the original did" in said
    said = await run(
        dsn,
        "set",
        "slskdApiKey",
        typed=f"{SEALED_BY_THE_ORIGINAL}\n",
        code=2,
        environment={"SETTINGS_ENCRYPTION_KEY": "x" * 40},
    )
    assert "slskdApiKey: SETTINGS_ENCRYPTION_KEY does not open it" in said
    assert SEALED_BY_THE_ORIGINAL not in said


async def test_a_connection_is_tried_before_it_is_saved(dsn: str, conn: Connection) -> None:
    """With what is given over what is in force; what is stored goes to the stored address only."""
    async with lidarr.opened() as house:
        key = lidarr.KEY
        said = await run(dsn, "test", "lidarr", f"lidarrUrl={house.url}", "lidarrApiKey", typed=f"{key}\n")
        assert "takes the key" in said
        refused = await run(dsn, "test", "lidarr", f"lidarrUrl={house.url}", "lidarrApiKey", typed="wrong\n", code=1)
        assert ("refuses the key" in refused, "wrong" in refused) == (True, False)
        assert (await store.read(conn, SOURCES)).entries["lidarrUrl"].source == "default"

        await run(dsn, "set", f"lidarrUrl={house.url}", "lidarrApiKey", typed=f"{key}\n")
        assert json.loads(await run(dsn, "test", "lidarr", "--json"))["ok"] is True
        elsewhere = await run(dsn, "test", "lidarr", "lidarrUrl=http://127.0.0.2:8686", code=2)
        assert "lidarrApiKey: give it again" in elsewhere
        assert "lidarrApiKey: others can see" in await run(dsn, "test", "lidarr", f"lidarrApiKey={key}", code=2)
    assert "cannot be reached" in await run(dsn, "test", "lidarr", code=1)
    assert "lastfmApiKey: missing" in await run(dsn, "test", "lastfm", code=2)
