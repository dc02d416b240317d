"""Looking at a site: few requests, one after the other, and only what robots.txt allows.

The network is behind `Get`; the clock and the pauses are handed in. When a bound is reached the
look is over, and what was seen until then is what there is.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from edgeproxy.warm.crawl import Got, Pace, Unreachable
from edgeproxy.warm.reading import BadSitemap, Robots, absolute, site_of, sitemap

from .page import Page, read_page

AGENT = "edgeproxy-init"
MAX_REQUESTS = 24
MAX_BYTES = 8 * 1024 * 1024
MAX_SECONDS = 60.0
MAX_REDIRECTS = 5
MAX_LANGUAGES = 4  # whose folders are looked at
MAX_MORE_PAGES = 5
NO_SUCH_PAGE = "edgeproxy-init-asks-for-what-is-not-there"

FOLDER = re.compile(r"[a-z]{2}(-[A-Za-z]{2,4})?")  # of a language, such as `de` or `pt-BR`
_NO_PAGE = re.compile(r"\.(?!html?$)[a-z0-9]{1,8}$")  # a path that ends in .pdf and the like

Get = Callable[[str], Awaitable[Got]]
"""Fetches a URL and follows nothing. Raises Unreachable."""


@dataclass(slots=True)
class Seen:
    """What a look at a site has shown. `base` is its folder on its host, with slashes around."""

    asked_for: str
    home: Page
    base: str
    pages: dict[str, Page] = field(default_factory=dict)  # that are there, by URL
    missing: Got | None = None  # the answer for a page that is not there
    missing_page: Page | None = None
    slashes: dict[str, str] = field(default_factory=dict)  # a folder without its slash: where to
    languages: dict[str, Page | None] = field(default_factory=dict)  # by folder; None: not asked
    requests: int = 0

    @property
    def root(self) -> str:
        """The URL of the site: all of it lies below."""
        parts = urlsplit(self.home.url)
        return f"{parts.scheme}://{parts.netloc}{self.base}"

    def path(self, url: str) -> str | None:
        """The path of `url` as the site's visitors know it, without the base; None if outside."""
        found = url.partition("?")[0]
        return f"/{found.removeprefix(self.root)}" if found.startswith(self.root) else None

    def links(self) -> Iterator[str]:
        """The pages below the root that the pages seen lead to, each once."""
        found = [url for page in self.pages.values() for url in page.links.pages]
        for page in self.pages.values():  # scripts read their choices from one or the other
            for choice in page.choices:
                found += filter(None, (absolute(choice, page.url), absolute(choice, self.root)))
        yield from dict.fromkeys(url for url in found if self.path(url) is not None)


class Look:
    """Asks for one thing at a time, within bounds. A site that wants to be left alone is."""

    def __init__(self, get: Get, pace: Pace, now: Callable[[], float]) -> None:
        self._get, self._pace, self._now = get, pace, now
        self._until_s = now() + MAX_SECONDS
        self._robots = Robots("", AGENT)
        self.requests = self.bytes = 0

    async def heed_robots(self, root: str) -> None:
        """Raises Unreachable where nobody can know what is allowed (RFC 9309, section 2.3.1.4)."""
        got = await self.ask(f"{root}robots.txt")
        if got.status >= 500 or got.status == 429:
            raise Unreachable(f"its robots.txt is answered with {got.status}")
        if got.status == 200:
            self._robots = Robots(got.start.decode("utf-8-sig", "replace"), AGENT)
            self._pace.gap_s = max(self._pace.gap_s, self._robots.delay_s)

    @property
    def sitemaps(self) -> list[str]:
        return self._robots.sitemaps

    async def ask(self, url: str) -> Got:
        """Raises Unreachable, also for what robots.txt or the bounds do not allow."""
        if not self._robots.allows(url):
            raise Unreachable(f"its robots.txt does not allow {AGENT} to look at {url}")
        if self.requests >= MAX_REQUESTS or self.bytes >= MAX_BYTES:
            raise Unreachable("it was asked for enough")
        await self._pace.turn()
        if self._now() >= self._until_s:
            raise Unreachable("it takes too long")
        self.requests += 1
        got = await self._get(url)
        self.bytes += got.size
        return got

    async def try_for(self, url: str) -> Got | None:
        try:
            return await self.ask(url)
        except Unreachable:
            return None

    async def page(self, url: str) -> Page | None:
        """The page at `url`, or where its address or itself sends visitors to on the same host."""
        for _ in range(2):
            got = await self.try_for(url)
            page = read_page(got, url) if got is not None else None
            onward = page.refresh if page else _location(got, url) if got else None
            if onward is None or urlsplit(onward).netloc != urlsplit(url).netloc:
                return page if page is not None and page.status == 200 else None
            url = onward
        return None


