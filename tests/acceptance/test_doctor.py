"""``doctor`` among real faults: each is made, found, and told with what to do; a well house is told to be well."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio as redis_client
from aiohttp import web

from kima_stream import database, event_store, schema
from kima_stream.cli import diagnosis, doctor, surroundings
from kima_stream.cli.diagnosis import Finding
from kima_stream.cli.doctor import Report
from kima_stream.database import Connection, Pool
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey
from kima_stream.event_stream import EventStream
from kima_stream.numbering import Numberer
from kima_stream.publisher import Publisher
from kima_stream.read_models import settings as stored_settings
from kima_stream.settings import config
from kima_stream.settings.secrets import Roots
from kima_stream.settings.store import Sources
from kima_stream.simulator.server import serving
from tests import front_door, processes
from tests.factories import a_note, append_notes, number_all
from tests.polling import eventually

NOWHERE = "redis://127.0.0.1:1/0"
KEY = "a key that opens them, 0123456789"
ROOT = "Xo9-a-root-that-nobody-guesses-0451"
OTHER_ROOT = "another root: 83a1, much like it, but newer"


async def run(environment: Mapping[str, str], *flags: str) -> tuple[int | None, str]:
    """Run ``kima-stream doctor`` as a person would; return its exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kima_stream", "doctor", *flags, env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert err == b"", err.decode()
    return process.returncode, out.decode()


@pytest.fixture
def place(tmp_path: Path, dsn: str, redis_url: str) -> dict[str, str]:
    """Return the environment of a house whose servers run."""
    return {
        "KIMA_DATABASE_URL": dsn,
        "KIMA_REDIS_URL": redis_url,
        "KIMA_PORT": "1",
        "KIMA_DATA_DIR": str(tmp_path / "data"),
    }


async def examined(environment: Mapping[str, str]) -> Report:
    """Look at everything, as the command does."""
    report = await doctor.examine(config.load(environment))
    assert all((finding.fix is None) == (finding.status == "ok") for finding in report.findings)
    assert all("\n" not in finding.says for finding in report.findings)
    return report


async def found(environment: Mapping[str, str], part: str) -> Finding:
    """Return the one line about ``part``."""
    (finding,) = [finding for finding in (await examined(environment)).findings if finding.part == part]
    return finding


async def assert_found(environment: Mapping[str, str], part: str, status: str, says: str, fix: str) -> None:
    """Check one line: how bad it is, what it says, and what to do."""
    finding = await found(environment, part)
    assert (finding.status, says in finding.says, fix in (finding.fix or "")) == (status, True, True), finding


async def age(conn: Connection, seconds: int) -> None:
    """Let time pass since everything was numbered: in a log that is not the test's own the triggers refuse it."""
    await conn.execute("ALTER TABLE event_positions DISABLE TRIGGER ALL")
    await conn.execute(
        "UPDATE event_positions SET numbered_at = clock_timestamp() - make_interval(secs => $1)", seconds
    )


@pytest.mark.timeout(180)
async def test_a_well_house_is_well(tmp_path: Path, unused_tcp_port: int) -> None:
    """``up`` as it comes: exit 0, no line at fault, in words and in JSON; stopped, its database is away: exit 3."""
    folder = tmp_path / "data"
    tmp_path.chmod(0o711)
    environment = {"KIMA_DATA_DIR": str(folder), "KIMA_PORT": str(unused_tcp_port)}
    async with processes.running(environment, tmp_path / "log", "up"):

        async def is_well() -> str:
            code, said = await run(environment, "--json")
            assert code == 0, said
            return said

        report = msgspec.json.decode(await eventually(is_well, timeout=60), type=Report)
        assert (report.status in {"ok", "warn"}, report.postgres_reachable) == (True, True)
        parts = {finding.part for finding in report.findings}
        assert parts >= {
            "version", "postgres", "durability", "clock", "connections", "transactions", "migrations", "numbering",
            "publisher", "redis", "eviction", "memory", "streams", "data folder", "disk", "key files", "front door",
            "lidarr", "slskd",
        }  # fmt: skip
        code, words = await run(environment)
        assert code == 0
        assert {line.split()[0] for line in words.splitlines() if not line.startswith(" ")} <= {"ok", "warn"}
        key = (folder / "api_key").read_text().strip()
        assert key not in words
    code, said = await run(environment, "--json")
    assert (code, msgspec.json.decode(said)["postgres_reachable"]) == (3, False)


