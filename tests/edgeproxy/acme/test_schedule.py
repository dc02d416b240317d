"""When certificates are renewed, and failures tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.acme.schedule import FIRST_PAUSE_S, MAX_PAUSE_S, pause_s, renewal_at

BEGINS = datetime(2026, 3, 1, tzinfo=UTC)
SHARES = st.floats(0, 1)


def test_one_of_ninety_days_is_renewed_after_sixty() -> None:
    assert renewal_at(BEGINS, BEGINS + timedelta(days=90), 0) == BEGINS + timedelta(days=60)
    assert renewal_at(BEGINS, BEGINS + timedelta(days=90), 1) == BEGINS + timedelta(days=57)
    assert renewal_at(BEGINS, BEGINS + timedelta(days=6), 0) == BEGINS + timedelta(days=4)


@given(st.timedeltas(timedelta(hours=1), timedelta(days=400)), SHARES)
def test_a_third_of_its_life_is_left_at_least(life: timedelta, share: float) -> None:
    at = renewal_at(BEGINS, BEGINS + life, share)
    assert life / 2 < at - BEGINS <= life * 2 / 3 + timedelta(seconds=1)


@given(st.integers(1, 10_000), SHARES, SHARES)
def test_pauses_grow_and_have_a_bound(failures: int, share: float, other: float) -> None:
    assert FIRST_PAUSE_S <= pause_s(failures, share) <= MAX_PAUSE_S * 1.2
    assert pause_s(failures, 0) <= pause_s(failures + 1, 0)
    assert pause_s(failures, share) <= pause_s(failures, 0) * 1.2


def test_no_more_than_five_failures_in_an_hour() -> None:
    """Let's Encrypt takes five an hour for a name."""
    assert sum(pause_s(failures, 0) for failures in range(1, 6)) > 3600
