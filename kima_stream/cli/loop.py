"""One event loop per process: uvloop where it exists; SIGINT and SIGTERM ask for an orderly stop."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import click
import structlog

from kima_stream import logs
from kima_stream.errors import ConfigurationError
from kima_stream.settings import config
from kima_stream.settings.config import Settings

COLLECT_AFTER = 20_000  # objects; the 700 of Python's own are those of two dozen requests under way
CANCEL_AGAIN_SECONDS = 0.5
AGAIN_SECONDS = 1.0  # before a role that failed begins anew

Role: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

T = TypeVar("T")
log = structlog.get_logger(__name__)

try:
    import uvloop
except ImportError:  # not on every platform
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop


def settings() -> Settings:
    """Read the configuration and set up the log as it says.

    Raises:
        ConfigurationError: with every fault.
    """
    loaded = config.load(os.environ)
    logs.configure(loaded.log_format, loaded.log_level)
    logs.hide("configuration", config.secrets(loaded))
    return loaded


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end; a signal before it waits for one ends it as well."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            return runner.run(main)
        except asyncio.CancelledError:
            raise SystemExit(0) from None


class Stop:
    """What Ctrl-C and SIGTERM ask for: an orderly stop; the second one ends the process at once."""

    def __init__(self, main: "asyncio.Task[object]") -> None:
        """``main`` is cancelled as long as it is not up and waiting."""
        self._main = main
        self._asked = asyncio.Event()
        self._awaited = False

    async def wait(self) -> None:
        """Wait for the signal; all that is there by now stays, so the collector need not look at it again."""
        self._awaited = True
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER)
        await self._asked.wait()

    def ask(self) -> None:
        """Take the signal."""
        if self._asked.is_set():
            os._exit(130)
        self._asked.set()
        if not self._awaited:
            self._main.cancel()


@asynccontextmanager
async def stopping() -> AsyncIterator[Stop]:
    """Yield what tells when to stop."""
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None  # noqa: S101 - we are in one
    stop = Stop(main)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def together(*roles: Role) -> AsyncIterator[None]:
    """Run ``roles`` beside the body; when it ends they are cancelled."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keep(role)) for role in roles]
        try:
            yield
        finally:
            await _end(tasks)


async def keep(role: Role) -> None:
    """Run ``role`` until cancelled; whatever it fails of is logged, the others go on, and it begins anew.

    The door must go on taking webhooks when the publisher meets what nobody foresaw.

    Raises:
        ConfigurationError: beginning anew would not help.
    """
    while True:
        try:
            await role()
        except ConfigurationError:
            raise
        except Exception:
            log.exception("role_failed", role=getattr(role, "__qualname__", ""))
        await asyncio.sleep(AGAIN_SECONDS)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel ``tasks``, again and again: a library that turns a cancel into its own error keeps a loop alive."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
        if pending:
            log.warning("cancel_repeated", tasks=[str(task.get_coro()) for task in pending])


def say(text: str) -> None:
    """Answer the person at the terminal."""
    click.echo(text)
