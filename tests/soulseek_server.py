"""A small real Soulseek server on 127.0.0.1, made of the library's protocol: it records what it was asked.

One login per account, the newer wins and the older is kicked; searches go to everybody else. It keeps no user who
is away, relays connection requests, and can be told to close a session or to stop and start again on its port.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aioslsk.exceptions import UnknownMessageError
from aioslsk.protocol.messages import (
    AddUser,
    CannotConnect,
    ConnectToPeer,
    FileSearch,
    GetPeerAddress,
    GetUserStatus,
    Kicked,
    Login,
    ServerMessage,
    SetListenPort,
)
from aioslsk.protocol.primitives import MessageDataclass, UserStats

ONLINE, OFFLINE = 2, 0
NOBODY = "0.0.0.0"  # noqa: S104 - said of somebody who is away, not bound


@dataclass
class Session:
    """One connection of somebody."""

    writer: asyncio.StreamWriter
    username: str = ""
    port: int = 0

    def send(self, message: MessageDataclass) -> None:
        """Send a message; a connection that is gone takes none."""
        with suppress(OSError, RuntimeError):
            self.writer.write(message.serialize())


@dataclass
class SoulseekServer:
    """The server and its records; ``passwords`` has those that are asked for, everybody else comes in."""

    port: int = 0
    connections: int = 0
    logins: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    kicks: list[str] = field(default_factory=list)
    searches: list[tuple[float, str, str]] = field(default_factory=list)
    passwords: dict[str, str] = field(default_factory=dict)
    is_silent: bool = False  # takes connections and answers nothing
    online: dict[str, Session] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _sessions: list[Session] = field(default_factory=list)

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything, as a server that is restarted does."""
        assert self._server is not None
        self._server.close()
        for session in list(self._sessions):
            session.writer.close()
        self.online.clear()

    def close_session(self, username: str) -> None:
        """End somebody's connection, without a word."""
        self.online[username].writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        session = Session(writer)
        self._sessions.append(session)
        try:
            while True:
                head = await reader.readexactly(4)
                body = await reader.readexactly(int.from_bytes(head, "little"))
                if self.is_silent:
                    continue
                with suppress(UnknownMessageError):
                    self._answer(session, ServerMessage.deserialize_request(head + body))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            self._sessions.remove(session)
            if self.online.get(session.username) is session:
                del self.online[session.username]
                self._tell(session.username, OFFLINE)

    def _answer(self, session: Session, message: MessageDataclass) -> None:
        match message:
            case Login.Request():
                self._login(session, message)
            case SetListenPort.Request():
                session.port = message.port
            case AddUser.Request(username=name):
                there = name in self.online
                stats = UserStats(avg_speed=1_000_000, uploads=1, shared_file_count=1, shared_folder_count=1)
                status = ONLINE if there else OFFLINE
                session.send(AddUser.Response(name, exists=True, status=status, user_stats=stats, country_code=""))
            case GetUserStatus.Request(username=name):
                session.send(GetUserStatus.Response(name, ONLINE if name in self.online else OFFLINE, privileged=False))
            case GetPeerAddress.Request(username=name):
                port = self.online[name].port if name in self.online else 0
                session.send(GetPeerAddress.Response(name, "127.0.0.1" if port else NOBODY, port, 0, 0))
            case ConnectToPeer.Request(ticket=ticket, username=name, typ=typ):
                self._relay(session, ticket, name, typ)
            case FileSearch.Request(ticket=ticket, query=query):
                self.searches.append((time.monotonic(), session.username, query))
                for name, other in self.online.items():
                    if name != session.username:
                        other.send(FileSearch.Response(session.username, ticket, query))
            case _:
                pass

    def _login(self, session: Session, message: Login.Request) -> None:
        name = message.username
        if self.passwords.get(name, message.password) != message.password:
            self.refused.append(name)
            session.send(Login.Response(success=False, reason="INVALIDPASS"))
            return
        before = self.online.get(name)
        if before is not None:
            self.kicks.append(name)
            before.send(Kicked.Response())
            before.writer.close()
        self.logins.append(name)
        session.username = name
        self.online[name] = session
        session.send(
            Login.Response(success=True, greeting="", ip="127.0.0.1", md5hash="0" * 32, privileged=False, reason=None)
        )
        self._tell(name, ONLINE)

    def _tell(self, username: str, status: int) -> None:
        for other in self.online.values():
            if other.username != username:
                other.send(GetUserStatus.Response(username, status, privileged=False))

    def _relay(self, session: Session, ticket: int, name: str, typ: str) -> None:
        if name not in self.online:
            session.send(CannotConnect.Response(ticket))
            return
        self.online[name].send(
            ConnectToPeer.Response(session.username, typ, "127.0.0.1", session.port, ticket, privileged=False)
        )


@asynccontextmanager
async def running() -> AsyncIterator[SoulseekServer]:
    """Run a server on a free port."""
    server = SoulseekServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
