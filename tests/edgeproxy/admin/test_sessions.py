"""Sessions of browsers: who gets one, how long it lasts, and what ends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.admin.sessions import FAILURES_S, LASTS_S, MAX_FAILURES, Sessions

TOKEN = "a-token-that-nobody-guesses"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(clock)


def test_the_token_begins_a_session_that_ends_by_itself(sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.begin(TOKEN, TOKEN)
    assert cookie is not None
    assert TOKEN not in cookie
    assert sessions.is_good(cookie, TOKEN)
    clock.now_s += LASTS_S - 1
    assert sessions.is_good(cookie, TOKEN)
    clock.now_s += 1
    assert not sessions.is_good(cookie, TOKEN)


def test_a_longer_life_is_not_to_be_had(sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.begin(TOKEN, TOKEN)
    assert cookie is not None
    expiry, _, signature = cookie.partition(".")
    assert not sessions.is_good(f"{int(expiry) + 1}.{signature}", TOKEN)


def test_another_token_another_start_and_signing_out_end_it(
    sessions: Sessions, clock: Clock
) -> None:
    cookie = sessions.begin(TOKEN, TOKEN)
    assert cookie is not None
    assert not sessions.is_good(cookie, "another-token-altogether")
    assert not Sessions(clock).is_good(cookie, TOKEN)
    sessions.end()
    assert not sessions.is_good(cookie, TOKEN)


@pytest.mark.parametrize("given", ["", "wrong", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "\udcff"])
def test_a_wrong_token_begins_none(sessions: Sessions, given: str) -> None:
    assert sessions.begin(given, TOKEN) is None


def test_after_many_wrong_ones_none_is_looked_at_for_a_while(
    sessions: Sessions, clock: Clock
) -> None:
    for _ in range(MAX_FAILURES):
        assert sessions.begin("wrong", TOKEN) is None
        clock.now_s += 1
    assert sessions.wait_s == FAILURES_S - MAX_FAILURES
    assert sessions.begin(TOKEN, TOKEN) is None
    clock.now_s += sessions.wait_s
    assert sessions.begin(TOKEN, TOKEN) is not None


def test_who_has_a_session_keeps_it_meanwhile(sessions: Sessions) -> None:
    cookie = sessions.begin(TOKEN, TOKEN)
    assert cookie is not None
    for _ in range(2 * MAX_FAILURES):
        sessions.begin("wrong", TOKEN)
    assert sessions.is_good(cookie, TOKEN)


@given(st.text() | st.from_regex(r"\A[0-9]{1,13}\.[0-9a-f]{0,64}\Z"))
def test_what_was_not_made_here_is_no_session(cookie: str) -> None:
    assert not Sessions().is_good(cookie, TOKEN)
