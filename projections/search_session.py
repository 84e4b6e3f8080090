"""A search session: one user's look into Soulseek, with what was found and what was taken of it.

    running -> completed | failed, and from any of them -> expired

Pure: the state, its fold, and what follows from news. Results are capped: a popular name has thousands.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, TypeAlias, assert_never
from uuid import UUID, uuid5

import msgspec
from msgspec.structs import replace

from kima_stream.events import (
    Effect,
    EffectFailed,
    EffectIntended,
    EffectWithdrawn,
    Event,
    FoundFile,
    SearchCompleted,
    SearchDownloadRequested,
    SearchExpired,
    SearchFailed,
    SearchFileDownloaded,
    SearchRequested,
    SearchResultsFound,
    open_effects,
)

MAX_RESULTS: Final = 200
MAX_DOWNLOADS: Final = 50  # of one session
SECONDS: Final = 3_600  # a session is shown for so long
SEARCH: Final = "soulseek.search"
FETCH: Final = "soulseek.fetch"

Status: TypeAlias = Literal["none", "running", "completed", "failed", "expired"]
News: TypeAlias = (
    SearchRequested
    | SearchResultsFound
    | SearchCompleted
    | SearchExpired
    | SearchDownloadRequested
    | SearchFileDownloaded
    | EffectFailed
)


class Download(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A result that the user took."""

    effect_id: UUID
    peer: str
    path: str
    size_bytes: int
    status: Literal["running", "completed", "failed"] = "running"
    saved_as: str | None = None
    reason: str | None = None


class SearchSession(msgspec.Struct, frozen=True, kw_only=True):
    """The session as it stands; ``reason`` and ``next_step`` are for people, ``query`` is a sealed string."""

    session_id: UUID = UUID(int=0)
    user_id: str = ""
    query: str = ""
    status: Status = "none"
    expires_at: datetime | None = None
    reason: str | None = None
    next_step: str | None = None
    results: tuple[FoundFile, ...] = ()
    found: int = 0
    left_out: int = 0
    downloads: tuple[Download, ...] = ()
    effects: tuple[Effect, ...] = ()

    def result(self, peer: str, path: str) -> FoundFile | None:
        """Return what ``peer`` offers under ``path``, if it is one of the results."""
        return next((file for file in self.results if (file.peer, file.path) == (peer, path)), None)

    def download(self, effect_id: UUID) -> Download | None:
        """Return what this effect fetches."""
        return next((each for each in self.downloads if each.effect_id == effect_id), None)


INITIAL: Final = SearchSession()


def apply(state: SearchSession, event: Event) -> SearchSession:  # noqa: PLR0911 - one per fact
    """Return the session as it stands after ``event``; never refuses, the fact has happened."""
    state = replace(state, effects=open_effects(state.effects, event))
    match event:
        case SearchRequested():
            return replace(
                state,
                session_id=event.session_id,
                user_id=event.user_id,
                query=event.query,
                expires_at=event.expires_at,
                status="running",
            )
        case SearchResultsFound():
            return _found(state, event)
        case SearchCompleted():
            return replace(_ended(state, "completed"), found=event.found, left_out=event.left_out)
        case SearchFailed():
            return replace(_ended(state, "failed"), reason=event.reason, next_step=event.next_step)
        case SearchExpired():
            return replace(state, status="expired", results=(), query="")
        case SearchDownloadRequested() | SearchFileDownloaded() | EffectFailed():
            return _fetched(state, event)
        case _:
            return state


