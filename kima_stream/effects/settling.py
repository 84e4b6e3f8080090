"""The end of an effect: its outcome and what follows from it, in one append to the stream that wanted it.

The first outcome wins, by its id: who comes second is told so and nothing is lost, since both tell of one call.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar
from uuid import UUID

import msgspec

from kima_stream import delivery, event_store, projector, upcasters
from kima_stream.database import Connection, Pool
from kima_stream.effects import leasing
from kima_stream.errors import DuplicateEventError, TornAppendError, UndecodableEventError, WrongExpectedVersionError
from kima_stream.events import (
    Effect,
    EffectDone,
    EffectFailed,
    EffectIntended,
    Event,
    RecordedEvent,
    derived_id,
    event_type,
    new_event,
)
from kima_stream.projector import Projection

TRIES: Final = 10  # somebody appended without the row's lock, or a deadlock: load again and decide again
RIVALRY: Final = (WrongExpectedVersionError, TornAppendError, *delivery.RIVALRY)

Settled: TypeAlias = Literal["done", "failed", "known"]  # known: another has told already


class HasEffects(Protocol):
    """A state that wants calls."""

    @property
    def effects(self) -> tuple[Effect, ...]:
        """Return the open ones."""


S = TypeVar("S", bound=HasEffects)


async def _nothing(_conn: Connection, _stream: str, _news: Event) -> None:
    """Prepare nothing."""


class Owner(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """Who wants effects: a category, by its projection and its decider.

    ``decide(state, news, at)`` returns what follows, the news itself included, ``[]`` when the state has it; ``state``
    is that after ``EffectDone`` or ``EffectFailed``, so the effect is not open in it. An ``EffectFailed`` among what it
    returns is the one that is recorded anyway. ``prepare(conn, stream, news)`` comes first in the transaction, before
    the row is locked: the place for locks that come before it, such as ``correlation_keys``.
    """

    projection: Projection[S]
    decide: Callable[[S, Event, datetime], Sequence[Event]]
    prepare: Callable[[Connection, str, Event], Awaitable[None]] = _nothing


AnyOwner: TypeAlias = Owner[Any]  # a worker has owners of all states


async def find_intention(conn: Connection, stream: str, effect_id: UUID) -> RecordedEvent | None:
    """Return the event that intended the effect; None when retention has taken it."""
    for event in await event_store.read_stream(conn, stream):
        if event.type == _INTENDED:
            try:
                fact = upcasters.decode(event)
            except UndecodableEventError:
                continue
            if isinstance(fact, EffectIntended) and fact.effect.effect_id == effect_id:
                return event
    return None


_INTENDED: Final = event_type(EffectIntended)


async def settle(
    pool: Pool,
    owner: Owner[S],
    stream: str,
    effect: Effect,
    news: Event,
    *,
    cause: RecordedEvent | None = None,
    at: datetime | None = None,
) -> Settled:
    """Record the outcome of ``effect`` and what follows from ``news``; close it.

    A true outcome of an effect that was withdrawn is recorded as well, and what was brought about is told to the
    decider; that it failed is of no interest to anybody then.

    Raises:
        OUTAGE: Postgres is away; nothing was written, settle again.
    """
    for attempt in range(1, TRIES + 1):
        try:
            async with pool.acquire() as conn, conn.transaction():
                return await _settle(conn, owner, stream, effect, news, cause, at)
        except DuplicateEventError:
            async with pool.acquire() as conn, conn.transaction():
                await leasing.forget(conn, effect.effect_id)
            return "known"
        except RIVALRY:
            if attempt == TRIES:
                raise
    raise AssertionError  # the last try has returned or raised


async def _settle(
    conn: Connection,
    owner: Owner[S],
    stream: str,
    effect: Effect,
    news: Event,
    cause: RecordedEvent | None,
    at: datetime | None,
) -> Settled:
    if known := await event_store.find_events(conn, [effect.outcome_id]):
        raise DuplicateEventError(known)
    await owner.prepare(conn, stream, news)
    row = await projector.load(conn, owner.projection, stream)
    has_failed = isinstance(news, EffectFailed)
    outcome = news if isinstance(news, EffectFailed) else EffectDone(effect_id=effect.effect_id)
    facts: list[Event] = [outcome]
    if effect in row.state.effects or not has_failed:
        state = owner.projection.apply(row.state, outcome)
        facts += [fact for fact in owner.decide(state, news, at or datetime.now(UTC)) if fact != outcome]
    events = [
        new_event(
            fact,
            event_id=effect.outcome_id if number == 0 else derived_id(effect.outcome_id, str(number)),
            cause=cause,
        )
        for number, fact in enumerate(facts)
    ]
    await projector.decide(conn, owner.projection, row, events)
    await leasing.forget(conn, effect.effect_id)
    return "failed" if has_failed else "done"
