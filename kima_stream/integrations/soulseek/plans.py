"""Table ``soulseek_plans``: what was chosen for an album folder, until it is here or has failed.

Whoever goes on after a crash, or asks for the same album, finds the same peers and the partial files of before,
and spends no search.
"""

from pathlib import PurePosixPath
from typing import Final

import msgspec

from kima_stream.database import Connection
from kima_stream.integrations.soulseek.ranking import Candidate

FRESH_SECONDS: Final = 24 * 3_600.0  # later the peers are others
KEEP_SECONDS: Final = 7 * 24 * 3_600.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of the tracks that are wanted, and whose files to try, best first."""

    tracks: tuple[str, ...]
    candidates: tuple[Candidate, ...]


_FIND: Final = """
    SELECT plan FROM soulseek_plans WHERE folder = $1 AND made_at > clock_timestamp() - make_interval(secs => $2)
"""


async def find(conn: Connection, folder: PurePosixPath) -> Plan | None:
    """Return the plan for a folder, if there is one that is fresh."""
    found = await conn.fetchval(_FIND, str(folder), FRESH_SECONDS)
    return None if found is None else msgspec.json.decode(found, type=Plan)


_SAVE: Final = """
    INSERT INTO soulseek_plans (folder, plan) VALUES ($1, $2)
        ON CONFLICT (folder) DO UPDATE SET plan = excluded.plan, made_at = clock_timestamp()
"""
_FORGET_OLD: Final = "DELETE FROM soulseek_plans WHERE made_at < clock_timestamp() - make_interval(secs => $1)"


async def save(conn: Connection, folder: PurePosixPath, plan: Plan) -> None:
    """Keep the plan for a folder."""
    await conn.execute(_SAVE, str(folder), msgspec.json.encode(plan).decode())
    await conn.execute(_FORGET_OLD, KEEP_SECONDS)


_DROP: Final = "DELETE FROM soulseek_plans WHERE folder = $1"


async def drop(conn: Connection, folder: PurePosixPath) -> None:
    """Forget the plan for a folder: the next time is another search."""
    await conn.execute(_DROP, str(folder))
