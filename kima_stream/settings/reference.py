"""``docs/settings.md``: the table of the settings for people, made from the definitions.

``make docs`` writes it; a test says when it is out of date.
"""

import sys
from typing import Final

from kima_stream.settings.definitions import DEFINITIONS, AnyDefinition

_HEAD: Final = """\
# Settings

What integrations and policies go by. Each comes from the database, or else from the environment, or else it has its
default; `GET /api/settings` and `kima-stream settings list` say which. A change (`PUT /api/settings`, `kima-stream
settings set`) is an event, and in force in every process within a second, without restart and without Redis; clearing
(`null`, `--clear`) falls back. All faults of a change come at once, and then nothing is changed.

🔒 marks secrets: sealed in the database (AES-256-GCM), shown as `********`, hidden in logs. The mask sent back keeps a
secret as it is. Every name of the environment also exists with `_FILE`, for the path of a file that holds the value.
Secrets of the original (`hex:hex`) are opened, in the environment and in every change, when `KIMA_ORIGINAL_KEY` or
`SETTINGS_ENCRYPTION_KEY` is given. What a process needs before it reaches the database is in the
[README](../README.md#settings).

This page is made from the definitions: `make docs`.

| setting | type | default | environment | what |
|---|---|---|---|---|
"""


def markdown() -> str:
    """Return the page."""
    return _HEAD + "".join(map(_line, DEFINITIONS.values()))


def _line(definition: AnyDefinition) -> str:
    lock = " 🔒" if definition.is_secret else ""
    value = definition.to_json(definition.default)
    default = "none" if value in (None, []) else f"`{value}`"
    kind = definition.kind.replace("|", "\\|")
    names = ", ".join(f"`{name}`" for name in definition.environment)
    return f"| `{definition.key}`{lock} | {kind} | {default} | {names} | {definition.doc} |\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
