"""What all users' requests have in common: decided in one transaction, ``Idempotency-Key``, ``Prefer: wait``.

A key names the request, per user and route: its event has an id that follows from them, so that
the log itself remembers, as long as it exists, at every process.

Source: RFC 7240; the IETF draft of the Idempotency-Key header.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from uuid import UUID, uuid5

import asyncpg
from aiohttp import web

from kima_stream.database import Connection, Pool
from kima_stream.errors import DuplicateEventError, TornAppendError, UserFacingError, WrongExpectedVersionError

KEY_HEADER: Final = "Idempotency-Key"
NAMESPACE: Final = UUID("5f6e9d0c-7c5e-5d1b-8a43-0c2d8e9b7f61")  # of ids made from keys

TRIES: Final = 5  # somebody appended without the row's lock, used the same key at once, or a deadlock: decide again
T = TypeVar("T")

_RIVALRY: Final = (
    WrongExpectedVersionError,
    DuplicateEventError,
    TornAppendError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
_KEY: Final = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
_WAIT: Final = re.compile(r'(?:^|[,\s])wait\s*=\s*"?([0-9]{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


class ReusedKeyError(UserFacingError):
    """The key has named another request before."""

    def __init__(self) -> None:
        """Answer 422."""
        super().__init__(f"This {KEY_HEADER} came with another body before.", status=422, code="idempotency_key_reused")


async def decided(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run ``work`` in a transaction, again when a rival was in the way: so what it answers is final."""
    for attempt in range(1, TRIES + 1):
        try:
            async with pool.acquire() as conn, conn.transaction():
                return await work(conn)
        except _RIVALRY:
            if attempt == TRIES:
                raise
    raise AssertionError  # the last try has returned or raised


def event_id(request: web.Request, *, user_id: str, route: str) -> UUID | None:
    """Return the id of the event that records this request, None when it has no key.

    Raises:
        UserFacingError: 400, the key is none.
    """
    keys = request.headers.getall(KEY_HEADER, ())
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise UserFacingError(f"{KEY_HEADER} is one text of 1 to 255 printable ASCII characters.")
    return uuid5(uuid5(uuid5(NAMESPACE, user_id), route), keys[0])


def preference_applied(request: web.Request) -> dict[str, str]:
    """Return the header that says that ``Prefer: wait=N`` was honoured: the answer is final when it is given."""
    wait = _WAIT.search(", ".join(request.headers.getall("Prefer", ())))
    return {"Preference-Applied": f"wait={int(wait[1])}"} if wait else {}
