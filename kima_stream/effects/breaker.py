"""The breaker of each outside system: when it does not answer, few ask whether it does again.

closed -> (OPEN_AFTER_FAILURES in a row) -> open -> (probe_at) -> half open: one call, the probe -> closed, or open
for longer. A state and pure steps; the rows of ``effect_breakers`` hold it for all processes.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

import asyncpg
import msgspec
import structlog
from msgspec.structs import replace

from kima_stream.database import Connection

OPEN_AFTER_FAILURES: Final = 5
FIRST_PROBE_SECONDS: Final = 2.0
LONGEST_PROBE_SECONDS: Final = 30.0
_MOST_DOUBLINGS: Final = 8

State: TypeAlias = Literal["closed", "open", "half_open"]
log = structlog.get_logger(__name__)


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one system; ``failures`` in a row, ``probes`` since it opened."""

    system: str
    failures: int = 0
    opened_at: datetime | None = None
    probe_at: datetime | None = None
    probes: int = 0
    last_error: str | None = None

    def state(self, now: datetime) -> State:
        """Return whether its system may be called: closed by all, half open by one, open by nobody."""
        if self.opened_at is None or self.probe_at is None:
            return "closed"
        return "half_open" if now >= self.probe_at else "open"


def failed(breaker: Breaker, error: str, now: datetime) -> Breaker:
    """Return the breaker after the system did not answer."""
    after = replace(breaker, failures=breaker.failures + 1, last_error=error)
    if breaker.opened_at is None and after.failures >= OPEN_AFTER_FAILURES:
        return replace(after, opened_at=now, probe_at=now + _wait(0), probes=0)
    return after


def probed(breaker: Breaker, now: datetime) -> Breaker:
    """Return the breaker when a probe begins: if it does not close it, the next one comes later."""
    if breaker.opened_at is None:
        return breaker
    return replace(breaker, probes=breaker.probes + 1, probe_at=now + _wait(breaker.probes + 1))


def answered(breaker: Breaker) -> Breaker:
    """Return the breaker after the system answered, whatever it said."""
    return Breaker(system=breaker.system)


def _wait(probes: int) -> timedelta:
    return timedelta(seconds=min(FIRST_PROBE_SECONDS * 2 ** min(probes, _MOST_DOUBLINGS), LONGEST_PROBE_SECONDS))


_COLUMNS: Final = "system, failures, opened_at, probe_at, probes, last_error"
_READ = f"""
    SELECT {_COLUMNS}, coalesce($2, clock_timestamp()) AS now
      FROM effect_breakers
     WHERE $1::text[] IS NULL OR system = ANY ($1)
     ORDER BY system
"""  # noqa: S608 - a constant


async def read(
    conn: Connection, systems: Sequence[str] | None = None, *, now: datetime | None = None
) -> list[tuple[Breaker, State]]:
    """Return the breakers of ``systems``, or all; a system that never failed has none."""
    rows = await conn.fetch(_READ, None if systems is None else list(systems), now)
    return [(breaker := _breaker(row), breaker.state(row["now"])) for row in rows]


_INSERT = "INSERT INTO effect_breakers (system) VALUES ($1) ON CONFLICT DO NOTHING"
_LOCK = f"""
    SELECT {_COLUMNS}, coalesce($2, clock_timestamp()) AS now FROM effect_breakers WHERE system = $1 FOR UPDATE
"""  # noqa: S608 - a constant
_WRITE = """
    UPDATE effect_breakers
       SET failures = $2, opened_at = $3, probe_at = $4, probes = $5, last_error = $6
     WHERE system = $1
"""


async def record_failure(conn: Connection, system: str, error: str, *, now: datetime | None) -> None:
    """Count that ``system`` did not answer."""
    async with conn.transaction():
        await conn.execute(_INSERT, system)
        before, after = await _step(conn, system, now, lambda breaker, at: failed(breaker, error, at))
    if before.opened_at is None and after.opened_at is not None:
        log.warning("breaker_opened", system=system, failures=after.failures, error=error)


_IS_WELL = "SELECT NOT EXISTS (SELECT FROM effect_breakers WHERE system = $1 AND failures > 0)"


async def record_answer(conn: Connection, system: str) -> bool:
    """Note that ``system`` answered; return whether that closed its breaker."""
    if await conn.fetchval(_IS_WELL, system):
        return False
    async with conn.transaction():
        before, _ = await _step(conn, system, None, lambda breaker, _: answered(breaker))
    if before.opened_at is not None:
        log.info("breaker_closed", system=system, probes=before.probes)
    return before.opened_at is not None


async def lock_for_probe(conn: Connection, system: str, *, now: datetime | None) -> bool:
    """Lock the breaker inside the caller's transaction; return whether a probe is due."""
    row = await conn.fetchrow(_LOCK, system, now)
    return row is not None and _breaker(row).state(row["now"]) == "half_open"


async def record_probe(conn: Connection, system: str, *, now: datetime | None) -> None:
    """Note that a probe begins; who looks from now on waits for the next one."""
    await _step(conn, system, now, probed)


async def _step(
    conn: Connection, system: str, now: datetime | None, step: Callable[[Breaker, datetime], Breaker]
) -> tuple[Breaker, Breaker]:
    row = await conn.fetchrow(_LOCK, system, now)
    assert row is not None  # noqa: S101 - never deleted
    before = _breaker(row)
    after = step(before, row["now"])
    await conn.execute(_WRITE, system, after.failures, after.opened_at, after.probe_at, after.probes, after.last_error)
    return before, after


def _breaker(row: asyncpg.Record) -> Breaker:
    return Breaker(**{name: row[name] for name in Breaker.__struct_fields__})
