"""A process that sends searches through the gate: DSN REDIS_URL NAME FIRST COUNT."""

import asyncio
import sys

from kima_stream import database
from kima_stream.integrations.soulseek.gate import Gate, Passed
from kima_stream.locks import Locks


async def main(dsn: str, redis_url: str, name: str, first: int, count: int) -> None:
    """Ask for ``count`` searches at once; each gets an empty answer."""
    pool = await database.open_pool(dsn, role=name, max_size=5)
    gate = Gate(pool, limit=30, window_seconds=1.1, slack_seconds=0.1, wait_seconds=60, poll_seconds=0.02)

    async def one(number: int) -> None:
        turn = await gate.enter(f"{name} {number}", asker=f"{name} {number % 5}", seconds=0)
        if isinstance(turn, Passed):
            await gate.give_up(turn)

    async with Locks(redis_url) as locks:
        await locks.take_over(name)
        await asyncio.gather(*(one(first + number) for number in range(count)))
    await pool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