async def test_postgres_away_is_3(postgres: Postgres, place: dict[str, str]) -> None:
    """Stopped, or with the name of another database; the other parts are looked at all the same."""
    place["KIMA_DATABASE_URL"] = postgres.url.replace("/kima?", "/nobody?")
    code, said = await run(place, "--json")
    (line,) = [finding for finding in msgspec.json.decode(said)["findings"] if finding["part"] == "postgres"]
    assert (code, line["status"]) == (3, "fault")
    assert "nobody" in line["says"]
    assert "KIMA_DATABASE_URL" in line["fix"]

    await postgres.stop()
    code, words = await run(place | {"KIMA_DATABASE_URL": postgres.url})
    assert code == 3
    assert "fault postgres" in words
    assert "-> start it, or mend KIMA_DATABASE_URL" in words
    assert "redis" in words
    await postgres.start()


async def test_what_a_crash_of_the_machine_would_take(place: dict[str, str], postgres: Postgres) -> None:
    """A server without fsync loses what was acknowledged; one with it does not. The tests' own is such a one."""
    conn = await database.connect(place["KIMA_DATABASE_URL"], role="test")
    has_fsync = await conn.fetchval("SELECT current_setting('fsync')") == "on"
    await conn.close()
    if not has_fsync:
        await assert_found(place, "durability", "fault", "fsync", "set fsync = on")
        assert (await run(place))[0] == 1
    assert (await found(place | {"KIMA_DATABASE_URL": postgres.url}, "durability")).status == "ok"


async def test_tables_that_are_missing_or_unknown(
    place: dict[str, str], empty_database: Callable[[], str], conn: Connection
) -> None:
    """An empty database, one half-way, one from the future."""
    empty = empty_database()
    await assert_found(place | {"KIMA_DATABASE_URL": empty}, "migrations", "fault", "0001_create_events", "migrate")
    assert (await run(place | {"KIMA_DATABASE_URL": empty}))[0] == 1
    await asyncio.to_thread(schema.migrate, empty)
    assert (await found(place | {"KIMA_DATABASE_URL": empty}, "migrations")).status == "ok"
    await conn.execute(
        "INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc) VALUES ('x', '9999_future', now())"
    )
    await assert_found(place, "migrations", "warn", "9999_future", "newer")


async def test_redis_away_or_not_named(place: dict[str, str]) -> None:
    """Nothing is lost either way, and it says so."""
    await assert_found(
        place | {"KIMA_REDIS_URL": NOWHERE}, "redis", "fault", "cannot be used", "nothing is lost meanwhile"
    )
    del place["KIMA_REDIS_URL"]
    await assert_found(place, "redis", "warn", "not configured", "KIMA_REDIS_URL")


