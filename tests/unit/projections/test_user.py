"""A user: named as often as they like, erased once and for ever."""

from functools import reduce

from hypothesis import given, strategies as st

from kima_stream.events import Event, JobCompleted, UserErased, UserNamed
from projections.user import INITIAL, User, apply, stream_of

ANNA = UserNamed(user_id="u1", name="kima1.k1.AAAA.00", named_by="admin")
OTHER = UserNamed(user_id="u1", name="kima1.k1.BBBB.00", named_by="admin")
ERASED = UserErased(user_id="u1", erased_by="admin")


def after(*facts: Event) -> User:
    """Return the user after ``facts``."""
    return reduce(apply, facts, INITIAL)


def test_the_newest_name_counts_as_it_was_sealed() -> None:
    """Nothing here opens it."""
    assert after(ANNA) == User(user_id="u1", name=ANNA.name)
    assert after(ANNA, OTHER).name == OTHER.name


@given(st.lists(st.sampled_from([ANNA, OTHER, ERASED, JobCompleted(reason="")])))
def test_erased_is_for_ever(later: list[Event]) -> None:
    """Whatever comes afterwards, no name comes back, and the first who did it stays known."""
    erased = User(user_id="u1", is_erased=True, erased_by="admin")

    assert after(ANNA, ERASED, *later) == after(ERASED, *later) == erased
    assert after(ERASED, UserErased(user_id="u1", erased_by="other")) == erased


def test_the_stream_is_the_id() -> None:
    """Nothing else of a user names it."""
    assert stream_of("u1") == "user-u1"
