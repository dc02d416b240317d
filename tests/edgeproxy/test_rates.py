"""How often a client may ask, by a clock that is told the time."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.rates import RequestRates, client_number


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    rates = RequestRates(clock)
    assert [rates.wait_s(1, 2, 3) for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    clock.now_s += 0.5
    assert [rates.wait_s(1, 2, 3) for _ in range(2)] == [0, 0.5]
    assert rates.wait_s(2, 2, 3) == 0  # of another client
    clock.now_s += 100
    assert [rates.wait_s(1, 2, 3) for _ in range(4)] == [0, 0, 0, 0.5]


@given(st.lists(st.floats(0, 2), max_size=60), st.floats(0.1, 50), st.integers(1, 10))
def test_no_more_pass_than_the_rate_and_one_burst(
    pauses: list[float], rate: float, burst: int
) -> None:
    clock = Clock()
    rates = RequestRates(clock)
    passed = []
    for pause_s in pauses:
        clock.now_s += pause_s
        wait_s = rates.wait_s(1, rate, burst)
        if not wait_s:
            passed.append(clock.now_s)
        else:  # who waits as long as it is told is let through
            assert 0 < wait_s <= 1 / rate + 1e-6
    for first, began_s in enumerate(passed):
        for last, ended_s in enumerate(passed[first:], first):
            assert last - first + 1 <= burst + (ended_s - began_s) * rate + 1e-6


def test_a_flood_of_addresses_is_bounded_and_forgets_nobody_who_waits() -> None:
    clock = Clock()
    rates = RequestRates(clock, max_clients=100)
    for client in range(90):
        rates.wait_s(client, 1, 1)
    clock.now_s += 2
    assert rates.wait_s(-1, 0.001, 1) == 0
    for client in range(100, 198):  # takes the place of those whose allowance is whole again
        rates.wait_s(client, 1, 1)
    assert len(rates) <= 100
    assert rates.wait_s(-1, 0.001, 1) > 0
    for client in range(1000, 9000):
        rates.wait_s(client, 1, 1)
    assert len(rates) <= 100


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::1", "0.0.0.1", False),
        ("::", "0.0.0.0", False),
    ],
)
def test_clients_are_told_apart_by_address_or_64(one: str, other: str, is_same: bool) -> None:
    numbers = {client_number(ipaddress.ip_address(text)) for text in (one, other)}
    assert (len(numbers) == 1) == is_same
