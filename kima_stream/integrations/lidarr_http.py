"""The way to Lidarr and back: one call, timed, counted, bounded, its errors sorted.

    ConfigurationError      the key or the address is wrong: a human must change it
    LidarrError retryable   it may heal: nobody answers, 408, 429, 5xx
    LidarrError             it will not: Lidarr understood and refused, or it is not as we know it

No redirect is followed, since the key would go along. A read is tried a few times within some seconds;
whatever may have changed something is never sent again from here: who calls asks first what became of it.
Neither the key nor a stack trace is repeated in an error. Source: Lidarr ``src/Lidarr.Http``.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import monotonic
from typing import Final, Literal, TypeAlias

import aiohttp
import msgspec
import stamina
import structlog
from aiohttp import hdrs

from kima_stream import metrics
from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.integrations.lidarr_types import ALREADY_ADDED, ErrorBody, Fault

SYSTEM: Final = "lidarr"
CONNECT_SECONDS: Final = 10.0
ORDINARY_SECONDS: Final = 30.0
LOOKUP_SECONDS: Final = 60.0  # Lidarr asks its metadata server
SLOW_SECONDS: Final = 120.0  # it asks all indexers, or posts a Test to us, for which it waits up to 100 s
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
MAX_CONNECTIONS: Final = 8
READ_ATTEMPTS: Final = 3
MAX_PAUSE_SECONDS: Final = 2.0  # between attempts; whoever is told to wait longer gives up and says so
MAX_SAID: Final = 300  # characters of Lidarr's own words in an error

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]
Query: TypeAlias = Mapping[str, str | int | bool | Sequence[int]]

_MAY_HEAL: Final = frozenset({408, 425, 429})
_REFUSED: Final = frozenset({401, 403})
_ALREADY_ADDED: Final = frozenset({"ArtistExistsValidator", "AlbumExistsValidator"})
_URL: Final = re.compile(r"(https?://)(?:[^\s/?#@]*@)?([^\s/?#\]\"']*)[^\s\]\"']*", re.IGNORECASE)
_KEYISH: Final = re.compile(r"((?:api[_-]?key|token|passw\w*|secret)\W{1,3})[^\s&\]\"',}]+", re.IGNORECASE)
_FAULTS: Final = msgspec.json.Decoder(tuple[Fault, ...])
_ERROR: Final = msgspec.json.Decoder(ErrorBody)
log = structlog.get_logger(__name__)


class LidarrError(IntegrationError):
    """Lidarr failed us or refused; ``status`` 0 when it did not answer at all."""

    def __init__(
        self,
        detail: str,
        *,
        retryable: bool,
        status: int = 0,
        faults: Sequence[Fault] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        """Keep what a caller decides by."""
        super().__init__(detail, system=SYSTEM, retryable=retryable, retry_after_seconds=retry_after_seconds)
        self.status = status
        self.faults = tuple(faults)

    @property
    def is_already_added(self) -> bool:
        """Whether what was to be added is there: Lidarr says so with 400, its database with 409."""
        return self.status == HTTPStatus.CONFLICT or any(
            fault.error_code in _ALREADY_ADDED or ALREADY_ADDED in fault.error_message for fault in self.faults
        )


class LidarrTimeoutError(LidarrError):
    """No answer in time: not worth another wait of the same length right now."""

    def __init__(self, seconds: float) -> None:
        """Say how long it was waited for."""
        super().__init__(f"no answer within {seconds:.0f} s", retryable=True)


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open the connections to Lidarr, at most MAX_CONNECTIONS; one session serves a whole process."""
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, trust_env=False) as opened:
        yield opened


