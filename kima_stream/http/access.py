"""Who knocks: the keys in a request's headers, and whether one of them opens this route.

Every place where a sender can put a key is read, since a proxy in front may use one of them for
itself. Keys are compared as bytes: a header is UTF-8, but a Basic password is ISO-8859-1 by Lidarr's
habit and UTF-8 by that of others, so both readings count.
"""

import binascii
from base64 import b64decode
from collections.abc import Sequence, Set as AbstractSet
from contextlib import suppress
from typing import Final, TypeAlias

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from kima_stream.errors import UserFacingError
from kima_stream.http.limits import USAGE, Limits, Policy, address_of
from kima_stream.settings import api_keys
from kima_stream.settings.api_keys import Principal, Role
from kima_stream.settings.known_keys import ApiKeys

Headers: TypeAlias = "CIMultiDictProxy[str]"

KEY_HEADERS: Final = ("X-Webhook-Secret", "X-Api-Key")
MAX_KEY_BYTES: Final = 512  # longer is no key of ours: not worth a hash
MAX_KEYS: Final = 8  # one request is one guess or few, never hundreds


async def admit(
    request: web.Request, keys: ApiKeys, limits: Limits, roles: AbstractSet[Role], policy: Policy | None
) -> Principal:
    """Return whose key opens a route for ``roles``, and count the request under ``policy``.

    Keys that open nothing are counted by address. Above that limit a key is not even looked at if it
    could have been thought up by a person; one of ours cannot be guessed and is, so that nobody can
    keep out a sender that shares an address with him.

    Raises:
        RateLimitError: 429, too many requests, or too many wrong keys from this address.
        UserFacingError: 401 without any known key, 403 when none of them may do this.
    """
    asked, refused = candidates(request.headers), limits.policies.refused
    is_suspect = limits.is_exhausted(refused, lambda: address_of(request))
    principals = await keys.verify(filter(api_keys.is_made, asked) if is_suspect else asked)
    opens = any(principal.role in roles for principal in principals)
    if not opens and len(principals) < len(asked):  # a key of ours beside guesses makes none of them good
        limits.take(refused, address_of(request))
    if principals and policy is not None:
        request[USAGE] = limits.take(policy, str(principals[0].key_id))
    return _choose(principals, roles)


async def authorize(request: web.Request, keys: ApiKeys, roles: AbstractSet[Role]) -> Principal:
    """Return whose key opens a route for ``roles``, counting nothing.

    Raises:
        UserFacingError: 401 without any known key, 403 when none of them may do this.
    """
    return _choose(await keys.verify(candidates(request.headers)), roles)


def _choose(principals: Sequence[Principal], roles: AbstractSet[Role]) -> Principal:
    for principal in principals:
        if principal.role in roles:
            return principal
    if principals:
        detail = f"This key has the role {principals[0].role}; needed here: {' or '.join(sorted(roles))}."
        raise UserFacingError(detail, status=403, code="forbidden")
    detail = "No known key: send one as X-Api-Key, X-Webhook-Secret, Bearer token or Basic password."
    raise UserFacingError(detail, status=401, code="unauthorized")


def is_known(headers: Headers, keys: ApiKeys, limits: Limits, roles: AbstractSet[Role]) -> bool:
    """Return whether it is clear without waiting for anything that ``admit`` would let the sender in.

    It is, where the keys were read within the last second and no address is suspect.
    """
    if limits.is_counting(limits.policies.refused):
        return False
    return any(principal.role in roles for principal in keys.known(candidates(headers)))


def candidates(headers: Headers) -> tuple[bytes, ...]:
    """Return the keys that a request may mean, each once, as UTF-8."""
    found: dict[bytes, None] = {}  # a set that keeps its order
    for name in KEY_HEADERS:
        for value in headers.getall(name, ()):
            _add_readings(found, value.encode("utf-8", "surrogateescape"))
    for value in headers.getall(hdrs.AUTHORIZATION, ()):
        _add_credentials(found, value)
    return tuple(found)[:MAX_KEYS]


def _add_credentials(found: dict[bytes, None], value: str) -> None:
    scheme, _, credentials = value.strip().partition(" ")
    scheme = scheme.lower()
    if scheme == "bearer":
        _add_readings(found, credentials.strip().encode("utf-8", "surrogateescape"))
    elif scheme == "basic":
        with suppress(binascii.Error, ValueError):
            _, _, password = b64decode(credentials.strip(), validate=True).partition(b":")
            _add_readings(found, password)


def _add_readings(found: dict[bytes, None], value: bytes) -> None:
    if 0 < len(value) <= MAX_KEY_BYTES:
        found[value] = None
        if not value.isascii():
            found[value.decode("iso-8859-1").encode()] = None
