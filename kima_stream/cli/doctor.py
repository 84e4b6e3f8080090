"""``doctor``: look at every part, say how it is, and what to do next where it is not well.

It changes nothing, asks every part at most some seconds, and goes on when one does not answer.
"""

import asyncio
import platform
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Final

import aiohttp
import asyncpg
import click
import msgspec

from kima_stream import database
from kima_stream.cli import UNREACHABLE, answers, diagnosis, facts, parts, surroundings
from kima_stream.cli.diagnosis import Copy, Finding, fault, ok, warn
from kima_stream.cli.loop import run, settings
from kima_stream.cli.surroundings import Answer
from kima_stream.database import Connection
from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.event_stream import EventStream
from kima_stream.integrations import lidarr_registration
from kima_stream.integrations.lidarr import Lidarr, session
from kima_stream.settings import api_keys, definitions, store
from kima_stream.settings.config import Settings
from kima_stream.settings.kinds import Definition
from kima_stream.settings.secrets import Keyring
from kima_stream.settings.store import Snapshot, Sources

PART_SECONDS: Final = 20.0  # a statement that takes longer waits for somebody: see transactions
_COLORS: Final = {"ok": "green", "warn": "yellow", "fault": "red"}
_TO_MIGRATE: Final = "run: kima-stream migrate"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings; ``status`` is that of the worst."""

    status: diagnosis.Status
    postgres_reachable: bool
    findings: list[Finding]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def doctor(*, as_json: bool) -> None:
    """Look at every part: is it well, and what is to be done where it is not?

    Exit 1 when anything is at fault, 3 when Postgres cannot be reached; warnings are no fault.
    """
    report = run(examine(settings()))
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        for finding in report.findings:
            _say(finding)
    if not report.postgres_reachable:
        raise SystemExit(UNREACHABLE)
    if report.status == "fault":
        raise SystemExit(1)


def _say(finding: Finding) -> None:
    status = click.style(f"{finding.status:<5}", _COLORS[finding.status])
    click.echo(f"{status} {finding.part:<22} {finding.says}")
    if finding.fix is not None:
        click.echo(f"{'':<5} {'':<22} -> {finding.fix}")


async def examine(loaded: Settings) -> Report:
    """Look at everything that ``loaded`` leads to."""
    findings = [ok("version", f"kima-stream {version('kima-stream')}, Python {platform.python_version()}")]
    conn = await _connected(loaded, findings)
    snapshot = store.snapshot(-1, {}, Keyring({}), loaded.environment)
    try:
        if conn is not None:
            findings += await _postgres(conn, parts.database_url(loaded))
            snapshot = await _settings(conn, loaded, findings) or snapshot
            findings += await _webhook(conn, snapshot)
        findings += await _redis(loaded, conn)
    finally:
        if conn is not None:
            conn.terminate()  # whatever it waits for
    findings += _root(loaded)
    folder = surroundings.read_folder(loaded.data_dir)
    findings += [diagnosis.folder(folder), diagnosis.disk(folder), diagnosis.keys(folder)]
    findings += await _servers(loaded, snapshot)
    statuses = {finding.status for finding in findings}
    worst: diagnosis.Status = "fault" if "fault" in statuses else "warn" if "warn" in statuses else "ok"
    return Report(status=worst, postgres_reachable=conn is not None, findings=findings)


async def _connected(loaded: Settings, findings: list[Finding]) -> "asyncpg.Connection[asyncpg.Record] | None":
    try:
        return await database.connect(parts.database_url(loaded), role="doctor")
    except ConfigurationError as error:
        findings.append(fault("postgres", str(error), "start kima-stream up, or set KIMA_DATABASE_URL"))
    except (*database.OUTAGE, asyncpg.PostgresError, ValueError) as error:
        fix = "start it, or mend KIMA_DATABASE_URL: host, port, user, password, name of the database"
        findings.append(fault("postgres", f"cannot be reached: {_line(error)}", fix))
    return None


async def _postgres(conn: Connection, dsn: str) -> list[Finding]:
    async def server() -> list[Finding]:
        found = await facts.read_server(conn)
        judges = (diagnosis.postgres_version, diagnosis.durability, diagnosis.clock, diagnosis.connections)
        return [judge(found) for judge in judges]

    async def transactions() -> list[Finding]:
        return diagnosis.transactions(await facts.find_transactions(conn))

    async def migrations() -> list[Finding]:
        return [diagnosis.migrations(await facts.read_migrations(conn, dsn))]

    async def log() -> list[Finding]:
        found = await facts.read_log(conn)
        known = [group.name for group in parts.consumer_groups()]
        return [
            diagnosis.numbering(found.unnumbered),
            diagnosis.publisher(found.publisher),
            *diagnosis.groups(found, known),
        ]

    async def effects() -> list[Finding]:
        return diagnosis.effects(await facts.read_calls(conn))

    findings: list[Finding] = []
    for part, work in (
        ("postgres", server), ("transactions", transactions), ("migrations", migrations), ("log", log),
        ("effects", effects),
    ):  # fmt: skip
        findings += await _checked(part, work)
    return findings


async def _settings(conn: Connection, loaded: Settings, findings: list[Finding]) -> Snapshot | None:
    found: list[Snapshot] = []

    async def read() -> list[Finding]:
        found.append(await store.read(conn, Sources.of(loaded)))
        bad = [f"{key}: {entry.fault}" for key, entry in found[0].entries.items() if entry.fault is not None]
        return [fault("settings", said, "set it anew; where KIMA_SECRET_KEY was lost, all secrets") for said in bad]

    findings += await _checked("settings", read)
    return found[0] if found else None


async def _webhook(conn: Connection, snapshot: Snapshot) -> list[Finding]:
    """Look at what Lidarr tells us; where it cannot be asked, its own line says why."""
    try:
        async with session() as connections, asyncio.timeout(surroundings.ANSWER_SECONDS):
            found = await Lidarr.of(snapshot, connections).notifications()
    except (ConfigurationError, IntegrationError, TimeoutError):
        return []

    async def judge() -> list[Finding]:
        secrets = {lidarr_registration.secret_of(each.resource) for each in found}
        keys = [secret for secret in secrets if secret and await api_keys.role_of(conn, secret) in {"webhook", "admin"}]
        return [answers.webhook(found, keys)]

    return await _checked("lidarr webhook", judge)


def _root(loaded: Settings) -> list[Finding]:
    try:
        parts.check_root(loaded)
    except ConfigurationError as error:
        return [fault("secret key", str(error), "until then no role starts here")]
    return []


async def _redis(loaded: Settings, conn: "Connection | None") -> list[Finding]:
    try:
        url = parts.redis_url(loaded)
    except ConfigurationError:
        return [warn("redis", "not configured: only the sweeps handle events", "set KIMA_REDIS_URL")]
    async with parts.event_stream(loaded, url) as stream:
        try:
            found = await surroundings.read_redis(stream)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, it does not serve us
            fix = "start it, or mend KIMA_REDIS_URL; nothing is lost meanwhile, the sweeps handle events"
            return [fault("redis", f"cannot be used: {_line(error)}", fix)]
        findings = [diagnosis.redis_version(found), diagnosis.eviction(found), diagnosis.memory(found)]
        if conn is not None:
            findings += await _checked("streams", lambda: _streams(conn, stream))
    return findings


async def _streams(conn: Connection, stream: EventStream) -> list[Finding]:
    categories = await facts.read_categories(conn)
    last = {one.name: await stream.last_position(one.name) for one in categories}
    # Read again: what Redis has was in the log before.
    return diagnosis.streams(
        [
            Copy(
                category=one.name,
                last=last[one.name],
                head=one.head,
                missing_seconds=await facts.age_after(conn, one.name, max(last[one.name], one.verified)),
            )
            for one in await facts.read_categories(conn)
            if one.name in last
        ]
    )


async def _servers(loaded: Settings, snapshot: Snapshot) -> list[Finding]:
    async with aiohttp.ClientSession() as session:

        async def ask(
            url: Definition[str | None], key: Definition[str | None], path: str
        ) -> Answer | ConfigurationError | None:
            try:
                base = snapshot[url]
                headers = {"X-Api-Key": snapshot[key] or ""}
            except ConfigurationError as error:
                return error
            return None if base is None else await surroundings.ask(session, base.rstrip("/") + path, headers)

        door, lidarr, slskd = await asyncio.gather(
            surroundings.ask(session, parts.door_url(loaded) + "/readyz"),
            ask(definitions.LIDARR_URL, definitions.LIDARR_API_KEY, "/api/v1/system/status"),
            ask(definitions.SLSKD_URL, definitions.SLSKD_API_KEY, "/api/v0/application/version"),
        )
    findings = [answers.front_door(door)]
    for judge, answer in ((answers.lidarr, lidarr), (answers.slskd, slskd)):
        if not isinstance(answer, ConfigurationError):  # said above, in the line of the settings
            findings.append(judge(answer))
    return findings


async def _checked(part: str, work: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """Return the findings of ``work``, or that the part could not be looked at."""
    try:
        async with asyncio.timeout(PART_SECONDS):
            return await work()
    except asyncpg.UndefinedTableError:
        return [] if part == "settings" else [fault(part, "its tables are missing", _TO_MIGRATE)]
    except Exception as error:  # noqa: BLE001 - the other parts are looked at all the same
        return [fault(part, f"cannot be looked at: {_line(error)}", "see the other lines, then try again")]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
