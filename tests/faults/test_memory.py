"""However long the log grows: Redis stays small, and no role keeps what has passed through it."""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from kima_stream import event_store
from kima_stream.database import Connection
from kima_stream.embedded.valkey import Valkey
from kima_stream.event_store import Append
from kima_stream.event_stream import EventStream
from tests import processes
from tests.factories import a_note
from tests.front_door import webhook
from tests.polling import eventually
from tests.watcher import Watcher

KEY = "kima_test_key_" + "7" * 32
ROLES = ("serve", "publish", "consume", "reconcile")
BATCH = 500
AHEAD = 500  # events that may wait to be verified: a sender with a steady hand
REDIS_BYTES = 10_000_000
GROWTH_BYTES = 6_000_000  # of a role, from the first quarter on: kept, the events would be four times that


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_memory_does_not_grow_with_the_log(
    dsn: str, conn: Connection, valkey: Valkey, tmp_path: Path, scaled: Callable[[int], int]
) -> None:
    """Every role beside each other, the door with a reader: Redis' own peak and each role's size, named."""
    count = scaled(150_000) // BATCH * BATCH
    environment = {
        "KIMA_DATABASE_URL": dsn, "KIMA_REDIS_URL": valkey.url, "KIMA_DATA_DIR": str(tmp_path), "KIMA_PORT": "0",
        "KIMA_API_KEY": KEY, "KIMA_LOG_LEVEL": "warning",
    }  # fmt: skip
    text = webhook("grab").decode()
    assert count * len(text) > 4 * GROWTH_BYTES
    sizes: dict[str, list[int]] = {role: [] for role in ROLES}
    async with AsyncExitStack() as stack:
        running = {
            role: await stack.enter_async_context(processes.running(environment, tmp_path / "log", role))
            for role in ROLES
        }
        session = aiohttp.ClientSession(running["serve"].url, headers={"X-Api-Key": KEY})
        client = await stack.enter_async_context(session)
        watcher = Watcher()
        messages = await stack.enter_async_context(watcher.watching(client))
        for start in range(0, count, BATCH):
            notes = [Append(f"lidarr-{start + n}", [a_note(text, type="lidarr.health")]) for n in range(BATCH)]
            await event_store.append_many(conn, notes)
            await watcher.take(messages, BATCH)
            watcher.seen.clear()
            await eventually(lambda appended=start + BATCH: _verified(conn, appended - AHEAD), timeout=60)  # type: ignore[misc]  # a default, to bind it now
            for role, sizes_of in sizes.items():
                sizes_of.append(resident_bytes(running[role].process.pid))
        await eventually(lambda: _verified(conn, count), timeout=60)
        async with EventStream(valkey.url) as stream:
            peak = int((await stream.facts())["used_memory_peak"])
    quarter = len(sizes["serve"]) // 4
    growth = {role: of[-1] - max(of[: quarter + 1]) for role, of in sizes.items()}
    assert peak < REDIS_BYTES
    assert all(grown < GROWTH_BYTES for grown in growth.values()), growth


async def _verified(conn: Connection, position: int) -> bool:
    """Say whether every group of the category has verified the log up to ``position``."""
    return bool(
        await conn.fetchval(
            "SELECT min(verified_position) >= $1 FROM group_checkpoints WHERE category = 'lidarr'", position
        )
    )
