"""Single webhooks of 1.9 kB, durable before the answer, 32 clients: against an echo and one INSERT per request."""

import json
import secrets
import shutil
import statistics
import subprocess
from contextlib import ExitStack
from pathlib import Path

from bench.house import API_KEY, FIXTURE, House, free_port, listening, process
from bench.report import Figure

CLIENTS, SECONDS, ROUNDS = 32, 4, 5
LUA = Path(__file__).parent / "webhook.lua"


def load(port: int, seconds: int = SECONDS) -> dict[str, float]:
    """Post webhooks with wrk for some seconds; return requests, seconds, errors and percentiles."""
    salt = secrets.token_hex(8).upper()
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--latency", "-s", str(LUA),
               f"http://127.0.0.1:{port}/api/webhooks/lidarr", "--", str(FIXTURE), API_KEY, salt]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


async def run(built: House) -> list[Figure]:
    """Measure in interleaved rounds."""
    if shutil.which("wrk") is None:
        message = "wrk is missing: apt-get install wrk"
        raise SystemExit(message)
    ports = {name: free_port() for name in ("echo", "one_insert", "ours")}
    rates: dict[str, list[float]] = {name: [] for name in ports}
    p50, p99 = [], []
    with ExitStack() as stack:
        stack.enter_context(process(built, ports["echo"], "bench.peers", "echo", str(ports["echo"])))
        stack.enter_context(process(built, 0, "bench.peers", "one_insert", str(ports["one_insert"])))
        stack.enter_context(process(built, ports["ours"], "kima_stream", "serve"))
        for port in ports.values():
            await listening(port)
            load(port, 1)
        for _ in range(ROUNDS):
            for name, port in ports.items():
                outcome = load(port)
                if outcome["errors"]:
                    message = f"{name} answered with errors: {outcome}"
                    raise SystemExit(message)
                rates[name].append(outcome["requests"] / outcome["seconds"])
                if name == "ours":
                    p50.append(outcome["p50_ms"])
                    p99.append(outcome["p99_ms"])
    median = {name: statistics.median(values) for name, values in rates.items()}
    return [
        Figure("webhooks per second, one process, 32 clients", median["ours"], "/s"),
        Figure("  of an echo of the same request", median["ours"] / median["echo"], "x", goal=">= 0.5"),
        Figure("  of one INSERT per request", median["ours"] / median["one_insert"], "x", goal=">= 2.5"),
        Figure("  p50", statistics.median(p50), "ms"),
        Figure("  p99", statistics.median(p99), "ms"),
        Figure("echo", median["echo"], "/s"),
        Figure("one INSERT per request", median["one_insert"], "/s"),
    ]