def decide(state: SearchSession, news: Event, at: datetime) -> list[Event]:  # noqa: PLR0911 - one per news
    """Return what follows from ``news``, itself included; ``[]`` when the state has it or it comes too late."""
    match news:
        case SearchRequested():
            effect = Effect(effect_id=uuid5(news.session_id, SEARCH), kind=SEARCH)
            return [news, EffectIntended(effect=effect)] if state.status == "none" else []
        case SearchResultsFound():
            fresh = new_results(state, news.results)
            return [SearchResultsFound(results=fresh)] if fresh and state.status == "running" else []
        case SearchCompleted():
            completed = replace(news, found=len(state.results))
            return [completed] if state.status == "running" else []
        case SearchExpired():
            withdrawn = [EffectWithdrawn(effect_id=effect.effect_id) for effect in state.effects]
            is_due = state.status not in {"none", "expired"} and state.expires_at == news.expires_at <= at
            return [news, *withdrawn] if is_due else []
        case SearchDownloadRequested():
            return _wanted(state, news)
        case SearchFileDownloaded():
            known = any((each.peer, each.path) == (news.peer, news.path) for each in state.downloads)
            return [news] if known else []
        case EffectFailed():
            return _failed(state, news)
        case _:
            return []  # no news of this category


def new_results(state: SearchSession, results: tuple[FoundFile, ...]) -> tuple[FoundFile, ...]:
    """Return those of ``results`` that the session has not yet and has room for."""
    known = {(file.peer, file.path) for file in state.results}
    fresh: dict[tuple[str, str], FoundFile] = {}
    for file in results:
        if (file.peer, file.path) not in known:
            fresh.setdefault((file.peer, file.path), file)
    return tuple(fresh.values())[: max(0, MAX_RESULTS - len(state.results))]


def fetch_id(session_id: UUID, peer: str, path: str, attempt: int) -> UUID:
    """Return the id of the effect that fetches a result; ``attempt`` counts from 1."""
    return uuid5(session_id, f"{FETCH}/{attempt}/{peer}/{path}")


def _wanted(state: SearchSession, news: SearchDownloadRequested) -> list[Event]:
    """Fetch it, unless it is on its way or here; what failed is tried again."""
    file = news.file
    tries = [each for each in state.downloads if (each.peer, each.path) == (file.peer, file.path)]
    if any(each.status != "failed" for each in tries) or len(state.downloads) >= MAX_DOWNLOADS:
        return []
    if state.status not in {"running", "completed"} or state.result(file.peer, file.path) is None:
        return []
    effect_id = fetch_id(state.session_id, file.peer, file.path, len(tries) + 1)
    return [news, EffectIntended(effect=Effect(effect_id=effect_id, kind=FETCH))]


def _failed(state: SearchSession, failed: EffectFailed) -> list[Event]:
    if failed.kind == SEARCH and state.status == "running":
        return [SearchFailed(reason=failed.reason, next_step=failed.next_step or "Search again in a while.")]
    return []  # of a download: the fold keeps its reason


def _found(state: SearchSession, event: SearchResultsFound) -> SearchSession:
    results = (*state.results, *new_results(state, event.results))
    return replace(state, results=results, found=len(results))


def _ended(state: SearchSession, status: Status) -> SearchSession:
    return replace(state, status=status) if state.status == "running" else state


def _fetched(
    state: SearchSession, event: SearchDownloadRequested | SearchFileDownloaded | EffectFailed
) -> SearchSession:
    match event:
        case SearchDownloadRequested(file=file):
            tries = sum((each.peer, each.path) == (file.peer, file.path) for each in state.downloads)
            begun = Download(
                effect_id=fetch_id(state.session_id, file.peer, file.path, tries + 1),
                peer=file.peer,
                path=file.path,
                size_bytes=file.size_bytes,
            )
            return replace(state, downloads=(*state.downloads, begun))
        case SearchFileDownloaded():
            return _with_downloads(
                state,
                lambda each: (
                    replace(each, status="completed", saved_as=event.saved_as, reason=None)
                    if (each.peer, each.path) == (event.peer, event.path) and each.status == "running"
                    else each
                ),
            )
        case EffectFailed():
            return _with_downloads(
                state,
                lambda each: (
                    replace(each, status="failed", reason=event.reason)
                    if each.effect_id == event.effect_id and each.status == "running"
                    else each
                ),
            )
        case _:
            assert_never(event)


def _with_downloads(state: SearchSession, change: Callable[[Download], Download]) -> SearchSession:
    return replace(state, downloads=tuple(change(each) for each in state.downloads))
