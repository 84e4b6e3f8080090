"""Peers that fail us: three times within a day and they are left alone for a day."""

import asyncio

from kima_stream.database import Connection, Pool
from kima_stream.integrations.soulseek import peers


async def test_three_failures_at_once_block_and_two_do_not(pool: Pool) -> None:
    """Counted by the database: three that come at the same moment are three."""

    async def fail(peer: str) -> None:
        async with pool.acquire() as conn:
            await peers.failed(conn, peer, "no bytes")

    await asyncio.gather(*(fail("three") for _ in range(3)), *(fail("two") for _ in range(2)))

    async with pool.acquire() as conn:
        assert await peers.blocked(conn) == {"three"}
        (blocked,) = await peers.list_blocked(conn)
    assert blocked.failures == 3
    assert round((blocked.blocked_until - blocked.last_failed_at).total_seconds()) == 86_400


async def test_a_success_clears_what_was_before(conn: Connection) -> None:
    """Two failures, a success, two failures: not blocked."""
    for outcome in (peers.failed, peers.failed, None, peers.failed, peers.failed):
        if outcome is None:
            await peers.succeeded(conn, "somebody")
        else:
            await outcome(conn, "somebody", "slow")

    assert await peers.blocked(conn) == frozenset()


async def test_what_is_a_day_old_counts_no_more(conn: Connection) -> None:
    """Failures and blocks alike, by the database's clock."""
    for _ in range(3):
        await peers.failed(conn, "somebody", "slow")
    await conn.execute("UPDATE soulseek_peers SET last_failed_at = last_failed_at - interval '25 h',"
                       " blocked_until = blocked_until - interval '25 h'")  # fmt: skip
    assert await peers.blocked(conn) == frozenset()

    assert not await peers.failed(conn, "somebody", "slow")


async def test_a_reason_of_a_peer_is_kept_harmless(conn: Connection) -> None:
    """It is text of a stranger: cut, on one line, without NUL."""
    for _ in range(3):
        await peers.failed(conn, "somebody", "no\x00\n" + "x" * 5_000)

    (blocked,) = await peers.list_blocked(conn)
    assert blocked.reason.startswith("no x")
    assert len(blocked.reason) == peers.MAX_REASON_CHARACTERS
