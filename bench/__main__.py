"""`python -m bench [NAME …]`: measure, and print tables."""

import asyncio
import importlib
import sys

import msgspec
import structlog

from bench.house import house
from bench.report import Figure, machine, table

NAMES = ("ingest", "batches", "publish", "consume", "intake", "replay", "recovery", "latency", "readers")


async def main(names: list[str], *, as_json: bool) -> None:
    """Run each measurement on servers of its own."""
    measured: dict[str, list[Figure]] = {}
    if not as_json:
        print(machine())
    for name in names:
        module = importlib.import_module(f"bench.{name}")
        async with house() as built:
            measured[name] = await module.run(built)
        if not as_json:
            about = (module.__doc__ or "").splitlines()[0]
            print(f"\n### {name}\n\n{about}\n\n{table(measured[name])}", flush=True)
    if as_json:
        print(msgspec.json.encode({"machine": machine(), "measured": measured}).decode())


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    asked = [word for word in sys.argv[1:] if word != "--json"]
    unknown = sorted({*asked} - {*NAMES, "memory"})
    if unknown:
        print(f"there is no {', '.join(unknown)}; there are: {', '.join(NAMES)}, memory", file=sys.stderr)
        sys.exit(2)
    asyncio.run(main(asked or list(NAMES), as_json="--json" in sys.argv))
