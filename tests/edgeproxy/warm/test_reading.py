"""What a site says of its pages is read whole, and nothing that it says does harm."""

from __future__ import annotations

import contextlib
import gzip
import html
import zlib
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.warm.reading import (
    MAX_SITEMAP_BYTES,
    BadSitemap,
    Robots,
    absolute,
    css_links,
    html_links,
    site_of,
    sitemap,
)

BASE = "http://a.org/docs/page.html"

SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="/\\"), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("b.html", "http://a.org/docs/b.html"),
        ("../b#part", "http://a.org/b"),
        ("/b?x=1&y=2", "http://a.org/b?x=1&y=2"),
        ("?x", "http://a.org/docs/page.html?x"),
        ("//B.org/c", "http://b.org/c"),
        ("HTTPS://a.org:443/c", "https://a.org/c"),
        ("http://a.org:8080", "http://a.org:8080/"),
        (" \n /two words\t", "http://a.org/two%20words"),
        ("/ü", "http://a.org/%C3%BC"),
        ("/%c3%bc", "http://a.org/%c3%bc"),
        ("/a<b>\"", "http://a.org/a%3Cb%3E%22"),
        ("#top", "http://a.org/docs/page.html"),
        ("mailto:me@a.org", None),
        ("javascript:void(0)", None),
        ("data:text/plain,x", None),
        ("tel:123", None),
        ("http://a.org:99999/", None),
        ("http://[::1/", None),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("x" * 9000, None),
    ],
)  # fmt: skip
def test_links_become_addresses(link: str, url: str | None) -> None:
    assert absolute(link, BASE) == url


@given(st.text(max_size=60))
def test_every_address_can_be_sent(link: str) -> None:
    url = absolute(link, BASE)
    if url is not None:
        assert url.isascii()
        assert not set(url) & set(' \t\r\n<>"#')
        assert urlsplit(url).scheme in ("http", "https")
        assert absolute(url, BASE) == url


@given(st.lists(SEGMENT, min_size=1, max_size=4), st.sampled_from(["a", "area", "iframe"]))
def test_whatever_a_page_links_to_is_found(segments: list[str], tag: str) -> None:
    link = "/" + "/".join(segments)
    attribute = "src" if tag == "iframe" else "href"
    links = html_links(f'<{tag} {attribute}="{html.escape(link)}">', BASE)
    expected = absolute(link, BASE)
    assert links.pages == (() if expected is None else (expected,))


@given(st.text(max_size=300))
def test_no_page_does_harm(text: str) -> None:
    html_links(text, BASE)
    html_links(f"<style>{text}</style><a href='{text}'>", BASE)
    css_links(text)


def test_all_that_a_browser_fetches_is_found() -> None:
    text = """<!doctype html><base href="/assets/"><base href="/not/">
    <link rel="stylesheet" href="a.css"><link rel="shortcut icon" href="b.ico">
    <link rel="dns-prefetch" href="//c.org"><link rel=next href="/next">
    <meta http-equiv=refresh content="0; url='/moved'">
    <script src=d.js></script><img src="e.png" srcset="f.png 1x, g,h.png 2x" alt="<a href=no>">
    <picture><source srcset="i.webp,j.webp 2x"></picture>
    <video poster="k.jpg"><source src="l.mp4"><track src="m.vtt"></video>
    <svg><use xlink:href="n.svg#icon"/></svg><p style="background: url('o.png')">
    <style>@import "p.css"; p { background: url(q.png) } /* url(r.png) */</style>
    <!-- <a href="/comment"> --><script>"<a href='/script'>"</script>
    <a href="/x">x</a><a href="/x#y">again</a><a name=z>no</a><a href="mailto:m@a.org">m</a>"""
    links = html_links(text, BASE)
    assert links.pages == ("http://a.org/next", "http://a.org/moved", "http://a.org/x")
    names = [part.removeprefix("http://a.org/assets/") for part in links.parts]
    assert names == [
        "a.css", "b.ico", "d.js", "e.png", "f.png", "g,h.png", "i.webp,j.webp", "k.jpg", "l.mp4",
        "m.vtt", "n.svg", "o.png", "p.css", "q.png",
    ]  # fmt: skip


def test_style_sheets_name_what_they_need() -> None:
    text = """@import 'a.css'; @import url("b.css") print;
    @font-face { src: url(c.woff2) format("woff2"), url( 'd.woff' ) }
    i { background: URL(data:image/png;base64,AAAA) } /* url(no.png) */ j { fill: url(#k) }"""
    assert css_links(text) == ["a.css", "b.css", "c.woff2", "d.woff"]


