"""The Range header as nginx reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.pages.ranges import parse_range


@pytest.mark.parametrize(
    ("value", "spans"),
    [
        ("bytes=0-99", [(0, 99)]),
        ("bytes=100-", [(100, 999)]),
        ("bytes=-50", [(950, 999)]),
        ("bytes=-5000", [(0, 999)]),
        ("bytes=990-5000", [(990, 999)]),
        ("bytes=999-999", [(999, 999)]),
        ("bytes=0-0", [(0, 0)]),
        ("bytes=0-1,5-6", [(0, 1), (5, 6)]),
        ("bytes=5-6, 0-1", [(5, 6), (0, 1)]),
        ("bytes=0-1,5000-", [(0, 1)]),
        ("BYTES=0-1", [(0, 1)]),
        ("bytes= 0 - 1 ", [(0, 1)]),
        ("bytes=0-" + "9" * 5000, [(0, 999)]),
        ("bytes=" + "0" * 30 + "5-6", [(5, 6)]),
        ("items=0-1", "whole"),
        ("bytes 0-1", "whole"),
        ("", "whole"),
        ("bytes=0-,0-", "whole"),
        ("bytes=1000-", "unsatisfiable"),
        ("bytes=5-1", "unsatisfiable"),
        ("bytes=-0", "unsatisfiable"),
        ("bytes=", "unsatisfiable"),
        ("bytes=-", "unsatisfiable"),
        ("bytes=a-b", "unsatisfiable"),
        ("bytes=0-1,", "unsatisfiable"),
        ("bytes=+1-2", "unsatisfiable"),
        ("bytes=\u0661-2", "unsatisfiable"),
    ],
)
def test_range_of_a_thousand_bytes(value: str, spans: object) -> None:
    assert parse_range(value, 1000) == spans


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-5", "bytes=-5"])
def test_range_of_an_empty_body_is_ignored(value: str) -> None:
    assert parse_range(value, 0) == "whole"


PART = st.tuples(
    st.integers(0, 60).map(str) | st.just(""), st.integers(0, 60).map(str) | st.just("")
)
VALUES = st.lists(PART.map("-".join), max_size=5).map(lambda parts: "bytes=" + ",".join(parts))


@given(
    VALUES | st.text(max_size=30) | st.text("0123456789-, ").map("bytes=".__add__),
    st.integers(0, 50),
)
def test_spans_lie_within_the_body_and_do_not_exceed_it(value: str, size: int) -> None:
    spans = parse_range(value, size)
    if isinstance(spans, list):
        assert spans
        assert all(0 <= first <= last < size for first, last in spans)
        assert sum(last - first + 1 for first, last in spans) <= size


@given(st.integers(1, 200), st.data())
def test_a_single_valid_range_is_taken_literally(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, 2 * size))
    assert parse_range(f"bytes={first}-{last}", size) == [(first, min(last, size - 1))]
