"""Two real sites, as their owners publish them, to the byte."""

import asyncio
import http.client
from pathlib import Path

import pytest

from edgeproxy.pages import Pages

HTML = "text/html; charset=utf-8"
BINARY = "application/octet-stream"
DEFAULT_PAGE = None  # as long as it may be

KEEPACHANGELOG = [
    ("GET", "/fr", 301, 162, "text/html", "/fr/"),
    ("GET", "/fr/", 200, 242, HTML, None),
    ("GET", "/fr/1.1.0/", 200, 28751, HTML, None),
    ("GET", "/en/2.0.0/index.html", 200, 41286, HTML, None),
    ("GET", "/ar/1.1.0/", 404, DEFAULT_PAGE, HTML, None),
    ("GET", "/assets/stylesheets/anchors", 200, 312, BINARY, None),
    ("GET", "/assets/images/hero-topo@2x-9ebcd427.webp", 200, 139526, "image/webp", None),
    ("GET", "/FR/1.1.0/", 404, DEFAULT_PAGE, HTML, None),
    ("GET", "/CNAME", 200, 19, BINARY, None),
    ("GET", "/.nojekyll", 404, DEFAULT_PAGE, HTML, None),
]

HTTPCORE = [
    ("GET", "/httpcore", 301, 162, "text/html", "/httpcore/"),
    ("GET", "/httpcore/quickstart?x=1", 301, 162, "text/html", "/httpcore/quickstart/?x=1"),
    ("GET", "/httpcore/404", 200, 13635, HTML, None),
    ("GET", "/httpcore/nope", 404, 13635, HTML, None),
    ("GET", "/httpcore/objects.inv", 200, 602, BINARY, None),
    ("GET", "/httpcore/sitemap.xml.gz", 200, 315, "application/gzip", None),
    ("POST", "/httpcore/", 405, 150, "text/html", None),
]


async def check(
    pages: Pages, method: str, target: str, status: int, size: int | None, kind: str, to: str | None
) -> None:
    def ask() -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", pages.port, timeout=10)
        try:
            connection.request(method, target)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    found, headers, body = await asyncio.to_thread(ask)
    assert (found, headers["Content-Type"]) == (status, kind)
    assert int(headers["Content-Length"]) == len(body)
    assert size is None or len(body) == size
    location = to and f"http://127.0.0.1:{pages.port}{to}"
    assert headers.get("Location") == location


@pytest.mark.parametrize(("method", "target", "status", "size", "kind", "to"), KEEPACHANGELOG)
async def test_site_with_a_custom_domain(
    shared_sites: Path, method: str, target: str, status: int, size: int | None, kind: str,
    to: str | None,
) -> None:  # fmt: skip
    async with Pages(shared_sites / "keepachangelog" / "site") as pages:
        await check(pages, method, target, status, size, kind, to)


@pytest.mark.parametrize(("method", "target", "status", "size", "kind", "to"), HTTPCORE)
async def test_project_site_under_a_base_path(
    shared_sites: Path, method: str, target: str, status: int, size: int | None, kind: str,
    to: str | None,
) -> None:  # fmt: skip
    async with Pages(shared_sites / "httpcore-docs" / "site", base="/httpcore/") as pages:
        assert pages.url == f"http://127.0.0.1:{pages.port}/httpcore/"
        await check(pages, method, target, status, size, kind, to)
