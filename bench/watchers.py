"""Readers of the live feed: `python -m bench.watchers URL KEY COUNT`; prints what they read when told to stop."""

import asyncio
import signal
import sys

import aiohttp
import uvloop


async def main(url: str, key: str, count: int) -> None:
    """Read until SIGTERM; a reader that was cut comes back with the last position it saw."""
    read = cuts = 0

    async def watch() -> None:
        nonlocal read, cuts
        last = ""
        while True:
            try:
                async with session.get("/api/live", headers={"Last-Event-ID": last} if last else {}) as answer:
                    async for line in answer.content:
                        if line.startswith(b"id: "):
                            last = line[4:].decode().strip()
                        elif line.startswith(b"data: "):
                            read += 1
            except aiohttp.ClientError:
                cuts += 1
                await asyncio.sleep(0.1)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        url, headers={"X-Api-Key": key}, timeout=timeout, connector=aiohttp.TCPConnector(limit=0), read_bufsize=2**20
    ) as session:
        watchers = [asyncio.create_task(watch()) for _ in range(count)]
        print("watching", flush=True)
        await stop.wait()
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    print(read, cuts)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
