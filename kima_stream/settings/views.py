"""Settings as people see them: over HTTP and at the terminal the same, and no secret among them."""

from datetime import datetime
from typing import Final

import msgspec

from kima_stream.settings.definitions import DEFINITIONS, AnyDefinition
from kima_stream.settings.kinds import MASK, Json
from kima_stream.settings.store import Entry, Snapshot, Source


class SettingView(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: what is in force, from where, and who changed it last.

    A secret that is there is its mask; to send the mask back leaves it as it is. ``fault`` says why the
    value cannot be used. ``environment`` has the names that it has there, each also with ``_FILE``.
    """

    key: str
    value: Json
    source: Source
    fault: str | None
    changed_by: str | None
    changed_at: datetime | None
    kind: str
    is_secret: bool
    default: Json
    environment: tuple[str, ...]
    doc: str


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """All settings; ``version`` counts the changes, 0 before the first."""

    version: int
    settings: tuple[SettingView, ...]


def view(snapshot: Snapshot) -> SettingsView:
    """Return a snapshot for people."""
    return SettingsView(
        version=public_version(snapshot),
        settings=tuple(_setting(definition, snapshot.entries[key]) for key, definition in DEFINITIONS.items()),
    )


def public_version(snapshot: Snapshot) -> int:
    """Return how many changes there were."""
    return snapshot.version + 1


_ABSENT: Final = frozenset({None, ()})  # a secret that is not there has no mask


def _setting(definition: AnyDefinition, entry: Entry) -> SettingView:
    value = definition.to_json(entry.value)
    if definition.is_secret and (entry.fault is not None or entry.value not in _ABSENT):
        value = MASK
    return SettingView(
        key=definition.key,
        value=value,
        source=entry.source,
        fault=entry.fault,
        changed_by=entry.changed_by,
        changed_at=entry.changed_at,
        kind=definition.kind,
        is_secret=definition.is_secret,
        default=definition.to_json(definition.default),
        environment=definition.environment,
        doc=definition.doc,
    )
