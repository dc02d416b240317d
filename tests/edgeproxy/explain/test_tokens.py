"""Tokens: good for one host, for a while, and only with the key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.explain.tokens import is_good, make_token

KEY = "0123456789abcdef"
TOKEN = make_token(KEY, "www.Example.org", 1000.9)


def test_a_token_is_good_for_its_host_until_it_ends() -> None:
    assert is_good(TOKEN, KEY, "www.example.org", 999)
    assert not is_good(TOKEN, KEY, "www.example.org", 1000)
    assert not is_good(TOKEN, KEY, "example.org", 999)
    assert not is_good(TOKEN, KEY + "x", "www.example.org", 999)


def test_a_token_says_what_it_is_for_and_not_with_which_key() -> None:
    assert TOKEN.startswith("www.example.org.1000.")
    assert KEY not in TOKEN


@pytest.mark.parametrize("host", ["[2001:db8::1]", "127.0.0.1", "localhost", "a.b.c"])
def test_every_kind_of_host_can_have_one(host: str) -> None:
    assert is_good(make_token(KEY, host, 1000), KEY, host, 1)


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_a_token_with_another_character_is_none(at: int, other: str) -> None:
    changed = TOKEN[:at] + other + TOKEN[at + 1 :]
    assert is_good(changed, KEY, "www.example.org", 999) is (changed == TOKEN)


@given(st.text())
def test_what_is_no_token_is_not_good(text: str) -> None:
    assert not is_good(text, KEY, "www.example.org", 0)


@given(st.integers(), st.text())
def test_a_claim_without_its_signature_is_not_good(until: int, signature: str) -> None:
    assert not is_good(f"www.example.org.{until}.{signature}", KEY, "www.example.org", 0)


def test_a_longer_time_needs_another_signature() -> None:
    host, until, signature = TOKEN.rsplit(".", 2)
    assert not is_good(f"{host}.{int(until) + 1000}.{signature}", KEY, "www.example.org", 999)
