"""One login in the world: however many ask, crash, pause, or change the settings."""

import asyncio
import random
import signal
from collections.abc import Callable
from contextlib import suppress

import redis.asyncio as redis_client
from aioslsk.protocol.messages import Login

from kima_stream import database, leases
from kima_stream.database import Pool
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey
from kima_stream.errors import FencedError, IntegrationError
from kima_stream.integrations.soulseek import account
from kima_stream.integrations.soulseek.account import Said
from kima_stream.locks import Locks, key
from kima_stream.read_models import settings
from kima_stream.settings import config
from kima_stream.settings.store import Sources
from tests.integration.soulseek.conftest import PASSWORD, Starter, ask, owning, read, until
from tests.polling import eventually
from tests.soulseek_server import SoulseekServer


async def test_ten_connects_over_two_processes_are_one_login(
    pool: Pool, server: SoulseekServer, start_owner: Starter
) -> None:
    """All ten are answered; the server saw one connection, one login, no kick."""
    for _ in range(2):
        start_owner(30.0)

    asked = await asyncio.gather(*(ask(pool) for _ in range(10)))

    row = await until(pool, "connected", asked=max(asked), timeout=20)
    assert row.username == "kima"
    assert (server.connections, server.logins, server.kicks) == (1, ["kima"], [])


async def test_a_killed_owner_is_followed_within_the_lease(
    pool: Pool, server: SoulseekServer, start_owner: Starter, redis_url: str
) -> None:
    """Its lock in Redis would last for six minutes: the lease decides. The lock is the new owner's then."""
    first = start_owner(4.0)
    await until(pool, "connected", timeout=20)
    async with redis_client.Redis.from_url(redis_url) as client:
        before = await client.get(key("soulseek"))
        second = start_owner(4.0)
        logins = len(server.logins)
        first.send_signal(signal.SIGKILL)
        first.wait()
        killed_at = asyncio.get_running_loop().time()
        await eventually(lambda: len(server.logins) > logins, 30)

        assert asyncio.get_running_loop().time() - killed_at < 4 + 15  # the lease is 4 s, the rest is this machine
        assert second.poll() is None
        assert server.kicks == []
        assert before
        await eventually(lambda: _differs(client, before))


async def _differs(client: redis_client.Redis, before: bytes | str) -> bool:
    return await client.get(key("soulseek")) not in {None, before}


async def test_a_paused_owner_is_fenced_and_leaves_the_account_alone(
    pool: Pool, server: SoulseekServer, start_owner: Starter
) -> None:
    """Stopped beyond its lease, it is kicked by the next one's login; awake again it does not log in."""
    first = start_owner(2.0)
    await until(pool, "connected", timeout=20)
    async with pool.acquire() as conn:
        before = await leases.find(conn, account.LEASE)
    assert before is not None
    logins = len(server.logins)
    first.send_signal(signal.SIGSTOP)
    second = start_owner(30.0)
    await eventually(lambda: len(server.logins) == logins + 1, 30)
    first.send_signal(signal.SIGCONT)
    await eventually(lambda: "soulseek_ownership_lost" in start_owner.said(first), 20)
    first.send_signal(signal.SIGINT)  # its end is orderly: it must not take the second one's lease along
    await asyncio.to_thread(first.wait, 20)

    assert second.poll() is None
    row = await until(pool, "connected")
    assert row.is_owned
    assert len(server.logins) == logins + 1
    async with pool.acquire() as conn:
        stale = leases.Lease(account.LEASE, before.epoch, 0)
        with suppress(FencedError):
            await account.say(conn, stale, Said(state="off", answered=99), lease_seconds=1)
            raise AssertionError
    assert (await read(pool)).state == "connected"


async def test_a_closed_connection_is_made_anew_and_a_kick_is_not(
    pool: Pool, server: SoulseekServer, environment: dict[str, str]
) -> None:
    """Somebody else logged in: we stay away, also after a restart of ours, until we are asked to connect."""
    async with owning(pool, environment):
        await until(pool, "connected")
        server.close_session("kima")
        await eventually(lambda: len(server.logins) == 2, 10)
        await until(pool, "connected")
        elsewhere = await _log_in_elsewhere(server)
        await until(pool, "kicked")
    async with owning(pool, environment):
        row = await until(pool, "kicked")
        assert "somebody else" in row.detail.lower()
        asked = await ask(pool)
        await until(pool, "connected", asked=asked)

    assert server.logins == ["kima"] * 4
    assert server.kicks == ["kima"] * 2  # ours, and then the other one
    elsewhere.close()


async def _log_in_elsewhere(server: SoulseekServer) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(Login.Request("kima", PASSWORD, 175, "0" * 32, 1).serialize())
    await eventually(lambda: server.kicks == ["kima"])
    return writer


