"""Table ``correlation_keys``: by which names a fact from outside finds its streams.

A key is a row, locked before anybody looks: whoever asks for an album and whoever hears of it from
Lidarr come one after the other, so one always sees what the other made. Keys are locked before the
rows of read models, and in key order.
"""

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Final
from uuid import UUID

from kima_stream.database import Connection

MAX_PART_BYTES: Final = 300  # a longer id is kept as its hash; Postgres takes 2,700 in an index

_INSERT_KEYS = """
    INSERT INTO correlation_keys (key)
    SELECT k FROM unnest($1::text[]) AS k ORDER BY k
        ON CONFLICT DO NOTHING
    RETURNING key
"""
_LOCK_KEYS = """
    SELECT key, streams FROM correlation_keys WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE
"""


async def lock(conn: Connection, keys: Collection[str]) -> dict[str, list[str]]:
    """Lock ``keys``, made if they are new, until the transaction ends; return the streams of each."""
    ordered = sorted(set(keys))
    if not ordered:
        return {}
    found: dict[str, list[str]] = {row["key"]: [] for row in await conn.fetch(_INSERT_KEYS, ordered)}
    if old := [key for key in ordered if key not in found]:
        found.update((row["key"], row["streams"]) for row in await conn.fetch(_LOCK_KEYS, old))
    return found


async def add(conn: Connection, stream: str, keys: Collection[str], *, known: Mapping[str, list[str]]) -> None:
    """Let ``keys``, which are locked, find ``stream``; ``known`` is what ``lock`` returned."""
    await add_many(conn, {key: [stream] for key in keys if stream not in known.get(key, ())})


_ADD = """
    UPDATE correlation_keys AS k SET streams = k.streams || n.streams
      FROM (SELECT p.key, array_agg(p.stream ORDER BY p.n) AS streams
              FROM unnest((SELECT $1::text[]), (SELECT $2::text[]))  -- planned once: see event_rows
                   WITH ORDINALITY AS p (key, stream, n)
             GROUP BY p.key) AS n
     WHERE k.key = n.key AND NOT k.streams && n.streams
"""


async def add_many(conn: Connection, streams: Mapping[str, Sequence[str]]) -> None:
    """Let each key, which is locked, find its ``streams`` too; a key that has one of them stays as it is."""
    if pairs := [(key, stream) for key, new in streams.items() for stream in new]:
        await conn.execute(_ADD, [key for key, _ in pairs], [stream for _, stream in pairs])


def of_mbid(mbid: UUID) -> str:
    """Return the key of a MusicBrainz release group."""
    return f"mbid:{mbid}"


def of_names(derived_target: UUID) -> str:
    """Return the key of normalised artist and album, given as the target derived from them."""
    return f"album:{derived_target}"


def of_lidarr_album(instance: str, album_id: int) -> str:
    """Return the key of an album as one Lidarr numbers it."""
    return f"lidarr_album:{album_id}:{_part(instance)}"


def of_download(download_id: str) -> str:
    """Return the key of a download client's id; all its albums share it."""
    return f"download:{_part(download_id)}"


def _part(text: str) -> str:
    """Return ``text`` as it is, unless Postgres cannot keep or index it."""
    encoded = text.encode()
    if b"\0" in encoded or len(encoded) > MAX_PART_BYTES:
        return f"sha256:{sha256(encoded).hexdigest()}"
    return text
