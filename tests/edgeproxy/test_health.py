"""An origin is down after enough has failed, is probed now and then, and is back at once."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.health import MAX_ORIGINS, MAX_RATE_LIMIT_S, ORIGIN_WIDE, Health


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


def down(health: Health) -> None:
    health.failed("a", error="connection_refused")


def test_one_page_that_breaks_does_not_bring_an_origin_down(health: Health) -> None:
    for _ in range(10):
        health.failed("a", error="connection_terminated")
        health.failed("a", status=503)
        assert health.state("a") == "failing"
        health.answered("a")
        assert health.state("a") == "healthy"


def test_three_failures_in_a_row_do(health: Health) -> None:
    for _ in range(3):
        assert health.trouble("a") is None
        health.failed("a", error="http_response_timeout")
    assert health.state("a") == "down"
    assert health.state("b") == "healthy"


@pytest.mark.parametrize("error", sorted(ORIGIN_WIDE))
def test_what_no_page_can_cause_does_at_once(health: Health, error: str) -> None:
    health.failed("a", error=error)
    cause = health.trouble("a")
    assert cause is not None
    assert cause.is_disconnected


def test_an_origin_that_asks_for_peace_gets_it(health: Health, clock: Clock) -> None:
    health.failed("a", status=503, retry_after_s=120)
    assert not health.begin_probe("a")
    clock.now_s += 119
    assert not health.begin_probe("a")
    clock.now_s += 1
    assert health.begin_probe("a")


def test_too_many_requests_are_answered_by_far_fewer(health: Health, clock: Clock) -> None:
    for _ in range(3):
        health.failed("a", status=429)
    pauses = []
    for _ in range(6):
        report = health.reports()[0]
        assert report.next_probe_in_s is not None
        pauses.append(round(report.next_probe_in_s))
        clock.now_s += report.next_probe_in_s
        assert health.begin_probe("a")
        health.failed("a", status=429)
        health.end_probe("a")
    assert pauses == [30, 60, 120, 240, 480, 600]


def test_there_is_one_probe_at_a_time(health: Health, clock: Clock) -> None:
    down(health)
    clock.now_s += 1
    assert health.begin_probe("a")
    clock.now_s += 100
    assert not health.begin_probe("a")
    health.end_probe("a")
    assert not health.begin_probe("a")  # it told nothing, so it counts as a failure
    clock.now_s += 2
    assert health.begin_probe("a")


def test_a_healthy_origin_is_not_probed(health: Health) -> None:
    assert not health.begin_probe("a")
    health.failed("a", status=503)
    assert not health.begin_probe("a")
    health.end_probe("a")


def test_a_probe_that_was_under_way_when_the_origin_came_back_hurts_nobody(
    health: Health, clock: Clock
) -> None:
    down(health)
    clock.now_s += 1
    assert health.begin_probe("a")
    health.answered("a")
    health.end_probe("a")
    assert health.state("a") == "healthy"


def test_failures_from_before_the_pause_do_not_lengthen_it(health: Health, clock: Clock) -> None:
    for _ in range(50):
        down(health)
    clock.now_s += 1
    assert health.begin_probe("a")


def test_the_log_has_a_line_for_each_change(
    health: Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "edgeproxy"):
        for _ in range(20):
            down(health)
        clock.now_s += 75
        for _ in range(20):
            health.answered("a")
    assert caplog.messages == [
        "origin a is down: connection_refused; stored copies stand in",
        "origin a answers again, after 75 s",
    ]


def test_the_table_is_bounded(health: Health) -> None:
    for number in range(2 * MAX_ORIGINS):
        health.failed(str(number), status=503)
    assert len(health.reports()) == MAX_ORIGINS


STEPS = st.one_of(
    st.just(("answered",)),
    st.tuples(st.just("failed"), st.sampled_from(["connection_refused", "http_protocol_error"])),
    st.tuples(st.just("status"), st.sampled_from([429, 502, 503]), st.none() | st.floats(0, 1e9)),
    st.just(("probe",)),
    st.just(("end",)),
    st.tuples(st.just("wait"), st.floats(-1e6, 1e6)),
)


@given(st.lists(STEPS, max_size=60))
def test_no_origin_is_left_alone_for_ever(steps: list[tuple[object, ...]]) -> None:
    """Whatever happened, and wherever the clock went, a probe is due in time."""
    clock = Clock()
    health = Health(clock)
    for step in steps:
        match step:
            case ("answered",):
                health.answered("a")
                assert health.state("a") == "healthy"
            case ("failed", str(error)):
                health.failed("a", error=error)
            case ("status", int(status), float() | None as retry_after_s):
                health.failed("a", status=status, retry_after_s=retry_after_s)
            case ("probe",):
                health.begin_probe("a")
            case ("end",):
                health.end_probe("a")
            case ("wait", float(seconds)):
                clock.now_s += seconds
    health.end_probe("a")
    clock.now_s += MAX_RATE_LIMIT_S + 1
    assert health.begin_probe("a") == (health.state("a") == "down")
