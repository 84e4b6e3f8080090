"""Whether an outside system answers with these values: asked before they are saved.

One short call that changes nothing there. No redirect is followed, since the key would go along, and
nothing of an address, a key or an answer is repeated but a version. What is stored goes to the stored
address only, so a test of another address needs the key again.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from kima_stream.errors import ConfigurationError
from kima_stream.settings import definitions
from kima_stream.settings.kinds import Definition
from kima_stream.settings.store import Snapshot

CHECK_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 65_536
_OK: Final = 200
_REDIRECT: Final = range(300, 400)
_REFUSED: Final = frozenset({401, 403})
_VERSION: Final = re.compile(r"[0-9A-Za-z.+-]{1,32}")
_LASTFM_KEY_ERRORS: Final = frozenset({4, 10, 26})
_LASTFM_BUSY: Final = frozenset({2, 8, 11, 16, 29})


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it, in words for people."""

    ok: bool
    detail: str


class _LidarrStatus(msgspec.Struct, frozen=True, rename="camel"):
    app_name: str
    version: str = ""


class _LastfmAnswer(msgspec.Struct, frozen=True):
    error: int | None = None
    artists: dict[str, msgspec.Raw] | None = None


async def lidarr(url: str, api_key: str) -> Checked:
    """Ask Lidarr at ``url`` for its status."""
    answer = await _get("Lidarr", f"{url}/api/v1/system/status", headers={"X-Api-Key": api_key})
    if isinstance(answer, Checked):
        return answer
    status, body = answer
    if status in _REFUSED:
        return Checked(ok=False, detail="Lidarr refuses the key: it is under Settings, General, Security.")
    if status != _OK:
        return Checked(ok=False, detail=f"This is no Lidarr, or its URL base is missing: it answers {status}.")
    try:
        found = msgspec.json.decode(body, type=_LidarrStatus)
    except msgspec.DecodeError:
        found = _LidarrStatus("")
    if found.app_name.lower() != "lidarr":
        return Checked(ok=False, detail="Something answers there, but it is not Lidarr.")
    version = found.version if _VERSION.fullmatch(found.version) else "of an unknown version"
    return Checked(ok=True, detail=f"Lidarr {version} takes the key.")


async def lastfm(url: str, api_key: str) -> Checked:
    """Ask Last.fm at ``url`` for one artist of its chart; the shared secret and a user's key are not tried."""
    query = {"method": "chart.getTopArtists", "limit": "1", "api_key": api_key, "format": "json"}
    answer = await _get("Last.fm", f"{url}/", query=query)
    if isinstance(answer, Checked):
        return answer
    status, body = answer
    try:
        found = msgspec.json.decode(body, type=_LastfmAnswer)
    except msgspec.DecodeError:
        return Checked(ok=False, detail=f"Something answers there, but it is not Last.fm: {status}.")
    # Some errors come with 200: the body decides.
    if found.error in _LASTFM_KEY_ERRORS:
        return Checked(ok=False, detail=f"Last.fm refuses the key (error {found.error}).")
    if found.error in _LASTFM_BUSY:
        return Checked(ok=False, detail=f"Last.fm is busy or away (error {found.error}); try again later.")
    if found.error is not None or status != _OK or found.artists is None:
        return Checked(ok=False, detail=f"Last.fm answers what was not expected ({found.error or status}).")
    return Checked(ok=True, detail="Last.fm takes the key; shared secret and user key are not tried here.")


async def soulseek(server: str) -> Checked:
    """Connect to the server, and no more: a login would end the one that this account may have."""
    host, _, port = server.rpartition(":")
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        return Checked(ok=False, detail=f"The Soulseek server does not answer within {CHECK_SECONDS:.0f} s.")
    except (OSError, UnicodeError):
        return Checked(ok=False, detail="The Soulseek server cannot be reached.")
    writer.transport.abort()
    return Checked(ok=True, detail="The Soulseek server can be reached; user name and password were not tried.")


class Keyed(msgspec.Struct, frozen=True):
    """A system that has an address and takes a key."""

    check: Callable[[str, str], Awaitable[Checked]]
    url: Definition[str] | Definition[str | None]
    key: Definition[str | None]


_KEYED: Final = {
    "lidarr": Keyed(lidarr, definitions.LIDARR_URL, definitions.LIDARR_API_KEY),
    "lastfm": Keyed(lastfm, definitions.LASTFM_URL, definitions.LASTFM_API_KEY),
}
SYSTEMS: Final = (*_KEYED, "soulseek")


async def check(system: str, values: Mapping[str, object], current: Snapshot, given: Collection[str]) -> Checked:
    """Try one of SYSTEMS with ``values``; ``given`` names the settings that differ from ``current``, masks left out.

    Raises:
        ConfigurationError: a value is missing, or a stored key would go to an address that it is not stored for.
    """
    keyed = _KEYED.get(system)
    if keyed is None:
        return await soulseek(str(values[definitions.SOULSEEK_SERVER.key]))
    url, key = keyed.url.key, keyed.key.key
    absent = [name for name in (url, key) if values[name] is None]
    broken = [f"{name}: {fault}" for name in absent if (fault := current.entries[name].fault)]
    if faults := broken or [f"{name}: missing" for name in absent]:
        raise ConfigurationError(faults)
    address, secret = str(values[url]), str(values[key])
    if key not in given and _origin(address) != _origin(current.entries[url].value):
        raise ConfigurationError([f"{key}: give it again; what is stored goes to the stored address only"])
    return await keyed.check(address, secret)


def _origin(url: object) -> tuple[str, str | None, int | None] | None:
    if not isinstance(url, str):
        return None
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


async def _get(
    name: str, url: str, *, headers: dict[str, str] | None = None, query: dict[str, str] | None = None
) -> tuple[int, bytes] | Checked:
    """Return status and the beginning of the body, or what went wrong."""
    timeout = aiohttp.ClientTimeout(total=CHECK_SECONDS)
    agent = {"User-Agent": "kima-stream", "Accept": "application/json", **(headers or {})}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=agent, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, params=query, allow_redirects=False) as answer,
        ):
            if answer.status in _REDIRECT:
                return Checked(ok=False, detail=f"{name} sends us elsewhere; give the address where it ends.")
            return answer.status, await answer.content.read(MAX_ANSWER_BYTES)
    except TimeoutError:
        return Checked(ok=False, detail=f"{name} does not answer within {CHECK_SECONDS:.0f} s.")
    except (aiohttp.ClientSSLError, ssl.SSLError):
        return Checked(ok=False, detail=f"{name}'s certificate does not hold, or it speaks no TLS.")
    except (aiohttp.ClientError, OSError, ValueError):  # a ValueError: a header or an address nobody can send
        return Checked(ok=False, detail=f"{name} cannot be reached.")
