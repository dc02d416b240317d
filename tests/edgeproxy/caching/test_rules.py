"""What the rules of a policy change."""

from __future__ import annotations

import pytest

from edgeproxy.caching.config import CacheConfig, CacheRule
from edgeproxy.caching.rules import key_parts, key_query, policy_ttl_s
from edgeproxy.http import Headers, Request


@pytest.mark.parametrize(
    ("query", "setting", "expected"),
    [
        (None, "keep", None),
        ("", "keep", ""),
        ("b=2&a=1", "keep", "b=2&a=1"),
        ("b=2&a=1&b=1", "sort", "a=1&b=1&b=2"),
        ("", "sort", None),
        ("a=1", "drop", None),
        ("utm=x&page=2&lang=de", ("page", "lang"), "lang=de&page=2"),
        ("page=2&page=1", ("page",), "page=2&page=1"),
        ("%70age=2", ("page",), "%70age=2"),
        ("page", ("page",), "page"),
        ("pages=2", ("page",), None),
        ("a=1", (), None),
        ("&&a=1&", ("a",), "a=1"),
        ("b_1=x&a=2&b_2=y", ("b_*",), "b_1=x&b_2=y"),
        ("b=1&a=2", ("*",), "a=2&b=1"),
    ],
)
def test_the_query_in_the_key(
    query: str | None, setting: str | tuple[str, ...], expected: str | None
) -> None:
    assert key_query(query, setting) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "setting", "expected"),
    [
        (None, "keep", None),
        ("b=2&utm_source=x&a=1", "keep", "b=2&a=1"),
        ("b=2&utm_source=x&a=1", "sort", "a=1&b=2"),
        ("b=2&utm_source=x&a=1", "drop", None),
        ("utm_source=x&utm_medium=y&fbclid", "keep", None),
        ("utm%5Fsource=x&utm=1&fbclid2=3", "keep", "utm=1&fbclid2=3"),
        ("utm_id=1&page=2", ("utm_id", "page"), "page=2"),
    ],
)
def test_what_of_the_query_does_not_count(
    query: str | None, setting: str | tuple[str, ...], expected: str | None
) -> None:
    assert key_query(query, setting, ("utm_*", "fbclid")) == expected  # type: ignore[arg-type]


def test_what_of_a_request_stands_in_the_key() -> None:
    rule = CacheRule.model_validate({"key": {"headers": ["X-App"], "cookies": ["theme", "lang"]}})
    headers = Headers.of(("x-app", "1"), ("X-App", "2 , 3"), ("Cookie", "a=b; theme=dark"))
    assert key_parts(rule, Request("GET", "site.example", "/", headers=headers)) == [
        ("header x-app", "'1,2,3'"),
        ("cookie theme", "'dark'"),
        ("cookie lang", "None"),
    ]
    assert key_parts(CacheRule(), Request("GET", "site.example", "/", headers=headers)) == []


@pytest.mark.parametrize(
    ("status", "expected"), [(200, 600), (404, 30), (301, 60), (302, None), (206, None)]
)
def test_lifetimes_by_status(status: int, expected: float | None) -> None:
    rule = CacheRule.model_validate({"ttl": "10m", "status_ttl": {404: "30s", 301: "1m"}})
    assert policy_ttl_s(rule, status) == expected


def test_without_a_rule_the_origin_decides() -> None:
    assert policy_ttl_s(None, 200) is None
    assert policy_ttl_s(CacheRule(), 200) is None


def test_defaults_are_read_as_quantities() -> None:
    assert CacheRule().stale_if_error == 86400
    assert CacheConfig().max_object_size == 16 * 2**20
