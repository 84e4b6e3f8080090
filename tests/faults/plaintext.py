"""Looking for a text wherever it could have been left: in tables, files, Redis and answers, in any common spelling."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import redis.asyncio as redis_client

from kima_stream.database import Connection

ESCAPES = 3  # JSON in a repr in JSON, as in a log line

_TABLES = """
    SELECT c.oid::regclass::text AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
      FROM pg_class AS c
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'v', 'm') AND c.relnamespace = 'public'::regnamespace
     GROUP BY c.oid
"""


def spellings(text: str) -> set[bytes]:
    """Return ``text`` as it may stand somewhere: plain, escaped, quoted, in hex, within base64, in UTF-16."""
    raw = text.encode()
    escaped = {text}
    for _ in range(ESCAPES):
        escaped |= {escape for spelling in escaped for escape in _escaped(spelling)}
    found = {spelling.encode() for spelling in escaped} | {text.encode("utf-16-le")}
    found |= {spelling.encode() for spelling in (quote(raw), quote(raw, safe=""), quote_plus(raw))}
    found |= {raw.hex().encode(), raw.hex().upper().encode()}
    for offset in range(3):  # something may stand before it; its neighbours have a part in the outer characters
        inner = b64encode(bytes(offset) + raw)[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def _escaped(text: str) -> Iterator[str]:
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    yield from (repr(text)[1:-1], repr(text.encode())[2:-1])


class Search:
    """Texts to look for, all at once."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Take texts of a dozen characters or more: shorter ones would be found by chance."""
        every = {spelling for text in texts for spelling in spellings(text)}
        self._expression = re.compile(b"|".join(re.escape(spelling) for spelling in sorted(every)))

    def count(self, content: bytes) -> int:
        """Return how often any of them is there."""
        return len(self._expression.findall(content))


async def of_tables(conn: Connection) -> Iterable[tuple[str, bytes]]:
    """Return every column of every table and view: as text, and what is bytes as bytes."""
    found = []
    for table in await conn.fetch(_TABLES):
        for column in table["columns"]:
            rows = await conn.fetch(f'SELECT "{column}" AS raw, "{column}"::text AS said FROM {table["name"]}')
            said = "\n".join(row["said"] or "" for row in rows).encode()
            raw = b"\n".join(row["raw"] for row in rows if isinstance(row["raw"], bytes))
            found.append((f"{table['name']}.{column}", said + b"\n" + raw))
    return found


def of_files(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below ``folders``: data, write-ahead log, logs of processes."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                try:
                    yield str(path), path.read_bytes()
                except FileNotFoundError:  # a running server tidies up
                    continue


async def of_redis(url: str) -> list[tuple[str, bytes]]:
    """Return every key with what is in it, as commands and as a dump tell it."""
    found = []
    async with redis_client.Redis.from_url(url, protocol=3) as client:
        async for key in client.scan_iter(count=1_000):
            entries: Any = await client.xrange(key) if await client.type(key) == b"stream" else []
            parts = [part for _, fields in entries for field in fields.items() for part in field]
            found.append((key.decode(), b"\n".join([key, await client.dump(key) or b"", *parts])))
    return found
