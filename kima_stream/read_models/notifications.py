"""Table ``notifications``: what people are told about their jobs, one row per job, attempt and kind."""

from typing import Final
from uuid import UUID

from kima_stream.projector import Projection
from kima_stream.read_models.table import Table
from projections import notification
from projections.notification import Notification

CATEGORY: Final = "notification"
TABLE: Final = Table(
    "notifications",
    Notification,
    columns=("notification_id", "job_id", "attempt", "kind", "user_id", "status"),
)
PROJECTION: Final = Projection(
    name="notifications",
    category=CATEGORY,
    initial=notification.INITIAL,
    apply=notification.apply,
    read_model=TABLE,
)


def stream_of(notification_id: UUID) -> str:
    """Return the stream of a notification."""
    return f"{CATEGORY}-{notification_id}"
