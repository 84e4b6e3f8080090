"""Calls to the outside: intended before they are made, done or failed after. In the stream that wants them.

A state carries its open effects; the table ``effects`` is that, by stream. What an effect brought about is a
fact of its own, appended together with ``EffectDone``.
"""

from typing import TypeAlias
from uuid import UUID, uuid5

import msgspec

from kima_stream.events.shapes import Event


class Effect(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A call that is wanted and has no outcome yet.

    ``kind`` is ``<system>.<verb>``, e.g. ``lidarr.search``; ``target`` says what the state does not,
    e.g. the id of the download to remove.
    """

    effect_id: UUID
    kind: str
    target: str | None = None

    @property
    def system(self) -> str:
        """Return the outside system: it has one breaker."""
        return self.kind.partition(".")[0]

    @property
    def outcome_id(self) -> UUID:
        """Return the id of the event that ends it: whoever appends a second one is told so."""
        return uuid5(self.effect_id, "outcome")


class EffectIntended(Event, frozen=True, kw_only=True, tag="effect.intended"):
    """The call is to be made, once."""

    effect: Effect


class EffectDone(Event, frozen=True, kw_only=True, tag="effect.done"):
    """The call was made; what it brought about follows in the same append."""

    effect_id: UUID


class EffectFailed(Event, frozen=True, kw_only=True, tag="effect.failed"):
    """The call was given up; ``reason`` and ``next_step`` are for people, ``code`` is for programs.

    ``was_unknown``: a crash came in between and the other side could not be asked what became of it.
    """

    effect_id: UUID
    kind: str
    code: str
    reason: str
    next_step: str | None = None
    was_unknown: bool = False


class EffectWithdrawn(Event, frozen=True, kw_only=True, tag="effect.withdrawn"):
    """The call is not wanted any more: if nobody makes it yet nobody will, and who makes it stops."""

    effect_id: UUID


Outcome: TypeAlias = EffectDone | EffectFailed | EffectWithdrawn


def open_effects(effects: tuple[Effect, ...], event: Event) -> tuple[Effect, ...]:
    """Return the open effects of a state after ``event``."""
    if isinstance(event, EffectIntended):
        return effects if event.effect in effects else (*effects, event.effect)
    if isinstance(event, Outcome):
        return tuple(effect for effect in effects if effect.effect_id != event.effect_id)
    return effects
