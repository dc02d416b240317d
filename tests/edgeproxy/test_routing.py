"""Finding a route: what patterns mean, and that the index never changes which route is first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.http import Exchange, Request, normalise_path
from edgeproxy.policy.model import PathMatch
from edgeproxy.routing import Candidate, RouteIndex, compile_path, find


@dataclass(frozen=True)
class Named:
    name: str


def match(pattern: Any, path: str) -> tuple[str, ...] | None:
    return compile_path(PathMatch.model_validate(pattern))(normalise_path(path))


@pytest.mark.parametrize(
    ("pattern", "path", "captures"),
    [
        ("/a", "/a", ()),
        ("/a", "/a/", None),
        ("/a/", "/a", None),
        ("/", "/", ()),
        ("/a/*", "/a/b", ("b",)),
        ("/a/*", "/a/b/c", None),
        ("/a/*", "/a/", ("",)),
        ("/a/*", "/a", None),
        ("/a/**", "/a/b/c", ("b/c",)),
        ("/a/**", "/a/", ("",)),
        ("/a/**", "/a", ("",)),
        ("/a/**", "/ab", None),
        ("/**", "/x/y", ("x/y",)),
        ("/**", "/", ("",)),
        ("/*.html", "/x.html", ("x",)),
        ("/*.html", "/x.HTML", None),
        ("/*.html", "/x/y.html", None),
        ("/**.html", "/x/y.html", ("x/y",)),
        ("/*/b/**", "/a/b/c/d", ("a", "c/d")),
        ("/*/b/**", "/a/b", ("a", "")),
        ("/a/**/z", "/a/b/c/z", ("b/c",)),
        ("/a.b", "/aXb", None),
        ("/über/*", "/%c3%bcber/x", ("x",)),
        ({"exact": "/a*"}, "/a*", ()),
        ({"exact": "/a*"}, "/ab", None),
        ({"prefix": "/a"}, "/a", ("",)),
        ({"prefix": "/a"}, "/a/b", ("b",)),
        ({"prefix": "/a"}, "/ab", None),
        ({"prefix": "/a/"}, "/a/b", ("b",)),
        ({"prefix": "/"}, "/a/b", ("a/b",)),
        ({"regex": "/(a|b)/([0-9]+)"}, "/b/42", ("b", "42")),
        ({"regex": "/a"}, "/ab", None),
        ({"regex": "/a(x)?"}, "/a", ("",)),
    ],
)
def test_a_pattern_means_what_it_says(
    pattern: Any, path: str, captures: tuple[str, ...] | None
) -> None:
    assert match(pattern, path) == captures


def test_a_pattern_that_can_never_match_is_a_fault() -> None:
    for pattern in ("/a/../../b", "/%zz", "/a\\b"):
        with pytest.raises(ValueError, match="can never match"):
            compile_path(PathMatch(glob=pattern))


# ---------------------------------------------------------------- the index against an oracle

SEGMENTS = ["", "a", "b", "ab", "c.html", "%C3%BC"]
HOSTS = ["example.org", "www.example.org", "a.b.example.org", "other.example", "localhost", ""]
HOST_PATTERNS = ["example.org", "www.example.org", "*.example.org", "*.b.example.org", "*.org"]

paths = st.lists(st.sampled_from(SEGMENTS), max_size=4).map(
    lambda parts: normalise_path("/" + "/".join(parts))
)
globs = st.lists(st.sampled_from([*SEGMENTS, "*", "**", "a*", "*b", "*.html"]), max_size=4).map(
    lambda parts: PathMatch(glob=normalise_path("/" + "/".join(parts)))
)
patterns = st.one_of(
    st.none(),
    globs,
    paths.map(lambda path: PathMatch(prefix=path)),
    paths.map(lambda path: PathMatch(exact=path)),
    st.sampled_from(["/a.*", "/(a|b)/.*", ".*html"]).map(lambda text: PathMatch(regex=text)),
)
hosts = st.one_of(
    st.none(), st.lists(st.sampled_from(HOST_PATTERNS), min_size=1, max_size=2, unique=True)
)
routes = st.lists(st.tuples(hosts, patterns, st.booleans()), max_size=12)


def host_fits(wanted: list[str] | None, host: str) -> bool:
    if wanted is None:
        return True
    return any(
        host.endswith(name[1:]) and host != name[1:] if name.startswith("*.") else host == name
        for name in wanted
    )


@given(routes, st.sampled_from(HOSTS), paths, st.booleans())
def test_the_index_finds_what_reading_the_policy_from_the_top_finds(
    specs: list[tuple[list[str] | None, PathMatch | None, bool]],
    host: str,
    path: str,
    flag: bool,
) -> None:
    index = RouteIndex()
    expected: tuple[str, tuple[str, ...]] | None = None
    for number, (wanted, pattern, needs_flag) in enumerate(specs):
        test = compile_path(pattern)
        route: Any = Named(f"route{number}")
        clauses = ((lambda exchange: flag),) if needs_flag else ()
        index.add(wanted, pattern, Candidate((number, 0), route, test, clauses, frozenset()))
        captures = test(path)
        fits = host_fits(wanted, host) and captures is not None and (flag or not needs_flag)
        if expected is None and fits and captures is not None:
            expected = (route.name, captures)
    exchange = Exchange(Request("GET", host, path))
    found = find(index.candidates(host, path), exchange)
    assert (found and (found.route.name, found.captures)) == expected


def test_hosts_compare_without_case() -> None:
    index = RouteIndex()
    route: Any = Named("x")
    index.add(
        ["WWW.Example.org"], None, Candidate((0, 0), route, compile_path(None), (), frozenset())
    )
    assert find(index.candidates("www.example.org", "/"), Exchange(Request("GET", "x", "/")))
    assert not index.candidates("example.org", "/")


def test_what_the_choice_varied_by_is_noted_also_where_it_was_no() -> None:
    index = RouteIndex()
    first: Any = Named("first")
    last: Any = Named("last")
    elsewhere: Any = Named("elsewhere")
    for order, (route, pattern, answer, varies) in enumerate([
        (elsewhere, "/other", True, "x-other"),
        (first, "/a", False, "accept-language"),
        (last, "/**", True, "cookie"),
    ]):  # fmt: skip
        path = PathMatch(glob=pattern)
        clauses = (lambda exchange, answer=answer: answer,)
        index.add(
            None,
            path,
            Candidate((order, 0), route, compile_path(path), clauses, frozenset({varies})),
        )
    exchange = Exchange(Request("GET", "x", "/a"))
    found = find(index.candidates("x", "/a"), exchange)
    assert found is not None
    assert found.route is last
    assert exchange.varies_by == {"accept-language", "cookie"}


def test_candidates_do_not_grow_with_the_number_of_routes() -> None:
    index = RouteIndex()
    for number in range(10_000):
        path = PathMatch(glob=f"/section{number}/**")
        route: Any = Named(str(number))
        index.add(None, path, Candidate((number, 0), route, compile_path(path), (), frozenset()))
    assert len(index.candidates("x", "/section77/page")) == 1
