"""What a site says of its own pages: links, sitemaps, robots.txt. Pure functions.

Everything read here was written by somebody else: nothing raises but `BadSitemap`, nothing is
fetched, no entity is expanded, and sizes are bounded.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.robotparser import RobotFileParser
from xml.parsers import expat

MAX_LINKS = 20_000  # of one page
MAX_URLS = 50_000  # of one sitemap; the protocol's own bound, as is the next
MAX_SITEMAP_BYTES = 50 * 1024 * 1024
MAX_URL_LENGTH = 8192

_BLANKS = re.compile(r"[\x00-\x20]+")
_UNSAFE = re.compile(r"[^!#$%&'()*+,/:;=?@\[\]~A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Links:
    """Absolute URLs: `pages` that a visitor may go to, `parts` that a browser fetches by itself."""

    pages: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


class BadSitemap(ValueError):
    """It is no sitemap, or one that nobody should read."""


# ------------------------------------------------------------ addresses


def absolute(link: str, base: str) -> str | None:
    """`link` of a page at `base`, without its fragment; None if it does not lead to a page."""
    link = _BLANKS.sub(" ", link).strip()
    if len(link) > MAX_URL_LENGTH:
        return None
    try:
        parts = urlsplit(urljoin(base, link.replace(" ", "%20")))
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or not host.isascii():
        return None
    usual = 443 if parts.scheme == "https" else 80
    name = f"[{host}]" if ":" in host else host.lower()
    authority = name if port in (None, usual) else f"{name}:{port}"
    path, query = _escaped(parts.path or "/"), _escaped(parts.query)
    return urlunsplit((parts.scheme, authority, path, query, ""))


def _escaped(text: str) -> str:
    return _UNSAFE.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "replace")), text
    )


@dataclass(frozen=True, slots=True)
class Site:
    """One site under its own address and others: what lies below an alias lies below the root."""

    root: str  # scheme, authority and a slash
    aliases: tuple[str, ...] = ()

    def own(self, url: str) -> str | None:
        """`url` as an address of the site; None if it is another's."""
        if url.startswith(self.root):
            return url
        for alias in self.aliases:
            if url.startswith(alias):
                return self.root + url[len(alias) :].lstrip("/")
        return None


def site_of(url: str, aliases: Iterable[str] = ()) -> Site:
    """The site that `url` is of. ValueError for what is no http URL."""
    found = absolute(url, url)
    others = [absolute(alias, alias) for alias in aliases]
    if found is None or None in others:
        raise ValueError(f"{url!r} is not an http or https URL")
    parts = urlsplit(found)
    folders = [other if other.endswith("/") else f"{other}/" for other in others if other]
    return Site(f"{parts.scheme}://{parts.netloc}/", tuple(folders))


# ------------------------------------------------------------ pages and style sheets

_PAGES = {"a": "href", "area": "href", "iframe": "src", "frame": "src"}
_PARTS = {
    "img": ("src",), "script": ("src",), "source": ("src",), "video": ("src", "poster"),
    "audio": ("src",), "track": ("src",), "embed": ("src",), "object": ("data",),
    "input": ("src",), "use": ("href", "xlink:href"), "image": ("href", "xlink:href"),
}  # fmt: skip
_PART_RELATIONS = frozenset(
    ("stylesheet", "icon", "shortcut", "apple-touch-icon", "mask-icon", "manifest", "preload",
     "modulepreload", "prefetch", "search", "alternate")
)  # fmt: skip
_PAGE_RELATIONS = frozenset(("next", "prev", "canonical", "index", "first", "last"))


class _Page(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.base = url
        self.pages: dict[str, None] = {}
        self.parts: dict[str, None] = {}
        self._style: list[str] | None = None
        self._has_base = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in reversed(attrs)}
        if tag == "base" and "href" in found and not self._has_base:
            self.base = absolute(found["href"], self.base) or self.base
            self._has_base = True
        elif tag == "link" and "href" in found:
            relations = set(found.get("rel", "").lower().split())
            if relations & _PART_RELATIONS:
                self._add(self.parts, found["href"])
            elif relations & _PAGE_RELATIONS:
                self._add(self.pages, found["href"])
        elif tag == "meta" and found.get("http-equiv", "").lower() == "refresh":
            _, equals, target = found.get("content", "").partition("=")
            if equals:
                self._add(self.pages, target.strip(" '\""))
        elif tag in _PAGES and _PAGES[tag] in found:
            self._add(self.pages, found[_PAGES[tag]])
        for name in _PARTS.get(tag, ()):
            if name in found:
                self._add(self.parts, found[name])
        if tag in ("img", "source"):
            for candidate in _candidates(found.get("srcset", "")):
                self._add(self.parts, candidate)
        for link in css_links(found.get("style", "")):
            self._add(self.parts, link)
        if tag == "style":
            self._style = []

    def handle_data(self, data: str) -> None:
        if self._style is not None:
            self._style.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "style" and self._style is not None:
            for link in css_links("".join(self._style)):
                self._add(self.parts, link)
            self._style = None

    def _add(self, where: dict[str, None], link: str) -> None:
        if link.lstrip().startswith("#") or len(where) >= MAX_LINKS:
            return
        url = absolute(link, self.base)
        if url is not None:
            where[url] = None


