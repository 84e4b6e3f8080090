"""What ``doctor`` makes of the facts: pure, one function per check, each finding with what to do next.

A fault means: something is lost, stands still or is open to others unless a person acts. A warning
may heal by itself, or is a matter of taste until it is not.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from kima_stream.checkpoints import GroupStatus
from kima_stream.cli.facts import Calls, Log, Migrations, Server, Transaction
from kima_stream.cli.surroundings import Folder, Redis
from kima_stream.cli.text import plain
from kima_stream.leases import Holding
from kima_stream.numbering import MAX_COUNTED, Unnumbered

Status = Literal["ok", "warn", "fault"]

OLDEST_POSTGRES: Final = 150_000  # NULLS NOT DISTINCT
OLDEST_REDIS: Final = 7
CLOCK_SECONDS: Final = 2.0
FREE_CONNECTIONS: Final = 10  # what one more role may open
BLOCKED_SECONDS: Final = 5.0  # beyond the longest lock of ours
TRANSACTION_SECONDS: Final = 30.0
LAG_SECONDS: Final = 10.0  # beyond what a restart takes: nobody numbers, publishes or handles
GROUP_FAULT_SECONDS: Final = 60.0
CLOSED_SECONDS: Final = 60.0  # a restart of the other side is shorter
CLOSED_FAULT_SECONDS: Final = 900.0
IDLE_SECONDS: Final = 60.0
FULL_MEMORY: Final = 0.9
LITTLE_DISK_BYTES: Final = 1_000_000_000
NO_DISK_BYTES: Final = 200_000_000


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what was looked at, how it is, and what to do next unless it is ok."""

    part: str
    status: Status
    says: str
    fix: str | None = None


def ok(part: str, says: str) -> Finding:
    """Return that all is well."""
    return Finding(part=part, status="ok", says=says)


def warn(part: str, says: str, fix: str) -> Finding:
    """Return what a person should know."""
    return Finding(part=part, status="warn", says=says, fix=fix)


def fault(part: str, says: str, fix: str) -> Finding:
    """Return what a person must mend."""
    return Finding(part=part, status="fault", says=says, fix=fix)


def postgres_version(server: Server) -> Finding:
    """Judge whether our SQL runs on it."""
    if server.version_number < OLDEST_POSTGRES:
        return fault("postgres", f"{server.version} is too old", "use PostgreSQL 15 or newer")
    return ok("postgres", f"PostgreSQL {server.version}")


def durability(server: Server) -> Finding:
    """Judge whether what was acknowledged survives a crash of the machine."""
    off = [name for name in ("fsync", "full_page_writes") if not getattr(server, name)]
    if server.synchronous_commit == "off":
        off.append("synchronous_commit")
    if off:
        settings = ", ".join(f"{name} = on" for name in off)
        return fault("durability", f"{', '.join(off)} off: a crash loses acknowledged events", f"set {settings}")
    return ok("durability", f"fsync on, synchronous_commit {server.synchronous_commit}")


def clock(server: Server) -> Finding:
    """Judge how far the database's clock, which times all events, is from this machine's."""
    skew = server.clock_skew_seconds
    if abs(skew) > CLOCK_SECONDS:
        said = f"Postgres' clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
        return warn("clock", said, "let NTP set both clocks")
    return ok("clock", f"within {CLOCK_SECONDS:.0f} s of Postgres'")


def connections(server: Server) -> Finding:
    """Judge whether another role finds a connection."""
    free = server.connection_limit - server.connections
    said = f"{server.connections} of {server.connection_limit} connections are taken"
    if free < FREE_CONNECTIONS:
        return warn("connections", said, "raise max_connections, or end what does not need its own")
    return ok("connections", said)


