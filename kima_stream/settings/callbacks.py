"""Where this process may call on somebody's behalf: what an admin configured, and nothing else.

``host``        public addresses only, on port 80 of http and 443 of https
``host:port``   exactly that port; the host may be a machine of the same network or this one

Link-local addresses, where clouds keep their secrets, multicast and the like are refused even then,
unless the entry is the very address. A name is resolved once: what was judged is what is connected
to. No redirect is followed, no proxy of the environment is used.
"""

import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kima_stream.errors import ConfigurationError, IntegrationError, UserFacingError

CONNECT_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 15.0
SYSTEM: Final = "callback"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")  # NAT64: an IPv4 address in the last 32 bits

Address: TypeAlias = IPv4Address | IPv6Address


class CallbackRefusedError(UserFacingError):
    """Nobody allowed this address; an admin can."""

    def __init__(self, reason: str) -> None:
        """Answer 422."""
        super().__init__(f"This address may not be called: {reason}.", status=422, code="callback_refused")
        self.reason = reason


class _Place(msgspec.Struct, frozen=True):
    host: str  # lower case, as it goes over the wire
    port: int | None  # None: the scheme's own


class Callbacks:
    """The rule, and the only client that keeps it."""

    def __init__(self, allowed: Iterable[str]) -> None:
        """Take the admin's list.

        Raises:
            ConfigurationError: with every entry that is neither a host nor host:port.
        """
        faults: list[str] = []
        self._places: set[_Place] = set()
        for entry in allowed:
            place = _place(entry.strip())
            if place is None:
                faults.append(f"{entry!r}: expected a host or host:port, e.g. homeassistant:8123")
            else:
                self._places.add(place)
        if faults:
            raise ConfigurationError(faults)

    def check(self, address: str) -> URL:
        """Return ``address`` as a URL that may be called; names are judged again when they are resolved.

        Raises:
            CallbackRefusedError: it is no URL, or not an address that an admin configured.
        """
        try:
            url = URL(address)
            host, port = url.raw_host, url.port
        except ValueError:
            raise CallbackRefusedError("it is no URL") from None
        if url.scheme not in _DEFAULT_PORTS or not host or port is None:
            raise CallbackRefusedError("it is no http or https address")
        if url.user is not None or url.password is not None:
            raise CallbackRefusedError("it holds a user or a password")
        self._judge(_host(host), port)
        return url

    @asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        """Open connections that only lead where they may."""
        connector = aiohttp.TCPConnector(resolver=_Resolver(self), use_dns_cache=False, limit=20, force_close=True)
        timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
            yield Client(self, session)

    def judge_resolved(self, host: str, port: int, addresses: Iterable[str]) -> None:
        """Refuse ``host`` if any address that it resolved to is not one that its entry allows."""
        for address in addresses:
            self._judge(_host(host), port, _plain(ip_address(address)))

    def _judge(self, host: str, port: int, resolved: Address | None = None) -> None:
        literal = _literal(host)
        address = resolved or (_plain(literal) if literal is not None else None)
        is_exact = _Place(host, port) in self._places
        if not is_exact and (_Place(host, None) not in self._places or port not in _DEFAULT_PORTS.values()):
            raise CallbackRefusedError("no admin has configured it")
        if address is None or (address.is_global and not address.is_multicast):
            return
        if not is_exact:
            raise CallbackRefusedError("it lies inside a network; configure it with its port")
        if literal is None and _is_odd(address):
            raise CallbackRefusedError("it resolves to an address that no machine of yours has")


class Client:
    """Posts to callbacks."""

    def __init__(self, callbacks: Callbacks, session: aiohttp.ClientSession) -> None:
        """Be made by ``Callbacks.client``."""
        self._callbacks = callbacks
        self._session = session

    async def post(self, address: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post ``body`` and return the status, 200 to 299; the answer's body is not read.

        Raises:
            CallbackRefusedError: the address is not allowed, or resolves to one that is not.
            IntegrationError: nobody answers, or not with success; retryable but for 3xx and 4xx.
        """
        url = self._callbacks.check(address)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            refused = _refused(error)
            if refused is not None:
                raise CallbackRefusedError(refused.reason) from None
            raise IntegrationError(f"no answer ({type(error).__name__})", system=SYSTEM, retryable=True) from error
        if not 200 <= status < 300:  # noqa: PLR2004 - HTTP's own line
            raise IntegrationError(
                f"answered {status}",
                system=SYSTEM,
                retryable=status >= 500 or status == 429,  # noqa: PLR2004 - as above
            )
        return status


async def post_to(address: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Post to the one address that an admin configured, as ``Client.post`` does.

    Raises:
        CallbackRefusedError, IntegrationError: as there.
    """
    try:
        url = URL(address)
        place = f"{url.host_subcomponent}:{url.port}"
    except ValueError:
        raise CallbackRefusedError("it is no URL") from None
    async with Callbacks([place]).client() as client:
        return await client.post(address, body, headers)


class _RefusedNameError(OSError):
    """What a resolver may raise, with the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Resolver(AbstractResolver):
    """The system's resolver; what it finds is judged before anybody connects to it."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        try:
            self._callbacks.judge_resolved(host, port, (result["host"] for result in found))
        except CallbackRefusedError as error:
            raise _RefusedNameError(error.reason) from None
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _refused(error: BaseException) -> _RefusedNameError | None:
    """Return why a name was refused, if that is what a client's error is about."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, _RefusedNameError):
        cause = cause.__cause__ or getattr(cause, "os_error", None)
    return cause


def _place(entry: str) -> _Place | None:
    if any(character.isspace() for character in entry):
        return None
    try:
        url = URL(f"http://{entry}")
        host = url.raw_host
    except ValueError:
        return None
    if not host or url.raw_path != "/" or url.query_string or url.user is not None or entry.endswith("/"):
        return None
    return _Place(_host(host), url.explicit_port)


def _host(host: str) -> str:
    return host.lower().rstrip(".")


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 one, however it is wrapped."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _is_odd(address: Address) -> bool:
    """Return whether no machine of an admin's network has ``address``; shared addresses (100.64/10) may be VPNs."""
    if address.is_loopback:  # ::1 counts as reserved too
        return False
    return address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
