"""The loop of a finder that any process may run, all at once: what it does twice does nothing."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from kima_stream import cancellation, delivery

log = structlog.get_logger(__name__)


async def keep(name: str, sweep: Callable[[], Awaitable[object]], *, every_seconds: float) -> None:
    """Sweep until cancelled; a sweep that fails is logged under ``name`` and the next one tries again."""
    while True:
        cancellation.heed()
        try:
            await sweep()
        except delivery.OUTAGE as error:
            log.warning("sweep_interrupted", sweep=name, error_type=type(error).__name__)
        except Exception:
            log.exception("sweep_failed", sweep=name)
        await asyncio.sleep(every_seconds)
