"""Whose address a request has when it came through proxies: only those we trust are believed.

``aiohttp-remotes`` walks ``X-Forwarded-For`` from the right to the first address that is no proxy of
ours. It does not look at who is connected, and answers 400 to what it cannot read, which would lose a
webhook. So it is asked only when the peer is a trusted proxy, and is shown only what can be read.
"""

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from aiohttp_remotes import XForwardedFiltered

MAX_HOPS: Final = 16  # proxies in a row; what stands further left was written by somebody else

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def trusting(proxies: str) -> Middleware:
    """Return the middleware that sets ``request.remote`` for ``KIMA_TRUSTED_PROXIES``, e.g. ``10.0.0.0/8, ::1``."""
    networks = [ip_network(part.strip(), strict=False) for part in proxies.split(",")]
    believed = XForwardedFiltered(networks)

    @web.middleware
    async def behind_proxies(request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = _address(request.remote or "")
        hops = _readable(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
        if not hops or peer is None or not any(peer in network for network in networks):
            return await handler(request)
        caller = request.remote

        async def look(seen: web.Request) -> web.StreamResponse:
            nonlocal caller
            caller = seen.remote
            return web.Response()

        # Nothing else is shown: a clone with headers fails of bytes that are no UTF-8.
        await believed.middleware(request.clone(headers={hdrs.X_FORWARDED_FOR: ", ".join(hops)}), look)
        return await handler(request if caller is None else request.clone(remote=caller))

    return behind_proxies


def _readable(lines: Iterable[str]) -> list[str]:
    """Return the addresses up to the first, from the right, that is none."""
    hops: list[str] = []
    for entry in reversed(",".join(lines).split(",")[-MAX_HOPS:]):
        address = _address(entry)
        if address is None:
            break
        hops.insert(0, str(address))
    return hops


def _address(text: str) -> Address | None:
    """Return an address that may carry a port, as some proxies write it: ``1.2.3.4:5``, ``[::1]:5``."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
