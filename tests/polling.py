"""The one place where a test waits: a condition, asked again and again, with an end."""

import inspect
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

INTERVAL_SECONDS = 0.02


@overload
async def eventually(condition: Callable[[], Awaitable[T]], timeout: float = ...) -> T: ...
@overload
async def eventually(condition: Callable[[], T], timeout: float = ...) -> T: ...


async def eventually(condition: Callable[[], object], timeout: float = 5.0) -> object:
    """Return the first true answer of ``condition``, sync or async; fail after ``timeout`` seconds.

    An AssertionError inside the condition means: not yet.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = condition()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
        except AssertionError as error:
            answer = str(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {timeout} s; the last answer was: {answer!r}")
        await sleep(INTERVAL_SECONDS)
