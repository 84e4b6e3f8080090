"""A process that may own the account, as the settings in the environment say: LEASE_SECONDS."""

import asyncio
import os
import sys

from kima_stream import database
from kima_stream.cli import parts
from kima_stream.integrations.soulseek.ownership import Owner
from kima_stream.locks import Locks
from kima_stream.settings import config
from kima_stream.settings.store import SettingsStore, Sources


async def main(lease_seconds: float) -> None:
    """Own it when it is free, until killed."""
    loaded = config.load(os.environ)
    assert loaded.database_url
    assert loaded.redis_url
    pool = await database.open_pool(loaded.database_url, role="owner", max_size=4)
    store = SettingsStore(pool, Sources.of(loaded))
    async with store.following(), Locks(loaded.redis_url) as locks:
        await Owner(
            pool, store, holder=parts.holder(), locks=locks, lease_seconds=lease_seconds, poll_seconds=0.05
        ).run()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
