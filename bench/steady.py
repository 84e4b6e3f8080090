"""A sender with a steady hand: webhooks at a fixed rate, whatever the answers do."""

import asyncio
import sys
import time
from uuid import uuid4

import aiohttp
import uvloop

from bench.house import FIXTURE


def grab(number: int) -> bytes:
    """Return a Grab of an album of its own."""
    body = FIXTURE.read_bytes()
    for old, new in (
        (b"3F2504E04F8911D39A0C0305E82C3301A1B2C3D4", uuid4().hex.upper().encode()),
        (b"0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f", str(uuid4()).encode()),
        (b'"id": 317', b'"id": %d' % number),
        (b'"title": "Tidewater"', b'"title": "Tidewater %d"' % number),
    ):
        body = body.replace(old, new)
    return body


async def main(url: str, key: str, per_second: int, seconds: int) -> None:
    """Send, and print how many were accepted."""
    accepted = 0
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(url, connector=connector, headers={"X-Webhook-Secret": key}) as session:

        async def send(number: int) -> None:
            nonlocal accepted
            async with session.post("/api/webhooks/lidarr", data=grab(number)) as answer:
                accepted += answer.status == 200

        async with asyncio.TaskGroup() as tasks:
            began = time.perf_counter()
            for number in range(per_second * seconds):
                ahead = began + number / per_second - time.perf_counter()
                if ahead > 0:
                    await asyncio.sleep(ahead)
                tasks.create_task(send(1_000 + number))
    print(accepted)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