# ---------------------------------------------------------------- sitemaps

NAMESPACE = "http://www.sitemaps.org/schemas/sitemap/0.9"


def urlset(*locations: str) -> bytes:
    entries = "".join(f"<url><loc>{html.escape(loc)}</loc></url>" for loc in locations)
    return f'<?xml version="1.0"?><urlset xmlns="{NAMESPACE}">{entries}</urlset>'.encode()


URLS = st.lists(st.from_regex(r"http://a\.org/[a-z0-9/&=?;']{0,20}", fullmatch=True), max_size=8)


@given(URLS, st.booleans())
def test_a_sitemap_is_read_whole(urls: list[str], packed: bool) -> None:
    data = urlset(*urls)
    found = sitemap(gzip.compress(data) if packed else data, BASE)
    assert found.pages == [absolute(url, BASE) for url in urls]
    assert found.sitemaps == []


@given(st.binary(max_size=200))
def test_no_sitemap_does_harm(data: bytes) -> None:
    for each in (data, b"<urlset>" + data, b"\x1f\x8b" + data, urlset() + data):
        with contextlib.suppress(BadSitemap):
            sitemap(each, BASE)


def test_an_index_names_sitemaps() -> None:
    data = (
        f'<sitemapindex xmlns="{NAMESPACE}"><sitemap><loc>\n http://a.org/1.xml.gz </loc>'
        "<lastmod>2026-01-01</lastmod></sitemap></sitemapindex>"
    )
    assert sitemap(data.encode(), BASE).sitemaps == ["http://a.org/1.xml.gz"]


def test_what_stands_deeper_is_no_page() -> None:
    data = (
        '<urlset xmlns:image="i"><url><loc>http://a.org/1</loc><image:image>'
        "<image:loc>http://a.org/1.png</image:loc></image:image></url></urlset>"
    )
    assert sitemap(data.encode(), BASE).pages == ["http://a.org/1"]


def test_a_sitemap_may_be_a_list() -> None:
    assert sitemap(b"\xef\xbb\xbfhttp://a.org/1\r\nhttp://a.org/2\n", BASE).pages == [
        "http://a.org/1",
        "http://a.org/2",
    ]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>
<urlset><url><loc>http://a.org/&c;</loc></url></urlset>"""
FILE = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>
<urlset><url><loc>http://a.org/&b;</loc></url></urlset>"""


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not a sitemap", b"<html", BOMB, FILE, b"<a>" * 100_000,
        b'<?xml version="1.0" encoding="x-none"?><a/>',
        b'<!DOCTYPE a SYSTEM "http://b.org/a.dtd"><a/>',
        gzip.compress(b"<urlset/>", mtime=0)[:12] + b"\xff" * 20,
    ],
)  # fmt: skip
def test_what_nobody_should_read_is_refused(data: bytes) -> None:
    with pytest.raises(BadSitemap):
        sitemap(data, BASE)


def test_a_bomb_of_gzip_is_refused_in_time() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join(packer.compress(b" " * 2**20) for _ in range(MAX_SITEMAP_BYTES // 2**20 + 2))
    with pytest.raises(BadSitemap, match="larger than 50 MiB"):
        sitemap(data + packer.flush(), BASE)


# ---------------------------------------------------------------- sites and robots.txt


def test_a_site_may_have_other_addresses() -> None:
    site = site_of("http://127.0.0.1:8080/docs/", ["https://you.github.io/project"])
    assert site.own("http://127.0.0.1:8080/x") == "http://127.0.0.1:8080/x"
    assert site.own("https://you.github.io/project/a/b") == "http://127.0.0.1:8080/a/b"
    assert site.own("https://you.github.io/projects/") is None
    assert site.own("http://127.0.0.1:80801/") is None


@pytest.mark.parametrize("url", ["", "ftp://a.org/", "http://", "a.org"])
def test_what_is_no_site_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not an http or https URL"):
        site_of(url)


def test_robots_are_heeded() -> None:
    robots = Robots(
        "User-agent: *\nDisallow: /private/\nCrawl-delay: 2\nSitemap: http://a.org/s.xml\n", "warm"
    )
    assert robots.allows("http://a.org/public")
    assert not robots.allows("http://a.org/private/x")
    assert robots.delay_s == 2
    assert robots.sitemaps == ["http://a.org/s.xml"]


@given(st.text(max_size=200))
def test_no_robots_txt_does_harm(text: str) -> None:
    robots = Robots(text, "warm")
    robots.allows("http://a.org/x")
    assert robots.delay_s >= 0
    assert isinstance(robots.sitemaps, list)
