"""What processes compute: the measure that a busy machine spoils least."""

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def seconds(pid: int) -> float:
    """Return the time that a process has computed, in user and system mode."""
    return _read(pid)[1]


def seconds_with_children(pid: int) -> float:
    """Return the same of a process, its children of now, and those that are over: e.g. of a PostgreSQL."""
    total = 0.0
    for each in _pids():
        try:
            parent, own, gone = _read(each)
        except OSError:
            continue  # it has just ended, and counts for its parent
        if each == pid:
            total += own + gone
        elif parent == pid:
            total += own
    return total


def _pids() -> Iterable[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _read(pid: int) -> tuple[int, float, float]:
    """Return the parent's pid, the seconds computed, and those of children that are over."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    user, system, child_user, child_system = (int(field) / _TICKS for field in fields[11:15])
    return int(fields[1]), user + system, child_user + child_system
