"""The only room that knows aioslsk: a login, a search, a file on its way. An extra: loaded when it is needed."""

from typing import TYPE_CHECKING

from kima_stream.errors import ConfigurationError
from kima_stream.integrations.soulseek.rules import Credentials

if TYPE_CHECKING:
    from kima_stream.integrations.soulseek.library.client import Client


def open_client(credentials: Credentials) -> "Client":
    """Return a client that is not connected yet.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    try:
        from kima_stream.integrations.soulseek.library.client import Client  # noqa: PLC0415 - an extra
    except ImportError:
        message = "soulseekEnabled: Soulseek needs the extra; install kima-stream[soulseek]"
        raise ConfigurationError([message]) from None
    return Client(credentials)
