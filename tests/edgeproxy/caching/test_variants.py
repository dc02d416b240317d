"""Vary: which requests share an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.caching.variants import accepted_coding, normalised, selection, variant_id
from edgeproxy.http import Headers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("br;q=1.0, gzip;q=0.5", "gzip"),
        ("gzip ; q=0.001", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.000, *", "identity"),
        ("*;q=0", "identity"),
        ("br", "identity"),
        ("identity", "identity"),
        ("x-gzip", "gzip"),
        ("gzip;q=x", "identity"),
        ("gzip;level=9", "identity"),
        ("", "identity"),
    ],
)
def test_accept_encoding_folds_to_two_values(value: str, expected: str) -> None:
    assert accepted_coding(value) == expected


@pytest.mark.parametrize(
    ("name", "lines", "expected"),
    [
        ("x", [], None),
        ("x", [""], ""),
        ("x", ["a", "b"], "a,b"),
        ("x", ["a ,  b\t,c "], "a,b,c"),
        ("x", ["A"], "A"),
        ("x", ["a  b"], "a  b"),
        ("accept-language", ["DE, en;q=0.5"], "de,en;q=0.5"),
    ],
)
def test_only_what_cannot_matter_is_folded(
    name: str, lines: list[str], expected: str | None
) -> None:
    assert normalised(Headers.of(*[(name, line) for line in lines]), name) == expected


values = st.none() | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8).map(
    lambda text: text.strip()
)


@given(st.tuples(values, values), st.tuples(values, values))
def test_variants_share_a_name_only_if_they_are_chosen_alike(
    one: tuple[str | None, str | None], other: tuple[str | None, str | None]
) -> None:
    chosen = [
        selection(
            Headers.of(*[(n, v) for n, v in zip(("a", "b"), pair, strict=True) if v is not None]),
            "gzip",
            ["a", "b", "accept-encoding"],
        )
        for pair in (one, other)
    ]
    same_id = variant_id("key", chosen[0]) == variant_id("key", chosen[1])
    assert same_id == (chosen[0] == chosen[1])


def test_an_absent_field_is_not_an_empty_one() -> None:
    assert variant_id("key", (("a", None),)) != variant_id("key", (("a", ""),))


def test_without_vary_the_key_is_the_name() -> None:
    assert variant_id("key", ()) == "key"
