"""The settings in force: database before environment before default, at most a second old in every process.

``SettingsStore.current`` is a snapshot that never changes; the store looks at one row in Postgres a few
times a second and makes a new one when it moved. Redis has no part in it. A value that cannot be opened or
does not fit is a fault of that setting alone, and raises where it is used.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from time import monotonic
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec
import structlog

from kima_stream import logs, metrics
from kima_stream.database import Connection, Pool
from kima_stream.errors import ConfigurationError, SealError
from kima_stream.events import NO_STREAM, SettingValue
from kima_stream.settings import keyring
from kima_stream.settings.config import Settings
from kima_stream.settings.definitions import DEFINITIONS, AnyDefinition, needs
from kima_stream.settings.kinds import Definition
from kima_stream.settings.secrets import Keyring, Roots

STREAM: Final = "settings-global"
FRESH_SECONDS: Final = 1.0  # as old as they may be where a request is decided
POLL_SECONDS: Final = 0.3  # three looks within the second that a change may take
READ_SECONDS: Final = 5.0

Source: TypeAlias = Literal["database", "environment", "default"]
T = TypeVar("T")
_numbers = count(1)  # two stores of a process do not hide for each other
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where values come from besides the database, and what opens those that are sealed there."""

    environment: Mapping[str, object] = field(repr=False)
    roots: Roots
    original_key: str | None = field(default=None, repr=False)  # opens what the original sealed

    @classmethod
    def of(cls, settings: Settings) -> "Sources":
        """Return those of a configuration."""
        roots = Roots(given=settings.secret_key, previous=settings.secret_key_previous, data_dir=settings.data_dir)
        return cls(environment=settings.environment, roots=roots, original_key=settings.original_key)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One setting in force; ``fault`` says why there is no value. Who and when: also of a clearing."""

    value: object
    source: Source
    fault: str | None = None
    changed_by: str | None = None
    changed_at: datetime | None = None


class Snapshot:
    """All settings as of one version of their stream; -1 before anybody set one."""

    def __init__(self, version: int, entries: Mapping[str, Entry]) -> None:
        """Take an entry for each definition."""
        self.version = version
        self.entries = entries

    def __repr__(self) -> str:
        """Never show a value: this may end in a log."""
        return f"Snapshot({self.version})"

    def __getitem__(self, definition: Definition[T]) -> T:
        """Return a value.

        Raises:
            ConfigurationError: it cannot be opened or does not fit; it is not replaced by another.
        """
        entry = self.entries[definition.key]
        if entry.fault is not None:
            raise ConfigurationError([f"{definition.key}: {entry.fault}"])
        return entry.value  # type: ignore[return-value]  # it was checked against the definition

    def is_on(self, switch: Definition[bool | None]) -> bool:
        """Say whether a part is to be used: as somebody said, or else whether what it needs is there."""
        said = self[switch]
        return all(self[other] is not None for other in needs(switch)) if said is None else said

    def secrets(self) -> frozenset[str]:
        """Return what must never be in a log."""
        values = (self.entries[key].value for key, definition in DEFINITIONS.items() if definition.is_secret)
        return frozenset(
            text for value in values for text in (value if isinstance(value, tuple) else (value,)) if text is not None
        )


def snapshot(
    version: int, values: Mapping[str, SettingValue], ring: Keyring, environment: Mapping[str, object]
) -> Snapshot:
    """Return the settings in force: of the database's ``values``, else of the environment, else the defaults."""
    entries = {key: _entry(definition, values.get(key), ring, environment) for key, definition in DEFINITIONS.items()}
    return Snapshot(version, entries)


def sealed_name(key: str) -> str:
    """Return the name under which a setting is sealed."""
    return f"settings/{key}"


def _entry(
    definition: AnyDefinition, stored: SettingValue | None, ring: Keyring, environment: Mapping[str, object]
) -> Entry:
    by, at = (stored.changed_by, stored.changed_at) if stored is not None else (None, None)
    if stored is not None and (stored.value is not None or stored.sealed is not None):
        value, fault = _opened(definition, stored, ring)
        return Entry(value=value, source="database", fault=fault, changed_by=by, changed_at=at)
    if definition.key in environment:
        return Entry(value=environment[definition.key], source="environment", changed_by=by, changed_at=at)
    return Entry(value=definition.default, source="default", changed_by=by, changed_at=at)


def _opened(definition: AnyDefinition, stored: SettingValue, ring: Keyring) -> tuple[object, str | None]:
    try:
        value: object = stored.value
        if stored.sealed is not None:
            value = msgspec.json.decode(ring.open(sealed_name(definition.key), stored.sealed))
        return definition.from_json(value), None
    except SealError as error:
        return None, f"cannot be opened: {error.reason}; set it again"
    except ValueError as error:  # an older version let it in
        return None, str(error)


