"""The cache: a copy of what others answered, that nobody depends on."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import redis.asyncio as redis_client
from prometheus_client import REGISTRY

from kima_stream.cache import Cache, Copies, Kind
from kima_stream.embedded.valkey import Valkey


class Answer(msgspec.Struct, frozen=True):
    """What somebody answers."""

    tracks: int


KIND = Kind(name="test_tracks", type=Answer, seconds=7_200, missing_seconds=600)


class Source:
    """The other side: counts how often it is asked."""

    def __init__(self, answer: Answer | None) -> None:
        """Answer always the same."""
        self.answer = answer
        self.asked = 0

    async def load(self) -> Answer | None:
        """Answer."""
        self.asked += 1
        await asyncio.sleep(0)
        return self.answer


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[Cache]:
    """A cache on an empty database."""
    async with Copies(redis_url) as copies:
        yield Cache(copies)


def counted(name: str, **labels: str) -> float:
    """Return a counter of this kind."""
    return REGISTRY.get_sample_value(name, {"cache_name": KIND.name, **labels}) or 0.0


async def test_what_was_asked_once_is_not_asked_again(cache: Cache, redis_url: str) -> None:
    """The second look is a hit; the key lives as long as its kind says."""
    source = Source(Answer(11))

    assert await cache.through(KIND, "tidewater", source.load) == Answer(11)
    assert await cache.through(KIND, "tidewater", source.load) == Answer(11)

    assert source.asked == 1
    async with redis_client.Redis.from_url(redis_url, protocol=3) as client:
        assert 7_190 < await client.ttl("kima:cache:test_tracks:tidewater") <= 7_200


async def test_a_time_of_its_own_is_kept_within_the_bounds(cache: Cache, redis_url: str) -> None:
    """An hour at least, a week at most, whatever is asked for."""
    for name, asked, kept in (("short", 1, 3_600), ("long", 10**9, 604_800), ("fits", 86_400, 86_400)):
        await cache.through(KIND, name, Source(Answer(1)).load, seconds=asked)
        async with redis_client.Redis.from_url(redis_url, protocol=3) as client:
            assert kept - 10 < await client.ttl(f"kima:cache:test_tracks:{name}") <= kept


async def test_what_does_not_exist_is_kept_for_less_time(cache: Cache, redis_url: str) -> None:
    """The answer "no such album" is one too, bounded by an hour."""
    source = Source(None)

    assert await cache.through(KIND, "nothing", source.load) is None
    assert await cache.through(KIND, "nothing", source.load) is None

    assert source.asked == 1
    async with redis_client.Redis.from_url(redis_url, protocol=3) as client:
        assert 590 < await client.ttl("kima:cache:test_tracks:nothing") <= 600
    with pytest.raises(ValueError, match="an hour at most"):
        Kind(name="x", type=Answer, missing_seconds=3_601)
    with pytest.raises(ValueError, match="1 hour to 7 days"):
        Kind(name="x", type=Answer, seconds=3_599)


async def test_the_figures_are_exact(cache: Cache) -> None:
    """Two looks, one hit, one miss, one set, one delete; then a miss again."""
    names = ("kima_cache_hits_total", "kima_cache_misses_total")
    before = [counted(name) for name in names]
    operations = {each: counted("kima_cache_operations_total", operation=each) for each in ("get", "set", "delete")}
    source = Source(Answer(3))

    await cache.through(KIND, "figures", source.load)
    await cache.through(KIND, "figures", source.load)
    await cache.forget(KIND, "figures")
    await cache.through(KIND, "figures", source.load)

    assert [counted(name) - was for name, was in zip(names, before, strict=True)] == [1, 2]
    moved = {each: counted("kima_cache_operations_total", operation=each) - was for each, was in operations.items()}
    assert moved == {"get": 3, "set": 2, "delete": 1}


async def test_without_redis_the_answer_is_loaded_each_time(valkey: Valkey) -> None:
    """Redis that goes away is a miss, not a failure; so is none at all."""
    source = Source(Answer(5))
    async with Copies(valkey.url) as copies:
        cache = Cache(copies)
        await cache.through(KIND, "away", source.load)
        await valkey.kill()
        assert await cache.through(KIND, "away", source.load) == Answer(5)
    none = Cache(Copies())
    assert await none.through(KIND, "away", source.load) == Answer(5)
    await none.forget(KIND, "away")

    assert source.asked == 3


async def test_many_who_ask_at_once_share_one_load(cache: Cache) -> None:
    """A burst costs the other side one call."""
    source = Source(Answer(7))

    found = await asyncio.gather(*(cache.through(KIND, "burst", source.load) for _ in range(200)))

    assert found == [Answer(7)] * 200
    assert source.asked == 1


async def test_an_error_is_not_kept(cache: Cache) -> None:
    """Who asks after a failure asks anew."""
    source = Source(Answer(9))

    async def broken() -> Answer:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await cache.through(KIND, "broken", broken)

    assert await cache.through(KIND, "broken", source.load) == Answer(9)


async def test_what_cannot_be_read_is_loaded(cache: Cache, redis_url: str) -> None:
    """An older version's value, or nonsense, is a miss; odd and long names are names too."""
    async with redis_client.Redis.from_url(redis_url, protocol=3) as client:
        await client.set("kima:cache:test_tracks:old", b'{"tracks":"many"}')

    assert await cache.through(KIND, "old", Source(Answer(2)).load) == Answer(2)
    for name in ("\x00\n", "x" * 5_000, "雨", "\ud800"):
        source = Source(Answer(2))
        await cache.through(KIND, name, source.load)
        await cache.through(KIND, name, source.load)
        assert source.asked == 1, name
