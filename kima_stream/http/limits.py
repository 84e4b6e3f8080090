"""How much one key or one address may ask of this process, counted in memory by a sliding window.

Webhooks are never limited: Lidarr sends each of them once. What must hold over all processes is no
matter of this module.

Source: draft-ietf-httpapi-ratelimit-headers-10 (``RateLimit``, ``RateLimit-Policy``).
"""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from math import ceil
from time import time
from typing import Final

import limits as library
import msgspec
from aiohttp import web
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from kima_stream.errors import RateLimitError

MAX_ADDRESSES: Final = 10_000  # counted one by one; whoever comes on top shares one count
_PREFIX: Final = 64  # of an IPv6 network: one customer has so much, and may use it all


class Policy(msgspec.Struct, frozen=True):
    """``quota`` requests in ``seconds``."""

    name: str
    quota: int
    seconds: int = 60


class Usage(msgspec.Struct, frozen=True):
    """What is left of a policy, and in how many seconds there is more."""

    policy: Policy
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        """Return what the caller is told."""
        name = f'"{self.policy.name}"'
        return {
            "RateLimit-Policy": f"{name};q={self.policy.quota};w={self.policy.seconds}",
            "RateLimit": f"{name};r={self.remaining};t={self.reset_seconds}",
        }


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a door."""

    key: Policy = Policy("key", 5_000)  # people and pages
    sender: Policy = Policy("sender", 60_000)  # programs that send events, each of up to a thousand
    address: Policy = Policy("address", 5_000)  # routes that are open to all
    refused: Policy = Policy("refused", 60)  # keys of an address that opened nothing


class Limits:
    """Counts requests; what has expired is forgotten."""

    def __init__(self, policies: Policies | None = None) -> None:
        """Start with nobody known."""
        self.policies = policies or Policies()
        self._counted: dict[str, _Counted] = {}

    def take(self, policy: Policy, who: str) -> Usage:
        """Count one request of ``who`` and return what is left.

        Raises:
            RateLimitError: nothing is left.
        """
        counted = self._counted.setdefault(policy.name, _Counted())
        is_granted = counted.take(policy, who)
        usage = counted.usage(policy, who)
        if not is_granted:
            raise RateLimitError(retry_after_seconds=usage.reset_seconds)
        return usage

    def is_counting(self, policy: Policy) -> bool:
        """Return whether anybody was counted lately, so that something may be used up."""
        counted = self._counted.get(policy.name)
        return counted is not None and time() < counted.until

    def is_exhausted(self, policy: Policy, who: Callable[[], str]) -> bool:
        """Return whether nothing is left; ``who`` is asked for only where anybody was counted lately."""
        return self.is_counting(policy) and self._counted[policy.name].usage(policy, who()).remaining == 0


class _Counted:
    """The requests that were counted under one policy."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)
        self.until = 0.0  # by then all that was counted has left its window

    def take(self, policy: Policy, who: str) -> bool:
        self.until = time() + 2 * policy.seconds
        return self._limiter.hit(_item(policy), self._known(who))

    def usage(self, policy: Policy, who: str) -> Usage:
        stats = self._limiter.get_window_stats(_item(policy), self._known(who))
        return Usage(policy, stats.remaining, max(1, ceil(stats.reset_time - time())))

    def _known(self, who: str) -> str:
        return who if len(self._storage.storage) < MAX_ADDRESSES else "everybody else"


LIMITS: Final = web.AppKey("limits", Limits)
USAGE: Final = web.RequestKey("usage", Usage)


def address_of(request: web.Request) -> str:
    """Return who is counted: the address of the caller, of IPv6 its network."""
    try:
        address = ip_address(request.remote or "")
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> (128 - _PREFIX) << (128 - _PREFIX)))
    return str(address)


def _item(policy: Policy) -> library.RateLimitItem:
    return library.RateLimitItemPerSecond(policy.quota, policy.seconds)
