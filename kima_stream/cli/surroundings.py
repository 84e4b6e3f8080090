"""What ``doctor`` finds out around the log: Redis, the data folder, the front door, the systems outside."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from kima_stream.embedded import home as homes
from kima_stream.event_stream import EventStream
from kima_stream.settings import key_files
from kima_stream.settings.api_keys import KEY_FILE
from kima_stream.settings.secrets import ROOT_FILE

ANSWER_SECONDS = 5.0
_MAX_BYTES = 1_000_000


class Redis(msgspec.Struct, frozen=True, kw_only=True):
    """How Redis or Valkey is set; ``max_memory_bytes`` 0 is no limit."""

    name: str
    version: str
    is_replica: bool
    policy: str
    memory_bytes: int
    max_memory_bytes: int


async def read_redis(stream: EventStream) -> Redis:
    """Return how it is set.

    Raises:
        event_stream.OUTAGE, redis' own errors: it does not answer, or refuses us.
    """
    found = await stream.facts()
    is_valkey = "valkey_version" in found
    return Redis(
        name="Valkey" if is_valkey else "Redis",
        version=str(found["valkey_version" if is_valkey else "redis_version"]),
        is_replica=found.get("role") == "slave",
        policy=str(found.get("maxmemory_policy", "")),
        memory_bytes=int(found.get("used_memory", 0)),
        max_memory_bytes=int(found.get("maxmemory", 0)),
    )


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """The data folder; ``open_keys`` are key files that others than their owner may read or change."""

    path: Path
    is_there: bool
    is_writable: bool
    free_bytes: int
    open_keys: tuple[Path, ...]


def read_folder(path: Path) -> Folder:
    """Return how the data folder is, or what it would be made in."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    servers = path / homes.LINK
    files = servers.resolve() if servers.exists() else nearest
    keys = [key for key in (path / KEY_FILE, path / ROOT_FILE) if key.exists()]
    return Folder(
        path=path,
        is_there=path.is_dir(),
        is_writable=nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK),
        free_bytes=shutil.disk_usage(files).free,
        open_keys=tuple(key for key in keys if key_files.is_open_to_others(key)),
    )


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an HTTP server said; ``error`` instead when it said nothing within ANSWER_SECONDS."""

    where: str  # without user and password
    status: int = 0
    body: bytes = b""
    error: str = ""


async def ask(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return the answer to a GET; a redirect is an answer, never followed: it might take a key along."""
    where = urlsplit(url).netloc.rpartition("@")[2]
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as answer:
            body = await answer.content.read(_MAX_BYTES)
            return Answer(where=where, status=answer.status, body=body)
    except TimeoutError:
        return Answer(where=where, error=f"no answer within {ANSWER_SECONDS:.0f} s")
    except aiohttp.ClientConnectorError as error:
        number = error.os_error.errno
        return Answer(where=where, error=os.strerror(number) if number and number > 0 else str(error))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Answer(where=where, error=" ".join(str(error).split()) or type(error).__name__)
