"""Peers for the tests: nicotine-plus as a program of its own, and one of ours that misbehaves as it is told."""

import asyncio
import importlib.util
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.polling import eventually
from tests.soulseek_server import SoulseekServer


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def nicotine(
    server: SoulseekServer, home: Path, share: Path, *, username: str = "nicotine", kilobytes_per_second: int = 0
) -> AsyncIterator[str]:
    """Run nicotine-plus without its window, sharing ``share``; yield its user name once it is there."""
    if importlib.util.find_spec("pynicotine") is None:
        pytest.skip("nicotine-plus is not installed: `make install` does it from requirements/peer.lock")
    home.mkdir(parents=True, exist_ok=True)
    config = home / "config"
    limit = ("primary", kilobytes_per_second) if kilobytes_per_second else ("unlimited", 1000)
    config.write_text(
        "[server]\n"
        f"server = ('127.0.0.1', {server.port})\nlogin = {username}\npassw = a password\nupnp = False\n"
        "auto_connect_startup = True\nautojoin = []\n"
        "[transfers]\n"
        f"shared = [('share', '{share}')]\nrescanonstartup = True\n"
        f"use_upload_speed_limit = {limit[0]}\nuploadlimit = {limit[1]}\nuploadbandwidth = 100000\n"
        "[statistics]\n[logging]\ntransfers = False\n"
    )
    away = {name: str(home) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pynicotine", "--headless", "--config", str(config), "--user-data", str(home / "data"),
        "--bindip", "127.0.0.1", "--port", str(port),
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **away},
        stdin=asyncio.subprocess.DEVNULL, stdout=(home / "out").open("wb"), stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        await eventually(lambda: username in server.online and server.online[username].port, 20)
        await eventually(lambda: "Rescan complete" in (home / "out").read_text(), 20)
        yield username
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
