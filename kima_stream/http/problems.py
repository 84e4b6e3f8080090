"""Every error as ``application/problem+json`` (RFC 9457), from the one tree of ``errors``.

UserFacingError and below   its own status
RateLimitError              429 + Retry-After
ConfigurationError          400, and so is a SealError: a root is missing or a sealed value was changed
IntegrationError            503 + Retry-After when it may heal, else 502
Postgres is away            503 + Retry-After: nothing was acknowledged, send it again
what aiohttp refuses        its status: 404, 405 with Allow, 413
what is no HTTP             400, or 431 for a header or an address too long; see ``connection``
anything else               500 without internals; the log has them, under the correlation id

The correlation id is the problem's ``instance``.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, TypeAlias

import asyncpg
import msgspec
import structlog
from aiohttp import web

from kima_stream import database
from kima_stream.errors import (
    ConfigurationError,
    IntegrationError,
    KimaStreamError,
    RateLimitError,
    SealError,
    UserFacingError,
    WrongExpectedVersionError,
)

CONTENT_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 5  # Postgres restarts in less; Lidarr ignores it, proxies and slskd do not

# A dead, dying, full or standby server: the caller did nothing wrong and may send it again.
UNAVAILABLE: Final = (
    *database.OUTAGE,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,  # dropped, or renamed for a restore
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database takes no connections, for the same reasons
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
)
_RETRY: Final = {"Retry-After": str(RETRY_AFTER_SECONDS)}

log = structlog.get_logger(__name__)


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a request that failed. ``code`` never changes; ``title`` and ``detail`` are for people."""

    title: str
    status: int
    code: str
    detail: str = ""
    faults: tuple[str, ...] = ()
    retryable: bool | None = None  # of an outside system's failure: whether it may heal by itself
    instance: str = ""  # the correlation id: what to look for in the log


Answer: TypeAlias = tuple[Problem, Mapping[str, str]]


def from_error(error: Exception) -> Answer:
    """Return what to answer to ``error`` and the headers that go with it; logs what is our own fault."""
    answer = _from_refusal(error) if isinstance(error, KimaStreamError | web.HTTPException) else None
    if answer is not None:
        return answer
    if isinstance(error, UNAVAILABLE):
        log.warning("postgres_unreachable", error_type=type(error).__name__)
        detail = "Postgres cannot be reached; nothing was acknowledged. Send it again."
        return of(503, "unavailable", detail), _RETRY
    if isinstance(error, asyncpg.DataError):
        log.warning("value_refused", error_type=type(error).__name__)
        return of(422, "invalid", "It holds a value that Postgres cannot keep."), {}
    log.error("request_failed", error_type=type(error).__name__, exc_info=error)
    return of(500, "internal", "This is our fault; the log has the details."), {}


def _from_refusal(error: KimaStreamError | web.HTTPException) -> Answer | None:  # noqa: PLR0911 - one per class
    match error:
        case web.HTTPException():
            return _from_aiohttp(error)
        case RateLimitError():
            detail = f"Too many requests; try again in {error.retry_after_seconds} s."
            return of(429, "rate_limited", detail), {"Retry-After": str(error.retry_after_seconds)}
        case UserFacingError():
            return of(error.status, error.code, error.detail), _challenge(error.status)
        case ConfigurationError():
            return msgspec.structs.replace(of(400, "configuration", ""), faults=error.faults), {}
        case SealError():
            return msgspec.structs.replace(of(400, "configuration", ""), faults=(str(error),)), {}
        case WrongExpectedVersionError():
            return of(409, "conflict", "Somebody else changed it in between; read it again."), {}
        case IntegrationError(retryable=True):
            return _outside(503, "integration_unavailable", error), _RETRY
        case IntegrationError():
            return _outside(502, "integration_failed", error), {}
        case _:
            return None


def response(problem: Problem, headers: Mapping[str, str], *, correlation_id: str = "") -> web.Response:
    """Return ``problem`` as an HTTP response."""
    headers, body = written(problem, headers, correlation_id=correlation_id)
    return web.Response(body=body, status=problem.status, headers=headers)


def written(
    problem: Problem, headers: Mapping[str, str], *, correlation_id: str = ""
) -> tuple[Mapping[str, str], bytes]:
    """Return the headers and the body that say ``problem``."""
    body = msgspec.json.encode(msgspec.structs.replace(problem, instance=correlation_id))
    return {**headers, "Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}, body


def _from_aiohttp(error: web.HTTPException) -> Answer:
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return of(405, "method_not_allowed", f"Allowed here: {allowed}."), {"Allow": allowed}
        case web.HTTPRequestEntityTooLarge():
            return of(413, "too_large", "The body is larger than 1 MB; nothing was stored."), {}
        case web.HTTPNotFound():
            return of(404, "not_found", "There is nothing at this address."), {}
        case _:
            return of(error.status, HTTPStatus(error.status).name.lower(), ""), {}


def _outside(status: int, code: str, error: IntegrationError) -> Problem:
    return msgspec.structs.replace(of(status, code, str(error)), retryable=error.retryable)


def of(status: int, code: str, detail: str) -> Problem:
    """Return the problem of an HTTP status."""
    return Problem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail)


def _challenge(status: int) -> Mapping[str, str]:
    # Bearer, not Basic: a browser would ask for a password over our own page.
    return {"WWW-Authenticate": 'Bearer realm="kima-stream"'} if status == HTTPStatus.UNAUTHORIZED else {}