def _candidates(srcset: str) -> list[str]:
    """The URLs of `srcset`: each may hold commas, as long as it does not end with one."""
    return [url.rstrip(",") for url in re.findall(r"(?:^|,)[\s,]*([^\s,]\S*)", srcset)]


def html_links(text: str, url: str) -> Links:
    """What the page `text`, fetched from `url`, links to; each URL once, in its order."""
    page = _Page(url)
    try:
        page.feed(text)
        page.close()
    except (AssertionError, ValueError):
        pass  # what the parser cannot read is left out
    return Links(tuple(page.pages), tuple(name for name in page.parts if name not in page.pages))


_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_CSS_URL = re.compile(
    r"""(?:url\(\s*(?:"([^"\n]*)"|'([^'\n]*)'|([^\s"'()]+))\s*\)|@import\s+(?:"([^"\n]*)"|'([^'\n]*)'))""",
    re.IGNORECASE,
)


def css_links(text: str) -> list[str]:
    """The addresses in a style sheet, as they are written."""
    if "url(" not in text.lower() and "@import" not in text.lower():
        return []
    found = (match for match in _CSS_URL.finditer(_COMMENT.sub(" ", text)))
    links = [next((group for group in match.groups() if group), "") for match in found]
    return [link for link in links[:MAX_LINKS] if link and not link.startswith(("data:", "#"))]


# ------------------------------------------------------------ sitemaps


@dataclass(slots=True)
class Sitemap:
    """What a sitemap names: pages, and in an index other sitemaps."""

    pages: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)


def unpacked(data: bytes) -> bytes:
    """`data`, decompressed if it is gzip. Raises BadSitemap."""
    if not data.startswith(b"\x1f\x8b"):
        if len(data) > MAX_SITEMAP_BYTES:
            raise BadSitemap("it is larger than 50 MiB")
        return data
    try:
        unzip = zlib.decompressobj(31)
        text = unzip.decompress(data, MAX_SITEMAP_BYTES)
    except zlib.error as error:
        raise BadSitemap(f"its gzip is damaged: {error}") from None
    if unzip.unconsumed_tail:
        raise BadSitemap("it is larger than 50 MiB")
    return text


def sitemap(data: bytes, url: str) -> Sitemap:
    """What the sitemap `data`, fetched from `url`, names. Raises BadSitemap.

    XML as sitemaps.org has it, or a URL a line. A document type is refused, and with it all
    entities; nothing outside the file is ever read.
    """
    data = unpacked(data)
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _text_sitemap(data, url)
    found = Sitemap()
    path: list[str] = []
    text: list[str] = []

    def opens(name: str, _: object) -> None:
        path.append(name.rpartition(" ")[2])
        if len(path) > 32:
            raise BadSitemap("its elements are nested too deep")
        text.clear()

    def closes(_: str) -> None:
        if path[-1] == "loc" and len(path) == 3:
            where = {"url": found.pages, "sitemap": found.sitemaps}.get(path[1])
            location = absolute("".join(text), url)
            if where is not None and location is not None and len(where) < MAX_URLS:
                where.append(location)
        path.pop()
        text.clear()

    def refuse(*_: object) -> None:
        raise BadSitemap("it has a document type, which no sitemap needs")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = opens
    parser.EndElementHandler = closes
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, BadSitemap):
            raise
        raise BadSitemap(f"it is not XML: {error}") from None
    return found


def _text_sitemap(data: bytes, url: str) -> Sitemap:
    lines = data.decode("utf-8-sig", "replace").split()
    if not lines or not all(line.startswith(("http://", "https://")) for line in lines):
        raise BadSitemap("it is neither XML nor a list of URLs")
    urls = (absolute(line, url) for line in lines[:MAX_URLS])
    return Sitemap([found for found in urls if found is not None])


# ------------------------------------------------------------ robots.txt


class Robots:
    """What robots.txt asks of `agent` (RFC 9309)."""

    def __init__(self, text: str, agent: str) -> None:
        self._agent = agent
        self._rules = RobotFileParser()
        self._rules.parse(text[: 512 * 1024].splitlines())

    def allows(self, url: str) -> bool:
        return self._rules.can_fetch(self._agent, url)

    @property
    def delay_s(self) -> float:
        """Between two requests, at least."""
        return float(self._rules.crawl_delay(self._agent) or 0)

    @property
    def sitemaps(self) -> list[str]:
        return list(self._rules.site_maps() or ())
