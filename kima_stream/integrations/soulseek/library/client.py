"""The library aioslsk behind a narrow door: log in, search, fetch a file; nobody else imports it.

It leaves to us: to reconnect, to limit how much is fetched at once, where a file goes, when to give up.
``ended`` is set when the server closed the connection; fetching goes on meanwhile, peer to peer.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Final

from aioslsk import settings as library_settings
from aioslsk.client import SoulSeekClient
from aioslsk.events import KickedEvent, SearchResultEvent, SessionDestroyedEvent
from aioslsk.exceptions import AioSlskException, AuthenticationError, ListeningConnectionFailedError
from aioslsk.network.connection import ListeningConnection
from aioslsk.network.network import ListeningConnections, Network
from aioslsk.search.model import SearchResult
from aioslsk.user.model import UserStatus

from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.integrations.soulseek.found import FoundFile
from kima_stream.integrations.soulseek.library.incoming import Incoming
from kima_stream.integrations.soulseek.library.results import found_files
from kima_stream.integrations.soulseek.rules import Credentials

CONNECT_SECONDS: Final = 10.0
LOGIN_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 4.0
MAX_PEERS: Final = 250  # of one search; the first are the fastest
NOWHERE: Final = "/dev/null/kima-stream"  # no file can be made there: each has a path of ours

logging.getLogger("aioslsk").setLevel(logging.CRITICAL)  # below, it writes down what it sends, a password too


class _LocalNetwork(Network):
    """Listens where we say: the library takes every address of the machine."""

    def __init__(self, listen_host: str, settings: library_settings.Settings, client: SoulSeekClient) -> None:
        self._listen_host = listen_host
        super().__init__(settings, client.events)

    def create_listening_connections(self) -> ListeningConnections:
        port = self._settings.network.listening.port
        return ListeningConnection(self._listen_host, port, self, obfuscated=False), None


class _Library(SoulSeekClient):
    def __init__(self, credentials: Credentials) -> None:
        self._listen_host = credentials.listen_host
        super().__init__(_settings(credentials))

    def create_network(self) -> Network:
        return _LocalNetwork(self._listen_host, self.settings, self)


class Client:
    """One login of one account, from ``connect`` to ``close``."""

    def __init__(self, credentials: Credentials) -> None:
        """Connect nothing yet."""
        self.credentials = credentials
        self.ended = asyncio.Event()
        self.was_kicked = False
        self.is_closed = False
        self._library = _Library(credentials)
        self._is_started = False
        self._answers: dict[int, asyncio.Queue[SearchResult]] = {}
        # Held weakly there: bound methods live as long as we do.
        self._library.events.register(KickedEvent, self._on_kicked)
        self._library.events.register(SessionDestroyedEvent, self._on_ended)
        self._library.events.register(SearchResultEvent, self._on_result)

    @property
    def is_connected(self) -> bool:
        """Say whether the server knows us at this moment."""
        return self._library.session is not None and not self.ended.is_set()

    async def connect(self) -> None:
        """Connect and log in; also again, after the server closed the connection.

        Raises:
            ConfigurationError: the server refuses the user name or the password.
            IntegrationError: it cannot be reached, or the port for peers is taken; both may heal.
        """
        try:
            await self._start()
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._library.network.connect_server()
            async with asyncio.timeout(LOGIN_SECONDS):
                await self._library.login()
        except AuthenticationError as error:
            await self._hang_up()
            reason = "".join(letter for letter in error.reason if letter.isalnum())[:40]
            raise ConfigurationError(
                [f"soulseekUsername, soulseekPassword: the server refuses them ({reason})"]
            ) from None
        except ListeningConnectionFailedError:
            raise _outage(f"port {self.credentials.listen_port} for peers cannot be opened") from None
        except TimeoutError:
            await self._hang_up()
            raise _outage("the server does not answer") from None
        except (AioSlskException, OSError) as error:
            await self._hang_up()
            raise _outage(f"the server cannot be reached ({type(error).__name__})") from None
        self.ended.clear()

    async def search(
        self, query: str, *, seconds: float, max_peers: int = MAX_PEERS
    ) -> AsyncGenerator[list[FoundFile]]:
        """Send ``query`` and yield what each peer answers, for ``seconds`` or until ``max_peers`` answered.

        Raises:
            IntegrationError: there is no connection, or it broke off; may heal.
        """
        if not self.is_connected:
            raise _outage("not connected")
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        answers: asyncio.Queue[SearchResult] = asyncio.Queue()
        request = await self._library.searches.search(query)
        for early in request.results:
            answers.put_nowait(early)
        self._answers[request.ticket] = answers
        try:
            for _ in range(max_peers):
                try:
                    async with asyncio.timeout_at(end):
                        answer = await answers.get()
                except TimeoutError:
                    break
                if files := found_files(answer):
                    yield files
            if self.ended.is_set():
                raise _outage("the connection broke off in the middle of a search")
        finally:
            del self._answers[request.ticket]
            with suppress(KeyError):
                self._library.searches.remove_request(request)

    async def fetch(self, peer: str, path: str, local: Path) -> Incoming:
        """Ask ``peer`` for its file ``path``, to be appended to ``local``; what is there is not sent again."""
        transfer = await self._library.transfers.download(peer, path, paused=True)
        transfer.local_path = str(local)
        incoming = Incoming(self._library.transfers, transfer)
        await self._library.transfers.queue(transfer)
        return incoming

    def is_offline(self, peer: str) -> bool:
        """Say whether the server says that ``peer`` is away; it tells only of those we fetch from."""
        return self._library.users.get_user_object(peer).status == UserStatus.OFFLINE

    async def close(self) -> None:
        """Log out; what was being fetched stays as far as it came. Takes CLOSE_SECONDS at most."""
        self.is_closed = True
        self.ended.set()
        with suppress(TimeoutError, AioSlskException, OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._library.stop()  # type: ignore[no-untyped-call]  # theirs

    async def _start(self) -> None:
        if self._is_started:
            return
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        try:
            await self._library.start(connect=False)
        finally:
            loop.set_exception_handler(handler)  # it puts its own in the place of ours
        await self._library.network.connect_listening_ports()
        self._is_started = True

    async def _hang_up(self) -> None:
        with suppress(TimeoutError, AioSlskException, OSError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._library.network.disconnect_server()

    def _on_kicked(self, _event: KickedEvent) -> None:
        self.was_kicked = True

    def _on_ended(self, _event: SessionDestroyedEvent) -> None:
        self.ended.set()

    def _on_result(self, event: SearchResultEvent) -> None:
        answers = self._answers.get(event.query.ticket)
        if answers is not None:
            answers.put_nowait(event.result)


def _outage(detail: str) -> IntegrationError:
    return IntegrationError(detail, system="soulseek", retryable=True, nothing_done=True)


def _settings(credentials: Credentials) -> library_settings.Settings:
    """Return the library's settings, every section given: what is left out it reads from the environment."""
    s = library_settings
    return s.Settings(
        credentials=s.CredentialsSettings(username=credentials.username, password=credentials.password),
        network=s.NetworkSettings(
            server=s.ServerSettings(
                hostname=credentials.host, port=credentials.port, reconnect=s.ReconnectSettings(auto=False)
            ),
            listening=s.ListeningSettings(port=credentials.listen_port, obfuscated_port=0),
            peer=s.PeerSettings(),
            upnp=s.UpnpSettings(enabled=False),
            limits=s.NetworkLimitSettings(),
        ),
        searches=s.SearchSettings(),
        shares=s.SharesSettings(scan_on_start=False, download=NOWHERE, directories=[]),
        users=s.UsersSettings(),
        rooms=s.RoomsSettings(auto_join=False, private_room_invites=False),
        interests=s.InterestsSettings(),
        transfers=s.TransfersSettings(),
        debug=s.DebugSettings(),
    )