async def test_a_refused_password_is_shown_and_not_tried_again(
    pool: Pool, server: SoulseekServer, environment: dict[str, str]
) -> None:
    """It takes another password, or somebody who asks again."""
    wrong = environment | {"KIMA_SOULSEEK_PASSWORD": "wrong"}
    async with owning(pool, wrong):
        row = await until(pool, "refused")
        assert "INVALIDPASS" in row.detail
        assert "soulseekPassword" in row.detail
        assert "wrong" not in row.detail.replace("soulseek", "")
        asked = await ask(pool)
        await until(pool, "refused", asked=asked)
        assert len(server.refused) == 2
        async with pool.acquire() as conn:
            await settings.change(conn, Sources.of(config.load(wrong)), {"soulseekPassword": PASSWORD},
                                  by="a test", expected_version=None, correlation_id="test")  # fmt: skip
        await until(pool, "connected")

    assert len(server.refused) == 2


async def test_new_settings_are_a_new_login_without_a_restart(
    pool: Pool, server: SoulseekServer, environment: dict[str, str]
) -> None:
    """Another user name: out and in again. Switched off: out."""
    sources = Sources.of(config.load(environment))

    async def change(**values: object) -> None:
        async with pool.acquire() as conn:
            await settings.change(conn, sources, values, by="a test", expected_version=None, correlation_id="test")

    async with owning(pool, environment):
        await until(pool, "connected")
        await change(soulseekUsername="another")
        await eventually(lambda: server.logins == ["kima", "another"])
        assert list(server.online) == ["another"]
        await change(soulseekEnabled=False)
        await until(pool, "off")
        assert not server.online


async def test_a_server_that_is_away_is_asked_less_and_less_often(
    pool: Pool, server: SoulseekServer, environment: dict[str, str]
) -> None:
    """It says what it waits for; who asks to connect is answered at once, by one more try."""
    await server.stop()
    async with owning(pool, environment):
        row = await until(pool, "waiting")
        assert "next try in" in row.detail
        asked = await ask(pool)
        await until(pool, "waiting", asked=asked)
        await server.start()
        asked = await ask(pool)
        await until(pool, "connected", asked=asked)

    assert server.logins == ["kima"]


async def test_who_leaves_in_order_keeps_nobody_waiting(
    pool: Pool, server: SoulseekServer, environment: dict[str, str]
) -> None:
    """Lease and connection are given back: the next one connects at once, and kicks nobody."""
    async with owning(pool, environment, lease_seconds=100):
        await until(pool, "connected")
    assert not (await read(pool)).is_owned
    async with owning(pool, environment, lease_seconds=100):
        await until(pool, "connected")

    assert (server.logins, server.kicks) == (["kima"] * 2, [])


async def test_without_postgres_the_connection_is_closed_before_another_may_have_it(
    postgres: Postgres, server: SoulseekServer, environment: dict[str, str]
) -> None:
    """Nobody can prove who owns the account: it is left within the lease, and taken again when Postgres is back."""
    pool = await database.open_pool(postgres.url, role="test", max_size=6)
    async with owning(pool, environment, lease_seconds=2.0):
        await until(pool, "connected", timeout=20)
        logins = len(server.logins)
        await postgres.stop()
        await eventually(lambda: not server.online, 2.0 + 10)
        await postgres.start()
        await eventually(lambda: len(server.logins) > logins, 30)

    assert server.kicks == []
    pool.terminate()


async def test_without_redis_the_lease_alone_decides(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], valkey: Valkey
) -> None:
    """It is away, and comes back empty: the account stays where it is, and is shown again."""
    await valkey.stop()
    async with Locks(valkey.url) as locks, owning(pool, environment, locks=locks):
        await until(pool, "connected")
        await valkey.start()
        async with redis_client.Redis.from_url(valkey.url) as client:
            await eventually(lambda: client.exists(key("soulseek")))
            await client.flushall()
            await eventually(lambda: client.exists(key("soulseek")))

    assert server.logins == ["kima"]


async def test_whatever_is_asked_in_whatever_order_there_is_one_login_at_most(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], rng: random.Random, scaled: Callable[[int], int]
) -> None:
    """Connects, disconnects, searches and closed connections mixed: nothing is raised, nobody kicked."""
    async with owning(pool, environment) as owner:
        await until(pool, "connected")
        for _ in range(scaled(1_000)):
            match rng.randrange(4):
                case 0:
                    await ask(pool, wanted=True)
                case 1:
                    await ask(pool, wanted=False)
                case 2 if "kima" in server.online and rng.random() < 0.1:
                    server.close_session("kima")
                case _:
                    with suppress(IntegrationError):
                        async for _ in (await owner.client()).search("an album", seconds=0.005):
                            pass
            assert len(server.online) <= 1
        asked = await ask(pool, wanted=True)
        await until(pool, "connected", asked=asked, timeout=30)

    assert server.kicks == []
