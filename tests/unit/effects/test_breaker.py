"""The breaker: opens after failures in a row, lets one probe through at a time, closes with the first answer."""

from datetime import UTC, datetime, timedelta
from functools import reduce

from kima_stream.effects.breaker import (
    FIRST_PROBE_SECONDS,
    LONGEST_PROBE_SECONDS,
    OPEN_AFTER_FAILURES,
    Breaker,
    answered,
    failed,
    probed,
)

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
NEW = Breaker(system="shop")


def after_failures(count: int, breaker: Breaker = NEW) -> Breaker:
    """Return a breaker after so many failures."""
    return reduce(lambda before, _: failed(before, "closed", NOW), range(count), breaker)


def later(seconds: float) -> datetime:
    """Return a moment after NOW."""
    return NOW + timedelta(seconds=seconds)


def test_few_failures_open_nothing() -> None:
    """And an answer in between begins anew."""
    almost = after_failures(OPEN_AFTER_FAILURES - 1)
    again = after_failures(OPEN_AFTER_FAILURES - 1, answered(almost))

    assert almost.state(NOW) == again.state(NOW) == "closed"


def test_failures_in_a_row_open_it_and_a_probe_comes_later() -> None:
    """Open until its time, then half open."""
    opened = after_failures(OPEN_AFTER_FAILURES)

    assert opened.state(NOW) == "open"
    assert opened.state(later(FIRST_PROBE_SECONDS - 0.1)) == "open"
    assert opened.state(later(FIRST_PROBE_SECONDS)) == "half_open"
    assert opened.last_error == "closed"


def test_whoever_probes_keeps_the_others_out() -> None:
    """Until the next probe, which comes later each time, but not endlessly."""
    breaker, waits = after_failures(OPEN_AFTER_FAILURES), []
    for _ in range(8):
        assert breaker.probe_at is not None
        moment = breaker.probe_at
        breaker = probed(breaker, moment)
        assert breaker.state(moment) == "open"
        breaker = failed(breaker, "closed", moment)
        waits.append((breaker.probe_at - moment).total_seconds() if breaker.probe_at else 0.0)

    assert waits == sorted(waits)
    assert waits[0] == FIRST_PROBE_SECONDS * 2
    assert waits[-1] == LONGEST_PROBE_SECONDS
    assert breaker.opened_at == NOW


def test_the_stragglers_of_an_outage_put_no_probe_off() -> None:
    """Calls that were under way when it opened fail one after the other."""
    opened = after_failures(OPEN_AFTER_FAILURES)

    assert after_failures(20, opened).probe_at == opened.probe_at


def test_any_answer_closes_it() -> None:
    """Also that of a call that began before it opened."""
    assert answered(after_failures(50)) == NEW
    assert probed(NEW, NOW) == NEW
