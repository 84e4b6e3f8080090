"""Ending when asked to: a cancellation that a library swallowed is heeded at the next round of a loop.

redis-py and asyncpg lose one now and then while they connect (seen in 2 of 150 starts); the task
still knows that it was asked.
"""

import asyncio


def heed() -> None:
    """End here if somebody has cancelled this task; call it once a round in a loop that never ends.

    Raises:
        CancelledError: the task was asked to end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
