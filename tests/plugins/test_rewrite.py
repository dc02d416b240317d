"""Redirects, other paths, fixed answers, pages for failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeproxy.errors import UpstreamError
from edgeproxy.http import Origin, Request, Response


def route(match: str, filters: str) -> str:
    return f"routes:\n  - {{name: it, match: {{path: {match}}}, {filters}}}\n"


@pytest.mark.parametrize(
    ("match", "redirect", "target", "location"),
    [
        ("/old", "/new", "/old", "/new"),
        ("/old", "/new", "/old?a=b&c", "/new?a=b&c"),
        ("/old/**", "/new/**", "/old/a/b", "/new/a/b"),
        ("/old/**", "/new/**", "/old", "/new/"),
        ("/*/old/*", "/*/new/*", "/de/old/x", "/de/new/x"),
        ("/old/**", "/**", "/old/evil.example/x", "/evil.example/x"),
        ("/old/**", "{path: /new/, query: drop}", "/old/a?b=c", "/new/"),
        ("/old/**", "https://new.example/**", "/old/a?b=c", "https://new.example/a?b=c"),
        ("/old", "{url: 'https://new.example/?x=1'}", "/old?b=c", "https://new.example/?x=1&b=c"),
        ("{regex: '/(..)/.*'}", "/lang/*", "/de/x", "/lang/de"),
        ("/alt/**", "/neu/über/**", "/alt/x", "/neu/%C3%BCber/x"),
    ],
)
async def test_a_redirect_goes_where_the_policy_says(
    journeys: Any, match: str, redirect: str, target: str, location: str
) -> None:
    trip = await journeys(route(match, f"redirect: {redirect}"))(target)
    assert (trip.response.status, trip.header("location")) == (302, location)
    assert not trip.asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_has_the_status_of_the_policy(journeys: Any, status: int) -> None:
    trip = await journeys(route("/old", f"redirect: {{path: /new, status: {status}}}"))("/old")
    assert trip.response.status == status


@pytest.mark.parametrize("target", ["//evil.example", "/./evil.example", "/.//evil.example", "/*"])
@pytest.mark.parametrize("redirect", ["/**", "/**/x", "/a/../**"])
async def test_a_redirect_never_leads_to_another_host(
    journeys: Any, target: str, redirect: str
) -> None:
    """What a wildcard stood for comes from the client, and stays a path."""
    trip = await journeys(route("/old/**", f"redirect: {redirect}"))("/old" + target)
    location = trip.header("location")
    assert location[0] == "/"
    assert location[1:2] not in ("/", "\\")


@pytest.mark.parametrize(
    ("match", "rewrite", "target", "asked"),
    [
        ("/guide", "{path: /docs/guide/}", "/guide?a=b", "/base/docs/guide/?a=b"),
        ("/v1/**", "{path: /v2/**}", "/v1/a/b", "/base/v2/a/b"),
        ("/**", "{prefix: /en}", "/a/", "/base/en/a/"),
        ("/**", "{prefix: /en/}", "/", "/base/en/"),
        ("/shop/**", "{strip_prefix: /shop}", "/shop/a", "/base/a"),
        ("/shop/**", "{strip_prefix: /shop/}", "/shop", "/base/"),
        ("/**", "{strip_prefix: /shop}", "/shopping", "/base/shopping"),
        ("/api/**", "{strip_prefix: /api, prefix: /v2}", "/api/x", "/base/v2/x"),
    ],
)
async def test_the_origin_is_asked_for_another_path(
    journeys: Any, match: str, rewrite: str, target: str, asked: str
) -> None:
    trip = await journeys(route(match, f"origin: a, rewrite: {rewrite}"))(target)
    assert [request.target for request in trip.asked] == [asked]
    assert trip.header("location") is None


@pytest.mark.parametrize(
    ("target", "accept", "asked"),
    [
        ("/", "text/html", "/base/app.html"),
        ("/deep/page", "text/html,application/xhtml+xml", "/base/app.html"),
        ("/deep/page", None, "/base/app.html"),
        ("/deep/page", "*/*", "/base/app.html"),
        ("/deep/page", "application/json", "/base/deep/page"),
        ("/static/app.js", "*/*", "/base/static/app.js"),
        ("/v1.2/page", "text/html", "/base/app.html"),
    ],
)
async def test_pages_of_a_single_page_application_are_one(
    journeys: Any, target: str, accept: str | None, asked: str
) -> None:
    go = journeys(route("/**", "origin: a, spa_fallback: /app.html"))
    trip = await (go(target, accept=accept) if accept else go(target))
    assert [request.path for request in trip.asked] == [asked]


async def test_a_fixed_answer_asks_nobody(journeys: Any, tmp_path: Path) -> None:
    block = '{status: 503, body: "<p>soon", retry_after: 2m, headers: {x-a: "b"}}'
    trip = await journeys(route("/**", f"respond: {block}"))("/x")
    assert (trip.response.status, trip.body) == (503, b"<p>soon")
    assert trip.header("content-type") == "text/html; charset=utf-8"
    assert (trip.header("retry-after"), trip.header("x-a")) == ("120", "b")
    assert not trip.asked
    page = tmp_path / "page.txt"
    page.write_bytes("grüße".encode())
    go = journeys(route("/**", f'respond: {{file: "{page}", content_type: text/plain}}'))
    page.unlink()  # it was read when the policy was loaded
    trip = await go("/x", method="POST")
    assert (trip.body.decode(), trip.header("content-type")) == ("grüße", "text/plain")


async def test_an_answer_made_of_facts_is_kept_from_shared_caches(journeys: Any) -> None:
    block = '{body: hi, headers: {x-device: "${content.device}"}}'
    trip = await journeys(route("/**", f"respond: {block}"))()
    assert trip.header("x-device") == "desktop"
    assert "private" in (trip.header("cache-control") or "")


async def test_a_failing_origin_has_the_page_of_the_policy(journeys: Any) -> None:
    def down(origin: Origin, request: Request) -> Response:
        raise UpstreamError(origin.name, "connection_refused", "it refuses")

    go = journeys(route("/**", "origin: a, error_page: {body: back soon, status: 500}"), down)
    trip = await go()
    assert (trip.response.status, trip.body) == (500, b"back soon")
    assert trip.header("cache-control") == "no-store"
    assert "it refuses" in trip.exchange.error
    plain = await journeys(route("/**", "origin: a"), down)()
    assert plain.response.status == 502
    assert "connection_refused" in (plain.header("proxy-status") or "")


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ("redirect: //evil.example", "//evil.example"),
        ("redirect: new", "new"),
        ("redirect: {}", "exactly one of path and url"),
        ("redirect: {path: /a, url: 'https://b.example'}", "exactly one of path and url"),
        ("redirect: {url: 'javascript:x'}", "absolute URL"),
        ("redirect: {url: 'https://*.example/'}", "absolute URL"),
        ("redirect: {path: /a, status: 200}", "status"),
        ("origin: a, rewrite: {}", "write path, or prefix and strip_prefix"),
        ("origin: a, rewrite: {path: /a, prefix: /b}", "write path, or prefix and strip_prefix"),
        ("origin: a, rewrite: {prefix: b}", "begins with one slash"),
        ("respond: {file: /no/such/file}", "no file"),
        ("respond: {status: 100}", "200"),
        ("origin: a, error_page: {status: 200}", "400"),
    ],
)
def test_what_cannot_work_is_a_fault(fault: Any, filters: str, message: str) -> None:
    assert message in fault(route("/old/**", filters))
