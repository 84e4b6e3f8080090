"""A sender with a steady hand: webhooks at a fixed rate, whatever the answers do.

It writes its requests itself: whoever sends from another machine takes no core from what is measured, and aiohttp's
client would take a third of one.
"""

import asyncio
import re
import sys
import time
from collections import deque
from typing import cast
from uuid import uuid4

import uvloop

from bench.house import FIXTURE

CONNECTIONS = 64
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_TEMPLATE = FIXTURE.read_bytes()


def grab(number: int) -> bytes:
    """Return a Grab of an album of its own."""
    body = _TEMPLATE
    for old, new in (
        (b"3F2504E04F8911D39A0C0305E82C3301A1B2C3D4", uuid4().hex.upper().encode()),
        (b"0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f", str(uuid4()).encode()),
        (b'"id": 317', b'"id": %d' % number),
        (b'"title": "Tidewater"', b'"title": "Tidewater %d"' % number),
    ):
        body = body.replace(old, new)
    return body


class Sender(asyncio.Protocol):
    """One connection with one request under way at most; whoever is free stands in ``free``."""

    def __init__(self, free: "deque[Sender]", waiting: deque[bytes]) -> None:
        """Count nothing yet."""
        self._free = free
        self._waiting = waiting
        self._received = b""
        self.accepted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be free."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none, and does as one
        self._free.append(self)

    def data_received(self, data: bytes) -> None:
        """Count an answer when all of it is here, and send what waits."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not end or (length and len(body) < int(length[1])):
            return
        self._received = b""
        self.accepted += head.startswith(b"HTTP/1.1 200 ")
        if self._waiting:
            self.transport.write(self._waiting.popleft())
        else:
            self._free.append(self)


async def main(port: int, key: str, per_second: int, seconds: int) -> None:
    """Send, wait for the answers, and print how many were accepted."""
    free: deque[Sender] = deque()
    waiting: deque[bytes] = deque()
    loop = asyncio.get_running_loop()
    senders = [
        (await loop.create_connection(lambda: Sender(free, waiting), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)
    ]
    began = time.perf_counter()
    for number in range(per_second * seconds):
        ahead = began + number / per_second - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        body = grab(1_000 + number)
        request = (
            f"POST /api/webhooks/lidarr HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Webhook-Secret: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        if free:
            free.popleft().transport.write(request)
        else:
            waiting.append(request)
    async with asyncio.timeout(60):
        while len(free) < CONNECTIONS:  # noqa: ASYNC110 - the last answers
            await asyncio.sleep(0.01)
    print(sum(sender.accepted for sender in senders))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
