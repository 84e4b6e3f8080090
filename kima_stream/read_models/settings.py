"""Table ``settings``: one row, the fold of ``settings-global``; and how it is changed.

A change locks the row, so changes and rotations come one after the other; it is one event, appended and
folded in the caller's transaction, and every process sees it by the row's version.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from kima_stream import projector
from kima_stream.database import Connection
from kima_stream.errors import ConfigurationError, SealError, WrongExpectedVersionError
from kima_stream.events import Event, SettingsChanged, SettingsKeyRotated, SettingValue, new_event
from kima_stream.projector import Projection, Row
from kima_stream.read_models.table import Table
from kima_stream.settings import definitions, keyring, original, store, subject_keys
from kima_stream.settings.definitions import DEFINITIONS
from kima_stream.settings.secrets import Keyring
from kima_stream.settings.store import STREAM, Snapshot, Sources, sealed_name
from projections import settings
from projections.settings import Settings

TABLE: Final = Table("settings", Settings, columns=("key_id",))
PROJECTION: Final = Projection(
    name="settings", category="settings", initial=settings.INITIAL, apply=settings.apply, read_model=TABLE
)


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation did: the new data key, and the secrets sealed with it or given up, by their keys.

    ``persons_given_up``: so many have a new key; their names and notes of before cannot be read any more.
    """

    key_id: str
    resealed: tuple[str, ...]
    given_up: tuple[str, ...]
    persons_given_up: int = 0


async def change(
    conn: Connection,
    sources: Sources,
    changes: Mapping[str, object],
    *,
    by: str,
    expected_version: int | None = None,
    correlation_id: str | None = None,
) -> Snapshot:
    """Set what ``changes`` says, all or nothing, and return the settings in force.

    Args:
        conn: a transaction is opened in it.
        sources: the environment's values, and the roots that secrets hang on.
        changes: JSON by key; None clears, the mask leaves a secret as it is.
        by: who asks, an opaque id.
        expected_version: version seen last, -1 before the first change; None takes any.
        correlation_id: that of the request.

    Raises:
        ConfigurationError: with every fault; nothing was changed.
        WrongExpectedVersionError: somebody else was faster.
    """
    faults: list[str] = []
    asked = read_changes(changes, sources, faults)
    async with conn.transaction():
        row = await projector.load(conn, PROJECTION, STREAM)
        if expected_version not in {None, row.version}:
            raise WrongExpectedVersionError(
                stream=STREAM, expected_version=expected_version or 0, actual_version=row.version
            )
        ring = await keyring.load(conn, sources.roots)
        before = store.snapshot(row.version, row.state.values, ring, sources.environment)
        touched = {key: value for key, value in asked.items() if not _is_as_before(key, value, before, row.state)}
        merged = merge(before, touched, sources)
        if faults := [*faults, *definitions.contradictions(merged, touched)]:
            raise ConfigurationError(faults)
        if touched:
            fact = await _changed(conn, sources, touched, by)
            row = await _append(conn, row, [fact], correlation_id)
            ring = await keyring.load(conn, sources.roots)
        return store.snapshot(row.version, row.state.values, ring, sources.environment)


def read_changes(changes: Mapping[str, object], sources: Sources, faults: list[str]) -> dict[str, object]:
    """Return the values of ``changes`` that fit, and in ``faults`` why the others do not.

    A secret may be as the original sealed it: it is opened here.
    """
    values = definitions.parse(changes, faults)
    for key, value in list(values.items()):
        if DEFINITIONS[key].is_secret and isinstance(value, str):
            try:
                plain = original.opened(key, value, sources.original_key)
                values[key] = value if plain == value else DEFINITIONS[key].from_json(plain)
            except SealError as error:
                faults.append(f"{key}: {error.reason}")
            except ValueError as error:
                faults.append(f"{key}: {error}")
    return values


def merge(before: Snapshot, values: Mapping[str, object], sources: Sources) -> dict[str, object]:
    """Return all values as they would be after ``values``: None clears, the mask changes nothing."""
    merged = {key: entry.value for key, entry in before.entries.items()}
    for key, value in values.items():
        definition = DEFINITIONS[key]
        if value is None:
            merged[key] = sources.environment.get(key, definition.default)
        elif not definitions.is_mask(definition, value):
            merged[key] = value
    return merged


class Trial(msgspec.Struct, frozen=True):
    """All values as they would be, and which of them were given."""

    values: Mapping[str, object]
    given: frozenset[str]


