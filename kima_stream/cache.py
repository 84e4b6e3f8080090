"""What others answered, kept in Redis for a while: ``kima:cache:<name>:<key>``.

A copy that may be missed at any moment: when Redis is away, slow, full or holds what does not fit, it is a
miss and the value is loaded. What does not exist is kept too, for an hour at most. Whoever asks for
the same at the same moment in this process waits for one answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Generic, Self, TypeVar

import msgspec
import redis.asyncio as redis_client
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from kima_stream import metrics

ANSWER_SECONDS: Final = 0.5  # slower than this, loading is as good
SHORTEST_SECONDS: Final = 3_600  # 1 hour
LONGEST_SECONDS: Final = 7 * 24 * 3_600  # 7 days
MISSING_SECONDS: Final = 3_600  # what does not exist today may exist in an hour
MAX_VALUE_BYTES: Final = 256 * 1024  # larger ones are not worth the memory
MAX_KEY_BYTES: Final = 200  # a longer key is kept as its hash

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[T_co]):
    """One kind of answer: its name, which is the metrics' label, its type, and how long it is good, in seconds.

    Raises:
        ValueError: the time is not between 1 hour and 7 days.
    """

    name: str
    type: type[T_co]
    seconds: int = 24 * 3_600
    missing_seconds: int = MISSING_SECONDS
    decoder: "msgspec.json.Decoder[T_co | None]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the times."""
        if not SHORTEST_SECONDS <= self.seconds <= LONGEST_SECONDS:
            raise ValueError(f"{self.name}: {self.seconds} s; from 1 hour to 7 days")
        if not 0 <= self.missing_seconds <= MISSING_SECONDS:
            raise ValueError(f"{self.name}: {self.missing_seconds} s; what is missing is kept an hour at most")
        object.__setattr__(self, "decoder", msgspec.json.Decoder(self.type | None))


class Copies:
    """A few verbs on Redis that never fail; without a URL, and while Redis is away, there is no copy."""

    def __init__(self, url: str | None = None) -> None:
        """Connect lazily."""
        self._redis = (
            None
            if url is None
            else redis_client.Redis.from_url(
                url,
                protocol=3,
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
                client_name="kima-stream-cache",
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._redis is not None:
            await self._redis.aclose()

    async def get(self, key: str) -> bytes | None:
        """Return what is kept under ``key``."""
        found = await self._do("get", lambda client: client.get(key))
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, value: bytes, *, seconds: int) -> None:
        """Keep ``value`` for so many seconds."""
        await self._do("set", lambda client: client.set(key, value, ex=seconds))

    async def drop(self, key: str) -> None:
        """Keep nothing under ``key``."""
        await self._do("delete", lambda client: client.delete(key))

    async def _do(self, operation: str, work: "Callable[[redis_client.Redis], Awaitable[object]]") -> object:
        if self._redis is None:
            return None
        try:
            return await work(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("cache_away", operation=operation, error_type=type(error).__name__)
            return None


class Cache:
    """Values through ``Copies``: looked up, or else loaded and kept."""

    def __init__(self, copies: Copies) -> None:
        """Keep what is loaded in ``copies``."""
        self._copies = copies
        self._asking: dict[str, asyncio.Task[Any]] = {}

    async def through(
        self, kind: Kind[T], name: str, load: Callable[[], Awaitable[T | None]], *, seconds: int | None = None
    ) -> T | None:
        """Return what is kept under ``name``, or else what ``load`` returns, which is kept; None: it does not exist.

        Args:
            kind: what it is.
            name: what it is about, any text.
            load: asks the other side; its errors pass through, and nothing is kept.
            seconds: how long this one is good, instead of the kind's own; clamped to 1 hour to 7 days.
        """
        key = _key(kind, name)
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.create_task(self._ask(kind, key, load, seconds))
            self._asking[key] = asking
        # Shielded: one caller that gives up must not fail those who wait with it.
        value: T | None = await asyncio.shield(asking)
        return value

    async def _ask(
        self, kind: Kind[T], key: str, load: Callable[[], Awaitable[T | None]], seconds: int | None
    ) -> T | None:
        """Look up and load in one: a look from before another's load may be answered after it."""
        try:
            found, kept = await self._get(kind, key)
            if found:
                return kept
            value = await load()
            await self._set(kind, key, value, seconds)
            return value
        finally:
            self._asking.pop(key, None)

    async def forget(self, kind: Kind[T], name: str) -> None:
        """Drop what is kept under ``name``."""
        metrics.cache_operations.labels(cache_name=kind.name, operation="delete").inc()
        await self._copies.drop(_key(kind, name))

    async def _get(self, kind: Kind[T], key: str) -> tuple[bool, T | None]:
        metrics.cache_operations.labels(cache_name=kind.name, operation="get").inc()
        kept = await self._copies.get(key)
        if kept is not None:
            try:
                value = kind.decoder.decode(kept)
            except msgspec.DecodeError:  # an older version wrote it
                log.warning("cache_not_readable", cache=kind.name)
            else:
                metrics.cache_hits.labels(cache_name=kind.name).inc()
                return True, value
        metrics.cache_misses.labels(cache_name=kind.name).inc()
        return False, None

    async def _set(self, kind: Kind[T], key: str, value: T | None, seconds: int | None) -> None:
        good = min(max(seconds or kind.seconds, SHORTEST_SECONDS), LONGEST_SECONDS)
        good = kind.missing_seconds if value is None else good
        encoded = msgspec.json.encode(value)
        if not good or len(encoded) > MAX_VALUE_BYTES:
            return
        metrics.cache_operations.labels(cache_name=kind.name, operation="set").inc()
        await self._copies.put(key, encoded, seconds=good)


def _key(kind: Kind[T], name: str) -> str:
    encoded = name.encode(errors="replace")
    if len(encoded) > MAX_KEY_BYTES or not name.isprintable():
        name = f"sha256:{sha256(encoded).hexdigest()}"
    return f"kima:cache:{kind.name}:{name}"