def transactions(found: Sequence[Transaction]) -> list[Finding]:
    """Judge who is in the way: a writer delays the numbers of its own events, a lock delays everybody."""
    findings = []
    for one in found:
        who = f"process {one.pid} ({one.application or 'no name'})" if one.pid else one.application
        end = f"end it, or: SELECT pg_terminate_backend({one.pid})" if one.pid else "commit it, or: ROLLBACK PREPARED"
        if one.blocks and one.age_seconds > BLOCKED_SECONDS:
            said = f"{who} has held a lock for {one.age_seconds:.0f} s, {one.blocks} of our connections wait for it"
            findings.append(fault("transactions", said, end))
        elif one.writes and one.age_seconds > TRANSACTION_SECONDS:
            said = f"{who} has not committed for {one.age_seconds:.0f} s: what it appended has no number until then"
            findings.append(warn("transactions", said, end))
    return findings or [ok("transactions", "nobody holds numbering back")]


def migrations(found: Migrations) -> Finding:
    """Judge whether the tables are those of this version."""
    if found.waiting:
        said = f"{len(found.waiting)} not applied, first {found.waiting[0]}"
        return fault("migrations", said, "run: kima-stream migrate")
    if found.unknown:
        said = f"the database has {found.unknown[-1]}, which this version does not know"
        return warn("migrations", said, "run the version of kima-stream that made it, or a newer one")
    return ok("migrations", f"all {found.applied} applied")


def numbering(found: Unnumbered) -> Finding:
    """Judge whether events get their numbers."""
    if not found.events:
        return ok("numbering", "no event waits for its number")
    count = f"{MAX_COUNTED} and more" if found.events >= MAX_COUNTED else str(found.events)
    said = f"{count} events wait for their number, the oldest for {found.oldest_seconds:.1f} s"
    if found.oldest_seconds > LAG_SECONDS:
        return fault("numbering", said, "see publisher and transactions")
    return ok("numbering", said)


def publisher(found: Holding | None) -> Finding:
    """Judge whether somebody leads."""
    fix = "start kima-stream up, or kima-stream publish"
    if found is None:
        return fault("publisher", "nobody ever numbered and published this log", fix)
    if found.left_seconds < 0:
        return fault("publisher", f"nobody leads; {found.holder} did until {-found.left_seconds:.0f} s ago", fix)
    return ok("publisher", f"{found.holder} leads, epoch {found.epoch}")


def groups(log: Log, known: Sequence[str]) -> list[Finding]:
    """Judge every consumer group: those that ran, and those of this version that never did."""
    findings = [_group(group, is_forked=group.name in log.forked) for group in log.groups]
    never = sorted(set(known) - {group.name for group in log.groups})
    fix = "start kima-stream up, or kima-stream consume"
    return findings + [warn(f"group {name}", "has never run", fix) for name in never]


def _group(group: GroupStatus, *, is_forked: bool) -> Finding:
    part = f"group {group.name}"
    if is_forked:
        said = f"the log at position {group.verified_position} is not the one it verified: Postgres was restored"
        return fault(part, said, "stop all roles, see kima-stream verify, then kima-stream replay … --apply")
    if group.stopped:
        said = f"has stopped itself, {group.parked_streams} streams parked"
        return fault(part, said, f"mend what kima-stream dead-letters list --group {group.name} shows; it tries again")
    lag = f"{group.lag_events} events behind, for {group.lag_seconds:.0f} s"
    running = "are kima-stream consume and kima-stream reconcile running?"
    if group.lag_events and group.lag_seconds > GROUP_FAULT_SECONDS:
        return fault(part, lag, running)
    if group.parked_streams:
        said = f"{group.parked_streams} streams parked"
        return warn(part, said, f"kima-stream dead-letters list --group {group.name}, then revive or discard")
    if group.lag_events and group.lag_seconds > LAG_SECONDS:
        return warn(part, lag, running)
    return ok(part, f"verified to position {group.verified_position}")