def trial(changes: Mapping[str, object], current: Snapshot, sources: Sources) -> Trial:
    """Return what ``changes`` would make of the ``current`` settings; nothing is saved.

    Raises:
        ConfigurationError: all that does not fit.
    """
    faults: list[str] = []
    values = read_changes(changes, sources, faults)
    if faults:
        raise ConfigurationError(faults)
    given = {key for key, value in values.items() if value is not None}
    kept = {key for key in given if definitions.is_mask(DEFINITIONS[key], values[key])}
    return Trial(merge(current, values, sources), frozenset(given - kept))


def _is_as_before(key: str, value: object, before: Snapshot, state: Settings) -> bool:
    entry, stored = before.entries[key], state.values.get(key)
    if value is None:
        return stored is None or (stored.value is None and stored.sealed is None)
    if definitions.is_mask(DEFINITIONS[key], value):
        return True
    return entry.source == "database" and entry.fault is None and entry.value == value


async def _changed(conn: Connection, sources: Sources, touched: Mapping[str, object], by: str) -> SettingsChanged:
    now = datetime.now(UTC)
    secret = any(DEFINITIONS[key].is_secret and value is not None for key, value in touched.items())
    ring = await keyring.load_to_seal(conn, sources.roots) if secret else None
    changes: dict[str, SettingValue] = {}
    for key, value in touched.items():
        definition = DEFINITIONS[key]
        plain = None if value is None else definition.to_json(value)
        if definition.is_secret and plain is not None and ring is not None:
            sealed = ring.seal(sealed_name(key), msgspec.json.encode(plain).decode())
            changes[key] = SettingValue(sealed=sealed, changed_by=by, changed_at=now)
        else:
            changes[key] = SettingValue(value=plain, changed_by=by, changed_at=now)
    return SettingsChanged(changes=changes)


async def rotate_key(
    conn: Connection, sources: Sources, *, by: str, give_up_lost: bool = False, correlation_id: str | None = None
) -> Rotated:
    """Make a new data key and seal every secret with it; all in one transaction.

    Data keys that hang on the previous root are wrapped by the one in force, so that one can be given up.
    ``give_up_lost`` clears the secrets that cannot be opened, as when their root was lost, and gives new keys to
    persons whose keys cannot. The keys of persons are wrapped with the new data key; what they sealed stays as it is.

    Raises:
        ConfigurationError: a root is missing, or secrets cannot be opened: all are named, nothing was changed.
    """
    async with conn.transaction():
        row = await projector.load(conn, PROJECTION, STREAM)
        try:
            await keyring.rewrap(conn, sources.roots, give_up_lost=give_up_lost)
        except SealError as error:
            raise ConfigurationError([str(error)]) from None
        ring = await keyring.add(conn, sources.roots)
        faults: dict[str, str] = {}
        sealed = _resealed(row.state, ring, faults)
        if faults and not give_up_lost:
            raise ConfigurationError([f"{key}: cannot be opened: {why}; set it again" for key, why in faults.items()])
        persons = await subject_keys.rewrap(conn, ring, give_up_lost=give_up_lost)
        facts: list[Event] = [SettingsKeyRotated(key_id=ring.current or "", sealed=sealed, changed_by=by)]
        if faults:
            cleared = SettingValue(changed_by=by, changed_at=datetime.now(UTC))
            facts.append(SettingsChanged(changes=dict.fromkeys(faults, cleared)))
        await _append(conn, row, facts, correlation_id)
        return Rotated(
            key_id=ring.current or "", resealed=tuple(sealed), given_up=tuple(faults), persons_given_up=persons
        )


def _resealed(state: Settings, ring: Keyring, faults: dict[str, str]) -> dict[str, str]:
    """Return every secret sealed with the newest key, and in ``faults`` why some cannot be opened."""
    sealed: dict[str, str] = {}
    for key, stored in state.values.items():
        if stored.sealed is not None:
            try:
                sealed[key] = ring.seal(sealed_name(key), ring.open(sealed_name(key), stored.sealed))
            except SealError as error:
                faults[key] = error.reason
    return sealed


async def _append(
    conn: Connection, row: Row[Settings], facts: Sequence[Event], correlation_id: str | None
) -> Row[Settings]:
    return await projector.decide(
        conn, PROJECTION, row, [new_event(fact, correlation_id=correlation_id) for fact in facts]
    )