class _State(msgspec.Struct, frozen=True):
    values: dict[str, SettingValue]


# Any write of the row gives it another xmin: also one that nobody should have made is seen at once.
_SELECT_WRITTEN: Final = "SELECT xmin::text FROM settings WHERE stream = $1 AND version >= 0"
_SELECT_SETTINGS: Final = "SELECT version, state FROM settings WHERE stream = $1 AND version >= 0"


async def read(conn: Connection, sources: Sources) -> Snapshot:
    """Return the settings in force now.

    Raises:
        OUTAGE: Postgres is away.
    """
    row = await conn.fetchrow(_SELECT_SETTINGS, STREAM, timeout=READ_SECONDS)
    if row is None:
        return snapshot(NO_STREAM, {}, Keyring({}), sources.environment)
    state = msgspec.json.decode(row["state"], type=_State)
    return snapshot(row["version"], state.values, await keyring.load(conn, sources.roots), sources.environment)


class SettingsStore:
    """What each role holds: ``current``, and the loop that keeps it so."""

    def __init__(self, pool: Pool, sources: Sources) -> None:
        """Read nothing yet: until ``loaded`` the environment and the defaults are in force."""
        self._pool = pool
        self.sources = sources
        self._changed = asyncio.Event()
        self._read_at = -FRESH_SECONDS
        self._reading: asyncio.Task[Snapshot] | None = None
        self._loaded = asyncio.Event()
        self._written: str | None = None
        self._current = snapshot(NO_STREAM, {}, Keyring({}), sources.environment)
        self._hidden_as = f"settings {next(_numbers)}"
        logs.hide(self._hidden_as, self._current.secrets())

    @property
    def current(self) -> Snapshot:
        """Return the settings in force; take it once for a piece of work, so that they fit each other."""
        return self._current

    async def loaded(self) -> Snapshot:
        """Wait until the database was read once: whoever acts outside must not act on half of the settings."""
        await self._loaded.wait()
        return self._current

    async def changed(self, since: int) -> Snapshot:
        """Wait until the settings are of another version than ``since``."""
        while self._current.version == since:
            await self._changed.wait()
        return self._current

    async def refresh(self) -> Snapshot:
        """Read the database if it moved; return what is in force now.

        Raises:
            OUTAGE: Postgres is away; what was in force stays so.
        """
        began = monotonic()
        async with self._pool.acquire(timeout=READ_SECONDS) as conn:
            written = await conn.fetchval(_SELECT_WRITTEN, STREAM, timeout=READ_SECONDS)
            # No row where there was one: the table is being built anew from the log.
            if not self._loaded.is_set() or written not in {None, self._written}:
                self._take(await read(conn, self.sources))
                self._written = written  # from before the reading: what was written since is read again
        self._read_at = began
        return self._current

    async def fresh(self) -> Snapshot:
        """Return settings that are a second old at most; whoever asks at the same moment shares one reading.

        Raises:
            OUTAGE: Postgres is away.
        """
        if monotonic() - self._read_at > FRESH_SECONDS:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self.refresh())
            # Shielded: one caller that gives up must not fail those who wait with it.
            await asyncio.shield(self._reading)
        return self._current

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Refresh for ever; while that fails, whatever it is, the last settings stay in force."""
        was_away = False
        while True:
            try:
                await self.refresh()
                was_away = False
            except Exception as error:  # noqa: BLE001 - a loop that ends would leave the process with old settings
                if not was_away:
                    log.warning("settings_not_read", error_type=type(error).__name__, detail=str(error))
                was_away = True
            await sleep(POLL_SECONDS)

    @asynccontextmanager
    async def following(self) -> AsyncIterator["SettingsStore"]:
        """Run beside the body."""
        task = asyncio.create_task(self.run(), name="settings")
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _take(self, fresh: Snapshot) -> None:
        self._current = fresh
        logs.hide(self._hidden_as, fresh.secrets())
        _count(fresh)
        for key, entry in fresh.entries.items():
            if entry.fault is not None:
                log.error("setting_not_usable", setting=key, fault=entry.fault)
        if self._loaded.is_set():
            log.info("settings_taken", version=fresh.version)
        self._loaded.set()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _count(fresh: Snapshot) -> None:
    """Say in the figures what is in force: numbers and switches, which are never secret."""
    metrics.settings_version.set(fresh.version + 1)
    metrics.setting.clear()
    for key, entry in fresh.entries.items():
        if isinstance(entry.value, int) and not DEFINITIONS[key].is_secret:  # True and False are numbers too
            metrics.setting.labels(key=key).set(entry.value)
