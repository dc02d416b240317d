"""Which routes change places in a mutant: those whose order is known to matter, or may."""

from __future__ import annotations

import pytest

from edgeproxy.policy.load import parse
from edgeproxy.policytest.overlaps import swaps

START = """\
version: 1
origins: {pages: {url: "https://acme.github.io/docs/"}, next: {url: "https://acme.github.io/n/"}}
content: {languages: [en, de]}
routes:
"""


def pairs(*routes: str) -> list[tuple[int, int]]:
    lines = "".join(f"  - {{name: r{n}, {route}}}\n" for n, route in enumerate(routes))
    return list(swaps(parse(START + lines).routes))


GERMAN = "match: {path: /, language: de}, origin: pages"
PHONES = "match: {path: /, device: mobile}, origin: next"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GERMAN, PHONES),
        (GERMAN, "match: {path: /**, device: mobile}, origin: next"),
        (GERMAN, "match: {host: www.example.org, path: /}, origin: next"),
        ("match: {country: [DE, FR]}, origin: pages", "match: {country: [FR, BE]}, origin: next"),
        (GERMAN, "matches: [{path: /a}, {path: /, scheme: https}], origin: next"),
        ("match: {path: /*/b}, origin: pages", "match: {path: /a/*}, origin: next"),
    ],
)
def test_routes_that_may_get_the_same_request_change_places(one: str, other: str) -> None:
    assert pairs(one, other) == [(0, 1)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GERMAN, "match: {path: /, language: en}, origin: next"),
        (GERMAN, "match: {path: /a, device: mobile}, origin: next"),
        (GERMAN, "match: {path: /}, origin: next"),
        (GERMAN, "origin: next"),
        (GERMAN, "match: {path: /, device: mobile}, origin: pages"),
        ("match: {host: a.example}, origin: pages", "match: {host: b.example}, origin: next"),
        ("match: {country: DE}, origin: pages", "match: {country: [FR, BE]}, origin: next"),
    ],
)
def test_others_stay_where_they_are(one: str, other: str) -> None:
    assert pairs(one, other) == []


def test_each_route_changes_with_the_next_one_only() -> None:
    cookie = "match: {path: /, cookie: {a: b}}, origin: next, rewrite: {prefix: /c}"
    assert pairs(GERMAN, "match: {path: /a}, origin: next", PHONES, cookie) == [(0, 2), (2, 3)]