class Transport:
    """Calls one Lidarr; ``ahead_seconds`` is how far its clock is ahead of ours, by its last answer."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        opened: aiohttp.ClientSession,
        *,
        now: Callable[[], datetime],
    ) -> None:
        """Take the address with its URL base; nothing is asked yet."""
        self.base_url = base_url.rstrip("/")
        self.ahead_seconds = 0.0
        self.before_change: Callable[[], None] = lambda: None  # raises for who lost the right to change anything
        self._api_key = api_key
        self._session = opened
        self._now = now

    async def read(
        self, endpoint: str, *, number: int = 0, query: Query | None = None, seconds: float = ORDINARY_SECONDS
    ) -> bytes:
        """GET ``endpoint``, e.g. ``/album/{id}`` with a number, and return the answer; tried again if that may help."""
        attempts = stamina.retry_context(
            on=_pause, attempts=READ_ATTEMPTS, timeout=None, wait_initial=0.2, wait_max=MAX_PAUSE_SECONDS
        ).with_name(f"lidarr {endpoint}", (), {})
        async for attempt in attempts:
            with attempt:
                return await self.call("GET", endpoint, number=number, query=query, seconds=seconds)
        raise AssertionError  # the last attempt returned or raised

    async def call(
        self,
        method: Method,
        endpoint: str,
        *,
        number: int = 0,
        query: Query | None = None,
        body: object = None,
        seconds: float = ORDINARY_SECONDS,
    ) -> bytes:
        """Call ``endpoint`` once and return what it answered.

        Raises:
            ConfigurationError: it is not there, or refuses the key.
            LidarrError: nobody answers in time, or not with success.
        """
        if method != "GET":
            self.before_change()
        path, began, status = f"/api/v1{endpoint}", monotonic(), "unreachable"
        try:
            async with asyncio.timeout(seconds):
                answer, content = await self._send(method, path.format(id=number), query, body)
            status = str(answer.status)
        except TimeoutError as error:
            status = "timeout"
            raise LidarrTimeoutError(CONNECT_SECONDS if isinstance(error, aiohttp.ClientError) else seconds) from None
        except LidarrError as error:
            status = str(error.status)
            raise
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            raise _unreachable(error) from None
        finally:
            took = monotonic() - began
            metrics.lidarr_api_calls.labels(endpoint=path, status=status).inc()
            metrics.lidarr_api_seconds.labels(endpoint=path).observe(took)
            log.debug("lidarr_called", method=method, endpoint=path, status=status, seconds=round(took, 3))
        self._check(answer, content)
        self._set_clock(answer.headers)
        return content

    async def _send(
        self, method: Method, path: str, query: Query | None, body: object
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        headers = {"X-Api-Key": self._api_key, "Accept": "application/json", "User-Agent": "kima-stream"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = msgspec.json.encode(body)
        async with self._session.request(
            method,
            self.base_url + path,
            params=_pairs(query or {}),
            data=data,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        ) as answer:
            content = bytearray()
            async for chunk in answer.content.iter_any():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    answer.close()
                    said = f"the answer is longer than {MAX_ANSWER_BYTES // 1024**2} MB"
                    raise LidarrError(said, retryable=False, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return answer, bytes(content)

    def _check(self, answer: aiohttp.ClientResponse, content: bytes) -> None:
        """Raise what an answer without success means."""
        status = answer.status
        if status in _REFUSED:
            remedy = "it is under Settings, General, Security in Lidarr"
            raise ConfigurationError([f"lidarrApiKey: Lidarr refuses it ({status}); {remedy}"])
        if 300 <= status < 400:  # noqa: PLR2004 - HTTP's own lines
            raise ConfigurationError(
                ["lidarrUrl: it leads elsewhere; give the address where it ends, with its URL base"]
            )
        is_json = "json" in answer.headers.get(hdrs.CONTENT_TYPE, "")
        if content and not is_json and status < 500 and status not in _MAY_HEAL:  # noqa: PLR2004 - as above
            remedy = "something else answers there, or its URL base is missing"
            raise ConfigurationError([f"lidarrUrl: this is not Lidarr's API ({status}); {remedy}"])
        if status == HTTPStatus.NOT_FOUND and not content:
            raise ConfigurationError(["lidarrUrl: this is not Lidarr's API (404); its URL base is missing or wrong"])
        if status < 400:  # noqa: PLR2004 - as above
            return
        may_heal = status >= 500 or status in _MAY_HEAL  # noqa: PLR2004 - as above
        said, faults = self._said(content) if is_json else ("", ())
        raise LidarrError(
            f"answered {status}{f': {said}' if said else ''}",
            retryable=may_heal,
            status=status,
            faults=faults,
            retry_after_seconds=_retry_after(answer.headers) if may_heal else None,
        )

    def _said(self, content: bytes) -> tuple[str, tuple[Fault, ...]]:
        """Return Lidarr's own words, whichever shape they have, fit to be shown."""
        try:
            faults = _FAULTS.decode(content)
        except msgspec.DecodeError:
            faults = ()
        if faults:
            text = "; ".join(f"{fault.property_name}: {fault.error_message}" for fault in faults)
        else:
            try:
                text = _ERROR.decode(content).message
            except msgspec.DecodeError:
                text = ""
        shown = msgspec.structs.replace
        return self._clean(text), tuple(
            shown(fault, error_message=self._clean(fault.error_message)) for fault in faults
        )

    def _clean(self, text: str) -> str:
        """Return text of Lidarr's without our key and others', without addresses beyond the host, on one line."""
        text = text.replace(self._api_key, "***") if self._api_key else text
        text = _URL.sub(r"\1\2", text)
        text = _KEYISH.sub(r"\1***", "".join(letter if letter.isprintable() else " " for letter in text))
        return " ".join(text.split())[:MAX_SAID]

    def _set_clock(self, headers: Mapping[str, str]) -> None:
        theirs = _moment(headers.get(hdrs.DATE, ""))
        if theirs is not None:
            self.ahead_seconds = (theirs - self._now()).total_seconds()


def _pairs(query: Query) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        many = [value] if isinstance(value, str | int) else value
        pairs += [(name, str(each).lower() if isinstance(each, bool) else str(each)) for each in many]
    return pairs


def _pause(error: Exception) -> bool | float:
    """Return whether to try a read again, or how long to wait before it."""
    if not isinstance(error, LidarrError) or isinstance(error, LidarrTimeoutError) or not error.retryable:
        return False
    if error.retry_after_seconds is None:
        return True
    return error.retry_after_seconds if error.retry_after_seconds <= MAX_PAUSE_SECONDS else False


def _unreachable(error: Exception) -> LidarrError | ConfigurationError:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return ConfigurationError(["lidarrUrl: its certificate does not hold, or it speaks no TLS"])
        case aiohttp.InvalidURL():
            return ConfigurationError(["lidarrUrl: nobody can be reached at such an address"])
        case ValueError():
            return ConfigurationError(["lidarrApiKey: it cannot be sent as a header"])
        case aiohttp.ClientConnectorError():
            return LidarrError(f"cannot be reached: {error.os_error.strerror or 'no connection'}", retryable=True)
        case _:
            return LidarrError(f"the connection broke ({type(error).__name__})", retryable=True)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    given = headers.get(hdrs.RETRY_AFTER, "").strip()
    if given.isdecimal():
        return float(given[:9])
    until = _moment(given)
    return None if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())


def _moment(text: str) -> datetime | None:
    """Return a time of HTTP's."""
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
