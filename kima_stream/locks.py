"""Locks in Redis, ``kima:lock:<name>``: they spare work and show who works; they never decide.

Postgres decides (``leases``). A lock has a token of its own per acquisition, so one that ran out cannot release
the next one's; it is renewed while it is held. Whoever has the lease may take a lock over: the lock of a dead
holder lasts for minutes, its lease for seconds. Without Redis there is no lock, and nothing else changes.
"""

import secrets
from typing import Final, Self

import redis.asyncio as redis_client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

TTL_SECONDS: Final = 360.0
ANSWER_SECONDS: Final = 2.0
OUTAGE: Final = (OSError, RedisError)

# Compare and act in one step: the token may have changed since we looked.
_RENEW: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def key(name: str) -> str:
    """Return the key of a lock."""
    return f"kima:lock:{name}"


class Locks:
    """A connection pool to Redis for locks."""

    def __init__(self, url: str) -> None:
        """Connect lazily."""
        self._redis: redis_client.Redis = redis_client.Redis.from_url(
            url,
            protocol=3,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 1),
            client_name="kima-stream-locks",
        )
        self._renew = self._redis.register_script(_RENEW)
        self._release = self._redis.register_script(_RELEASE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._redis.aclose()

    async def acquire(self, name: str, *, ttl_seconds: float = TTL_SECONDS) -> "Lock | None":
        """Take the lock if it is free; None when somebody has it.

        Raises:
            OUTAGE: Redis does not answer; there is no lock.
        """
        lock = Lock(self, name, secrets.token_hex(16), ttl_seconds)
        taken = await self._redis.set(key(name), lock.token, px=_milliseconds(ttl_seconds), nx=True)
        return lock if taken else None

    async def take_over(self, name: str, *, ttl_seconds: float = TTL_SECONDS) -> "Lock":
        """Take the lock whoever has it: only for the holder of the lease that decides.

        Raises:
            OUTAGE: as above.
        """
        lock = Lock(self, name, secrets.token_hex(16), ttl_seconds)
        await self._redis.set(key(name), lock.token, px=_milliseconds(ttl_seconds))
        return lock

    async def renew(self, lock: "Lock") -> bool:
        """Extend the lock to its full time; False when it is not ours any more."""
        return bool(await self._renew(keys=[key(lock.name)], args=[lock.token, _milliseconds(lock.ttl_seconds)]))

    async def release(self, lock: "Lock") -> bool:
        """Give the lock back; False, and nothing happened, when it is not ours any more."""
        return bool(await self._release(keys=[key(lock.name)], args=[lock.token]))


class Lock:
    """One acquisition: ``token`` is unlike that of any other, also of the same process."""

    def __init__(self, locks: Locks, name: str, token: str, ttl_seconds: float) -> None:
        """Made by ``Locks``."""
        self._locks = locks
        self.name = name
        self.token = token
        self.ttl_seconds = ttl_seconds

    async def renew(self) -> bool:
        """Extend it; False when it is not ours any more."""
        return await self._locks.renew(self)

    async def release(self) -> bool:
        """Give it back; False when it is not ours any more."""
        return await self._locks.release(self)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
