"""Whose address counts: nothing a client writes may choose it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.addresses import MAX_HOPS, Network, client_address, parse_address
from edgeproxy.http import Headers

PROXY = ip_address("10.0.0.1")
STRANGER = ip_address("198.51.100.7")
TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]

XFF, FORWARDED = "x-forwarded-for", "forwarded"

# name -> header fields, and the client behind a trusted peer
FORMS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "no header": ([], "10.0.0.1"),
    "one address": ([(XFF, "203.0.113.9")], "203.0.113.9"),
    "forged entry left of the real one": ([(XFF, "1.2.3.4, 203.0.113.9")], "203.0.113.9"),
    "trusted hops on the right": (
        [(XFF, "1.2.3.4, 203.0.113.9,10.1.1.1 , fd00::7")],
        "203.0.113.9",
    ),
    "two field lines": ([(XFF, "1.2.3.4"), ("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
    "port": ([(XFF, "203.0.113.9:4711")], "203.0.113.9"),
    "IPv6": ([(XFF, "2001:db8::9")], "2001:db8::9"),
    "IPv6, brackets and port": ([(XFF, "[2001:db8::9]:4711")], "2001:db8::9"),
    "IPv4-mapped": ([(XFF, "::ffff:203.0.113.9")], "203.0.113.9"),
    "IPv4-mapped proxy": ([(XFF, "203.0.113.9, ::ffff:10.2.2.2")], "203.0.113.9"),
    "Forwarded": ([(FORWARDED, "for=203.0.113.9;proto=https;by=10.0.0.1")], "203.0.113.9"),
    "Forwarded, quoted IPv6": ([(FORWARDED, 'For="[2001:db8::9]:4711"')], "2001:db8::9"),
    "Forwarded, forged on the left": (
        [(FORWARDED, 'for="1.2.3.4, for=5.6.7.8, for=203.0.113.9')],
        "203.0.113.9",
    ),
    "Forwarded, obfuscated port": ([(FORWARDED, 'for="203.0.113.9:_x"')], "203.0.113.9"),
    "both, and they agree": (
        [(XFF, "1.2.3.4, 203.0.113.9, 10.1.1.1"), (FORWARDED, "for=203.0.113.9, for=10.1.1.1")],
        "203.0.113.9",
    ),
    "all trusted": ([(XFF, "10.9.9.9, 10.8.8.8")], "10.9.9.9"),
    # What cannot be read stops the walk at the last good address.
    "garbage": ([(XFF, "203.0.113.9, garbage")], "10.0.0.1"),
    "garbage behind a proxy": ([(XFF, "203.0.113.9, garbage, 10.1.1.1")], "10.1.1.1"),
    "empty": ([(XFF, "")], "10.0.0.1"),
    "empty entry": ([(XFF, "203.0.113.9,")], "10.0.0.1"),
    "zone id": ([(XFF, "fe80::1%eth0")], "10.0.0.1"),
    "brackets left open": ([(XFF, "[2001:db8::9")], "10.0.0.1"),
    "brackets around IPv4": ([(XFF, "[203.0.113.9]")], "10.0.0.1"),
    "quotes": ([(XFF, '"203.0.113.9"')], "10.0.0.1"),
    "octal": ([(XFF, "0313.0.0161.9")], "10.0.0.1"),
    "short form": ([(XFF, "203.9")], "10.0.0.1"),
    "a number": ([(XFF, "3405803785")], "10.0.0.1"),
    "no port after the colon": ([(XFF, "203.0.113.9:")], "10.0.0.1"),
    "a network": ([(XFF, "203.0.113.0/24")], "10.0.0.1"),
    "another script's digits": ([(XFF, "203.0.113.\xb9")], "10.0.0.1"),
    "Forwarded: unknown": ([(FORWARDED, "for=203.0.113.9, for=unknown")], "10.0.0.1"),
    "Forwarded: obfuscated": ([(FORWARDED, "for=203.0.113.9, for=_hidden")], "10.0.0.1"),
    "Forwarded: no for": ([(FORWARDED, "for=203.0.113.9, proto=https")], "10.0.0.1"),
    "Forwarded: two for": ([(FORWARDED, "for=203.0.113.9;for=1.2.3.4")], "10.0.0.1"),
    "Forwarded: open quote": ([(FORWARDED, 'for="203.0.113.9')], "10.0.0.1"),
    "Forwarded: a host that looks like an element": (
        [(FORWARDED, 'for=203.0.113.9;host="x, for=1.2.3.4"')],
        "10.0.0.1",
    ),
    "Forwarded: the same, escaped": (
        [(FORWARDED, 'for=203.0.113.9;host="x, for=1.2.3.4;a=\\""')],
        "10.0.0.1",
    ),
    # Where the two fields disagree, neither is believed.
    "both, and they disagree": ([(XFF, "203.0.113.9"), (FORWARDED, "for=1.2.3.4")], "10.0.0.1"),
    "both, one is longer": (
        [(XFF, "203.0.113.9, 10.1.1.1"), (FORWARDED, "for=10.1.1.1")],
        "10.1.1.1",
    ),
    "both, one is empty": ([(XFF, "203.0.113.9"), (FORWARDED, "")], "10.0.0.1"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_trusted_peer_is_believed_as_far_as_it_can_be(form: str) -> None:
    fields, expected = FORMS[form]
    headers = Headers((name.encode(), value.encode("latin-1")) for name, value in fields)
    assert client_address(PROXY, headers, TRUSTED) == ip_address(expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trusted", [[], TRUSTED], ids=["none trusted", "others trusted"])
def test_an_untrusted_peer_is_the_client_whatever_it_sends(
    form: str, trusted: list[Network]
) -> None:
    headers = Headers((name.encode(), value.encode("latin-1")) for name, value in FORMS[form][0])
    assert client_address(STRANGER, headers, trusted) == STRANGER


def test_an_ipv4_mapped_peer_is_an_ipv4_peer() -> None:
    headers = Headers.of((XFF, "203.0.113.9"))
    assert client_address(IPv6Address("::ffff:10.0.0.1"), headers, TRUSTED) == IPv4Address(
        "203.0.113.9"
    )
    assert client_address(IPv6Address("::ffff:198.51.100.7"), headers, TRUSTED) == STRANGER


def test_hops_beyond_the_limit_are_not_read() -> None:
    hops = [f"10.1.0.{n}" for n in range(MAX_HOPS)]
    within = Headers.of((XFF, ", ".join(["203.0.113.9", *hops[1:]])))
    beyond = Headers.of((XFF, ", ".join(["203.0.113.9", *hops])))
    assert client_address(PROXY, within, TRUSTED) == ip_address("203.0.113.9")
    assert client_address(PROXY, beyond, TRUSTED) == ip_address("10.1.0.0")


def test_a_very_long_list_costs_no_more_than_its_right_end() -> None:
    headers = Headers.of((XFF, "1.2.3.4," * 100_000 + "203.0.113.9"))
    assert client_address(PROXY, headers, TRUSTED) == ip_address("203.0.113.9")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", IPv4Address("192.0.2.1")),
        ("2001:DB8::1", IPv6Address("2001:db8::1")),
        ("::ffff:192.0.2.1", IPv4Address("192.0.2.1")),
        ("::1", IPv6Address("::1")),
        *[(text, None) for text in ("", " ", "192.0.2.1 ", "192.0.2.01", "192.0.2", "0x7f.1", "1")],
        *[
            (text, None)
            for text in ("[::1]", "192.0.2.1:80", "fe80::1%1", "::1/128", "\u0661.1.1.1")
        ],
        *[(text, None) for text in ("localhost", "192.0.2.1\n", "192.0.2.256", "1:2:3", ":::")],
    ],
)
def test_addresses_are_parsed_strictly(
    text: str, address: IPv4Address | IPv6Address | None
) -> None:
    assert parse_address(text) == address


addresses = st.ip_addresses()
entries = st.one_of(
    addresses.map(str),
    addresses.map(lambda address: f"for={address}"),
    addresses.map(lambda address: f'for="[{address}]:80"'),
    st.text('0123456789abcdef.:[]%"\\;=, \tfor_unkw', max_size=40),
)
fields = st.lists(
    st.tuples(
        st.sampled_from([b"X-Forwarded-For", b"Forwarded", b"forwarded", b"X-Real-IP"]),
        st.lists(entries, max_size=5).map(lambda parts: ", ".join(parts).encode("latin-1")),
    ),
    max_size=4,
)


@given(addresses, fields, st.lists(addresses.map(ip_network), max_size=3))
def test_an_untrusted_peer_can_never_change_the_result(peer, fields, trusted) -> None:  # type: ignore[no-untyped-def]
    alone = client_address(peer, Headers(), [])
    trusted = [network for network in trusted if alone not in network]
    assert client_address(peer, Headers(fields), trusted) == alone


@given(fields, addresses.filter(lambda address: all(address not in net for net in TRUSTED)))
def test_a_client_cannot_hide_behind_what_it_sends(fields, client) -> None:  # type: ignore[no-untyped-def]
    client = client_address(client, Headers(), [])
    sent = [(name, value) for name, value in fields if name.lower() != b"forwarded"]
    appended = Headers([*sent, (b"X-Forwarded-For", str(client).encode())])
    assert client_address(PROXY, appended, [*TRUSTED]) == client or any(
        client in network for network in TRUSTED
    )


@given(st.lists(st.binary(max_size=60), max_size=3), st.lists(st.binary(max_size=60), max_size=3))
def test_no_bytes_make_it_fail(listed: list[bytes], forwarded: list[bytes]) -> None:
    fields = [(b"x-forwarded-for", value) for value in listed]
    fields += [(b"forwarded", value) for value in forwarded]
    client_address(PROXY, Headers(fields), TRUSTED)
