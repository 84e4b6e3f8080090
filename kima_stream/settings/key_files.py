"""Keys in files of the data directory: made once, whole or not at all, and for their owner's eyes only."""

import os
import secrets
from pathlib import Path

_OTHERS = 0o077


def read(path: Path) -> str | None:
    """Return the key in ``path``, or None when there is none."""
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def is_open_to_others(path: Path) -> bool:
    """Say whether somebody but its owner may read or change the file."""
    return bool(path.stat().st_mode & _OTHERS)


def write_once(path: Path, key: str) -> str:
    """Write ``key`` where nobody else can read it; when another process was faster, return its key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)  # whole or not at all, and never over another's
    except FileExistsError:
        key = read(path) or key
    finally:
        draft.unlink()
    return key