async def test_redis_set_wrongly(place: dict[str, str], valkey: Valkey) -> None:
    """One that evicts, one that is nearly full, one that is a replica of another."""
    place["KIMA_REDIS_URL"] = valkey.url
    assert (await found(place, "redis")).says.startswith("Valkey ")
    assert (await found(place, "eviction")).status == "ok"
    async with redis_client.Redis.from_url(valkey.url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
        await assert_found(place, "eviction", "fault", "allkeys-lru", "config set maxmemory-policy noeviction")
        await client.config_set("maxmemory-policy", "noeviction")
        used = int((await client.info("memory"))["used_memory"])
        await client.config_set("maxmemory", used)
        await assert_found(place, "memory", "warn", "MB used", "raise its maxmemory")
        await client.config_set("maxmemory", 0)
        await client.replicaof("127.0.0.1", 1)
        await assert_found(place, "redis", "fault", "replica", "primary")


async def _as_redis_6(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a Redis 6.2 does: it knows HELLO and INFO, and not all of what it is told."""
    info = b"# Server\r\nredis_version:6.2.14\r\nrole:master\r\nmaxmemory_policy:noeviction\r\nused_memory:1\r\n"
    while line := await reader.readline():
        words = []
        for _ in range(int(line[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2].upper())
        match words[0]:
            case b"HELLO":
                writer.write(b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n")
            case b"INFO":
                writer.write(b"$%d\r\n%b\r\n" % (len(info), info))
            case b"CLIENT" if words[1] != b"SETINFO":
                writer.write(b"+OK\r\n")
            case _:
                writer.write(b"-ERR unknown command\r\n")
    writer.close()


async def test_redis_too_old(place: dict[str, str], unused_tcp_port: int) -> None:
    """By what it says about itself on the wire."""
    async with await asyncio.start_server(_as_redis_6, "127.0.0.1", unused_tcp_port):
        place["KIMA_REDIS_URL"] = f"redis://127.0.0.1:{unused_tcp_port}/0"
        await assert_found(place, "redis", "fault", "Redis 6.2.14 is too old", "use Redis 7, or Valkey")


async def test_nobody_numbers(place: dict[str, str], conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody ever led; then one led and died; and what waits for its number is counted, with its age."""
    await assert_found(place, "publisher", "fault", "nobody ever", "kima-stream publish")
    leading = await database.connect(place["KIMA_DATABASE_URL"], role="publisher")
    numberer = Numberer(leading, holder="a-host-1")
    assert await numberer.lead()
    assert (await found(place, "publisher")).says.startswith("a-host-1 leads")
    leading.terminate()
    await conn.execute("UPDATE leases SET expires_at = clock_timestamp() - interval '90 seconds'")
    await assert_found(place, "publisher", "fault", "a-host-1 did until 90 s ago", "kima-stream up")

    await append_notes(conn, streams=1, each=3)
    assert (await found(place, "numbering")).status == "ok"  # they may be on their way
    monkeypatch.setattr(diagnosis, "LAG_SECONDS", 0.0)
    await assert_found(place, "numbering", "fault", "3 events wait", "see publisher")


async def test_a_group_that_lags_parks_or_stops(place: dict[str, str], conn: Connection) -> None:
    """Each group has its line: never run, behind since when, what it holds back, that it gave up, another past."""
    await assert_found(place, "group intake", "warn", "never run", "kima-stream consume")
    await event_store.append_many(conn, [event_store.Append("lidarr-1", [a_note(), a_note()])])
    await number_all(conn)
    await conn.execute(
        "INSERT INTO group_checkpoints (group_name, category, verified_position) VALUES ('intake', 'lidarr', 0)"
    )
    for seconds, status in ((0, "ok"), (20, "warn"), (90, "fault")):
        await age(conn, seconds)
        finding = await found(place, "group intake")
        assert finding.status == status, finding
        if status != "ok":
            assert f"2 events behind, for {seconds} s" in finding.says
            assert "kima-stream consume and kima-stream reconcile" in (finding.fix or "")
    await age(conn, 0)
    await conn.execute(
        """INSERT INTO dead_letters (group_name, stream, version, status, attempts, error_type, error,
                                     first_failed_at, last_failed_at, next_attempt_at, parked_at)
           VALUES ('intake', 'lidarr-1', 0, 'parked', 5, 'ValueError', 'poison', now(), now(), now(), now())"""
    )
    await assert_found(place, "group intake", "warn", "1 streams parked", "dead-letters list --group intake")
    await conn.execute("UPDATE group_checkpoints SET stopped_at = clock_timestamp()")
    await assert_found(place, "group intake", "fault", "stopped itself", "dead-letters list --group intake")
    await conn.execute("UPDATE group_checkpoints SET stopped_at = NULL, verified_position = 1, chain_hash = '\\x00'")
    await assert_found(place, "group intake", "fault", "", "kima-stream verify")


async def test_who_holds_a_lock(
    place: dict[str, str], conn: Connection, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten transaction by its process; one that one of ours waits for is at fault."""
    monkeypatch.setattr(diagnosis, "TRANSACTION_SECONDS", 0.0)
    monkeypatch.setattr(diagnosis, "BLOCKED_SECONDS", 0.0)
    transaction = conn.transaction()
    await transaction.start()
    await append_notes(conn, streams=1, each=1)
    pid = conn.get_server_pid()
    await assert_found(place, "transactions", "warn", f"process {pid}", f"pg_terminate_backend({pid})")

    async def wait() -> None:
        async with pool.acquire() as ours, ours.transaction():
            await ours.execute("SET LOCAL lock_timeout = 0")
            await ours.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")

    waiting = asyncio.create_task(wait())
    monkeypatch.setattr(doctor, "PART_SECONDS", 1.0)  # what reads events waits behind the lock, too

    async def is_told() -> bool:
        findings = [finding for finding in (await examined(place)).findings if finding.part == "transactions"]
        return any(f"process {pid}" in one.says and "1 of our connections wait" in one.says for one in findings)

    await eventually(is_told, timeout=30)
    await transaction.rollback()
    await waiting


async def test_connections_run_out(place: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they have: while a role more finds none."""
    monkeypatch.setattr(diagnosis, "FREE_CONNECTIONS", 1_000_000)
    await assert_found(place, "connections", "warn", "are taken", "max_connections")


async def test_redis_is_no_copy_of_this_log(place: dict[str, str], conn: Connection, pool: Pool) -> None:
    """Behind for long, or ahead, which only another log can be; as it should be it is well."""
    await append_notes(conn, streams=1, each=3)
    await number_all(conn)
    await age(conn, 60)
    await assert_found(place, "streams", "fault", "note ends at 0 in Redis, at 3 in the log, for 60 s", "see publisher")
    async with EventStream(place["KIMA_REDIS_URL"]) as stream:
        await Publisher(pool, stream, holder="test").publish_once()
        assert (await found(place, "streams")).status == "ok"
    async with redis_client.Redis.from_url(place["KIMA_REDIS_URL"]) as client:
        await client.xadd("kima:events:{note}", {"a": "b"}, id="99-0")
    await assert_found(place, "streams", "fault", "another log's", "database of its own")


async def test_the_folder_the_disk_and_the_keys(
    place: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be, a disk that fills up, a key that others may read."""
    (tmp_path / "file").touch()
    impossible = place | {"KIMA_DATA_DIR": str(tmp_path / "file" / "data")}
    await assert_found(impossible, "data folder", "fault", "cannot be written", "set KIMA_DATA_DIR")

    assert (await found(place, "key files")).status == "ok"
    key = tmp_path / "data" / "api_key"
    key.parent.mkdir()
    key.write_text(KEY)
    key.chmod(0o644)
    await assert_found(place, "key files", "fault", str(key), f"chmod 600 {key}")
    assert KEY not in (await run(place))[1]
    key.chmod(0o600)
    assert (await found(place, "key files")).status == "ok"

    assert (await found(place, "disk")).says.endswith("GB free")
    monkeypatch.setattr(diagnosis, "LITTLE_DISK_BYTES", 2**60)
    await assert_found(place, "disk", "warn", "GB free", "free some space")
    monkeypatch.setattr(diagnosis, "NO_DISK_BYTES", 2**60)
    await assert_found(place, "disk", "fault", "GB free", "a full disk stops Postgres")


@asynccontextmanager
async def answering(answer: web.Response | None, path: str = "/{any:.*}") -> AsyncIterator[str]:
    """Run a server that gives one answer to whoever has the key, or says nothing at all; yield its URL."""

    async def handle(request: web.Request) -> web.Response:
        if answer is None:
            await asyncio.Event().wait()
        if answer is not None and answer.status == 200 and request.headers.get("X-Api-Key") != KEY:
            return web.Response(status=401)
        return web.Response(
            status=0 if answer is None else answer.status, body=None if answer is None else answer.body,
            headers=None if answer is None else {"Location": "/lidarr", "Content-Type": "application/json"},
        )  # fmt: skip

    app = web.Application()
    app.router.add_get(path, handle)
    async with serving(app) as url:
        yield url


WELL = {
    "lidarr": (b'{"appName":"Lidarr","version":"2.9.6.4552"}', "Lidarr 2.9.6.4552"),
    "slskd": (b'"0.24.1"', "slskd 0.24.1"),
}
PATHS = {"lidarr": "/api/v1/system/status", "slskd": "/api/v0/application/version"}


@pytest.mark.parametrize("part", WELL)
async def test_what_lidarr_and_slskd_answer(
    part: str, place: dict[str, str], monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """Well, with a wrong key, moved, ill, somebody else, silent, away: each over real HTTP, each with its next step."""
    url, key = f"{part.upper()}_URL", f"{part.upper()}_API_KEY"
    body, says = WELL[part]
    assert (await found(place, part)).says.startswith("not configured")
    async with answering(web.Response(body=body), PATHS[part]) as address:
        finding = await found(place | {url: address, key: KEY}, part)
        assert (finding.status, finding.says.startswith(says)) == ("ok", True)
        await assert_found(
            place | {url: address, key: "a wrong key, but long enough"}, part, "fault", "refuses our key", key
        )
        await assert_found(place | {url: f"{address}/base", key: KEY}, part, "fault", f"is not {part}", url)
    for answer, said in (
        (web.Response(status=302), "leads elsewhere"),
        (web.Response(status=503), "(status 503)"),
        (web.Response(body=b"<html>a router</html>"), f"is not {part}"),
        (web.Response(status=403), "refuses our key"),
    ):
        async with answering(answer) as address:
            await assert_found(place | {url: address, key: KEY}, part, "fault", said, part.upper())
    monkeypatch.setattr(surroundings, "ANSWER_SECONDS", 0.2)
    async with answering(None) as address:
        await assert_found(place | {url: address, key: KEY}, part, "fault", "no answer within", url)
    nobody = f"http://127.0.0.1:{unused_tcp_port}"
    await assert_found(place | {url: nobody, key: KEY}, part, "fault", "does not answer: Connection refused", url)


async def test_the_front_door(place: dict[str, str], pool: Pool, unused_tcp_port: int) -> None:
    """Ready but without Redis, somebody else's, not there."""
    await assert_found(
        place | {"KIMA_PORT": str(unused_tcp_port)}, "front door", "fault", "nobody answers", "KIMA_PORT"
    )
    async with front_door.opened(pool) as door:
        port = door.url.rpartition(":")[2]
        await assert_found(place | {"KIMA_PORT": port}, "front door", "warn", "degraded", "see the lines")
    async with answering(web.Response(status=404)) as address:
        port = address.rpartition(":")[2]
        await assert_found(place | {"KIMA_PORT": port}, "front door", "fault", "is not kima-stream", "KIMA_URL_BASE")


async def test_a_secret_that_does_not_open(place: dict[str, str], conn: Connection) -> None:
    """Sealed with a key that is not ours any more: named, never guessed at, never shown."""
    sources = Sources(environment={}, roots=Roots(given=ROOT, previous=None, data_dir=Path("/nowhere")))
    await stored_settings.change(conn, sources, {"lidarrApiKey": KEY}, by="admin")
    await assert_found(place | {"KIMA_SECRET_KEY": OTHER_ROOT}, "settings", "fault", "lidarrApiKey", "KIMA_SECRET_KEY")
    report: Any = await examined(place | {"KIMA_SECRET_KEY": ROOT})
    assert "settings" not in {finding.part for finding in report.findings}
    assert KEY not in str(report)
