"""How figures are shown."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line: what, how much, and what it should be."""

    name: str
    value: float
    unit: str
    goal: str = ""


def machine() -> str:
    """Return what was measured on."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table of Markdown."""
    lines = ["| what | measured | goal |", "|---|---|---|"]
    for figure in figures:
        value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.2f}"
        lines.append(f"| {figure.name} | {value} {figure.unit} | {figure.goal} |")
    return "\n".join(lines)
