"""Single webhooks of 1.9 kB, durable before the answer, 32 clients: against an echo and one INSERT per request."""

import asyncio
import json
import secrets
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import cpu
from bench.house import API_KEY, FIXTURE, House, free_port, listening, process
from bench.report import Figure

CLIENTS, SECONDS, ROUNDS = 32, 4, 5
LUA = Path(__file__).parent / "webhook.lua"


@dataclass
class Server:
    """Who is measured: the processes of a name, and what each round said of them; CPU in µs for each request."""

    processes: list[tuple[int, int]] = field(default_factory=list)  # port, pid
    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    postgres_us: list[float] = field(default_factory=list)


def load(port: int, *, clients: int = CLIENTS, seconds: int = SECONDS) -> dict[str, float]:
    """Post webhooks with wrk for some seconds; return requests, seconds, errors and percentiles."""
    salt = secrets.token_hex(8).upper()
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(LUA),
               f"http://127.0.0.1:{port}/api/webhooks/lidarr", "--", str(FIXTURE), API_KEY, salt]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


async def run(built: House) -> list[Figure]:
    """Measure in interleaved rounds; CPU is that of the servers' processes, and of PostgreSQL with all of its own."""
    if shutil.which("wrk") is None:
        message = "wrk is missing: apt-get install wrk"
        raise SystemExit(message)
    with ExitStack() as stack:
        servers = {
            "echo": Server([_start(stack, built, "bench.peers", "echo")]),
            "one_insert": Server([_start(stack, built, "bench.peers", "one_insert")]),
            "ours": Server([_start(stack, built, "kima_stream", "serve")]),
        }
        servers["two"] = Server([*servers["ours"].processes, _start(stack, built, "kima_stream", "serve")])
        for port in {port for server in servers.values() for port, _ in server.processes}:
            await listening(port)
            load(port, seconds=1)
        for _ in range(ROUNDS):
            for server in servers.values():
                await _measure(built, server)
    return _figures(**servers)


def _start(stack: ExitStack, built: House, *arguments: str) -> tuple[int, int]:
    port = free_port()
    if arguments[0] == "bench.peers":
        arguments = (*arguments, str(port))
    return port, stack.enter_context(process(built, port, *arguments))


async def _measure(built: House, server: Server) -> None:
    """Load all processes of ``server`` at once, with as many clients in all."""

    def computed() -> float:
        return sum(cpu.seconds(pid) for _, pid in server.processes)

    clients = CLIENTS // len(server.processes)
    before, postgres_before = computed(), cpu.seconds_with_children(built.postgres_pid)
    outcomes = await asyncio.gather(*(asyncio.to_thread(load, port, clients=clients) for port, _ in server.processes))
    after, postgres_after = computed(), cpu.seconds_with_children(built.postgres_pid)
    if any(outcome["errors"] for outcome in outcomes):
        raise SystemExit(f"answered with errors: {outcomes}")
    requests = sum(outcome["requests"] for outcome in outcomes)
    server.per_second.append(sum(outcome["requests"] / outcome["seconds"] for outcome in outcomes))
    server.p50_ms.append(max(outcome["p50_ms"] for outcome in outcomes))
    server.p99_ms.append(max(outcome["p99_ms"] for outcome in outcomes))
    server.cpu_us.append((after - before) / requests * 1e6)
    server.postgres_us.append((postgres_after - postgres_before) / requests * 1e6)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(theirs)


def _figures(*, echo: Server, one_insert: Server, ours: Server, two: Server) -> list[Figure]:
    median = statistics.median
    return [
        Figure(f"webhooks per second, one process, {CLIENTS} clients", median(ours.per_second), "/s"),
        Figure("  of an echo of the same request", _ratio(ours.per_second, echo.per_second), "x", goal=">= 0.5"),
        Figure("  of one INSERT per request", _ratio(ours.per_second, one_insert.per_second), "x", goal=">= 2.5"),
        Figure("  p50", median(ours.p50_ms), "ms"),
        Figure("  p99", median(ours.p99_ms), "ms"),
        Figure("  of a core, in the process", median(ours.cpu_us), "µs each"),
        Figure("  of a core, in PostgreSQL", median(ours.postgres_us), "µs each"),
        Figure("  computing of an echo to ours", _ratio(echo.cpu_us, ours.cpu_us), "x", goal=">= 0.5"),
        Figure("two processes, as many clients", median(two.per_second), "/s"),
        Figure("  of one process", _ratio(two.per_second, ours.per_second), "x", goal="> 1"),
        Figure("echo", median(echo.per_second), "/s"),
        Figure("  of a core, in the process", median(echo.cpu_us), "µs each"),
        Figure("one INSERT per request", median(one_insert.per_second), "/s"),
        Figure("  of a core, in the process", median(one_insert.cpu_us), "µs each"),
        Figure("  of a core, in PostgreSQL", median(one_insert.postgres_us), "µs each"),
    ]
