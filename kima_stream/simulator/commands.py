"""What Lidarr was told to do: each command waits, runs, ends; the same one twice is one while it waits or runs."""

from collections.abc import Awaitable, Callable
from typing import Literal

from kima_stream.simulator.agenda import Agenda
from kima_stream.simulator.library import Command

Work = Callable[[], Awaitable[str]]


class Commands:
    """All commands of one Lidarr, by number, until it forgets them."""

    def __init__(self, agenda: Agenda) -> None:
        """Nothing was told yet."""
        self._agenda = agenda
        self._count = 0
        self._known: dict[int, Command] = {}

    def take(self, name: str, body: dict[str, object], *, seconds: float, work: Work) -> Command:
        """Take a command that does ``work`` in ``seconds`` and ends with its message, unless it is there already."""
        for known in self._known.values():
            if known.ended is None and (known.name, known.body) == (name, body):
                return known
        self._count += 1
        command = Command(id=self._count, name=name, body=body, queued=self._agenda.now)
        self._known[command.id] = command

        async def end() -> None:
            if command.ended is not None:
                return
            command.started = self._agenda.now
            command.message = await work()
            self._end(command, "completed")

        self._agenda.plan(seconds, end)
        return command

    def break_off(self, outcome: Literal["failed", "aborted", "orphaned"]) -> None:
        """End whatever waits or runs, in vain: as a restart of Lidarr does."""
        for command in self._known.values():
            if command.ended is None:
                self._end(command, outcome)

    def forget(self) -> None:
        """Drop those that have ended: Lidarr keeps them for some minutes."""
        self._known = {number: command for number, command in self._known.items() if command.ended is None}

    def find(self, number: int) -> Command | None:
        """Return a command that is not forgotten."""
        return self._known.get(number)

    def all(self) -> list[Command]:
        """Return those that are not forgotten."""
        return list(self._known.values())

    def _end(self, command: Command, outcome: Literal["completed", "failed", "aborted", "orphaned"]) -> None:
        command.ended, command.outcome = self._agenda.now, outcome
        command.result = "successful" if outcome == "completed" else "unsuccessful"
