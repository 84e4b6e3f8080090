"""The to-do list of calls to the outside: deciding and doing are apart.

A decider returns ``EffectIntended``; the state holds it in ``effects`` and the save of the read model puts it into the
table ``effects`` (``effect_rows``). A ``Worker`` leases it, has the ``Executor`` of its kind make the call (how one is
written: ``effect_work``), and settles it: ``EffectDone`` or ``EffectFailed`` under the effect's ``outcome_id``, with
what its ``Owner`` decides about the news, in one append to the stream that wanted it.

Whoever wants effects::

    class Job(msgspec.Struct, frozen=True, kw_only=True):
        effects: tuple[Effect, ...] = ()

    def apply(state, event):
        state = replace(state, effects=open_effects(state.effects, event))
        ...

    def decide(state, news, at):  # the state after the outcome; returns the news itself too
        match news:
            case JobAdded(): return [news, EffectIntended(effect=Effect(effect_id=…, kind="lidarr.search"))]
            case EffectFailed(code="not_found"): return [JobFailed(reason=news.reason)]

    Worker(pool, [Add(lidarr), Search(lidarr)], [Owner(projection=PROJECTION, decide=decide)], holder=holder())

To stop wanting one, append ``EffectWithdrawn``: it is not begun any more, and a call that runs is cancelled within
about a second.
"""

from kima_stream.effect_work import CannotAsk, Executor, MayRepeat, Progress, Work
from kima_stream.effects.settling import AnyOwner, HasEffects, Owner
from kima_stream.effects.worker import Worker

__all__ = ["AnyOwner", "CannotAsk", "Executor", "HasEffects", "MayRepeat", "Owner", "Progress", "Work", "Worker"]
