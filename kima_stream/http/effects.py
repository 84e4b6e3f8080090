"""The to-do list of calls to the outside: what waits, why, since when, and which systems do not answer."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec.structs import replace

from kima_stream.effects import breaker, waiting
from kima_stream.effects.waiting import Cursor, EffectState, WaitingEffect
from kima_stream.errors import NotFoundError
from kima_stream.http import cursors
from kima_stream.http.requests import Text
from kima_stream.http.routes import ADMIN, USER, Call, Nothing, Route, json_response
from kima_stream.projector import Row
from kima_stream.read_models import download_jobs
from projections.download_job import DownloadJob

MAX_PAGE: Final = 1_000


class EffectQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which effects; ``after`` is the ``next`` of the page before."""

    system: Text | None = None
    state: EffectState | None = None
    stream: Text | None = None
    after: Text | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100


class BreakerView(msgspec.Struct, frozen=True, kw_only=True):
    """A system that failed lately; unless it is closed only probes are made, the next one at ``probe_at``."""

    system: str
    state: breaker.State
    failures: int
    opened_at: datetime | None
    probe_at: datetime | None
    last_error: str | None


class EffectPage(msgspec.Struct, frozen=True):
    """Open effects, those that wait longest first; ``next`` is null on the last page."""

    effects: tuple[WaitingEffect, ...]
    breakers: tuple[BreakerView, ...]
    next: str | None


class JobEffects(msgspec.Struct, frozen=True):
    """What a job waits for, the longest wait first."""

    effects: tuple[WaitingEffect, ...]


async def list_effects(call: Call[EffectQuery, Nothing]) -> web.Response:
    """Answer one page of what waits to be called."""
    query = call.query
    after = cursors.decode(query.after, Cursor)
    async with call.door.pool.acquire() as conn:
        found = await waiting.list_page(
            conn, system=query.system, stream=query.stream, state=query.state, after=after, limit=query.limit + 1
        )  # fmt: skip
        breakers = await breaker.read(conn, None if query.system is None else [query.system])
    page = found[: query.limit]
    following = cursors.encode(Cursor(page[-1].intended_at, page[-1].effect_id)) if len(found) > len(page) else None
    return json_response(EffectPage(tuple(page), tuple(_view(found, state) for found, state in breakers), following))


async def list_job_effects(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer what a job of the caller's waits for; who makes the calls is the operator's to know."""
    row = await _own(call)
    async with call.door.pool.acquire() as conn:
        found = await waiting.list_page(conn, stream=row.stream, limit=MAX_PAGE)
    return json_response(JobEffects(tuple(replace(effect, holder=None) for effect in found)))


async def _own(call: Call[Nothing, Nothing]) -> Row[DownloadJob]:
    try:
        job_id = UUID(call.parameter("id"))
    except ValueError:
        job_id = UUID(int=0)
    async with call.door.pool.acquire() as conn:
        row = await download_jobs.get(conn, job_id)
    if row is None or (call.user.role != "admin" and row.state.user_id != call.user.user_id):
        raise NotFoundError("There is no such download job.")
    return row


def _view(found: breaker.Breaker, state: breaker.State) -> BreakerView:
    return BreakerView(
        system=found.system, state=state, failures=found.failures, opened_at=found.opened_at,
        probe_at=found.probe_at, last_error=found.last_error,
    )  # fmt: skip


ROUTES: Final = (
    Route(
        method="GET", path="/api/effects", handler=list_effects, roles=ADMIN, query=EffectQuery,
        summary="What waits to be called outside, why, and since when", responses={200: EffectPage},
    ),
    Route(
        method="GET", path="/api/downloads/{id}/effects", handler=list_job_effects, roles=USER,
        summary="What one download job waits for", responses={200: JobEffects},
    ),
)  # fmt: skip
