"""Who is taken by a candidate: steadily, in the share that was asked for."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.candidate import point_of

ADDRESSES = [ipaddress.IPv4Address(0x0A000000 + number) for number in range(20_000)]


def test_a_share_of_the_visitors_is_taken() -> None:
    for share in (0.01, 0.05, 0.5, 0.95):
        taken = sum(point_of(address, "0123456789ab") < share for address in ADDRESSES)
        assert abs(taken / len(ADDRESSES) - share) < 0.01


def test_each_version_takes_others() -> None:
    one = {address for address in ADDRESSES if point_of(address, "0123456789ab") < 0.1}
    other = {address for address in ADDRESSES if point_of(address, "ba9876543210") < 0.1}
    assert len(one & other) < 0.2 * len(one)


@given(st.ip_addresses(), st.text("0123456789abcdef", min_size=12, max_size=12))
def test_a_visitor_stands_at_one_point_between_0_and_1(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, version: str
) -> None:
    point = point_of(address, version)
    assert 0 <= point < 1
    assert point == point_of(address, version)


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_the_part_of_an_address_that_changes_every_day_does_not_count(
    address: ipaddress.IPv6Address, interface: int
) -> None:
    tomorrow = ipaddress.IPv6Address(int(address) >> 64 << 64 | interface)
    assert point_of(address, "v") == point_of(tomorrow, "v")
