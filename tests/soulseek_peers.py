"""Peers for the tests: nicotine-plus as a program of its own, and one of ours that misbehaves as it is told."""

import asyncio
import importlib.util
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aioslsk.network.connection import PeerConnection
from aioslsk.protocol.messages import PeerSearchReply, PeerTransferQueue, PeerTransferQueueFailed
from aioslsk.protocol.primitives import FileData
from aioslsk.transfer.model import Transfer

from kima_stream.integrations.soulseek.library.client import Client
from kima_stream.integrations.soulseek.rules import Credentials
from tests.polling import eventually
from tests.soulseek_server import SoulseekServer


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def nicotine(
    server: SoulseekServer, home: Path, share: Path, *, username: str = "nicotine", kilobytes_per_second: int = 0
) -> AsyncIterator[str]:
    """Run nicotine-plus without its window, sharing ``share``; yield its user name once it is there."""
    if importlib.util.find_spec("pynicotine") is None:
        pytest.skip("nicotine-plus is not installed: `make install` does it from requirements/peer.lock")
    home.mkdir(parents=True, exist_ok=True)
    config = home / "config"
    limit = ("primary", kilobytes_per_second) if kilobytes_per_second else ("unlimited", 1000)
    config.write_text(
        "[server]\n"
        f"server = ('127.0.0.1', {server.port})\nlogin = {username}\npassw = a password\nupnp = False\n"
        "auto_connect_startup = True\nautojoin = []\n"
        "[transfers]\n"
        f"shared = [('share', '{share}')]\nrescanonstartup = True\n"
        f"use_upload_speed_limit = {limit[0]}\nuploadlimit = {limit[1]}\nuploadbandwidth = 100000\n"
        "[statistics]\n[logging]\ntransfers = False\n"
    )
    away = {name: str(home) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    port = free_port()
    with (home / "out").open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pynicotine", "--headless", "--config", str(config),
            "--user-data", str(home / "data"), "--bindip", "127.0.0.1", "--port", str(port),
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **away},
            stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    try:
        await eventually(lambda: username in server.online and server.online[username].port, 20)
        await eventually(lambda: "Rescan complete" in (home / "out").read_text(), 20)
        yield username
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A file as it is offered, and what comes when somebody takes the offer.

    ``path`` as it is in the answer; ``size_bytes`` as it is advertised there; ``announced_bytes`` as it is said before
    the transfer; ``content`` is what is sent. ``refusal``: the peer's words instead of the file. ``is_silent``: it
    says nothing. ``stalls_after``: so many bytes come, and then no more while the line stays open.
    """

    path: str
    content: bytes
    size_bytes: int | None = None
    announced_bytes: int | None = None
    refusal: str | None = None
    is_silent: bool = False
    stalls_after: int | None = None


class Peer:
    """A peer of ours that does what its offers say; the transport is the library's."""

    def __init__(self, server: SoulseekServer, username: str, offers: Sequence[Offer], folder: Path) -> None:
        """``folder`` keeps what it sends."""
        self.username = username
        self.offers = {offer.path: offer for offer in offers}
        self.asked: list[str] = []
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        credentials = Credentials(
            username=username,
            password="a password",
            host="127.0.0.1",
            port=server.port,
            listen_host="127.0.0.1",
            listen_port=free_port(),
        )
        self.client = Client(credentials)
        library = self.client._library
        library.searches._query_shares_and_reply = self._answer  # type: ignore[method-assign]
        library.shares.get_shared_item = self._item  # type: ignore[method-assign,assignment]
        library.shares.get_filesize = self._announced  # type: ignore[method-assign,assignment]
        self._queue = library.transfers._MESSAGE_MAP[PeerTransferQueue.Request]
        library.transfers._MESSAGE_MAP[PeerTransferQueue.Request] = self._asked
        self._upload = library.transfers._upload_file
        library.transfers._upload_file = self._send  # type: ignore[method-assign]

    async def _answer(self, ticket: int, username: str, query: str) -> None:  # noqa: ARG002 - whatever is asked
        results = [
            FileData(
                unknown=1,
                filename=offer.path,
                filesize=len(offer.content) if offer.size_bytes is None else offer.size_bytes,
                extension="",
                attributes=[],
            )
            for offer in self.offers.values()
        ]
        answer = PeerSearchReply.Request(
            username=self.username,
            ticket=ticket,
            results=results,
            has_slots_free=True,
            avg_speed=1_000_000,
            queue_size=0,
            locked_results=[],
        )
        await self.client._library.network.send_peer_messages(username, answer)

    async def _asked(self, message: PeerTransferQueue.Request, connection: PeerConnection) -> None:
        self.asked.append(message.filename)
        offer = self.offers[message.filename]
        if offer.refusal is not None:
            await connection.send_message(
                PeerTransferQueueFailed.Request(filename=message.filename, reason=offer.refusal)
            )
        elif not offer.is_silent:
            await self._queue(message, connection)

    async def _item(self, remote_path: str, username: str | None = None) -> "_Item":  # noqa: ARG002 - for everybody
        path = self._folder / str(list(self.offers).index(remote_path))
        if not path.exists():
            path.write_bytes(self.offers[remote_path].content)
        return _Item(path, remote_path)

    async def _announced(self, item: "_Item") -> int:
        offer = self.offers[item.remote_path]
        return len(offer.content) if offer.announced_bytes is None else offer.announced_bytes

    async def _send(self, transfer: Transfer, connection: PeerConnection) -> None:
        stalls_after = self.offers[transfer.remote_path].stalls_after
        if stalls_after is None:
            await self._upload(transfer, connection)
            return
        await transfer.state.start_transferring()
        await connection.send_data(self.offers[transfer.remote_path].content[:stalls_after])
        await asyncio.Event().wait()


@dataclass(frozen=True)
class _Item:
    path: Path
    remote_path: str

    def get_absolute_path(self) -> str:
        return str(self.path)


@asynccontextmanager
async def peer(
    server: SoulseekServer, folder: Path, offers: Sequence[Offer], *, username: str = "peer"
) -> AsyncIterator[Peer]:
    """Run a peer that is logged in."""
    running = Peer(server, username, offers, folder)
    await running.client.connect()
    await eventually(lambda: username in server.online and server.online[username].port)
    try:
        yield running
    finally:
        await running.client.close()
