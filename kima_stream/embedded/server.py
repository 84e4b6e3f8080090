"""One embedded server: a child process that is started, watched, stopped and started again.

Its own session, so that Ctrl-C reaches us alone and we stop it last; on Linux the kernel ends it
when we are killed; what still runs from an earlier life is ended before the next start.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Self

import psutil
import structlog

from kima_stream.embedded.home import Home
from kima_stream.errors import KimaStreamError

START_SECONDS = 120.0  # crash recovery of a large log may take its time
POLL_SECONDS = 0.02
WATCH_SECONDS = 0.1
ORPHAN_SECONDS = 4.0
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
LOG_BYTES = 5_000_000  # a server's log begins anew above this, at a start
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger(__name__)


class ServerError(KimaStreamError):
    """An embedded server did not start; ``detail`` is the end of what it said."""

    def __init__(self, *, name: str, detail: str) -> None:
        """Name the server."""
        super().__init__(f"{name} did not start: {detail}")
        self.name = name
        self.detail = detail


class Server(ABC):
    """A server under our eyes. All methods belong to the event loop of the main thread."""

    name: str
    stop_signals: Sequence[tuple[signal.Signals, float]]  # what to send in turn, and seconds to wait for the end

    def __init__(self, home: Home) -> None:
        """Remember where it lives; nothing is started yet."""
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._turn = asyncio.Lock()

    @property
    @abstractmethod
    def url(self) -> str:
        """How to connect, from the first start on and through every restart."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line."""

    @abstractmethod
    def make_data(self) -> None:
        """Make the data folder if it is not there, or refuse one that does not fit."""

    @abstractmethod
    async def answers(self, pid: int) -> bool:
        """Say whether the process ``pid`` is ready for clients."""

    @abstractmethod
    def owns(self, arguments: Sequence[str]) -> bool:
        """Say whether a process with these arguments is this very server, or a part of it."""

    @property
    def pid(self) -> int | None:
        """The server's process while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> None:
        """Start the server and wait until it answers; nothing happens when it runs.

        Raises:
            ConfigurationError: its data or its program do not fit; a human must act.
            ServerError: it ended or did not answer in time; its log tells why.
        """
        async with self._turn:
            self._wanted = True
            if self.pid is not None:
                return
            began = time.monotonic()
            await asyncio.to_thread(self._clear_the_way)
            self._process = self._spawn(self.command())
            await self._until_ready(self._process, began + START_SECONDS)
            log.info("server_started", server=self.name, pid=self.pid, seconds=round(time.monotonic() - began, 2))

    async def stop(self) -> None:
        """Stop it in order, and with force when it takes too long; well below 5 s."""
        async with self._turn:
            self._wanted = False
            if self._process is not None:
                await _end(self._process, self.stop_signals)
                log.info("server_stopped", server=self.name)

    async def kill(self) -> None:
        """Kill it as a crash would, and wait for its end; ``supervise`` or ``start`` brings it back."""
        if self._process is not None:
            await _end(self._process, [(signal.SIGKILL, 5.0)])

    async def restart_immediate(self) -> None:
        """Restart it as an operator in a hurry would: nobody is waited for, nothing is flushed."""
        if self._process is not None:
            await _end(self._process, [(signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)])
        await self.start()

    async def supervise(self) -> None:
        """Start it again whenever it ends though it is wanted, until cancelled."""
        failures = 0
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if not self._wanted or self.pid is not None or self._turn.locked():
                continue
            log.warning("server_died", server=self.name, returncode=self._process and self._process.returncode)
            try:
                await self.start()
                failures = 0
            except ServerError as error:
                log.error("server_start_failed", server=self.name, detail=error.detail)  # noqa: TRY400 - the detail says it
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Start it, and stop it at the end; run ``supervise`` beside for one that never stays down."""
        try:
            await self.start()
            yield self
        finally:
            await self.stop()

    def run(self, command: Sequence[str], stdin: str = "") -> None:
        """Run a program of the server to its end, as the server's user.

        Raises:
            ServerError: it failed.
        """
        done = subprocess.run(  # noqa: S603 - a program of the wheel, no shell
            command,
            input=stdin.encode(),
            check=False,
            capture_output=True,
            cwd=self.home.files,
            env=_environment(),
            user=self.home.user,
            group=self.home.gid if self.home.user is not None else None,
            extra_groups=[] if self.home.user is not None else None,
        )
        if done.returncode != 0:
            raise ServerError(name=self.name, detail=(done.stderr or done.stdout).decode(errors="replace").strip())

    def _clear_the_way(self) -> None:
        self._end_orphans()
        self.make_data()

    def _spawn(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        path = self._log_path()
        with path.open("ab") as output:
            if output.tell() > LOG_BYTES:
                output.truncate(0)
            return subprocess.Popen(  # noqa: S603 - a program of the wheel, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.home.files,
                env=_environment(),
                start_new_session=True,
                preexec_fn=end_with_parent(self.stop_signals[0][0]),  # noqa: PLW1509 - one system call, nothing is allocated
                user=self.home.user,
                group=self.home.gid if self.home.user is not None else None,
                extra_groups=[] if self.home.user is not None else None,
            )

    async def _until_ready(self, process: "subprocess.Popen[bytes]", deadline: float) -> None:
        while not await self.answers(process.pid):
            if process.poll() is not None or time.monotonic() > deadline:
                await _end(process, [(signal.SIGKILL, 5.0)])
                raise ServerError(name=self.name, detail=self._last_words())
            await asyncio.sleep(POLL_SECONDS)

    def _end_orphans(self) -> None:
        """End what an earlier process of ours left running on this data, after making sure that it is that."""
        orphans = self._orphans()
        for signal_number in (self.stop_signals[0][0], signal.SIGKILL):
            for orphan in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    log.warning("orphan_ended", server=self.name, pid=orphan.pid, signal=signal_number.name)
                    orphan.send_signal(signal_number)
            if not orphans:
                return
            psutil.wait_procs(orphans, timeout=ORPHAN_SECONDS)
            orphans = self._orphans()

    def _orphans(self) -> list[psutil.Process]:
        return [
            process
            for process in psutil.process_iter(["pid", "cmdline", "uids"])
            if process.info["uids"] is not None
            and process.info["uids"].effective == self.home.uid
            and process.pid != os.getpid()
            and self.owns(process.info["cmdline"] or [])
        ]

    def _log_path(self) -> Path:
        return self.home.files / "log" / f"{self.name}.log"

    def _last_words(self) -> str:
        lines = self._log_path().read_text(errors="replace").splitlines()[-5:]
        return " / ".join(lines) + f" (more in {self._log_path()})"


async def _end(process: "subprocess.Popen[bytes]", signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send ``signals`` in turn until the process has ended."""
    for signal_number, seconds in signals:
        if process.poll() is not None:
            return
        process.send_signal(signal_number)
        process.send_signal(signal.SIGCONT)  # a process that was stopped hears nothing else
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - a process is no event
            await asyncio.sleep(POLL_SECONDS)


def _environment() -> dict[str, str]:
    return {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


def end_with_parent(signal_number: signal.Signals) -> Callable[[], None] | None:
    """Return what the child calls before it becomes the server: end when the parent ends; Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)

    return ask
