"""What people are told about a download job: one notification per job, attempt and kind."""

from typing import Literal
from uuid import UUID

from kima_stream.events.shapes import Event


class NotificationWanted(Event, frozen=True, kw_only=True, tag="notification.wanted"):
    """Something ended that somebody waits for; ``reason`` and ``next_step`` are the job's."""

    notification_id: UUID
    job_id: UUID
    attempt: int
    kind: Literal["completed", "failed", "partial"]
    user_id: str
    artist: str
    album: str
    reason: str | None = None
    next_step: str | None = None


class NotificationAddressed(Event, frozen=True, kw_only=True, tag="notification.addressed"):
    """It goes to these channels, as the settings had them at that moment: ``<way>:<hash of its address>``."""

    channels: tuple[str, ...]


class NotificationDelivered(Event, frozen=True, kw_only=True, tag="notification.delivered"):
    """The channel took it."""

    channel: str
