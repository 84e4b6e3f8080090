"""What admins decide while everything runs."""

from datetime import datetime

import msgspec

from kima_stream.events.shapes import Event


class SettingValue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One setting as somebody left it: ``value`` in clear, or ``sealed`` when it is a secret; neither when cleared."""

    value: bool | int | str | list[str] | None = None
    sealed: str | None = None
    changed_by: str
    changed_at: datetime


class SettingsChanged(Event, frozen=True, kw_only=True, tag="settings.changed"):
    """An admin set or cleared settings, by key. Source: ``PUT /api/settings``, ``kima-stream settings``."""

    changes: dict[str, SettingValue]


class SettingsKeyRotated(Event, frozen=True, kw_only=True, tag="settings.key_rotated"):
    """A new data key seals from here on; ``sealed`` has the same secrets as before, sealed with it."""

    key_id: str
    sealed: dict[str, str]
    changed_by: str
