"""What users ask of a search session, decided in one transaction, so that the answer is final."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from kima_stream import event_store, projector, upcasters
from kima_stream.database import Connection, Pool
from kima_stream.events import SearchRequested, derived_id, new_event_id
from kima_stream.http import user_requests
from kima_stream.http.user_requests import ReusedKeyError
from kima_stream.projector import Row
from kima_stream.read_models.search_sessions import FIELD, PROJECTION, stream_of
from kima_stream.settings import subject_keys
from kima_stream.settings.subject_keys import PlainText
from projections.search_session import SECONDS, News, SearchSession, decide


async def start(
    pool: Pool, query: PlainText, *, user_id: str, correlation_id: str, event_id: UUID | None
) -> tuple[Row[SearchSession], bool]:
    """Record a request and return its session, and whether it was there before; ``event_id`` names the request.

    Raises:
        ErasedUserError: the user was erased.
        ReusedKeyError: the id has named another query before.
    """
    return await user_requests.decided(
        pool, lambda conn: _start(conn, query, user_id, correlation_id, event_id or new_event_id())
    )


async def _start(
    conn: Connection, query: PlainText, user_id: str, correlation_id: str, event_id: UUID
) -> tuple[Row[SearchSession], bool]:
    # The same query of the same request is sealed to the same bytes: it is compared without being opened.
    sealed = await subject_keys.seal(conn, user_id, event_id, FIELD, query)
    known = await event_store.read_event(conn, event_id)
    if known is not None:
        first = upcasters.decode(known)
        if not isinstance(first, SearchRequested) or (first.query, first.user_id) != (sealed, user_id):
            raise ReusedKeyError
        return await projector.load(conn, PROJECTION, known.stream), True
    requested = SearchRequested(
        session_id=derived_id(event_id, "session"),
        user_id=user_id,
        query=sealed,
        expires_at=datetime.now(UTC) + timedelta(seconds=SECONDS),
    )
    row, is_new = await _take(conn, stream_of(requested.session_id), requested, correlation_id, event_id)
    return row, not is_new


async def take(
    pool: Pool, stream: str, news: News, *, correlation_id: str | None, event_id: UUID | None = None
) -> tuple[Row[SearchSession], bool]:
    """Append what follows from ``news`` and return the session, and whether anything followed.

    ``event_id`` names the request, which is taken once.

    Raises:
        ReusedKeyError: the id has named another request before.
    """

    async def work(conn: Connection) -> tuple[Row[SearchSession], bool]:
        known = None if event_id is None else await event_store.read_event(conn, event_id)
        if known is None:
            return await _take(conn, stream, news, correlation_id, event_id or new_event_id())
        if known.stream != stream or upcasters.decode(known) != news:
            raise ReusedKeyError
        return await projector.load(conn, PROJECTION, stream), False

    return await user_requests.decided(pool, work)


async def _take(
    conn: Connection, stream: str, news: News, correlation_id: str | None, event_id: UUID
) -> tuple[Row[SearchSession], bool]:
    row = await projector.load(conn, PROJECTION, stream)
    decided = decide(row.state, news, datetime.now(UTC))
    if not decided:
        return row, False
    events = projector.consequences(decided, event_id=event_id, correlation_id=correlation_id)
    return await projector.decide(conn, PROJECTION, row, events), True
