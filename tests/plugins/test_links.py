"""Links that name the origin are moved to the public name, and nothing else is touched."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.http import Body, Headers, Origin, Request, Response
from edgeproxy_links.plugin import decompress, replace_links

ORIGIN = Origin("a", "https", "you.github.io", 443, base="/project/")
PUBLIC = "http://www.example.org/"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<a href="https://you.github.io/project/a/">', '<a href="http://www.example.org/a/">'),
        ("<a href='http://you.github.io/project/'>", "<a href='http://www.example.org/'>"),
        ("<a href=//You.GitHub.io/project/a>", "<a href=http://www.example.org/a>"),
        ('<a href="https://you.github.io/project">', '<a href="http://www.example.org/">'),
        ('<a href="https://you.github.io/project?x">', '<a href="http://www.example.org/?x">'),
        ('<a href="https://you.github.io/project#x">', '<a href="http://www.example.org/#x">'),
        (
            '<img srcset="https://you.github.io/project/1 1x, https://you.github.io/project/2 2x">',
            '<img srcset="http://www.example.org/1 1x, http://www.example.org/2 2x">',
        ),
        (
            '<link\nrel="canonical"\nhref="https://you.github.io/project/">',
            '<link\nrel="canonical"\nhref="http://www.example.org/">',
        ),
    ],
)
def test_a_link_to_the_origin_becomes_a_public_one(before: str, after: str) -> None:
    assert replace_links(before.encode(), ORIGIN, PUBLIC).decode() == after


@pytest.mark.parametrize(
    "page",
    [
        "<p>Read https://you.github.io/project/ first</p>",
        '<a href="https://you.github.io/projects/">',
        '<a href="https://you.github.io/other/">',
        '<a href="https://you.github.io.evil.example/project/">',
        '<a href="https://x.you.github.io/project/">',
        '<a href="https://you.github.io:8443/project/">',
        '<a href="/project/a/">',
        "<script>var a = 'https://you.github.io/project/';</script>",
        "",
    ],
)
def test_everything_else_stays(page: str) -> None:
    assert replace_links(page.encode(), ORIGIN, PUBLIC).decode() == page


@given(st.binary())
def test_bytes_that_name_no_origin_stay(page: bytes) -> None:
    if b"you.github.io" not in page.lower():
        assert replace_links(page, ORIGIN, PUBLIC) == page


def test_decompression_is_bounded_and_damage_is_none() -> None:
    data = gzip.compress(b"x" * 1000)
    assert decompress(data, 1000) == b"x" * 1000
    assert decompress(data, 999) is None
    assert decompress(data[:-1], 1000) is None
    assert decompress(b"no gzip", 1000) is None
    assert decompress(b"", 1000) is None
    assert decompress(gzip.compress(bytes(100_000_000), 1), 1000) is None


POLICY = """
cache: {rules: {any: {ttl: 1h}}}
routes:
  - {name: all, origin: a, cache: any, rewrite_links: RULE}
"""
PAGE = b'<a href="https://a.example/base/x">x</a>'
CHANGED = b'<a href="http://www.example.org/x">x</a>'


def html(body: bytes, *fields: tuple[str, str], status: int = 200) -> Response:
    headers = Headers.of(("content-type", "text/html; charset=utf-8"), ("etag", '"1"'), *fields)
    return Response(status, headers, Body(body))


async def test_a_page_is_changed_with_an_etag_of_its_own(journeys: Any) -> None:
    go = journeys(POLICY.replace("RULE", "true"), lambda origin, request: html(PAGE))
    for verdict in ("miss", "hit"):
        trip = await go()
        assert trip.body == CHANGED
        assert trip.exchange.cache_verdict == verdict
        assert trip.header("etag").startswith('W/"')
        assert trip.header("content-length") == str(len(CHANGED))


async def test_a_compressed_page_is_changed_and_compressed_again(journeys: Any) -> None:
    packed = gzip.compress(PAGE)
    go = journeys(
        POLICY.replace("RULE", "true"),
        lambda origin, request: html(packed, ("content-encoding", "gzip")),
    )
    trip = await go(accept_encoding="gzip")
    assert trip.header("content-encoding") == "gzip"
    assert gzip.decompress(trip.body) == CHANGED


async def test_a_404_page_is_a_page_too(journeys: Any) -> None:
    go = journeys(POLICY.replace("RULE", "true"), lambda origin, request: html(PAGE, status=404))
    assert (await go()).body == CHANGED


@pytest.mark.parametrize(
    ("rule", "response"),
    [
        ("true", html(b"<a href=/x>")),
        ("true", html(PAGE, ("content-encoding", "br"))),
        ("true", html(b"broken", ("content-encoding", "gzip"))),
        ("true", html(PAGE, status=500)),
        ("{max_size: 10B}", html(PAGE)),
        ("{types: application/xhtml+xml}", html(PAGE)),
        ("true", Response(200, Headers.of(("etag", '"1"')), Body(PAGE))),
    ],
    ids=["no link", "brotli", "damaged", "500", "too long", "other type", "no type"],
)
async def test_what_is_not_changed_is_left_as_it_is(
    journeys: Any, rule: str, response: Response
) -> None:
    before = response.body.data

    def answer(origin: Origin, request: Request) -> Response:
        return response.copy()

    trip = await journeys(POLICY.replace("RULE", rule), answer)()
    assert await trip.response.body.read(1000) == before
    assert trip.header("etag") == '"1"'


async def test_two_public_names_have_two_copies(journeys: Any) -> None:
    go = journeys(POLICY.replace("RULE", "true"), lambda origin, request: html(PAGE))
    await go()
    request = Request("GET", "second.example", "/")
    from edgeproxy.http import Exchange
    from edgeproxy.pipeline import handle

    async def fetch(origin: Origin, request: Request) -> Response:
        return html(PAGE)

    response = await handle(Exchange(request), go.plan, fetch)
    assert response.body.data == b'<a href="http://second.example/x">x</a>'
