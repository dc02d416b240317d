"""What stands between the public name and the origin's: requests, codings, paths, redirects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.errors import UpstreamError
from edgeproxy.fronting import (
    asked_coding,
    clean_response,
    keep_apart,
    origin_path,
    public_path,
    settle_location,
    upstream_request,
)
from edgeproxy.http import Body, Exchange, Headers, Origin, Request, Response, Target

ROOT = Origin("site", "https", "you.github.io", 443)
PROJECT = Origin("site", "https", "you.github.io", 443, base="/project/")
APP = Origin("app", "http", "app.internal", 8000, static=False)


def exchange(target: str = "/guide/", **fields: str) -> Exchange:
    path, _, query = target.partition("?")
    request = Request("GET", "www.example.org", path, query or None)
    for name, value in fields.items():
        request.headers.add(name.replace("_", "-"), value)
    return Exchange(request)


@pytest.mark.parametrize(
    ("field", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("br, deflate", "identity"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip; q=0.000", "identity"),
        ("gzip;q=0.001", "gzip"),
        ("*", "gzip"),
        ("*;q=0", "identity"),
        ("*;q=0, gzip", "gzip"),
        ("gzip;q=0, *", "identity"),
        ("identity", "identity"),
    ],
)
def test_two_codings_are_all_that_is_asked_for(field: str | None, coding: str) -> None:
    headers = Headers() if field is None else Headers.of(("accept-encoding", field))
    assert asked_coding(headers) == coding


def test_a_range_is_asked_for_without_compression() -> None:
    headers = Headers.of(("accept-encoding", "gzip"), ("range", "bytes=0-1"))
    assert asked_coding(headers) == "identity"


@pytest.mark.parametrize(
    ("public", "origin"),
    [
        ("/", "/project/"),
        ("/guide/", "/project/guide/"),
        ("/project/guide/", "/project/guide/"),
        ("/project", "/project/project"),
        ("/projects/", "/project/projects/"),
    ],
)
def test_the_base_path_is_added_where_it_is_not_there(public: str, origin: str) -> None:
    assert origin_path(public, PROJECT) == origin
    assert origin_path(public, ROOT) == public


@given(st.lists(st.sampled_from(["a", "b.html", "project", "%20"]), max_size=4), st.booleans())
def test_taking_the_base_off_undoes_putting_it_on(parts: list[str], is_folder: bool) -> None:
    path = "/" + "/".join(parts) + ("/" if parts and is_folder else "")
    if not path.startswith("/project/"):
        assert public_path(origin_path(path, PROJECT), PROJECT) == path


@given(st.text(alphabet="/\\ap.", max_size=8))
def test_a_public_path_is_never_the_name_of_a_host(rest: str) -> None:
    path = public_path("/project/" + rest, PROJECT)
    assert path.startswith("/")
    assert path[1:2] not in ("/", "\\")


def test_a_site_gets_nothing_personal_and_an_app_gets_who_asked() -> None:
    made = exchange(
        "/guide/?a=b", cookie="s=1", authorization="Basic x", x_forwarded_for="6.6.6.6",
        forwarded="for=6.6.6.6", te="trailers", host="www.example.org", user_agent="x", via="1.1 a",
    )  # fmt: skip
    made.request.body = Body(b"data")
    target = Target("site", "/guide/", "a=b")
    request = upstream_request(made, target, PROJECT)
    assert (request.authority, request.target) == ("you.github.io", "/project/guide/?a=b")
    assert request.scheme == "https"
    assert (request.headers.get("cdn-loop") or "").startswith("edgeproxy;id=")
    request.headers.remove("cdn-loop")
    assert dict(request.headers.items()) == {
        "user-agent": "x",
        "accept-encoding": "identity",
        "via": "1.1 edgeproxy",
    }
    assert request.body.length == 0
    request = upstream_request(made, target, APP)
    assert request.authority == "app.internal:8000"
    assert request.headers.get("cookie") == "s=1"
    assert request.headers.get("authorization") == "Basic x"
    assert request.headers.get_all("x-forwarded-for") == ["127.0.0.1"]
    assert request.headers.get("x-forwarded-host") == "www.example.org"
    assert request.body is made.request.body
    assert "forwarded" not in request.headers
    # The request that came in is what it was.
    assert made.request.headers.get("x-forwarded-for") == "6.6.6.6"


def test_what_belongs_to_the_connection_or_to_the_cdn_is_taken_out() -> None:
    fields = (
        ("Connection", "close, X-Named"), ("X-Named", "1"), ("Keep-Alive", "5"), ("X-Cache", "HIT"),
        ("Server", "GitHub.com"), ("Expires", "0"), ("ETag", '"1"'), ("Via", "1.1 varnish"),
        ("Strict-Transport-Security", "max-age=1"), ("Access-Control-Allow-Origin", "*"),
    )  # fmt: skip
    response = Response(200, Headers.of(*fields))
    clean_response(response, ROOT)
    assert [name for name, _ in response.headers.items()] == ["ETag", "Access-Control-Allow-Origin"]
    response = Response(200, Headers.of(*fields))
    clean_response(response, APP)
    assert "server" in response.headers
    assert "expires" in response.headers
    assert "x-named" not in response.headers


def settled(location: str, target: str = "/guide", origin: Origin = PROJECT) -> str | None:
    response = Response(301, Headers.of(("location", location)))
    settle_location(exchange(target), response, origin)
    return response.headers.get("location")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://you.github.io/project/guide/", "http://www.example.org/guide/"),
        ("http://YOU.github.io./project/guide/?x=1#y", "http://www.example.org/guide/?x=1#y"),
        ("https://you.github.io:443/project/", "http://www.example.org/"),
        ("https://you.github.io:8443/project/", "https://you.github.io:8443/project/"),
        ("/project/guide/", "/guide/"),
        ("https://else.example/project/guide/", "https://else.example/project/guide/"),
        ("https://www.example.org/guide/", "https://www.example.org/guide/"),
        ("guide/", "guide/"),
        ("", ""),
    ],
)
def test_a_redirect_to_the_origin_is_one_to_the_public_name(location: str, expected: str) -> None:
    assert settled(location) == expected


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://www.example.org/guide", "/guide"),
        ("http://www.example.org/guide", "/guide?x=1"),
        ("http://www.example.org:80/guide?x=1", "/guide?x=1"),
        ("https://you.github.io/project/guide", "/guide"),
        ("/project/guide", "/guide"),
    ],
)
def test_a_redirect_to_where_the_visitor_is_is_a_failure(location: str, target: str) -> None:
    with pytest.raises(UpstreamError) as failure:
        settled(location, target)
    assert (failure.value.error, failure.value.status) == ("proxy_loop_detected", 502)


def test_an_app_may_redirect_to_itself() -> None:
    assert settled("/guide", "/guide", APP) == "/guide"
    assert settled("https://www.example.org/guide", origin=APP) == "https://www.example.org/guide"
    with pytest.raises(UpstreamError, match="https"):
        settled("https://app.internal/guide", "/guide", APP)


def test_only_redirects_have_their_location_settled() -> None:
    response = Response(201, Headers.of(("location", "/project/x")))
    settle_location(exchange(), response, PROJECT)
    assert response.headers.get("location") == "/project/x"


@pytest.mark.parametrize(
    ("varies_by", "before", "control", "vary"),
    [
        (set(), "max-age=60", "max-age=60", "accept-encoding"),
        ({"accept-language"}, "max-age=60", "max-age=60", "accept-encoding, accept-language"),
        ({"cookie"}, "max-age=60", "private, max-age=60", "accept-encoding, cookie"),
        ({"*"}, "public, max-age=60, s-maxage=9", "private, max-age=60", "accept-encoding"),
        ({"*"}, "no-store", "no-store", "accept-encoding"),
        ({"*"}, "private", "private", "accept-encoding"),
        ({"*", "accept-encoding"}, None, "private", "accept-encoding"),
    ],
)
def test_caches_behind_the_proxy_are_told_what_an_answer_depended_on(
    varies_by: set[str], before: str | None, control: str, vary: str
) -> None:
    made = exchange()
    made.varies_by = varies_by
    response = Response(200, Headers.of(("vary", "accept-encoding")))
    if before is not None:
        response.headers.add("cache-control", before)
    keep_apart(made, response)
    assert response.headers.joined("cache-control") == control
    assert response.headers.joined("vary") == vary
