"""What one page says of its site: language, translations, feeds, what it loads. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlsplit

from edgeproxy.warm.crawl import Got, text_of
from edgeproxy.warm.reading import Links, absolute, html_links

MAX_NOTED = 200  # of anything, on one page
_FEEDS = ("application/rss+xml", "application/atom+xml", "application/feed+json")
_UNSEEN = frozenset(("script", "style", "noscript", "template", "title"))
_KINDS = {
    "script": "script-src", "img": "img-src", "iframe": "frame-src", "frame": "frame-src",
    "video": "media-src", "audio": "media-src", "object": "object-src", "embed": "object-src",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """An HTML page. Links are absolute URLs; `loads` is what a browser fetches, by CSP directive.

    `refresh` is where a page leads that only sends its visitors on, `choices` what its lists of
    choices hold that may be addresses, as it is written. `words` are those that a visitor sees.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    links: Links
    language: str = ""
    translations: Mapping[str, str] = field(default_factory=dict)
    feeds: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    loads: tuple[tuple[str, str], ...] = ()
    refresh: str | None = None
    words: str = ""
    script: str = ""
    posts: bool = False
    own_links: int = 0  # that name the page's own host


def read_page(got: Got, url: str) -> Page | None:
    """The page that was got from `url`; None if it is none."""
    kind = got.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("text/html", "application/xhtml+xml"):
        return None
    text = text_of(got)
    reader = _Reader(url)
    try:
        reader.feed(text)
        reader.close()
    except (AssertionError, ValueError):
        pass  # what the parser cannot read is left out
    return Page(
        url=url,
        status=got.status,
        headers=got.headers,
        links=html_links(text, url),
        language=reader.language,
        translations=reader.translations,
        feeds=tuple(reader.feeds),
        choices=tuple(reader.choices),
        loads=tuple(reader.loads),
        refresh=reader.refresh,
        words=" ".join("".join(reader.words).split()),
        script="".join(reader.scripts),
        posts=reader.posts,
        own_links=reader.own_links,
    )


class _Reader(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.url = url
        self.language = ""
        self.translations: dict[str, str] = {}
        self.feeds: dict[str, None] = {}
        self.choices: dict[str, None] = {}
        self.loads: dict[tuple[str, str], None] = {}
        self.refresh: str | None = None
        self.posts = False
        self.own_links = 0
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside: list[str] = []
        host = urlsplit(url).netloc
        self._own = tuple(f"{scheme}//{host}/" for scheme in ("http:", "https:", ""))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in reversed(attrs)}
        if tag == "html":
            self.language = found.get("lang", "")
        elif tag == "link":
            self._link(found)
        elif tag == "meta" and found.get("http-equiv", "").lower() == "refresh":
            _, equals, target = found.get("content", "").partition("=")
            self.refresh = absolute(target.strip(" '\""), self.url) if equals else None
        elif tag == "form":
            self.posts = self.posts or found.get("method", "").lower() == "post"
        elif tag == "option" and "/" in found.get("value", "") and len(self.choices) < MAX_NOTED:
            self.choices[found["value"]] = None
        for link in (found.get(name, "") for name in ("href", "src") if tag != "link"):
            self.own_links += link.startswith(self._own)
        if tag in _KINDS:
            self._load(_KINDS[tag], found.get("src") or found.get("data", ""))
        if tag in _UNSEEN:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)
        elif self._inside[-1] == "script":
            self.scripts.append(data)

    def _link(self, found: Mapping[str, str]) -> None:
        relations = found.get("rel", "").lower().split()
        link = found.get("href", "")
        if "stylesheet" in relations:
            self._load("style-src", link)
        elif "icon" in relations:
            self._load("img-src", link)
        elif "alternate" in relations and found.get("type", "").lower() in _FEEDS:
            self._note(self.feeds, link)
        elif "alternate" in relations and found.get("hreflang"):
            url = absolute(link, self.url)
            if url is not None and len(self.translations) < MAX_NOTED:
                self.translations.setdefault(found["hreflang"], url)

    def _load(self, directive: str, link: str) -> None:
        url = absolute(link, self.url) if link else None
        if url is not None and len(self.loads) < MAX_NOTED:
            self.loads[directive, url] = None

    def _note(self, where: dict[str, None], link: str) -> None:
        url = absolute(link, self.url)
        if url is not None and len(where) < MAX_NOTED:
            where[url] = None
