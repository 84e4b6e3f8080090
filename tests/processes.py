"""The real program as processes: started, known by the line that it says, ended whatever happens."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class Running:
    """A role that runs: its process, and what it said about itself."""

    def __init__(self, process: asyncio.subprocess.Process, said: Mapping[str, Any]) -> None:
        """Keep both."""
        self.process = process
        self.said = said
        self.url = str(said.get("url") or "")

    async def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def running(environment: Mapping[str, str], errors: Path, *arguments: str) -> AsyncIterator[Running]:
    """Run ``kima-stream ARGUMENTS --json`` from its first line on; what it logs goes to the end of ``errors``."""
    with errors.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kima_stream", *arguments, "--json",
            env={"PATH": os.environ["PATH"], **environment}, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        assert line, errors.read_text()
        yield Running(process, msgspec.json.decode(line))
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
        await process.communicate()


async def asked(environment: Mapping[str, str], *arguments: str) -> tuple[int | None, str]:
    """Run ``kima-stream ARGUMENTS`` to its end; return its exit code and what it said on stdout."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kima_stream", *arguments, env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode, out.decode()
