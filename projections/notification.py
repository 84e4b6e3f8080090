"""A notification: what one attempt of a job came to, told once to each channel.

    wanted -> addressed -> told, channel by channel

Pure. The channels are found when it is addressed, since only the settings know them.
"""

from datetime import datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID, uuid5

import msgspec
from msgspec.structs import replace

from kima_stream.events import (
    Effect,
    EffectFailed,
    EffectIntended,
    Event,
    NotificationAddressed,
    NotificationDelivered,
    NotificationWanted,
    open_effects,
)

ADDRESS: Final = "notify.address"
Status: TypeAlias = Literal["none", "wanted", "addressed", "told"]
News: TypeAlias = NotificationWanted | NotificationAddressed | NotificationDelivered | EffectFailed


class Channel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One way to somebody; ``name`` is ``<way>:<hash of its address>``."""

    name: str
    status: Literal["waiting", "delivered", "failed"] = "waiting"
    reason: str | None = None


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """The notification as it stands."""

    notification_id: UUID = UUID(int=0)
    job_id: UUID = UUID(int=0)
    attempt: int = 0
    kind: str = ""
    user_id: str = ""
    artist: str = ""
    album: str = ""
    reason: str | None = None
    next_step: str | None = None
    status: Status = "none"
    channels: tuple[Channel, ...] = ()
    effects: tuple[Effect, ...] = ()


INITIAL: Final = Notification()


def notification_id(job_id: UUID, attempt: int, kind: str) -> UUID:
    """Return the id of the one notification for this."""
    return uuid5(job_id, f"notification/{attempt}/{kind}")


def kind_of(channel: str) -> str:
    """Return the kind of the call that tells ``channel``: each way has a breaker of its own."""
    return f"{channel.partition(':')[0]}.tell"


def apply(state: Notification, event: Event) -> Notification:
    """Return the notification as it stands after ``event``; never refuses, the fact has happened."""
    before, state = state, replace(state, effects=open_effects(state.effects, event))
    match event:
        case NotificationWanted():
            return replace(
                state,
                notification_id=event.notification_id,
                job_id=event.job_id,
                attempt=event.attempt,
                kind=event.kind,
                user_id=event.user_id,
                artist=event.artist,
                album=event.album,
                reason=event.reason,
                next_step=event.next_step,
                status="wanted",
            )
        case NotificationAddressed():
            channels = tuple(Channel(name=name) for name in event.channels)
            return replace(state, status="addressed" if channels else "told", channels=channels)
        case NotificationDelivered():
            return _ended(state, event.channel, "delivered", None)
        case EffectFailed():
            failed = next((e for e in before.effects if e.effect_id == event.effect_id and e.target), None)
            return state if failed is None else _ended(state, failed.target, "failed", event.reason)
        case _:
            return state


def decide(state: Notification, news: Event, at: datetime) -> list[Event]:
    """Return what follows from ``news``, itself included; ``[]`` when the state has it."""
    match news:
        case NotificationWanted():
            effect = Effect(effect_id=uuid5(news.notification_id, ADDRESS), kind=ADDRESS)
            return [news, EffectIntended(effect=effect)] if state.status == "none" else []
        case NotificationAddressed():
            if state.status != "wanted":
                return []
            return [news, *(EffectIntended(effect=_tell(state, channel)) for channel in news.channels)]
        case NotificationDelivered():
            return [news] if any(c.name == news.channel and c.status != "delivered" for c in state.channels) else []
        case EffectFailed():
            return []  # the fold keeps its reason
        case _:
            return []  # no news of this category


def _tell(state: Notification, channel: str) -> Effect:
    return Effect(effect_id=uuid5(state.notification_id, channel), kind=kind_of(channel), target=channel)


def _ended(
    state: Notification, name: str | None, status: Literal["delivered", "failed"], reason: str | None
) -> Notification:
    channels = tuple(
        replace(channel, status=status, reason=reason) if channel.name == name else channel
        for channel in state.channels
    )
    is_told = all(channel.status != "waiting" for channel in channels)
    return replace(state, channels=channels, status="told" if is_told else state.status)
