"""The built site: no warning, every link leads somewhere, nothing comes from another host."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
import pytest

from edgeproxy.pages import Pages
from tests.docs.blocks import DOCS, ROOT

BASE = "http://site.test/"
LOADS = {"img", "script", "source", "iframe", "link", "use", "video", "audio", "embed"}


@dataclass
class Page(HTMLParser):
    """What a page links to and what can be linked to in it."""

    file: Path
    links: list[tuple[str, str]] = field(default_factory=list)  # tag, address
    anchors: set[str] = field(default_factory=set)
    language: str | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "html":
            self.language = found.get("lang")
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.links += [(tag, found[name]) for name in ("href", "src") if found.get(name)]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make check` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "dirhtml"),
            *("-d", folder / "doctrees", DOCS, folder / "html"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, Page]:
    """Every page by its address below the root."""
    return {
        path.relative_to(site).as_posix().removesuffix("index.html"): Page(path)
        for path in site.rglob("*.html")
    }


def test_there_are_pages_enough_in_two_languages(pages: dict[str, Page], site: Path) -> None:
    assert len(pages) >= 15
    assert pages[""].language == "en"
    assert pages["de/"].language == "de"
    assert (site / "404.html").is_file()
    assert not (site / "404").exists()


def addresses(page: str, found: Page) -> Iterator[tuple[str, str, str]]:
    """Each link of a page within the site: as written, path, fragment."""
    for _, link in found.links:
        parts = urlsplit(urljoin(BASE + page, link))
        if f"{parts.scheme}://{parts.netloc}/" == BASE:
            yield link, unquote(parts.path.lstrip("/")), parts.fragment


def test_every_internal_link_leads_somewhere(pages: dict[str, Page], site: Path) -> None:
    broken: list[str] = []
    for name, page in pages.items():
        for link, path, fragment in addresses(name, page):
            if path in pages:
                if fragment and fragment not in pages[path].anchors:
                    broken.append(f"{name}: {link}: no such anchor")
            elif not (site / path).is_file():
                broken.append(f"{name}: {link}")
    assert broken == []


def test_the_page_for_what_is_not_there_links_from_the_root(pages: dict[str, Page]) -> None:
    for _, link in pages["404.html"].links:
        assert link.startswith(("/", "#", "https://")), link


async def test_that_page_is_what_a_visitor_sees_at_any_depth(site: Path) -> None:
    async with Pages(site) as origin, aiohttp.ClientSession() as session:
        for path in ("no-such-page", "a/b/c/d/"):
            async with session.get(f"{origin.url}{path}") as reply:
                assert reply.status == 404
                text = await reply.text()
                assert "Not found" in text
        (style,) = set(re.findall(r'href="(/_static/edgeproxy\.css[^"]*)"', text))
        async with session.get(urljoin(origin.url, style)) as reply:
            assert reply.status == 200


def test_nothing_comes_from_another_host(pages: dict[str, Page], site: Path) -> None:
    foreign = [
        f"{name}: {link}"
        for name, page in pages.items()
        for tag, link in page.links
        if tag in LOADS and urlsplit(link).netloc
    ]
    for style in site.rglob("*.css"):
        foreign += re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//\S+", style.read_text())
    assert foreign == []


@pytest.mark.parametrize("drawing", sorted(DOCS.rglob("*.svg")), ids=lambda path: path.name)
def test_drawings_are_small_and_stand_alone(drawing: Path) -> None:
    text = drawing.read_text()
    assert len(text) < 20_000
    assert "<script" not in text
    assert re.findall(r"(?:href|src)=\"(?!#)", text) == []
