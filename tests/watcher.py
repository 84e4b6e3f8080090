"""A client of ``GET /api/live``, as the standard of server-sent events has it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

LIVE = "/api/live"


@dataclass
class Watcher:
    """A client of server-sent events as the standard has it: it remembers the last id of a complete message."""

    last_id: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def positions(self) -> list[int]:
        """Return the positions of all messages so far."""
        return [event["position"] for event in self.seen]

    async def messages(self, content: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
        """Yield each message; comments and blocks without data are none."""
        last_id, data = self.last_id, ""
        while line := await content.readuntil(max_size=2**22):
            name, _, value = line.decode().rstrip("\r\n").partition(":")
            match name:
                case "id":
                    last_id = value.removeprefix(" ")
                case "data":
                    data += value.removeprefix(" ")
                case "" if not line.strip():
                    self.last_id = last_id
                    if data:
                        self.seen.append(json.loads(data))
                        assert self.seen[-1]["position"] == int(last_id)
                        data = ""
                        yield self.seen[-1]

    @asynccontextmanager
    async def watching(
        self, client: aiohttp.ClientSession, query: str = ""
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Connect, going on after the last id; yield the messages once the place in the log is known."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        timeout = aiohttp.ClientTimeout(total=60)
        async with client.get(f"{LIVE}{query}", headers=headers, timeout=timeout, read_bufsize=2**22) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            assert answer.headers["X-Accel-Buffering"] == "no"
            assert (await answer.content.readline()).startswith(b"retry: ")
            preamble = await answer.content.readline()
            assert preamble.startswith(b"id: ")
            self.last_id = preamble[4:].decode().strip()
            yield self.messages(answer.content)

    async def take(self, messages: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
        """Return the next ``count`` messages."""
        async with asyncio.timeout(20):
            return [await anext(messages) for _ in range(count)]
