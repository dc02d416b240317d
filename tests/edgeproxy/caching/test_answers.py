"""Conditions and ranges: what one client gets out of a whole response."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.caching.answers import (
    UNSATISFIABLE,
    Asked,
    byte_range,
    if_range_holds,
    precondition,
    tailored,
    without_conditions,
)
from edgeproxy.caching.fields import format_date
from edgeproxy.http import Headers, Request, Response

NOW_S = 1_700_000_000.0
OLD, SAME, NEW = (format_date(NOW_S + offset) for offset in (-2000, -1000, -500))
STORED = Headers.of(("ETag", '"a"'), ("Last-Modified", SAME), ("Date", format_date(NOW_S - 10)))
WEAK = Headers.of(("ETag", 'W/"a"'), ("Last-Modified", SAME))
DATED = Headers.of(("Date", SAME))
BARE = Headers.of(("X", "y"))


@pytest.mark.parametrize(
    ("fields", "stored", "expected"),
    [
        ({}, STORED, None),
        ({"If-None-Match": '"a"'}, STORED, 304),
        ({"If-None-Match": 'W/"a"'}, STORED, 304),
        ({"If-None-Match": '"a"'}, WEAK, 304),
        ({"If-None-Match": '"b", W/"a"'}, STORED, 304),
        ({"If-None-Match": "*"}, BARE, 304),
        ({"If-None-Match": '"b"'}, STORED, None),
        ({"If-None-Match": '"a"'}, BARE, None),
        ({"If-None-Match": '"b"', "If-Modified-Since": NEW}, STORED, None),
        ({"If-None-Match": '"a"', "If-Modified-Since": OLD}, STORED, 304),
        ({"If-Modified-Since": SAME}, STORED, 304),
        ({"If-Modified-Since": NEW}, STORED, 304),
        ({"If-Modified-Since": OLD}, STORED, None),
        ({"If-Modified-Since": "rubbish"}, STORED, None),
        ({"If-Modified-Since": SAME}, DATED, 304),
        ({"If-Modified-Since": OLD}, DATED, None),
        ({"If-Modified-Since": format_date(NOW_S)}, BARE, 304),
        ({"If-Modified-Since": NEW}, BARE, None),
        ({"If-Match": '"a"'}, STORED, None),
        ({"If-Match": "*"}, STORED, None),
        ({"If-Match": '"b"'}, STORED, 412),
        ({"If-Match": 'W/"a"'}, STORED, 412),
        ({"If-Match": 'W/"a"'}, WEAK, 412),
        ({"If-Match": '"a"'}, BARE, 412),
        ({"If-Match": '"a"', "If-Unmodified-Since": OLD}, STORED, None),
        ({"If-Match": '"a"', "If-None-Match": '"a"'}, STORED, 304),
        ({"If-Unmodified-Since": OLD}, STORED, 412),
        ({"If-Unmodified-Since": SAME}, STORED, None),
        ({"If-Unmodified-Since": "rubbish"}, STORED, None),
        ({"If-Unmodified-Since": OLD}, BARE, None),
    ],
)
def test_conditions_are_evaluated_in_the_order_of_the_rfc(
    fields: dict[str, str], stored: Headers, expected: int | None
) -> None:
    request = Headers.of(*fields.items())
    assert precondition(request, 200, stored, NOW_S - 10, NOW_S) == expected


@pytest.mark.parametrize("status", [301, 404, 503])
def test_conditions_are_for_success_only(status: int) -> None:
    request = Headers.of(("If-None-Match", '"a"'), ("If-Match", '"b"'))
    assert precondition(request, status, STORED, NOW_S, NOW_S) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-4", (0, 4)),
        ("BYTES=0-4", (0, 4)),
        ("bytes= 0-4 ", (0, 4)),
        ("bytes=5-", (5, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-30", (0, 9)),
        ("bytes=0-99", (0, 9)),
        ("bytes=9-9", (9, 9)),
        ("bytes=0-" + "9" * 400, (0, 9)),
        ("bytes=10-", UNSATISFIABLE),
        ("bytes=10-12", UNSATISFIABLE),
        ("bytes=" + "9" * 400 + "-", UNSATISFIABLE),
        ("bytes=5-1", UNSATISFIABLE),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=0-1,5-6", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1", None),
        ("bytes=0 - 4", None),
        ("bytes=+0-4", None),
        ("bytes=--4", None),
        ("bytes=0-4x", None),
        ("bytes=\u0660-\u0664", None),
        ("lines=0-4", None),
        ("bytes 0-4", None),
        ("", None),
    ],
)
def test_a_single_range_of_ten_bytes(value: str, expected: tuple[int, int] | None) -> None:
    assert byte_range(value, 10) == expected


def test_nothing_can_be_cut_from_an_empty_body() -> None:
    assert byte_range("bytes=0-0", 0) == UNSATISFIABLE
    assert byte_range("bytes=-5", 0) is None


@given(
    size=st.integers(0, 12),
    first=st.none() | st.integers(0, 15),
    last=st.none() | st.integers(0, 15),
)
def test_a_range_holds_the_positions_it_names(
    size: int, first: int | None, last: int | None
) -> None:
    """Against a walk over every position, as RFC 9110, section 14.1.2, describes them."""
    value = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    positions = range(size)
    if first is not None:
        chosen = [p for p in positions if p >= first and (last is None or p <= last)]
    elif last is not None:
        chosen = list(positions)[-last:] if last else []
    else:
        chosen = []
    found = byte_range(value, size)
    if found is None:
        assert (first is None and last is None) or (first is None and size == 0)
    elif found == UNSATISFIABLE:
        assert not chosen
    else:
        assert list(range(found[0], found[1] + 1)) == chosen


@pytest.mark.parametrize(
    ("lines", "stored", "expected"),
    [
        ([], STORED, True),
        (['"a"'], STORED, True),
        (['"b"'], STORED, False),
        (['W/"a"'], WEAK, False),
        (['"a"'], WEAK, False),
        (['W/"a"'], STORED, False),
        ([SAME], STORED, True),
        ([NEW], STORED, False),
        ([OLD], STORED, False),
        ([SAME], WEAK, False),  # without Date nobody knows how strong the date is
        ([SAME], Headers.of(("Last-Modified", SAME), ("Date", SAME)), False),
        (["rubbish"], STORED, False),
        (['"a"', '"a"'], STORED, False),
    ],
)
def test_a_range_needs_a_strong_validator(
    lines: list[str], stored: Headers, expected: bool
) -> None:
    request = Headers.of(*[("If-Range", line) for line in lines])
    assert if_range_holds(request, stored, NOW_S) is expected


BODY = b"0123456789"
WHOLE = [
    (b"Content-Type", b"text/plain"),
    (b"Content-Length", b"10"),
    (b"ETag", b'"a"'),
    (b"Vary", b"x"),
    (b"Content-Security-Policy", b"default-src 'self'"),
]


def answer(
    method: str = "GET", status: int = 200, extra: tuple[bytes, bytes] | None = None, **fields: str
) -> Response:
    names = [(name.replace("_", "-"), value) for name, value in fields.items()]
    request = Request(method, "site.example", "/", headers=Headers.of(*names))
    stored = [*WHOLE, extra] if extra else WHOLE.copy()
    return tailored(request, Asked.by(request), status, stored, BODY, NOW_S, NOW_S)


def test_the_whole_is_the_usual_answer() -> None:
    response = answer()
    assert (response.status, response.body.data) == (200, BODY)
    assert response.headers == Headers(WHOLE)


def test_head_has_the_same_fields_and_no_body() -> None:
    response = answer("HEAD", Range="bytes=0-1")
    assert (response.status, response.body.data) == (200, b"")
    assert response.headers == Headers(WHOLE)


def test_304_keeps_what_a_client_updates_and_drops_what_describes_the_body() -> None:
    response = answer(If_None_Match='"a"')
    assert (response.status, response.body.data) == (304, b"")
    assert [name for name, _ in response.headers.items()] == [
        "ETag", "Vary", "Content-Security-Policy",
    ]  # fmt: skip


def test_412_has_no_body() -> None:
    response = answer(If_Match='"b"')
    assert (response.status, response.body.data) == (412, b"")
    assert response.headers.get("content-length") == "0"


def test_206_says_what_it_is_a_part_of() -> None:
    response = answer(Range="bytes=2-4")
    assert (response.status, response.body.data) == (206, b"234")
    assert response.headers.get("content-range") == "bytes 2-4/10"
    assert response.headers.get_all("content-length") == ["3"]


def test_416_says_how_long_the_whole_is() -> None:
    response = answer(Range="bytes=10-")
    assert (response.status, response.body.data) == (416, b"")
    assert response.headers.get("content-range") == "bytes */10"
    assert response.headers.get("content-type") is None


@pytest.mark.parametrize("value", ["bytes=0-1,3-4", "lines=1-2", "bytes=x"])
def test_a_range_that_is_not_understood_gets_the_whole(value: str) -> None:
    assert answer(Range=value).status == 200


def test_two_range_lines_get_the_whole() -> None:
    fields = Headers.of(("Range", "bytes=0-1"), ("Range", "bytes=0-1"))
    request = Request("GET", "site.example", "/", headers=fields)
    asked = Asked.by(request)
    assert tailored(request, asked, 200, WHOLE.copy(), BODY, NOW_S, NOW_S).status == 200


def test_an_error_is_never_cut() -> None:
    assert answer(status=404, Range="bytes=0-1").status == 404


def test_compressed_bytes_are_never_cut() -> None:
    assert answer(extra=(b"Content-Encoding", b"gzip"), Range="bytes=0-1").status == 200


def test_a_condition_goes_before_a_range() -> None:
    assert answer(Range="bytes=0-1", If_None_Match='"a"').status == 304


def test_a_failed_if_range_gets_the_whole() -> None:
    assert answer(Range="bytes=90-", If_Range='"b"').status == 200
    assert answer(Range="bytes=0-1", If_Range='"a"').status == 206


def test_the_origin_is_asked_without_conditions() -> None:
    asked = Headers.of(
        ("If-Match", "*"), ("If-None-Match", "*"), ("If-Range", "x"), ("Range", "bytes=0-"),
        ("If-Modified-Since", "x"), ("If-Unmodified-Since", "x"), ("Accept", "y"),
        ("Authorization", "z"),
    )  # fmt: skip
    assert without_conditions(asked) == Headers.of(("Accept", "y"), ("Authorization", "z"))