def effects(found: Sequence[Calls]) -> list[Finding]:
    """Judge what waits to be called: whether the other side answers, and whether anybody calls."""
    findings = []
    for one in found:
        if one.closed_seconds > CLOSED_SECONDS:
            said = f"{one.system} does not answer for {one.closed_seconds:.0f} s, {one.open} calls wait for it"
            said += f": {plain(one.last_error)}" if one.last_error else ""
            judge = fault if one.closed_seconds > CLOSED_FAULT_SECONDS else warn
            fix = f"mend {one.system}, they go on by themselves; see kima-stream effects --system {one.system}"
            findings.append(judge("effects", said, fix))
        elif one.idle_seconds > IDLE_SECONDS and not one.running and not one.closed_seconds:
            said = f"{one.open} calls to {one.system} wait and nobody makes them, for {one.idle_seconds:.0f} s"
            findings.append(fault("effects", said, f"start what speaks with {one.system}: kima-stream up, or consume"))
    return findings or [ok("effects", f"{sum(one.open for one in found)} calls wait, none of them for long")]


def redis_version(found: Redis) -> Finding:
    """Judge whether it has the commands we use, and takes writes."""
    said = f"{found.name} {found.version}"
    if int(found.version.partition(".")[0]) < OLDEST_REDIS:
        return fault("redis", f"{said} is too old", "use Redis 7, or Valkey")
    if found.is_replica:
        return fault("redis", f"{said} is a replica and takes no writes", "set KIMA_REDIS_URL to the primary")
    return ok("redis", said)


def eviction(found: Redis) -> Finding:
    """Judge whether it may throw entries away that nobody has read."""
    if found.policy and found.policy != "noeviction":
        said = f"maxmemory-policy is {found.policy}: it may throw away a whole stream"
        return fault("eviction", said, "redis-cli config set maxmemory-policy noeviction, and in its configuration")
    return ok("eviction", f"maxmemory-policy {found.policy or 'unknown'}")


def memory(found: Redis) -> Finding:
    """Judge whether it is about to be full."""
    used = f"{found.memory_bytes / 1e6:.1f} MB"
    if not found.max_memory_bytes:
        return ok("memory", f"{used} used, no limit")
    said = f"{used} of {found.max_memory_bytes / 1e6:.1f} MB used"
    if found.memory_bytes > FULL_MEMORY * found.max_memory_bytes:
        return warn("memory", said, "raise its maxmemory, or lower KIMA_REDIS_MAX_ENTRIES")
    return ok("memory", said)


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A category in Redis beside the log: newest positions, and since when the first missing event is missing."""

    category: str
    last: int
    head: int
    missing_seconds: float  # 0 when none is


def streams(copies: Sequence[Copy]) -> list[Finding]:
    """Judge whether Redis is a copy of this log, up to its head."""
    findings = []
    for copy in copies:
        said = f"{copy.category} ends at {copy.last} in Redis, at {copy.head} in the log"
        if copy.last > copy.head:
            fix = "give each log a Redis database of its own; the publisher makes this one anew"
            findings.append(fault("streams", f"{said}: another log's", fix))
        elif copy.missing_seconds > LAG_SECONDS:
            findings.append(fault("streams", f"{said}, for {copy.missing_seconds:.0f} s", "see publisher"))
    return findings or [ok("streams", f"{len(copies)} categories up to the log's head")]


def folder(found: Folder) -> Finding:
    """Judge whether keys and servers' data can be written."""
    if not found.is_writable:
        fix = "set KIMA_DATA_DIR to a folder of this user, or change its owner"
        return fault("data folder", f"{found.path} cannot be written", fix)
    return ok("data folder", f"{found.path}" + ("" if found.is_there else " will be made"))


def disk(found: Folder) -> Finding:
    """Judge whether there is room where the data folder lies."""
    said = f"{found.free_bytes / 1e9:.1f} GB free"
    if found.free_bytes < NO_DISK_BYTES:
        return fault("disk", said, "free some space now: a full disk stops Postgres")
    if found.free_bytes < LITTLE_DISK_BYTES:
        return warn("disk", said, "free some space")
    return ok("disk", said)


def keys(found: Folder) -> Finding:
    """Judge whether the key files are for their owner's eyes only."""
    if found.open_keys:
        names = " ".join(str(path) for path in found.open_keys)
        return fault("key files", f"others may read {names}", f"chmod 600 {names}, and make new keys")
    return ok("key files", "for their owner's eyes only")
