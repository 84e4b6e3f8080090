"""A real browser, driven over its own DevTools protocol: Chromium of this machine, without a library in between."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.polling import eventually

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab; what goes wrong in it, in the console or by its policy, is in ``faults``."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Hear nothing yet."""
        self._socket = socket
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self.faults: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says, until it ends."""
        async for message in self._socket:
            said = json.loads(message.data)
            if said.get("id") in self._asked:
                self._asked.pop(said["id"]).set_result(said)
            elif said.get("method") == "Runtime.exceptionThrown":
                self.faults.append(said["params"]["exceptionDetails"]["text"])
            elif said.get("method") == "Log.entryAdded":
                entry = said["params"]["entry"]  # an answer of 400 is one too, and hints are verbose
                if entry["source"] != "network" and entry["level"] != "verbose":
                    self.faults.append(entry["text"])

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Ask the browser for something."""
        self._number += 1
        answer = self._asked[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        async with asyncio.timeout(30):
            return dict((await answer).get("result", {}))

    async def run(self, script: str) -> Any:  # noqa: ANN401 - whatever the script gives
        """Return what ``script`` evaluates to in the page."""
        said = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until ``script`` is true in the page."""

        async def is_so() -> bool:
            return bool(await self.run(script))

        await eventually(is_so, timeout=30)


@asynccontextmanager
async def page(url: str, folder: Path) -> AsyncIterator[Page]:
    """Open ``url`` in a browser whose profile is in ``folder``."""
    if PROGRAM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    child = await asyncio.create_subprocess_exec(
        PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    try:
        port_file = folder / "DevToolsActivePort"
        await eventually(lambda: _has_port(port_file), timeout=60)
        port = int(port_file.read_text(encoding="utf-8").splitlines()[0])
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                (tab,) = (tab for tab in await answer.json() if tab["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                opened = Page(socket)
                listening = asyncio.create_task(opened.listen())
                for domain in ("Runtime", "Log", "Page"):
                    await opened.call(f"{domain}.enable")
                await opened.call("Page.navigate", url=url)
                await opened.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState == 'complete'")
                yield opened
                listening.cancel()
    finally:
        child.terminate()
        await child.wait()


async def _has_port(file: Path) -> bool:
    return file.exists() and bool(file.read_text(encoding="utf-8").strip())
