"""``kima-stream bench``: one of the measurements, on servers of its own."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest


async def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it from anywhere."""
    command = [sys.executable, "-m", "kima_stream", "bench", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(120)
async def test_a_measurement_says_what_was_measured(tmp_path: Path) -> None:
    """As JSON: the machine, and figures with their units."""
    done = await run(tmp_path, "intake", "--json")

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "cores" in said["machine"]
    (grabs, *_) = said["measured"]["intake"]
    assert (grabs["unit"], grabs["value"] > 0) == ("/s", True)


async def test_a_measurement_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    """All that there are is said."""
    done = await run(tmp_path, "nonsense")

    assert done.returncode == 2
    assert "there is no nonsense" in done.stderr
    assert "ingest" in done.stderr
