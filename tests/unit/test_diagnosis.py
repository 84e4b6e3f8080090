"""What ``doctor`` makes of the facts: good as it is, and each fault with what to do next."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kima_stream.checkpoints import GroupStatus
from kima_stream.cli import answers, diagnosis
from kima_stream.cli.diagnosis import Copy, Finding
from kima_stream.cli.facts import Calls, Log, Migrations, Server, Transaction
from kima_stream.cli.surroundings import Answer, Folder, Redis
from kima_stream.integrations import lidarr_registration
from kima_stream.integrations.lidarr_types import Notification, Whole
from kima_stream.leases import Holding
from kima_stream.numbering import Unnumbered

SERVER = Server(
    version="15.4", version_number=150_004, fsync=True, full_page_writes=True, synchronous_commit="on",
    connections=10, connection_limit=97, clock_skew_seconds=0.01,
)  # fmt: skip
REDIS = Redis(
    name="Valkey", version="9.1.2", is_replica=False, policy="noeviction", memory_bytes=5_000_000, max_memory_bytes=0
)
FOLDER = Folder(path=Path("kima"), is_there=True, is_writable=True, free_bytes=50_000_000_000, open_keys=())
GROUP = GroupStatus(
    name="jobs", category="job", verified_position=7, head_position=7, lag_events=0, lag_seconds=0.0,
    parked_streams=0, retrying_streams=0, stopped=False,
)  # fmt: skip
TRANSACTION = Transaction(pid=7, application="psql", age_seconds=1.0, writes=True, blocks=0)
CALLS = Calls(system="lidarr", open=3, running=1, idle_seconds=0.2, closed_seconds=0, last_error=None)
COPY = Copy(category="job", last=7, head=7, missing_seconds=0.0)
READY = b'{"status":"ok","checks":{"postgres":{"status":"ok"}}}'
DEGRADED = b'{"status":"degraded","checks":{"redis":{"status":"degraded","detail":"gone"}}}'
AWAY = b'{"status":"unavailable","checks":{"postgres":{"status":"unavailable","detail":"gone"}}}'


def group(*, forked: bool = False, known: tuple[str, ...] = ("jobs",), **over: Any) -> Finding:  # noqa: ANN401 - any field
    """Judge a log with one group."""
    log = Log(
        unnumbered=Unnumbered(events=0, oldest_seconds=0), publisher=None,
        groups=[msgspec.structs.replace(GROUP, **over)], forked=["jobs"] if forked else [],
    )  # fmt: skip
    return diagnosis.groups(log, known)[-1]


def changed(what: Any, **over: Any) -> Any:  # noqa: ANN401 - a struct of any type
    """Return a struct with some fields changed."""
    return msgspec.structs.replace(what, **over)


def lidarr(**fields: Any) -> Finding:  # noqa: ANN401 - any field
    """Judge an answer of Lidarr."""
    return answers.lidarr(Answer(where="lidarr:8686", **fields))


def webhook(*, header: str = "", password: str = "", path: str = "/api/webhooks/lidarr", **flags: bool) -> Finding:
    """Judge a Lidarr with one webhook; "good" is a key of ours."""
    fields = {
        "url": f"http://kima:3006{path}",
        "password": password,
        "headers": [{"key": "x-webhook-secret", "value": header}],
    }
    body = {
        "id": 1, "name": "mine", "implementation": "Webhook",
        "fields": [{"name": name, "value": value} for name, value in fields.items()],
        **dict.fromkeys(lidarr_registration.NEEDED, True), **flags,
    }  # fmt: skip
    return answers.webhook([Whole(resource=msgspec.convert(body, Notification), body=body)], ["good"])


OK = [
    diagnosis.postgres_version(SERVER),
    diagnosis.durability(SERVER),
    diagnosis.durability(changed(SERVER, synchronous_commit="remote_apply")),
    diagnosis.clock(SERVER),
    diagnosis.connections(SERVER),
    *diagnosis.transactions([]),
    *diagnosis.transactions([TRANSACTION, changed(TRANSACTION, blocks=1)]),
    *diagnosis.transactions([changed(TRANSACTION, writes=False, age_seconds=900.0)]),
    diagnosis.migrations(Migrations(applied=7, waiting=[], unknown=[])),
    diagnosis.numbering(Unnumbered(events=0, oldest_seconds=0)),
    diagnosis.numbering(Unnumbered(events=500, oldest_seconds=0.2)),
    diagnosis.publisher(Holding(holder="host-1", epoch=3, left_seconds=2.0)),
    group(),
    group(lag_events=500, lag_seconds=1.0),
    *diagnosis.effects([]),
    *diagnosis.effects([CALLS, changed(CALLS, idle_seconds=900), changed(CALLS, closed_seconds=30.0, idle_seconds=90)]),
    diagnosis.redis_version(REDIS),
    diagnosis.eviction(REDIS),
    diagnosis.eviction(changed(REDIS, policy="")),
    diagnosis.memory(REDIS),
    diagnosis.memory(changed(REDIS, max_memory_bytes=10_000_000)),
    *diagnosis.streams([]),
    *diagnosis.streams([COPY]),
    *diagnosis.streams([changed(COPY, last=5, missing_seconds=0.3)]),
    diagnosis.folder(FOLDER),
    diagnosis.folder(changed(FOLDER, is_there=False)),
    diagnosis.disk(FOLDER),
    diagnosis.keys(FOLDER),
    answers.front_door(Answer(where="here:3006", status=200, body=READY)),
    answers.lidarr(None),
    lidarr(status=200, body=b'{"appName":"Lidarr","version":"2.9.6.4552","branch":"x"}'),
    webhook(header="good"),
    webhook(password="********"),
    answers.slskd(None),
    answers.slskd(Answer(where="slskd:5030", status=200, body=b'"0.24.1"')),
]
WARN = [
    (diagnosis.clock(changed(SERVER, clock_skew_seconds=-3.0)), "3.0 s behind", "NTP"),
    (diagnosis.connections(changed(SERVER, connections=90)), "90 of 97", "max_connections"),
    (*diagnosis.transactions([changed(TRANSACTION, age_seconds=31.0)]), "process 7 (psql)", "pg_terminate_backend(7)"),
    (
        *diagnosis.transactions([Transaction(pid=0, application="prepared transaction x", age_seconds=31.0,
                                             writes=True, blocks=0)]),
        "prepared transaction x", "ROLLBACK PREPARED",
    ),
    (diagnosis.migrations(Migrations(applied=7, waiting=[], unknown=["0099_x"])), "0099_x", "newer"),
    (group(known=("jobs", "other")), "never run", "kima-stream consume"),
    (group(parked_streams=2), "2 streams parked", "kima-stream dead-letters list --group jobs"),
    (group(lag_events=5, lag_seconds=11.0), "5 events behind", "kima-stream reconcile"),
    (
        *diagnosis.effects([changed(CALLS, closed_seconds=61.0, last_error="refused\x1b[2J")]),
        "lidarr does not answer for 61 s, 3 calls wait for it: refused\\x1b", "kima-stream effects --system lidarr",
    ),
    (diagnosis.memory(changed(REDIS, max_memory_bytes=5_100_000)), "5.0 MB of 5.1 MB", "maxmemory"),
    (diagnosis.disk(changed(FOLDER, free_bytes=900_000_000)), "0.9 GB free", "free some space"),
    (answers.front_door(Answer(where="here:3006", status=200, body=DEGRADED)), "redis: gone", "lines"),
    (answers.webhook([], ["good"]), "does not tell us", "kima-stream connect lidarr"),
    (webhook(header="good", path="/elsewhere"), "does not tell us", "kima-stream connect lidarr"),
    (webhook(header="good", onUpgrade=False), "does not send onUpgrade", "kima-stream connect lidarr"),
]  # fmt: skip
FAULT = [
    (diagnosis.postgres_version(changed(SERVER, version="14.9", version_number=140_009)), "14.9", "PostgreSQL 15"),
    (diagnosis.durability(changed(SERVER, fsync=False)), "fsync off", "fsync = on"),
    (diagnosis.durability(changed(SERVER, full_page_writes=False)), "full_page_writes off", "full_page_writes = on"),
    (diagnosis.durability(changed(SERVER, synchronous_commit="off")), "commit off", "synchronous_commit = on"),
    (
        *diagnosis.transactions([changed(TRANSACTION, writes=False, blocks=3, age_seconds=6.0)]),
        "3 of our connections wait", "pg_terminate_backend(7)",
    ),
    (diagnosis.migrations(Migrations(applied=0, waiting=["0001_a", "0002_b"], unknown=[])), "0001_a", "migrate"),
    (diagnosis.numbering(Unnumbered(events=10_000, oldest_seconds=11.0)), "10000 and more", "publisher"),
    (diagnosis.publisher(None), "nobody ever", "kima-stream publish"),
    (diagnosis.publisher(Holding(holder="h", epoch=1, left_seconds=-9.0)), "h did until 9 s ago", "kima-stream up"),
    (group(stopped=True, parked_streams=20), "stopped itself", "dead-letters list --group jobs"),
    (group(forked=True), "restored", "verify"),
    (group(lag_events=5, lag_seconds=61.0), "5 events behind, for 61 s", "kima-stream consume"),
    (*diagnosis.effects([changed(CALLS, closed_seconds=901.0)]), "for 901 s", "mend lidarr"),
    (*diagnosis.effects([changed(CALLS, running=0, idle_seconds=61.0)]), "nobody makes them, for 61 s", "consume"),
    (diagnosis.redis_version(changed(REDIS, name="Redis", version="6.2.14")), "Redis 6.2.14", "Redis 7"),
    (diagnosis.redis_version(changed(REDIS, is_replica=True)), "replica", "primary"),
    (diagnosis.eviction(changed(REDIS, policy="allkeys-lru")), "allkeys-lru", "noeviction"),
    (*diagnosis.streams([changed(COPY, last=9)]), "job ends at 9 in Redis, at 7 in the log", "database of its own"),
    (*diagnosis.streams([changed(COPY, last=5, missing_seconds=12.0)]), "for 12 s", "publisher"),
    (diagnosis.folder(changed(FOLDER, is_writable=False)), "cannot be written", "KIMA_DATA_DIR"),
    (diagnosis.disk(changed(FOLDER, free_bytes=1)), "0.0 GB free", "now"),
    (diagnosis.keys(changed(FOLDER, open_keys=(Path("kima/api_key"),))), "kima/api_key", "chmod 600 kima/api_key"),
    (answers.front_door(Answer(where="here:3006", error="refused")), "nobody answers on here:3006", "KIMA_PORT"),
    (answers.front_door(Answer(where="here:3006", status=404, body=b"<html>")), "not kima-stream", "KIMA_URL_BASE"),
    (answers.front_door(Answer(where="here:3006", status=503, body=AWAY)), "postgres: gone", "lines"),
    (lidarr(error="no answer within 5 s"), "no answer within 5 s", "LIDARR_URL"),
    (lidarr(status=401), "refuses our key", "Settings, General, Security"),
    (lidarr(status=302), "leads elsewhere", "URL base"),
    (lidarr(status=500), "is not lidarr", "LIDARR_URL"),
    (lidarr(status=200, body=b"<html>"), "is not lidarr", "LIDARR_URL"),
    (webhook(header="revoked"), "no key of ours", "kima-stream connect lidarr"),
    (answers.slskd(Answer(where="s", status=403)), "refuses our key", "SLSKD_API_KEY"),
    (answers.slskd(Answer(where="s", status=200, body=b"{}")), "is not slskd", "SLSKD_URL"),
]  # fmt: skip


@pytest.mark.parametrize("finding", OK, ids=lambda finding: finding.part)
def test_what_is_well_needs_nothing(finding: Finding) -> None:
    """One line, and nothing to do."""
    assert (finding.status, finding.fix) == ("ok", None)
    assert finding.says


@pytest.mark.parametrize(("finding", "says", "fix"), WARN, ids=lambda value: getattr(value, "part", ""))
def test_a_warning_says_what_and_what_to_do(finding: Finding, says: str, fix: str) -> None:
    """It is no fault, and has its remedy."""
    assert finding.status == "warn"
    assert says in finding.says
    assert fix in (finding.fix or "")


@pytest.mark.parametrize(("finding", "says", "fix"), FAULT, ids=lambda value: getattr(value, "part", ""))
def test_a_fault_says_what_and_what_to_do(finding: Finding, says: str, fix: str) -> None:
    """It names what is wrong and the next step."""
    assert finding.status == "fault"
    assert says in finding.says
    assert fix in (finding.fix or "")
    assert "\n" not in finding.says + (finding.fix or "")


def test_what_an_outside_server_says_moves_no_cursor() -> None:
    """A version is text of somebody else."""
    found = lidarr(status=200, body=b'{"appName":"Lidarr","version":"\\u001b[2J"}')

    assert "\x1b" not in found.says
