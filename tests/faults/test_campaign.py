"""A hundred kills under load: what was acknowledged is there, in one order, once, and folded."""

import asyncio
import random
import socket
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from kima_stream import audit, database
from kima_stream.database import Pool
from kima_stream.embedded.postgres import Postgres
from kima_stream.embedded.valkey import Valkey
from kima_stream.read_models import download_jobs
from kima_stream.replay import replay
from tests.faults.campaign import Client, Nemesis, house
from tests.polling import eventually

FAULTS = 100
CLIENTS = 6


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def is_settled(pool: Pool) -> bool:
    """Whether everything is numbered and every group has verified it."""
    async with pool.acquire() as conn:
        return bool(
            await conn.fetchval(
                """SELECT (SELECT count(*) FROM events) = (SELECT max(position) FROM event_positions)
                      AND NOT EXISTS (SELECT FROM group_checkpoints
                                       WHERE verified_position < (SELECT max(position) FROM event_positions))
                      AND (SELECT count(*) FROM group_checkpoints) >= 2"""
            )
        )


@pytest.mark.fault
@pytest.mark.timeout(900)
async def test_nothing_acknowledged_is_lost_under_a_hundred_kills(
    postgres: Postgres, valkey: Valkey, tmp_path: Path, rng: random.Random, scaled: Callable[[int], int]
) -> None:
    """Kill -9 of every role, FLUSHALL, kill -9 of Valkey, immediate restarts of Postgres, a paused leader."""
    acknowledged = tmp_path / "acknowledged"
    clients = []
    async with house(postgres, valkey, free_port(), tmp_path) as built:
        stopping = asyncio.Event()
        nemesis = Nemesis(built, rng)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                clients.append(Client(built.url, acknowledged, random.Random(rng.random())))
                tasks.create_task(clients[-1].play(stopping))
            for _ in range(scaled(FAULTS)):
                await asyncio.sleep(0.3 + rng.random())  # load between the faults
                await nemesis.strike()
            stopping.set()
        pool = await database.open_pool(postgres.url, role="oracle")
        await eventually(lambda: is_settled(pool), timeout=60)
        assert built.ended() == []
        async with pool.acquire() as conn:
            await check_log(conn, acknowledged, nemesis)
            await check_jobs(conn, clients)
        await pool.close()


async def check_log(conn: asyncpg.pool.PoolConnectionProxy, acknowledged: Path, nemesis: Nemesis) -> None:
    """Every acknowledged id is stored; positions are dense; streams have no gap; the chain holds."""
    told = set(acknowledged.read_text().split())
    stored = {str(row["event_id"]) for row in await conn.fetch("SELECT event_id FROM events")}
    rows = await conn.fetch("SELECT position, stream, version FROM event_positions ORDER BY position")
    streams: dict[str, list[int]] = {}
    for row in rows:
        streams.setdefault(row["stream"], []).append(row["version"])

    assert len(told) > len(nemesis.done), "there was no load"
    assert told - stored == set()
    assert [row["position"] for row in rows] == list(range(1, len(stored) + 1))
    assert all(versions == list(range(len(versions))) for versions in streams.values())
    assert (await audit.verify(conn)).faults == ()
    print(f"\n{len(nemesis.done)} faults, {len(told)} acknowledged, {len(stored)} stored, 0 lost")  # noqa: T201


async def check_jobs(conn: asyncpg.pool.PoolConnectionProxy, clients: list[Client]) -> None:
    """Each album has the job that was answered, in the state that its last webhook means; a rebuild agrees."""
    replayed = await replay(conn, download_jobs.PROJECTION)
    rows = await conn.fetch("SELECT job_id, target_mbid, status FROM download_jobs WHERE version >= 0")
    jobs: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        jobs.setdefault(str(row["target_mbid"]), []).append(row)

    assert replayed.differences == ()
    expected = {album: status for client in clients for album, status in client.expected.items()}
    assert {album: [job["status"] for job in jobs.get(album, [])] for album in expected} == {
        album: [status] for album, status in expected.items()
    }
    requested = {album: job_id for client in clients for album, job_id in client.requested.items()}
    assert {album: jobs[album][0]["job_id"] for album in requested} == requested
