"""Locks in Redis: one holder, a token per acquisition, and no word in who decides."""

import asyncio

import redis.asyncio as redis_client

from kima_stream.embedded.valkey import Valkey
from kima_stream.locks import OUTAGE, TTL_SECONDS, Locks, key


async def test_one_of_ten_gets_it(redis_url: str) -> None:
    """Also when they are of one process."""
    async with Locks(redis_url) as locks:
        taken = await asyncio.gather(*(locks.acquire("soulseek") for _ in range(10)))

    assert sum(lock is not None for lock in taken) == 1


async def test_a_lock_that_ran_out_cannot_release_the_next_one(redis_url: str) -> None:
    """The token is of the acquisition, not of the process."""
    async with Locks(redis_url) as locks:
        first = await locks.acquire("soulseek", ttl_seconds=0.001)
        second = None
        while second is None:  # the first has a millisecond to live
            second = await locks.acquire("soulseek")
        assert first is not None

        assert not await first.renew()
        assert not await first.release()
        assert await second.renew()
        assert await second.release()
        assert await locks.acquire("soulseek") is not None


async def test_it_lasts_six_minutes_and_is_renewed_to_that(redis_url: str) -> None:
    """The time of the release notes."""
    client = redis_client.Redis.from_url(redis_url)
    async with Locks(redis_url) as locks, client:
        lock = await locks.acquire("soulseek")
        assert lock is not None
        await client.pexpire(key("soulseek"), 1_000)

        assert await lock.renew()

        assert TTL_SECONDS == 360
        assert 359_000 < await client.pttl(key("soulseek")) <= 360_000


async def test_who_has_the_lease_takes_it_over(redis_url: str) -> None:
    """A dead holder's lock lasts for minutes; its lease has run out long before."""
    async with Locks(redis_url) as locks:
        dead = await locks.acquire("soulseek")
        alive = await locks.take_over("soulseek")
        assert dead is not None

        assert not await dead.renew()
        assert not await dead.release()
        assert await alive.renew()


async def test_without_redis_it_says_so(valkey: Valkey) -> None:
    """And whoever asked goes on by the lease alone."""
    await valkey.stop()
    async with Locks(valkey.url) as locks:
        try:
            await locks.acquire("soulseek")
        except OUTAGE:
            return
    raise AssertionError
