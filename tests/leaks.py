"""Finding a secret wherever it may have gone: as it is, and as programs write it down.

Every secret of a test contains one ``mark``, random letters and digits, so that no escaping of its
neighbours hides it: what is looked for are the spellings of the mark.
"""

import asyncio
import re
from base64 import b32encode, b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import redis.asyncio as redis_client


def spellings(mark: str) -> Iterator[bytes]:
    """Return how the mark may stand somewhere: plain, in hex, wide, turned round, and inside base64 at any place."""
    raw = mark.encode()
    yield from (raw, raw.hex().encode(), raw.hex().upper().encode(), raw[::-1])
    yield from (mark.encode("utf-16-le"), mark.encode("utf-16-be"), mark.encode("utf-32-le"))
    for offset in range(3):  # characters of base64 that are all the mark's own
        encoded = b64encode(bytes(offset) + raw)[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6]
        yield from (encoded, encoded.replace(b"+", b"-").replace(b"/", b"_"))
    for offset in range(5):
        yield b32encode(bytes(offset) + raw)[-(-offset * 8 // 5) : (offset + len(raw)) * 8 // 5]


def found(places: Mapping[str, bytes], mark: str) -> list[str]:
    """Return where the mark is, with what stands around it."""
    looked_for = re.compile(b"|".join(re.escape(spelling) for spelling in sorted(set(spellings(mark)))))
    return [
        f"{place}: {content[max(0, hit.start() - 80) : hit.end() + 20]!r}"
        for place, content in places.items()
        if (hit := looked_for.search(content))
    ]


def files(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[bytearray]:
    """Yield what fills with every command that anybody sends to this Redis: streams are trimmed soon."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(parts.path)
    else:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    said = bytearray()

    async def listen() -> None:
        while chunk := await reader.read(65_536):
            said.extend(chunk)

    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    task = asyncio.create_task(listen())
    try:
        yield said
    finally:
        task.cancel()
        writer.close()


async def redis_content(url: str) -> dict[str, bytes]:
    """Return every key of every logical database, with all that it holds."""
    content: dict[str, bytes] = {}
    async with redis_client.Redis.from_url(url, protocol=3) as client:
        databases = [int(name.removeprefix("db")) for name in await client.info("keyspace")]
    for number in databases:
        async with redis_client.Redis.from_url(url, db=number, protocol=3) as client:
            async for key in client.scan_iter(count=1_000):
                content[f"redis {number} {key!r}"] = key + repr(await _value(client, key)).encode()
    return content


async def _value(client: "redis_client.Redis", key: bytes) -> object:
    kind = str(await client.type(key)).strip("b'")
    match kind:
        case "string":
            return await client.get(key)
        case "hash":
            return await client.hgetall(key)
        case "set":
            return await client.smembers(key)
        case "zset":
            return await client.zrange(key, 0, -1, withscores=True)
        case "list":
            return await client.lrange(key, 0, -1)
        case "stream":
            return await client.xrange(key)
        case _:
            raise AssertionError(f"{key!r} is a {kind}: teach this test to read it")
