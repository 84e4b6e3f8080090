"""What was set while running: the newest value per setting, secrets as they were sealed."""

from collections.abc import Mapping
from typing import Final

import msgspec

from kima_stream.events import Event, SettingsChanged, SettingsKeyRotated, SettingValue


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings that somebody touched, by key, the cleared ones too; ``key_id`` is of the newest data key used."""

    values: Mapping[str, SettingValue] = {}
    key_id: str | None = None


INITIAL: Final = Settings()


def apply(state: Settings, event: Event) -> Settings:
    """Return the settings after ``event``."""
    match event:
        case SettingsChanged():
            return msgspec.structs.replace(state, values={**state.values, **event.changes})
        case SettingsKeyRotated():
            resealed = {
                key: msgspec.structs.replace(state.values[key], sealed=sealed)
                for key, sealed in event.sealed.items()
                if key in state.values
            }
            return Settings(values={**state.values, **resealed}, key_id=event.key_id)
        case _:
            return state
