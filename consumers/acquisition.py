"""Acquisition: who wants calls made, and who makes them in this process.

Whatever a download job, a notification or a search session wants of the outside is an effect. Lidarr and
those who are told may be called by any process; Soulseek only by the one that owns the account.
"""

from datetime import datetime
from typing import Final

import aiohttp

from consumers import lidarr_calls, notifications
from kima_stream.database import Pool
from kima_stream.effect_work import Executor
from kima_stream.effects import AnyOwner, Owner
from kima_stream.events import Event
from kima_stream.read_models import download_jobs, search_sessions
from kima_stream.settings.store import SettingsStore
from projections import download_job_decider, search_session
from projections.download_job import DownloadJob


def _decide(state: DownloadJob, news: Event, at: datetime) -> list[Event]:
    return download_job_decider.decide(state, news, at).facts


OWNERS: Final[tuple[AnyOwner, ...]] = (
    Owner(projection=download_jobs.PROJECTION, decide=_decide, prepare=lidarr_calls.prepare),
    Owner(projection=search_sessions.PROJECTION, decide=search_session.decide),
    notifications.OWNER,
)


def executors(pool: Pool, settings: SettingsStore, connections: aiohttp.ClientSession) -> list[Executor]:
    """Return the calls that any process may make; ``connections`` are those of ``lidarr.session``."""
    return [*lidarr_calls.executors(pool, settings, connections), *notifications.executors(pool, settings)]
