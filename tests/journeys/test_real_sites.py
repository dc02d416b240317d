"""Whole sites, as their owners publish them, look the same through the proxy."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import pytest

from edgeproxy.pages import Pages
from edgeproxy.testing import Proxy, Reply, running

POLICY = """\
version: 1
origins:
  site: {url: "https://example.github.io/"}
cache:
  memory: {max_size: 64MiB}
  rules: {all: {status_ttl: {301: 60s, 404: 30s}}}
routes:
  - {name: site, cache: all}
"""

SITES = ("httpcore-docs", "keepachangelog")


@asynccontextmanager
async def published(shared_sites: Path, name: str) -> AsyncIterator[tuple[Path, Pages, Proxy]]:
    """`httpcore-docs` lies at a base path, `keepachangelog` has a domain of its own."""
    root = shared_sites / name / "site"
    base = "/httpcore/" if name == "httpcore-docs" else "/"
    # The second set-up: the origin's own name is the custom domain.
    domain = "127.0.0.1" if name == "keepachangelog" else None
    async with (
        Pages(root, base=base, host="127.0.0.1" if domain is None else None, domain=domain) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        yield root, site, proxy


def files(root: Path) -> list[Path]:
    found = [path for path in root.rglob("*") if path.is_file()]
    return [
        path for path in found if not any(p.startswith(".") for p in path.relative_to(root).parts)
    ]


class Links(HTMLParser):
    """Every `href` and `src` of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "link" and dict(attrs).get("rel") in ("preconnect", "dns-prefetch"):
            return
        self.found.update(value for name, value in attrs if name in ("href", "src") and value)


async def followed(proxy: Proxy, target: str) -> tuple[str, Reply]:
    """What a browser ends up with: redirects are followed, and must stay on the public name."""
    for _ in range(5):
        reply = await proxy.get(target)
        if not 300 <= reply.status < 400:
            return target, reply
        place = urlsplit(urljoin(proxy.url.rstrip("/") + target, reply.headers["location"]))
        assert place.netloc == urlsplit(proxy.url).netloc, (target, reply.headers["location"])
        target = place.path + (f"?{place.query}" if place.query else "")
    raise AssertionError(f"{target} redirects for ever")


@pytest.mark.parametrize("name", SITES)
async def test_every_file_is_byte_identical_with_and_without_gzip(
    shared_sites: Path, name: str
) -> None:
    async with published(shared_sites, name) as (root, _, proxy):
        compressed = 0
        for file in files(root):
            target = "/" + quote(file.relative_to(root).as_posix())
            for coding in (None, "identity", "gzip", "br, gzip"):
                headers = {} if coding is None else {"accept-encoding": coding}
                reply = await proxy.get(target, headers=headers)
                assert reply.status == 200, target
                body = reply.body
                if reply.headers.get("content-encoding") == "gzip":
                    assert coding in ("gzip", "br, gzip"), target
                    body = gzip.decompress(body)
                    compressed += 1
                assert body == file.read_bytes(), (target, coding)
                assert reply.headers["content-length"] == str(len(reply.body)), target
        assert compressed > 20


@pytest.mark.parametrize("name", SITES)
async def test_a_file_has_the_type_and_validators_that_pages_gives_it(
    shared_sites: Path, name: str
) -> None:
    async with published(shared_sites, name) as (root, site, proxy):
        for file in files(root):
            target = "/" + quote(file.relative_to(root).as_posix())
            reply = await proxy.get(target)
            head = await proxy.get(target, method="HEAD")
            assert head.status == 200
            assert head.body == b""
            for field in ("content-type", "etag", "last-modified", "content-length"):
                assert head.headers[field] == reply.headers[field], (target, field)
            again = await proxy.get(target, headers={"if-none-match": reply.headers["etag"]})
            assert (again.status, again.body) == (304, b""), target
        assert {request.headers["Host"] for request in site.log} == {f"127.0.0.1:{site.port}"}


@pytest.mark.parametrize("name", SITES)
async def test_every_internal_link_resolves_under_the_public_name(
    shared_sites: Path, name: str
) -> None:
    async with published(shared_sites, name) as (root, site, proxy):
        base = proxy.url.rstrip("/")
        direct = site.url.rstrip("/").removesuffix("/httpcore")
        checked: dict[str, int] = {}
        for file in sorted(root.rglob("*.html")):
            path = file.relative_to(root).as_posix().removesuffix("index.html")
            page, reply = await followed(proxy, "/" + quote(path))
            assert reply.status == 200
            links = Links()
            links.feed(reply.body.decode())
            for link in links.found:
                url = urlsplit(urljoin(base + page, link))
                if url.scheme != "http" or f"http://{url.netloc}" != base or url.path in checked:
                    continue
                _, answer = await followed(proxy, url.path)
                checked[url.path] = answer.status
                if answer.status != 200:
                    # Broken in the site itself, and not by the proxy.
                    prefix = "" if url.path.startswith(urlsplit(site.url).path) else "/httpcore"
                    origin = await straight(f"{direct}{prefix}{url.path}")
                    assert origin == answer.status, url.path
        assert len(checked) > 15
        broken = [path for path, status in checked.items() if status != 200]
        assert len(broken) * 10 < len(checked), broken


async def straight(url: str) -> int:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def test_a_missing_page_has_status_404_and_the_page_of_the_site(shared_sites: Path) -> None:
    async with published(shared_sites, "httpcore-docs") as (root, _, proxy):
        for _ in range(2):  # from the origin, then from the cache
            reply = await proxy.get("/no/such/page")
            assert reply.status == 404
            assert reply.body == (root / "404.html").read_bytes()
        assert "hit" in reply.cache_status


async def test_a_site_without_a_page_for_it_has_the_default_404(shared_sites: Path) -> None:
    async with published(shared_sites, "keepachangelog") as (_, _, proxy):
        reply = await proxy.get("/ar/1.1.0/")
        assert reply.status == 404
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert reply.body


@pytest.mark.parametrize(
    ("name", "target", "location"),
    [
        ("httpcore-docs", "/quickstart", "/quickstart/"),
        ("httpcore-docs", "/quickstart?x=1", "/quickstart/?x=1"),
        ("keepachangelog", "/fr", "/fr/"),
        ("keepachangelog", "/fr/1.1.0", "/fr/1.1.0/"),
    ],
)
async def test_the_redirect_to_a_directory_stays_on_the_public_name(
    shared_sites: Path, name: str, target: str, location: str
) -> None:
    async with published(shared_sites, name) as (_, _, proxy):
        reply = await proxy.get(target)
        assert reply.status == 301
        assert reply.headers["location"] == proxy.url.rstrip("/") + location


async def test_bytes_that_look_compressed_stay_as_they_are(shared_sites: Path) -> None:
    async with published(shared_sites, "httpcore-docs") as (root, _, proxy):
        reply = await proxy.get("/sitemap.xml.gz", headers={"accept-encoding": "gzip"})
        assert reply.headers["content-type"] == "application/gzip"
        assert "content-encoding" not in reply.headers
        assert reply.body == (root / "sitemap.xml.gz").read_bytes()


async def test_fields_of_the_origins_cdn_do_not_reach_the_visitor(shared_sites: Path) -> None:
    async with published(shared_sites, "keepachangelog") as (_, _, proxy):
        reply = await proxy.get("/fr/1.1.0/")
        for field in (
            "x-served-by", "x-cache", "x-cache-hits", "x-timer", "x-fastly-request-id",
            "x-github-request-id", "expires", "server",
        ):  # fmt: skip
            assert field not in reply.headers
        assert reply.headers["via"] == "1.1 edgeproxy"
