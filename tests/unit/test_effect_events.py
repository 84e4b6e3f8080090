"""An effect is open from its intention to its outcome, whatever comes twice."""

from uuid import UUID

from kima_stream.events import (
    Effect,
    EffectDone,
    EffectFailed,
    EffectIntended,
    EffectWithdrawn,
    SettingsKeyRotated,
    open_effects,
)

SEARCH = Effect(effect_id=UUID(int=1), kind="lidarr.search")
OTHER = Effect(effect_id=UUID(int=2), kind="soulseek.search", target="x")


def test_an_effect_is_open_until_its_outcome() -> None:
    """Done, failed or withdrawn: each ends its own effect and no other."""
    effects = open_effects(open_effects((), EffectIntended(effect=SEARCH)), EffectIntended(effect=OTHER))

    for outcome in (
        EffectDone(effect_id=SEARCH.effect_id),
        EffectFailed(effect_id=SEARCH.effect_id, kind=SEARCH.kind, code="refused", reason="It was refused."),
        EffectWithdrawn(effect_id=SEARCH.effect_id),
    ):
        assert open_effects(effects, outcome) == (OTHER,)


def test_what_is_intended_twice_is_open_once() -> None:
    """The same intention again changes nothing, nor does a fact of another kind."""
    effects = open_effects((SEARCH,), EffectIntended(effect=SEARCH))

    assert open_effects(effects, SettingsKeyRotated(key_id="k", sealed={}, changed_by="a")) == (SEARCH,)


def test_an_effect_has_one_outcome_id() -> None:
    """Whoever ends it names the same event."""
    assert SEARCH.outcome_id == Effect(effect_id=UUID(int=1), kind="lidarr.search").outcome_id != OTHER.outcome_id
    assert SEARCH.system == "lidarr"
