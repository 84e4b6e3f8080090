"""What queries read: one module per table, and all projections by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from kima_stream.projector import Projection
from kima_stream.read_models import download_jobs, notifications, search_sessions, settings, users

# Any: each projection has a state of its own.
PROJECTIONS: Final[Mapping[str, Projection[Any]]] = MappingProxyType(
    {
        projection.name: projection
        for projection in (
            download_jobs.PROJECTION,
            notifications.PROJECTION,
            search_sessions.PROJECTION,
            settings.PROJECTION,
            users.PROJECTION,
        )
    }
)
