"""What is read out of header fields, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.caching import fields
from edgeproxy.http import Headers

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("max-age=10", {"max-age": "10"}),
        ("MAX-AGE=10, No-Store", {"max-age": "10", "no-store": None}),
        ('max-age="10"', {"max-age": "10"}),
        ('a="x, no-store", max-age=1', {"a": "x, no-store", "max-age": "1"}),
        (r'a="say \"no-store\"", b', {"a": 'say "no-store"', "b": None}),
        ('a="open, no-store', {"a": "", "no-store": None}),
        (",, ,a,,b ,", {"a": None, "b": None}),
        ("@, no-store", {"no-store": None}),
        ("no-store;x", {"no-store": ""}),
        ("max-age = 10", {"max-age": ""}),
        ("max-age=10;x", {"max-age": ""}),
        ("max-age=10 20", {"max-age": ""}),
        ("max-age=20, max-age=10", {"max-age": "10"}),
        ("max-age=10, max-age=20", {"max-age": "10"}),
        ("max-age=10, max-age=x", {"max-age": "x"}),
        ("private, private=x", {"private": None}),
        ("", {}),
        ("=", {}),
    ],
)
def test_cache_control_is_read_member_by_member(value: str, expected: dict[str, str]) -> None:
    assert dict(fields.parse_directives(value)) == expected


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=60))
def test_no_rubbish_hides_a_directive_behind_it(rubbish: str) -> None:
    plain = rubbish.replace('"', "").replace("\\", "")
    assert "no-store" in fields.parse_directives(f"{plain}, no-store")


def test_lines_of_cache_control_are_one_list() -> None:
    headers = Headers.of(("Cache-Control", "max-age=1"), ("x", "y"), ("cache-control", "private"))
    assert dict(fields.cache_control(headers)) == {"max-age": "1", "private": None}


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("0", 0),
        ("007", 7),
        ("2147483647", 2147483647),
        ("2147483648", 2**31),
        ("9" * 5000, 2**31),
        (None, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1_0", None),
        (" 1", None),
        ("\u0661", None),
        ("1\n", None),
    ],
)
def test_seconds_are_digits_only_and_saturate(argument: str | None, expected: int | None) -> None:
    assert fields.seconds(argument) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], 0),
        (["7"], 7),
        ([" 7 "], 7),
        (["7, 9"], 7),
        (["7", "9"], 7),
        (["x, 9"], 0),
        (["-7"], 0),
        (["7.0"], 0),
        (['"7"'], 0),
        (["7;x"], 0),
        ([""], 0),
        (["99999999999"], 2**31),
    ],
)
def test_age_is_the_first_member_of_the_first_line(lines: list[str], expected: int) -> None:
    assert fields.age(Headers.of(*[("Age", line) for line in lines])) == expected


SUNDAY_S = 784111777  # the example of RFC 9110, section 5.6.7


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", SUNDAY_S),
        ("Sunday, 06-Nov-94 08:49:37 GMT", SUNDAY_S),
        ("Sun Nov  6 08:49:37 1994", SUNDAY_S),
        ("sun, 06 nOV 1994 08:49:37 gmt", SUNDAY_S),
        ("Sun, 06 Nov 1994 08:49:60 GMT", SUNDAY_S + 22),
        ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 UTC", None),
        ("Sun, 06 Nov 1994 08:49:37 +0000", None),
        ("Sun, 06 Nov 1994 08:49:37", None),
        ("Sun, 06 Nov 1994  08:49:37 GMT", None),
        ("Sun 06 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06-Nov-1994 08:49:37 GMT", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Abc 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 24:00:00 GMT", None),
        ("Sun, 06 Nov 1994 08.49.37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT\n", None),
        (" Sun, 06 Nov 1994 08:49:37 GMT", None),
        ("06 Nov 1994 08:49:37 GMT", None),
        ("0", None),
        ("-1", None),
        ("784111777", None),
        ("", None),
    ],
)
def test_a_date_has_one_of_three_forms(value: str, expected: int | None) -> None:
    assert fields.parse_date(value, NOW_S) == expected


def test_a_year_of_two_digits_is_at_most_50_years_ahead() -> None:
    ahead = fields.parse_date("Sunday, 06-Nov-60 08:49:37 GMT", NOW_S)
    behind = fields.parse_date("Sunday, 06-Nov-80 08:49:37 GMT", NOW_S)
    assert ahead is not None
    assert behind is not None
    assert datetime.fromtimestamp(ahead, UTC).year == 2060
    assert datetime.fromtimestamp(behind, UTC).year == 1980


@given(st.integers(0, 4_000_000_000))
@example(951782400)  # 29 February 2000
def test_a_written_date_reads_back(moment_s: int) -> None:
    assert fields.parse_date(fields.format_date(moment_s), NOW_S) == moment_s


def test_a_date_field_is_one_line() -> None:
    date = fields.format_date(NOW_S)
    one = Headers.of(("Expires", date))
    two = Headers.of(("Expires", date), ("Expires", date))
    assert fields.date_field(one, "expires", NOW_S) == NOW_S
    assert fields.date_field(two, "expires", NOW_S) is None
    assert fields.date_field(Headers(), "expires", NOW_S) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"a"', ('"a"',)),
        ('W/"a"', ('W/"a"',)),
        ('"a", W/"b" ,"c"', ('"a"', 'W/"b"', '"c"')),
        (',, "a",,"b",', ('"a"', '"b"')),
        ('"a,b"', ('"a,b"',)),
        ('""', ('""',)),
        ("bare", ("bare",)),
        ('w/"a"', ()),
        ('"a" "b"', ()),
        ('"a', ()),
        ("a, b", ()),
        ("", ()),
    ],
)
def test_entity_tags_are_read_from_a_list(value: str, expected: tuple[str, ...]) -> None:
    assert fields.entity_tags(value) == expected


@pytest.mark.parametrize(
    ("one", "other", "strongly", "weakly"),
    [  # the table of RFC 9110, section 8.8.3.2
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
    ],
)
def test_entity_tags_compare_as_the_rfc_shows(
    one: str, other: str, strongly: bool, weakly: bool
) -> None:
    assert fields.strongly_equal(one, other) is strongly
    assert fields.weakly_equal(one, other) is weakly


def test_what_concerns_one_connection_is_not_stored() -> None:
    headers = Headers.of(
        ("Connection", "close, X-Hop"),
        ("X-Hop", "1"),
        ("x-HOP", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Transfer-Encoding", "chunked"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Upgrade", "h2c"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authentication-Info", "x"),
        ("Age", "5"),
        ("ETag", '"a"'),
        ("X-Kept", "1"),
    )
    assert fields.storable_fields(headers) == Headers.of(("ETag", '"a"'), ("X-Kept", "1"))


def test_a_304_renews_all_fields_but_those_of_the_body() -> None:
    stored = Headers.of(
        ("ETag", 'W/"a"'),
        ("Content-Length", "10"),
        ("Content-Encoding", "gzip"),
        ("Content-Type", "text/html"),
        ("X-Old", "1"),
        ("X-Both", "1"),
        ("X-Both", "2"),
    )
    newer = Headers.of(
        ("ETag", '"a"'),
        ("Content-Length", "0"),
        ("Content-Encoding", "identity"),
        ("x-both", "3"),
        ("X-New", "4"),
        ("Set-Cookie", "a=b"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
    )
    assert fields.updated_fields(stored, newer) == Headers.of(
        ("ETag", 'W/"a"'),
        ("Content-Length", "10"),
        ("Content-Encoding", "gzip"),
        ("Content-Type", "text/html"),
        ("X-Old", "1"),
        ("x-both", "3"),
        ("X-New", "4"),
    )
