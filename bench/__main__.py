"""`python -m bench [NAME …]`: measure, and print tables."""

import asyncio
import importlib
import sys

import structlog

from bench.house import house
from bench.report import machine, table

NAMES = ("ingest", "batches", "publish", "consume", "intake", "replay", "recovery", "latency", "readers")


async def main(names: list[str]) -> None:
    """Run each measurement on servers of its own."""
    print(machine())
    for name in names:
        module = importlib.import_module(f"bench.{name}")
        async with house() as built:
            figures = await module.run(built)
        print(f"\n### {name}\n\n{(module.__doc__ or '').splitlines()[0]}\n\n{table(figures)}", flush=True)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    asked = sys.argv[1:] or list(NAMES)
    unknown = sorted({*asked} - {*NAMES, "memory"})
    if unknown:
        sys.exit(f"there is no {', '.join(unknown)}; there are: {', '.join(NAMES)}, memory")
    asyncio.run(main(asked))
