"""What the owner of the account does next, in every situation."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from kima_stream.integrations.soulseek import rules
from kima_stream.integrations.soulseek.account import Account
from kima_stream.integrations.soulseek.rules import Credentials, Situation, next_step

ME = Credentials(username="me", password="secret", host="h", port=1, listen_host="l", listen_port=2)
OTHER = replace(ME, username="other")
ROW = Account(
    is_wanted=True, asked=3, answered=3, kicked_at_ask=None, state="waiting", detail="", username=None,
    changed_at=datetime(2026, 1, 1, tzinfo=UTC), is_owned=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("now", "step"),
    [
        (Situation(account=ROW, configured=ME), "connect"),
        (Situation(account=ROW, configured=ME, connected_as=ME), "stay"),
        (Situation(account=ROW, configured=OTHER, connected_as=ME), "disconnect"),
        (Situation(account=ROW, configured=None, connected_as=ME), "disconnect"),
        (Situation(account=ROW, configured=None), "stay"),
        (Situation(account=replace(ROW, is_wanted=False), configured=ME, connected_as=ME), "disconnect"),
        (Situation(account=replace(ROW, is_wanted=False), configured=ME), "stay"),
        (Situation(account=replace(ROW, kicked_at_ask=3), configured=ME), "stay"),
        (Situation(account=replace(ROW, kicked_at_ask=2), configured=ME), "connect"),
        (Situation(account=ROW, configured=ME, refused=(ME, 3)), "stay"),
        (Situation(account=ROW, configured=ME, refused=(ME, 2)), "connect"),
        (Situation(account=ROW, configured=ME, refused=(OTHER, 3)), "connect"),
        (Situation(account=ROW, configured=ME, is_waiting=True, tried_at_ask=3), "stay"),
        (Situation(account=ROW, configured=ME, is_waiting=True, tried_at_ask=2), "connect"),
    ],
)
def test_each_situation_has_its_step(now: Situation, step: str) -> None:
    """Wanted and not there is connected; a kick, a refusal and a delay hold until somebody asks."""
    assert next_step(now) == step


def test_delays_grow_and_have_an_end() -> None:
    """Twice as long each time, five minutes at most, a quarter more or less."""
    assert [rules.delay_seconds(n, 0.5) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert rules.delay_seconds(50, 0.5) == 300


@given(failures=st.integers(0, 10_000), chance=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_never_none(failures: int, chance: float) -> None:
    """Whatever the chance: nobody hammers the server."""
    assert 0.75 <= rules.delay_seconds(failures, chance) <= 375


def test_a_password_is_not_in_what_is_shown() -> None:
    """Neither in a log nor in a traceback."""
    assert "secret" not in f"{ME!r} {ME} {Situation(account=ROW, configured=ME)!r}"
