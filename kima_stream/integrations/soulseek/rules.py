"""What the owner does next: pure, so that every case can be tried.

Never a second login while one lives, none after a kick until somebody asks anew, and none with what was refused
before; all else that is wanted and not there is connected.
"""

from typing import Final, Literal, TypeAlias

import msgspec

from kima_stream.errors import ConfigurationError
from kima_stream.integrations.soulseek.account import Account, State
from kima_stream.settings import definitions
from kima_stream.settings.store import Snapshot

Step: TypeAlias = Literal["stay", "connect", "disconnect"]

FIRST_SECONDS: Final = 1.0
MAX_SECONDS: Final = 300.0


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Who logs in where, and where peers reach it."""

    username: str
    password: str
    host: str
    port: int
    listen_host: str
    listen_port: int

    def __repr__(self) -> str:
        """Never show the password: this may end in a log."""
        return f"Credentials({self.username!r}, {self.host}:{self.port})"


def credentials(settings: Snapshot) -> Credentials | None:
    """Return whom to log in as; None when Soulseek is off.

    Raises:
        ConfigurationError: a setting is missing or cannot be used.
    """
    if not settings.is_on(definitions.SOULSEEK_ENABLED):
        return None
    needed = (definitions.SOULSEEK_USERNAME, definitions.SOULSEEK_PASSWORD)
    username, password = (settings[each] for each in needed)
    if username is None or password is None:
        raise ConfigurationError([f"{each.key}: missing" for each in needed if settings[each] is None])
    host, _, port = settings[definitions.SOULSEEK_SERVER].rpartition(":")
    return Credentials(
        username=username,
        password=password,
        host=host.strip("[]"),
        port=int(port),
        listen_host=settings[definitions.SOULSEEK_LISTEN_HOST] or "0.0.0.0",  # noqa: S104 - peers come from outside
        listen_port=settings[definitions.SOULSEEK_LISTEN_PORT],
    )


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """All that a step depends on.

    ``refused`` is what was refused and at which ask; ``tried_at_ask`` the ask of the last attempt, which failed
    if ``is_waiting``: the delay before the next one is not over.
    """

    account: Account
    configured: Credentials | None
    connected_as: Credentials | None = None
    refused: tuple[Credentials, int] | None = None
    is_waiting: bool = False
    tried_at_ask: int = -1


def next_step(now: Situation) -> Step:
    """Return what to do."""
    account = now.account
    if not account.is_wanted or now.configured is None:
        return "stay" if now.connected_as is None else "disconnect"
    if now.connected_as is not None:
        return "stay" if now.connected_as == now.configured else "disconnect"
    if is_kicked(account):
        return "stay"
    if now.refused == (now.configured, account.asked):
        return "stay"
    if now.is_waiting and now.tried_at_ask == account.asked:
        return "stay"
    return "connect"


def is_kicked(account: Account) -> bool:
    """Say whether another login ended ours, and nobody asked since."""
    return account.kicked_at_ask is not None and account.asked <= account.kicked_at_ask


def idle_state(now: Situation) -> State:
    """Return how it is called when there is no connection and none is made."""
    if now.configured is None:
        return "off"
    if not now.account.is_wanted:
        return "disconnected"
    if is_kicked(now.account):
        return "kicked"
    return "refused" if now.refused == (now.configured, now.account.asked) else "waiting"


def delay_seconds(failures: int, chance: float) -> float:
    """Return how long to wait after so many failures in a row, a quarter more or less by ``chance`` in 0..1."""
    return float(min(FIRST_SECONDS * 2 ** min(max(failures - 1, 0), 16), MAX_SECONDS)) * (0.75 + chance / 2)
