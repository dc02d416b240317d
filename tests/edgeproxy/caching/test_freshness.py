"""Freshness, age, what is kept and what may be stale: each rule, and against a slow model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.caching.fields import format_date
from edgeproxy.caching.freshness import (
    StaleUse,
    Unstorable,
    browser_cache_control,
    current_age_s,
    explicit_lifetime_s,
    heuristic_lifetime_s,
    initial_age_s,
    lifetime_s,
    retry_after_s,
    stale_use,
    why_not_stored,
)
from edgeproxy.http import Headers

NOW_S = 1_700_000_000


def at(offset_s: float) -> str:
    return format_date(NOW_S + offset_s)


def headers(text: str) -> Headers:
    lines = [line.strip() for line in text.split("|") if line.strip()]
    return Headers.of(*[(line.partition(": ")[0], line.partition(": ")[2]) for line in lines])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("Cache-Control: max-age=60", 60),
        ("Cache-Control: max-age=60, s-maxage=10", 10),
        ("Cache-Control: s-maxage=100, max-age=60", 100),
        ("Cache-Control: max-age=x", 0),
        ("Cache-Control: max-age", 0),
        ("Cache-Control: s-maxage=x, max-age=60", 0),
        ("Cache-Control: max-age=99999999999", 2**31),
        (f"Expires: {at(60)} | Date: {at(0)}", 60),
        (f"Expires: {at(60)} | Date: {at(100)}", 0),
        (f"Expires: {at(60)}", 60),
        (f"Expires: {at(60)} | Date: rubbish", 60),
        (f"Expires: {at(600)} | Date: {at(0)} | Cache-Control: max-age=5", 5),
        (f"Expires: {at(600)} | Date: {at(0)} | Cache-Control: max-age=x", 0),
        ("Expires: 0", 0),
        ("Expires: -1", 0),
        (f"Expires: {at(60)} | Expires: {at(60)} | Date: {at(0)}", 0),
        ("Cache-Control: public", None),
    ],
)
def test_the_origin_states_how_long(text: str, expected: int | None) -> None:
    assert explicit_lifetime_s(headers(text), NOW_S) == expected


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (200, f"Last-Modified: {at(-1000)} | Date: {at(0)}", 100),
        (200, f"Last-Modified: {at(-1000)}", 100),
        (404, f"Last-Modified: {at(-1000)}", 100),
        (200, f"Last-Modified: {at(-10_000_000)}", 86400),
        (200, f"Last-Modified: {at(50)}", 0),
        (200, "ETag: x", None),
        (500, f"Last-Modified: {at(-1000)}", None),
        (405, f"Last-Modified: {at(-1000)}", None),
        (302, f"Last-Modified: {at(-1000)}", None),
        (302, f"Last-Modified: {at(-1000)} | Cache-Control: public", 100),
    ],
)
def test_without_that_a_tenth_of_the_age_of_the_content(
    status: int, text: str, expected: float | None
) -> None:
    assert heuristic_lifetime_s(status, headers(text), NOW_S) == expected


@pytest.mark.parametrize(
    ("text", "ttl_s", "age_s", "expected"),
    [
        ("Cache-Control: max-age=60", None, 0, 60),
        ("Cache-Control: max-age=60", 5, 0, 5),
        ("Cache-Control: max-age=60", 5, 500, 505),
        ("Cache-Control: max-age=60", 0, 500, 0),
        ("Cache-Control: max-age=60, no-cache", None, 0, 0),
        ("Cache-Control: no-cache", 600, 0, 0),
        ("Cache-Control: no-cache=x, max-age=60", 600, 0, 0),
        ("", None, 0, 0),
        ("", 60, 0, 60),
    ],
)
def test_a_policy_may_set_another_lifetime(
    text: str, ttl_s: float | None, age_s: float, expected: float
) -> None:
    found = lifetime_s(200, headers(text), NOW_S, initial_age_s=age_s, policy_ttl_s=ttl_s)
    assert found == expected


@given(
    age=st.none() | st.integers(0, 10**12),
    date_offset_s=st.none() | st.integers(-(10**6), 10**6),
    delay_s=st.integers(-5, 100),
    resident_s=st.integers(-(10**6), 10**6),
)
def test_age_is_what_the_rfc_computes(
    age: int | None, date_offset_s: int | None, delay_s: int, resident_s: int
) -> None:
    """The formulas of RFC 9111, section 4.2.3, in datetimes and in its own words."""
    fields = Headers()
    response_time = datetime.fromtimestamp(NOW_S, UTC)
    request_time = response_time - timedelta(seconds=delay_s)
    apparent_age = timedelta(0)
    if date_offset_s is not None:
        date_value = response_time + timedelta(seconds=date_offset_s)
        fields.add("Date", format_datetime(date_value, usegmt=True))
        apparent_age = max(timedelta(0), response_time - date_value)
    age_value = timedelta(0)
    if age is not None:
        fields.add("Age", str(age))
        age_value = timedelta(seconds=min(age, 2**31))
    response_delay = max(timedelta(0), response_time - request_time)
    corrected = max(apparent_age, age_value + response_delay)
    now = response_time + timedelta(seconds=resident_s)
    expected = corrected + max(timedelta(0), now - response_time)

    initial_s = initial_age_s(fields, NOW_S - delay_s, NOW_S)
    assert current_age_s(initial_s, NOW_S, NOW_S + resident_s) == expected.total_seconds()


@given(
    s_maxage=st.none() | st.integers(0, 10**4),
    max_age=st.none() | st.integers(0, 10**4),
    expires_offset_s=st.none() | st.integers(-(10**4), 10**4),
    date_offset_s=st.none() | st.integers(-100, 100),
    ttl_s=st.none() | st.integers(1, 1000),
    age_s=st.integers(0, 100),
)
def test_lifetime_is_what_the_rfc_computes(
    s_maxage: int | None,
    max_age: int | None,
    expires_offset_s: int | None,
    date_offset_s: int | None,
    ttl_s: int | None,
    age_s: int,
) -> None:
    fields = Headers()
    given_fields: list[float] = []
    if s_maxage is not None:
        fields.add("Cache-Control", f"s-maxage={s_maxage}")
        given_fields.append(s_maxage)
    if max_age is not None:
        fields.add("Cache-Control", f"max-age={max_age}")
        given_fields.append(max_age)
    if date_offset_s is not None:
        fields.add("Date", at(date_offset_s))
    if expires_offset_s is not None:
        fields.add("Expires", at(expires_offset_s))
        given_fields.append(max(0, expires_offset_s - (date_offset_s or 0)))
    expected = (given_fields or [0])[0] if ttl_s is None else ttl_s + age_s
    found = lifetime_s(200, fields, NOW_S, initial_age_s=age_s, policy_ttl_s=ttl_s)
    assert found == expected


FRESH = "Cache-Control: max-age=60"


@pytest.mark.parametrize(
    ("status", "text", "credentials", "expected"),
    [
        (200, FRESH, False, None),
        (200, "", False, None),
        (206, FRESH, False, Unstorable.STATUS),
        (304, FRESH, False, Unstorable.STATUS),
        (103, FRESH, False, Unstorable.STATUS),
        (200, f"{FRESH}, no-store", False, Unstorable.NO_STORE),
        (200, f"{FRESH}, private", False, Unstorable.PRIVATE),
        (200, f"{FRESH}, private=x", False, Unstorable.PRIVATE),
        (200, f"{FRESH} | Set-Cookie: a=b", False, Unstorable.SET_COOKIE),
        (200, f"{FRESH}, public | Set-Cookie: a=b", False, Unstorable.SET_COOKIE),
        (200, FRESH, True, Unstorable.AUTHORIZATION),
        (200, f"{FRESH}, public", True, None),
        (200, f"{FRESH}, must-revalidate", True, None),
        (200, "Cache-Control: s-maxage=60", True, None),
        (200, f"{FRESH} | Vary: *", False, Unstorable.VARY),
        (200, f"{FRESH} | Vary: a, *", False, Unstorable.VARY),
        (200, f"{FRESH} | Vary: a | Vary: *", False, Unstorable.VARY),
        (200, f"{FRESH} | Vary: {', '.join('abcdefghijklmnopq')}", False, Unstorable.VARY),
        (200, f"{FRESH} | Vary: a, b", False, None),
        (404, "", False, None),
        (301, "", False, None),
        (302, "", False, Unstorable.NOTHING_TO_GO_BY),
        (302, FRESH, False, None),
        (302, "Expires: 0", False, None),
        (302, "Cache-Control: public", False, None),
        (400, "", False, Unstorable.NOTHING_TO_GO_BY),
        (400, "Cache-Control: public", False, Unstorable.NOTHING_TO_GO_BY),
        (405, "", False, Unstorable.NOTHING_TO_GO_BY),
        (414, "", False, Unstorable.NOTHING_TO_GO_BY),
        (429, "", False, Unstorable.NOTHING_TO_GO_BY),
        (431, "", False, Unstorable.NOTHING_TO_GO_BY),
        (500, "", False, Unstorable.NOTHING_TO_GO_BY),
        (503, FRESH, False, None),
        (299, FRESH, False, None),
        (599, FRESH, False, None),
        (200, f"{FRESH}, must-understand, no-store", False, None),
        (599, f"{FRESH}, must-understand, no-store", False, Unstorable.MUST_UNDERSTAND),
        (599, f"{FRESH}, must-understand", False, Unstorable.MUST_UNDERSTAND),
    ],
)
def test_what_is_kept(
    status: int, text: str, credentials: bool, expected: Unstorable | None
) -> None:
    assert why_not_stored("GET", credentials, status, headers(text)) is expected


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS", "QUERY"])
def test_only_answers_to_get_are_kept(method: str) -> None:
    assert why_not_stored(method, False, 200, headers(FRESH)) is Unstorable.METHOD


def test_a_policy_lifetime_counts_as_stated_freshness_but_lifts_no_ban() -> None:
    assert why_not_stored("GET", False, 500, Headers(), policy_ttl=True) is None
    private = headers("Cache-Control: private")
    assert why_not_stored("GET", False, 200, private, policy_ttl=True) is Unstorable.PRIVATE
    assert why_not_stored("GET", True, 200, Headers(), policy_ttl=True) is Unstorable.AUTHORIZATION


NO = StaleUse(0, 0, 0)
DAY_S = 86400


@pytest.mark.parametrize(
    ("text", "revalidate_s", "error_s", "expected"),
    [
        ("", None, None, StaleUse(0, 0, DAY_S)),
        ("", 10, 20, StaleUse(10, 20, 20)),
        ("", 0, 0, NO),
        ("Cache-Control: stale-while-revalidate=5", None, None, StaleUse(5, 0, DAY_S)),
        ("Cache-Control: stale-if-error=5", None, None, StaleUse(0, 5, 5)),
        ("Cache-Control: stale-if-error=0", None, None, NO),
        ("Cache-Control: stale-if-error=5", 10, 20, StaleUse(10, 20, 20)),
        ("Cache-Control: stale-if-error=50", 10, 20, StaleUse(10, 50, 50)),
        ("Cache-Control: must-revalidate", 10, 20, NO),
        ("Cache-Control: proxy-revalidate, stale-if-error=9", 10, 20, NO),
        ("Cache-Control: no-cache", 10, 20, NO),
        ("Cache-Control: s-maxage=1", 10, 20, NO),
        ("Cache-Control: s-maxage=1, stale-while-revalidate=5", 10, 20, StaleUse(5, 0, 0)),
        ("Cache-Control: s-maxage=1, stale-if-error=5", 10, 20, StaleUse(0, 5, 5)),
    ],
)
def test_how_long_an_answer_may_be_stale(
    text: str, revalidate_s: float | None, error_s: float | None, expected: StaleUse
) -> None:
    found = stale_use(headers(text), while_revalidate_s=revalidate_s, if_error_s=error_s)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("Retry-After: 120", 120),
        (f"Retry-After: {at(90)}", 90),
        (f"Retry-After: {at(-90)}", 0),
        ("Retry-After: soon", None),
        ("Retry-After: 1.5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, expected: float | None) -> None:
    assert retry_after_s(headers(text), NOW_S) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "max-age=67"),
        ("Cache-Control: max-age=600", "max-age=67"),
        ("Cache-Control: public, max-age=600, s-maxage=5", "max-age=67, public"),
        ("Cache-Control: immutable", "max-age=67, immutable"),
        ("Cache-Control: no-transform, stale-if-error=5", "max-age=67, no-transform"),
        ('Cache-Control: x="a b"', "max-age=67, x"),
        ("Cache-Control: private", None),
        ("Cache-Control: no-store", None),
        ("Cache-Control: no-cache, max-age=600", None),
        ("Set-Cookie: a=b", None),
    ],
)  # fmt: skip
def test_browsers_are_told_their_own_lifetime(text: str, expected: str | None) -> None:
    """60 s from now on, with an Age of 7 beside it."""
    assert browser_cache_control(headers(text), 60, 7.9) == expected
