"""``kima-stream demo``, as somebody tries it: the verdict, that it bites, and what is left behind."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.polling import eventually

BOUND_SECONDS = 100


@pytest.fixture
def place() -> Iterator[Path]:
    """Return the folder for temporary files of the demo; nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="kima-test-", dir="/tmp") as folder:
        path = Path(folder)
        path.chmod(0o711)
        yield path
        assert list(path.iterdir()) == []
        assert [process.cmdline() for process in psutil.process_iter() if belongs(process, folder)] == []


def belongs(process: psutil.Process, folder: str) -> bool:
    """Return whether a process works in ``folder``."""
    try:
        return any(folder in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def environment(place: Path) -> Mapping[str, str]:
    """Return an environment that would lead a careless demo to somebody's servers."""
    return {**os.environ, "TMPDIR": str(place), "KIMA_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


async def start(place: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start the demo."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "kima_stream", "demo", *arguments)
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment(place))


@pytest.mark.fault
async def test_nothing_is_lost_and_nothing_doubled(place: Path, seed: int) -> None:
    """Two kill -9 and a FLUSHALL in the middle of it; told in JSON, for whoever automates it."""
    process = await start(place, "--requests", "20", "--json", "--seed", str(seed))
    async with asyncio.timeout(BOUND_SECONDS):
        out, errors = await process.communicate()

    assert process.returncode == 0, (out, errors)
    ending = msgspec.json.decode(out)
    assert (ending["lost"], ending["doubled"], ending["faults"]) == (0, 0, [])
    assert (ending["replay_differences"], ending["verify_faults"]) == (0, 0)
    assert (ending["albums"], ending["seed"]) == (20, seed)
    assert sum(ending["jobs"].values()) == 20
    assert ending["clicks"] >= ending["requests"] > 0
    assert ending["events"] > ending["webhooks"] > 20


@pytest.mark.fault
async def test_the_verdict_bites(place: Path) -> None:
    """Records that claim one more import than was sent end in exit 1, and the lines say what is missing."""
    process = await start(place, "--requests", "20", "--lie")
    async with asyncio.timeout(BOUND_SECONDS):
        out, errors = await process.communicate()

    story = out.decode()
    assert process.returncode == 1, (out, errors)
    assert "lost: 1 webhook Download" in story, errors
    assert "0 lost" not in story
    assert "\x1b" not in story


async def test_ctrl_c_leaves_nothing_behind(place: Path) -> None:
    """Processes, sockets, data: all gone, and no verdict is claimed."""
    process = await start(place, "--requests", "20", "--json")
    await eventually(lambda: list(place.glob("kima-demo-*/door.log")), timeout=30)

    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(BOUND_SECONDS):
        out, errors = await process.communicate()

    assert process.returncode == 1
    assert out == b""
    assert b"no verdict" in errors
