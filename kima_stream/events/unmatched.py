"""What came from outside and belongs to no job that we know."""

from uuid import UUID

from kima_stream.events.shapes import Event


class UnmatchedWaiting(Event, frozen=True, kw_only=True, tag="unmatched.waiting"):
    """A fact came that no job knows. Source: Lidarr webhooks ``DownloadFailure`` and ``ImportFailure``."""

    fact_id: UUID  # of the webhook's event
    fact_type: str
    download_id: str | None
    release_title: str | None = None
    reason: str


class UnmatchedResolved(Event, frozen=True, kw_only=True, tag="unmatched.resolved"):
    """The fact found its jobs: ``streams``."""

    fact_id: UUID
    streams: tuple[str, ...]
