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
    SELECT plan
      FROM soulseek_plans
     WHERE folder = $1 AND NOT is_over AND made_at > clock_timestamp() - make_interval(secs => $2)
"""


async def find(conn: Connection, folder: PurePosixPath) -> Plan | None:
    """Return the plan for a folder, if there is one that is fresh."""
    found = await conn.fetchval(_FIND, str(folder), FRESH_SECONDS)
    return None if found is None else msgspec.json.decode(found, type=Plan)


_SAVE: Final = """
    INSERT INTO soulseek_plans (folder, plan) VALUES ($1, $2)
        ON CONFLICT (folder) DO UPDATE SET plan = excluded.plan, is_over = false, made_at = clock_timestamp()
"""


async def save(conn: Connection, folder: PurePosixPath, plan: Plan) -> None:
    """Keep the plan for a folder."""
    await conn.execute(_SAVE, str(folder), msgspec.json.encode(plan).decode())


_CLOSE: Final = """
    INSERT INTO soulseek_plans (folder, is_over) VALUES ($1, true)
        ON CONFLICT (folder) DO UPDATE SET is_over = true, made_at = clock_timestamp()
"""


async def close(conn: Connection, folder: PurePosixPath) -> None:
    """End the plan for a folder: the next time is another search. Partial files may be there, also without a plan."""
    await conn.execute(_CLOSE, str(folder))


_FORGET: Final = """
    DELETE FROM soulseek_plans WHERE made_at < clock_timestamp() - make_interval(secs => $1) RETURNING folder
"""


async def forget_old(conn: Connection) -> list[PurePosixPath]:
    """Forget what nobody went on with for a week; return the folders in which partial files may be left."""
    return [PurePosixPath(row["folder"]) for row in await conn.fetch(_FORGET, KEEP_SECONDS)]
