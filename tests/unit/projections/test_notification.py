"""A notification: each channel once, whoever handles it and however often."""

from datetime import UTC, datetime
from uuid import UUID

from kima_stream.events import (
    Effect,
    EffectFailed,
    Event,
    NotificationAddressed,
    NotificationDelivered,
    NotificationWanted,
)
from projections import notification
from projections.notification import INITIAL, News, Notification, apply, decide

NOW = datetime(2026, 3, 14, 9, tzinfo=UTC)
JOB = UUID(int=7)
WANTED = NotificationWanted(
    notification_id=notification.notification_id(JOB, 1, "completed"),
    job_id=JOB,
    attempt=1,
    kind="completed",
    user_id="ann",
    artist="The Harbour Lights",
    album="Tidewater",
)
ADDRESSED = NotificationAddressed(channels=("apprise:aa", "webhook:bb"))


def after(*news: News) -> Notification:
    """Return the notification to which this came, each decided on what was there."""
    state = INITIAL
    for each in news:
        for event in decide(state, each, NOW):
            state = apply(state, event)
    return state


def test_it_is_addressed_once_then_told_to_each_channel() -> None:
    """Every channel has a call of its own; the same news again adds none."""
    state = after(WANTED, WANTED, ADDRESSED, ADDRESSED)

    kinds = [(effect.kind, effect.target) for effect in state.effects]
    assert kinds == [("notify.address", None), ("apprise.tell", "apprise:aa"), ("webhook.tell", "webhook:bb")]
    assert state.status == "addressed"


def test_it_is_told_when_no_channel_waits() -> None:
    """Delivered or failed; a failure keeps its reason, and a later delivery is the truth."""
    state = after(WANTED, ADDRESSED, NotificationDelivered(channel="apprise:aa"))
    assert state.status == "addressed"
    effect = next(effect for effect in state.effects if effect.target == "webhook:bb")
    state = apply(
        state, EffectFailed(effect_id=effect.effect_id, kind=effect.kind, code="refused", reason="It said 410.")
    )

    assert state.status == "told"
    assert [(c.status, c.reason) for c in state.channels] == [("delivered", None), ("failed", "It said 410.")]
    assert effect not in state.effects
    assert decide(state, NotificationDelivered(channel="webhook:bb"), NOW) == [
        NotificationDelivered(channel="webhook:bb")
    ]
    assert decide(state, NotificationDelivered(channel="apprise:aa"), NOW) == []


def test_without_channels_there_is_nothing_to_do() -> None:
    """Nobody configured one: it is told to nobody, and over."""
    assert after(WANTED, NotificationAddressed(channels=())).status == "told"


def test_an_unknown_call_or_channel_changes_nothing() -> None:
    """A stray outcome belongs to nobody."""
    state = after(WANTED, ADDRESSED)
    stray: list[Event] = [
        EffectFailed(effect_id=UUID(int=1), kind="webhook.tell", code="x", reason="x"),
        NotificationDelivered(channel="webhook:zz"),
    ]

    assert all(apply(state, event).channels == state.channels for event in stray)
    assert decide(state, NotificationDelivered(channel="webhook:zz"), NOW) == []


def test_each_attempt_and_kind_has_its_own() -> None:
    """The second attempt is told again; the ids are the same in every process."""
    ids = {notification.notification_id(JOB, n, kind) for n in (1, 2) for kind in ("completed", "failed", "partial")}

    assert len(ids) == 6
    assert WANTED.notification_id in ids
    assert Effect(effect_id=JOB, kind=notification.kind_of("apprise:aa")).system == "apprise"