async def survey(url: str, get: Get, pace: Pace, now: Callable[[], float]) -> Seen:
    """Look at the site at `url`. Raises ValueError for no URL, Unreachable for no site."""
    look = Look(get, pace, now)
    await look.heed_robots(site_of(url).root)
    home = await _arrive(look, url)
    seen = Seen(url, home, _base(home), {home.url: home})
    if home.refresh is not None and seen.path(home.refresh):
        await _add(seen, look, home.refresh)
        seen.base = _base(*seen.pages.values())
    await _ask_for_what_is_not_there(seen, look)
    candidates = [*seen.links(), *await _from_sitemap(seen, look)]
    await _ask_in_other_languages(seen, look, candidates)
    for link in _varied(seen, candidates):
        await _add(seen, look, link)
    await _ask_without_a_slash(seen, look)
    seen.requests = look.requests
    return seen


async def _arrive(look: Look, url: str) -> Page:
    """The page that `url` leads to in the end."""
    found = absolute(url, url) or url
    for _ in range(MAX_REDIRECTS + 1):
        got = await look.ask(found)
        onward = _location(got, found)
        if onward is None:
            break
        found = onward
    else:
        raise Unreachable(f"it redirects more than {MAX_REDIRECTS} times")
    if got.status != 200:
        raise Unreachable(f"{found} is answered with {got.status}")
    page = read_page(got, found)
    if page is None:
        raise Unreachable(f"{found} is not a page but {got.headers.get('content-type', 'nothing')}")
    return page


def _location(got: Got, url: str) -> str | None:
    if not 300 <= got.status < 400:
        return None
    return absolute(got.headers.get("location", ""), url)


def _base(*pages: Page) -> str:
    """The folder that the site is in: of the address, and of what its pages load beside it.

    Links do not count, since a project site may link to its neighbours.
    """
    parts = urlsplit(pages[0].url)
    folders = [parts.path.rpartition("/")[0].split("/")]
    for page in pages:
        loaded = [urlsplit(link) for link in page.links.parts]
        own = [part.path for part in loaded if part.netloc == parts.netloc]
        folders += [path.rpartition("/")[0].split("/") for path in own]
    common = folders[0]
    for folder in folders[1:]:
        same = [one == other for one, other in zip(common, folder, strict=False)]
        common = common[: same.index(False) if False in same else len(same)]
    return "/".join(common) + "/"


async def _add(seen: Seen, look: Look, url: str) -> None:
    page = await look.page(url)
    if page is not None and seen.path(page.url) is not None:
        seen.pages.setdefault(page.url, page)


async def _ask_for_what_is_not_there(seen: Seen, look: Look) -> None:
    url = f"{seen.root}{NO_SUCH_PAGE}"
    seen.missing = await look.try_for(url)
    seen.missing_page = read_page(seen.missing, url) if seen.missing is not None else None


async def _from_sitemap(seen: Seen, look: Look) -> list[str]:
    """What the sitemap names; of an index, what its first sitemap does."""
    waiting = [*look.sitemaps, f"{seen.root}sitemap.xml"][:1]
    for _ in range(2):
        own = [url for url in waiting if site_of(seen.root).own(url)]
        got = await look.try_for(own[0]) if own else None
        if got is None or got.status != 200 or got.size > len(got.start):
            return []
        try:
            found = sitemap(got.start, own[0])
        except BadSitemap:
            return []
        if found.pages:
            return [url for url in found.pages if seen.path(url) is not None]
        waiting = found.sitemaps[:1]
    return []


async def _ask_without_a_slash(seen: Seen, look: Look) -> None:
    folder = next((url for url in seen.pages if url.endswith("/") and url != seen.root), None)
    if folder is not None:
        got = await look.try_for(folder.rstrip("/"))
        onward = _location(got, folder) if got is not None else None
        if onward is not None:
            seen.slashes[folder.rstrip("/")] = onward


async def _ask_in_other_languages(seen: Seen, look: Look, candidates: Iterable[str]) -> None:
    """Look into the first folders that are named like languages; note the others."""
    for url in candidates:
        folder, slash, _ = (seen.path(url) or "").removeprefix("/").partition("/")
        if slash and FOLDER.fullmatch(folder):
            seen.languages.setdefault(folder, None)
    for folder in list(seen.languages)[:MAX_LANGUAGES]:
        page = await look.page(f"{seen.root}{folder}/")
        if page is None:
            del seen.languages[folder]
        else:
            seen.languages[folder] = page
            seen.pages.setdefault(page.url, page)


def _varied(seen: Seen, candidates: Iterable[str]) -> list[str]:
    """A few pages to look at besides, of as many sections as there are."""
    of_sections: dict[str, str] = {}
    for url in candidates:
        path = seen.path(url) or ""
        section = path.split("/")[1] if path.count("/") > 1 else path
        if url not in seen.pages and section not in seen.languages and not _NO_PAGE.search(path):
            of_sections.setdefault(section, url)
    return list(of_sections.values())[:MAX_MORE_PAGES]
