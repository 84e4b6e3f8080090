"""What happens to a search session: one user's look into Soulseek."""

from datetime import datetime
from uuid import UUID

import msgspec

from kima_stream.events.shapes import Event


class FoundFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    r"""A file that a peer offers; ``path`` is the peer's own, with ``\\``, and never a path of ours.

    All of it is the peer's word. ``extension`` is lower case without a dot, ``queue_length`` counts who waits
    before us.
    """

    peer: str
    path: str
    size_bytes: int
    extension: str
    bitrate_kbps: int | None = None
    duration_seconds: int | None = None
    has_free_slot: bool = False
    speed_bytes_per_second: int = 0
    queue_length: int = 0


class SearchRequested(Event, frozen=True, kw_only=True, tag="search_session.requested"):
    """Somebody wants to know who has it; after ``expires_at`` nobody is shown the session.

    ``query`` is what they typed, a sealed string.
    """

    session_id: UUID
    user_id: str
    query: str
    expires_at: datetime


class SearchResultsFound(Event, frozen=True, kw_only=True, tag="search_session.results_found"):
    """Peers answered; the same file of the same peer comes once in a session."""

    results: tuple[FoundFile, ...]


class SearchCompleted(Event, frozen=True, kw_only=True, tag="search_session.completed"):
    """Nobody is waited for any more; ``found`` counts the results that are kept, ``left_out`` those over the cap."""

    found: int
    left_out: int = 0


class SearchFailed(Event, frozen=True, kw_only=True, tag="search_session.failed"):
    """The search could not be made; both texts are for people."""

    reason: str
    next_step: str


class SearchExpired(Event, frozen=True, kw_only=True, tag="search_session.expired"):
    """The session's time, which was ``expires_at``, is over: its results are dropped from the state."""

    expires_at: datetime


class SearchDownloadRequested(Event, frozen=True, kw_only=True, tag="search_session.download_requested"):
    """The user wants this one of the results."""

    file: FoundFile


class SearchFileDownloaded(Event, frozen=True, kw_only=True, tag="search_session.file_downloaded"):
    """The file is in the library under ``saved_as``, relative to its folder."""

    peer: str
    path: str
    saved_as: str
    size_bytes: int
