"""Lidarr's REST API as a typed client: one method per thing that we ask or tell it.

Reads are tried a few times, nothing else is: after a POST that broke, ask before you send it again.
``lidarr_albums`` has the steps that do so. Source: Lidarr ``src/Lidarr.Api.V1``.

Every method raises:
    ConfigurationError: key or address are wrong.
    LidarrError: see ``lidarr_http``.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp

from kima_stream.errors import ConfigurationError
from kima_stream.integrations.lidarr_activity import Activity
from kima_stream.integrations.lidarr_http import LidarrError, Transport, session
from kima_stream.integrations.lidarr_library import Library
from kima_stream.integrations.lidarr_notifications import Notifications
from kima_stream.settings import definitions
from kima_stream.settings.store import Snapshot

__all__ = ["Lidarr", "LidarrError", "session"]


class Lidarr(Library, Activity, Notifications):
    """One Lidarr."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        opened: aiohttp.ClientSession,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take the address with its URL base, and connections of ``session``; nothing is asked yet."""
        super().__init__(Transport(base_url, api_key, opened, now=now))

    @classmethod
    def of(cls, settings: Snapshot, opened: aiohttp.ClientSession) -> "Lidarr":
        """Return the Lidarr of the settings.

        Raises:
            ConfigurationError: they name none.
        """
        url, key = settings[definitions.LIDARR_URL], settings[definitions.LIDARR_API_KEY]
        if url is None or key is None:
            needed = ((definitions.LIDARR_URL, url), (definitions.LIDARR_API_KEY, key))
            raise ConfigurationError(
                [f"{each.key}: missing; set it, or {each.also[0]}" for each, value in needed if value is None]
            )
        return cls(url, key, opened)
