"""Structured fields: what parses, as what, and that all else counts as absent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.caching.structured import dictionary, items
from edgeproxy.http import Headers


def field(*lines: str) -> Headers:
    return Headers.of(*[("X", line) for line in lines])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", {"a": True}),
        ("a=1, b=-2", {"a": 1, "b": -2}),
        ("a=?0, b=?1", {"a": False, "b": True}),
        ("a=1.5", {"a": 1.5}),
        ('a="x \\"y\\""', {"a": 'x "y"'}),
        ("a=tok/en:1", {"a": "tok/en:1"}),
        ("a=:aGk=:", {"a": b"hi"}),
        ("a=@1659578233", {"a": 1659578233}),
        ("a=(1 2);q=1, b;x", {"a": (1, 2), "b": True}),
        ("a=1, a=2", {"a": 2}),
        (" a \t,\t b ", {"a": True, "b": True}),
        ("", {}),
    ],
)
def test_a_dictionary_parses(text: str, expected: dict[str, object]) -> None:
    assert dictionary(field(text), "x") == expected


@pytest.mark.parametrize(
    "text",
    [
        "a,", ",a", "a,,b", "A", "a=", "a =1", "a= 1", "a b", "a=&", "a=1.", "a=1.2345",
        "a=1234567890123456", 'a="', 'a="\\x"', "a=(1", "a=(1(2))", "a=?2", "a=:a b:", "1", "a;B",
        "a=(1;)", "é",
    ],
)  # fmt: skip
def test_a_field_that_does_not_parse_is_none_as_a_whole(text: str) -> None:
    assert dictionary(field("ok=1", text), "x") is None


def test_lines_are_one_field() -> None:
    assert dictionary(field("a=1", "b"), "x") == {"a": 1, "b": True}
    assert dictionary(Headers(), "x") is None
    assert items(Headers(), "x") is None


def test_a_list_tells_strings_from_tokens() -> None:
    found = items(field('"one", two, 3'), "x")
    assert found == ["one", "two", 3]
    assert [type(item) is str for item in found] == [True, False, False]


@given(st.text(alphabet='ab1"\\=,;() \t?:@%-.&', max_size=30))
def test_nothing_raises(text: str) -> None:
    headers = Headers([(b"x", text.encode())])
    for parsed in (dictionary(headers, "x"), items(headers, "x")):
        assert parsed is None or parsed is not None
