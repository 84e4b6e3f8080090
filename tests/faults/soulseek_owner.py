"""A process that owns the Soulseek account and makes the calls of jobs: LEASE_SECONDS SEARCH_SECONDS."""

import asyncio
import os
import sys

from kima_stream import database
from kima_stream.cli import parts
from kima_stream.cli.soulseek import Pace, soulseek
from kima_stream.settings import config
from kima_stream.settings.store import SettingsStore, Sources


async def main(lease_seconds: float, search_seconds: float) -> None:
    """Own it when it is free, until killed."""
    loaded = config.load(os.environ)
    assert loaded.database_url
    pool = await database.open_pool(loaded.database_url, role="soulseek", max_size=12)
    store = SettingsStore(pool, Sources.of(loaded))
    async with (
        store.following(),
        soulseek(
            loaded.database_url,
            pool,
            store,
            name=parts.holder(),
            redis_url=loaded.redis_url,
            pace=Pace(lease_seconds=lease_seconds, search_seconds=search_seconds),
        ) as role,
    ):
        await role()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
