"""Interleaved rounds: who is compared is measured in turn, so that what else the machine does hits all alike."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

ROUNDS = 5

# Gets ready, and gives what is to be timed; that returns how many things it did.
Contender: TypeAlias = Callable[[], Awaitable[Callable[[], Awaitable[int]]]]


@dataclass(frozen=True)
class Pace:
    """The medians of one contender: how many a second, and what this process computed for each, in µs."""

    per_second: float
    cpu_us: float


async def interleaved(contenders: Mapping[str, Contender], *, rounds: int = ROUNDS) -> dict[str, Pace]:
    """Run each contender once per round and return its medians."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, get_ready in contenders.items():
            work = await get_ready()
            began, computed = time.perf_counter(), time.process_time()
            done = await work()
            taken[name].append(((time.perf_counter() - began) / done, (time.process_time() - computed) / done))
    return {
        name: Pace(
            per_second=1 / statistics.median(wall for wall, _ in figures),
            cpu_us=statistics.median(cpu for _, cpu in figures) * 1e6,
        )
        for name, figures in taken.items()
    }
