"""A loop ends when it was asked to, also when a library lost the request."""

import asyncio

import pytest

from kima_stream import cancellation


async def test_a_swallowed_cancellation_is_heeded_in_the_next_round() -> None:
    """The first await loses it, as redis-py's connect does now and then."""
    rounds = 0
    waiting = asyncio.Event()

    async def loop() -> None:
        nonlocal rounds
        while True:
            cancellation.heed()
            rounds += 1
            try:
                waiting.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue  # lost

    task = asyncio.create_task(loop())
    await waiting.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert rounds == 1


async def test_nobody_who_was_not_cancelled_ends() -> None:
    """It says nothing in peace."""
    cancellation.heed()

    assert asyncio.current_task() is not None
