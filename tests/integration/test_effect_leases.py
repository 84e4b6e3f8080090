"""Leases of effects: one holder at a time, by Postgres' clock; who was fenced changes nothing."""

import asyncio
from collections import Counter

import pytest

from kima_stream.database import Connection, Pool
from kima_stream.effect_work import Progress
from kima_stream.effects import leasing
from kima_stream.effects.leasing import Delay, Taken
from tests import shop as shops
from tests.shop import CATEGORY, an_effect, order


@pytest.fixture(autouse=True)
async def orders(pool: Pool) -> None:
    """The table of the orders."""
    await shops.prepare(pool)


async def take(conn: Connection, count: int = 1, *, seconds: float = 10.0) -> list[Taken]:
    """Take what is due."""
    return await leasing.take(
        conn, {"shop.order": count}, categories=[CATEGORY], closed=[], holder="test", seconds=seconds, now=None
    )


async def test_many_who_take_at_once_get_each_effect_once(pool: Pool, conn: Connection) -> None:
    """Whatever their snapshots show them."""
    for number in range(60):
        await order(conn, number)

    async def one() -> list[Taken]:
        taken: list[Taken] = []
        async with pool.acquire() as own:
            while found := await take(own):
                taken += found
        return taken

    taken = [each for found in await asyncio.gather(*(one() for _ in range(12))) for each in found]

    assert Counter(each.effect.effect_id for each in taken) == {an_effect(n).effect_id: 1 for n in range(60)}
    assert {each.fence for each in taken} == {1}


async def test_who_was_fenced_changes_nothing(conn: Connection) -> None:
    """It begins nothing, puts nothing off, gives nothing back."""
    await order(conn, 1)
    [first] = await take(conn, seconds=0.0)
    [second] = await take(conn)
    assert (first.fence, second.fence) == (1, 2)
    before = await conn.fetchrow("SELECT * FROM effect_leases")

    assert not await leasing.begin(conn, first)
    await leasing.postpone(conn, first, Delay(seconds=9, error="late", nothing_done=True), now=None)
    await leasing.release(conn, first, seconds=0, now=None)
    [held] = (await leasing.renew(conn, [(first, None)], seconds=99)).values()

    assert (held.is_ours, held.is_open) == (False, True)
    assert await conn.fetchrow("SELECT * FROM effect_leases") == before
    assert await leasing.begin(conn, second)


async def test_a_call_moves_when_its_progress_changes(conn: Connection) -> None:
    """To be alive is no move, nor is it to say the same again."""
    await order(conn, 1)
    [taken] = await take(conn)
    await leasing.begin(conn, taken)
    moves = []
    for done in (None, 1, 1, None, 2):
        progress = None if done is None else Progress(text="coming", done_bytes=done)
        await leasing.renew(conn, [(taken, progress)], seconds=10.0)
        moves.append(await conn.fetchval("SELECT moved_at FROM effect_leases"))

    assert moves[0] is None
    assert moves[1] == moves[2] == moves[3] < moves[4]


async def test_what_is_not_wanted_any_more_is_not_begun(conn: Connection) -> None:
    """Though its lease is ours."""
    await order(conn, 1)
    [taken] = await take(conn)
    await shops.withdraw(conn, 1)

    assert not await leasing.begin(conn, taken)
    [held] = (await leasing.renew(conn, [(taken, None)], seconds=99)).values()
    assert not held.is_open


async def test_leases_of_what_is_not_open_are_forgotten_in_the_end(conn: Connection) -> None:
    """Those of what is open never."""
    await order(conn, 1)
    await order(conn, 2)
    await take(conn, 2)
    await shops.withdraw(conn, 1)
    await conn.execute("UPDATE effect_leases SET expires_at = now() - interval '1 day'")

    await leasing.sweep(conn, older_than_seconds=90_000)
    assert await conn.fetchval("SELECT count(*) FROM effect_leases") == 2
    await leasing.sweep(conn, older_than_seconds=80_000)

    assert await conn.fetchval("SELECT effect_id FROM effect_leases") == an_effect(2).effect_id
