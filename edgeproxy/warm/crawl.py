"""Going through a site: politely, each URL once, in every coding that is kept.

The network is behind `Get`, the clock and the pauses are handed in.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import reading
from .reading import BadSitemap, Robots, Site

AGENT = "edgeproxy-warm"
CODINGS = ("gzip", "identity")
TRIES = 4  # of one request that is answered with 429 or 503, or not at all
PAUSE_S = 1.0  # before the second try, doubling, unless Retry-After says something else
MAX_PAUSE_S = 600.0
MAX_READ_BYTES = 8 * 1024 * 1024  # of a page or style sheet, for its links
MAX_SITEMAPS = 1000
SAVE_EVERY = 50  # URLs


class Unreachable(Exception):
    """No answer, or none that ended well."""


@dataclass(frozen=True, slots=True)
class Got:
    """An answer: its start, for links, and how long it was in all."""

    status: int
    headers: Mapping[str, str]  # names without case
    start: bytes
    size: int


Get = Callable[[str, str], Awaitable[Got]]
"""Fetches a URL with an Accept-Encoding. Raises Unreachable."""


@dataclass(frozen=True, slots=True)
class Task:
    """Something to fetch. `follow`: whether the links of its page lead on."""

    url: str
    kind: str  # page, part or sitemap
    source: str = ""  # where it is linked from


@dataclass(slots=True)
class Totals:
    """What came of it so far."""

    urls: int = 0
    pages: int = 0
    requests: int = 0
    bytes: int = 0
    cache: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # URL, reason, source


class Pace:
    """When the next request may go: `rate` a second, and not before a pause is over."""

    def __init__(
        self,
        rate: float,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.gap_s = 1 / rate
        self._now, self._sleep = now, sleep
        self._next_s = float("-inf")
        self._paused_until_s = float("-inf")

    async def turn(self) -> None:
        """Return when it is this request's turn."""
        while True:
            now_s = self._now()
            if now_s < self._paused_until_s:
                await self._sleep(self._paused_until_s - now_s)
                continue
            begins_s = max(now_s, self._next_s)
            self._next_s = begins_s + self.gap_s
            if begins_s > now_s:
                await self._sleep(begins_s - now_s)
            if self._now() >= self._paused_until_s:
                return

    def pause(self, seconds: float) -> None:
        """Let nothing go for so long."""
        self._paused_until_s = max(self._paused_until_s, self._now() + seconds)


class Crawl:
    """A walk through one site. `run` ends when nothing is left, or `max_urls` have been fetched."""

    def __init__(
        self,
        start: str,
        get: Get,
        pace: Pace,
        *,
        aliases: tuple[str, ...] = (),
        concurrency: int = 4,
        max_urls: int = 10_000,
        state: Path | None = None,
        on_progress: Callable[[Crawl], None] = lambda _: None,
    ) -> None:
        self.site: Site = reading.site_of(start, aliases)
        url = reading.absolute(start, start)
        assert url is not None
        self.start = url
        self.totals = Totals()
        self.was_resumed = False
        self._get, self._pace = get, pace
        self._concurrency, self._max_urls = concurrency, max_urls
        self._state, self._on_progress = state, on_progress
        self._robots = Robots("", AGENT)
        self._seen: set[str] = set()
        self._waiting: deque[Task] = deque()
        self._under_way: dict[str, Task] = {}
        self._from_sitemap = False
        self._sitemaps = 0
        self._news = asyncio.Event()

    @property
    def left(self) -> int:
        return len(self._waiting) + len(self._under_way)

    @property
    def is_complete(self) -> bool:
        return not self.left

    async def run(self) -> Totals:
        """Fetch all there is. What is under way when it is cancelled is fetched at the next run."""
        await self._read_robots()
        if not self._resume():
            self._add(Task(self.start, "start"))
            for url in self._robots.sitemaps:
                own = self.site.own(reading.absolute(url, self.start) or "")
                if own is not None:
                    self._add(Task(own, "sitemap"))
        workers = [asyncio.ensure_future(self._work()) for _ in range(self._concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._save()
        return self.totals

    async def _read_robots(self) -> None:
        """Raises Unreachable where nobody can know what is allowed (RFC 9309, section 2.3.1.4)."""
        url = f"{self.site.root}robots.txt"
        got = await self._fetch(url, "identity")
        if got.status >= 500 or got.status == 429:
            raise Unreachable(f"robots.txt is answered with {got.status}; nothing was fetched")
        if got.status == 200:
            self._robots = Robots(got.start.decode("utf-8-sig", "replace"), AGENT)
            self._pace.gap_s = max(self._pace.gap_s, self._robots.delay_s)
            if _depends_on_coding(got):
                await self._fetch(url, "gzip")

    # ------------------------------------------------------------ the queue

    def _add(self, task: Task) -> None:
        if task.url in self._seen:
            return
        self._seen.add(task.url)
        if not self._robots.allows(task.url):
            self.totals.skipped["robots.txt"] += 1
        elif len(self._seen) - sum(self.totals.skipped.values()) > self._max_urls:
            self.totals.skipped["beyond --max-urls"] += 1
        else:
            self._waiting.append(task)
            self._news.set()

    async def _work(self) -> None:
        while self.left:
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            task = self._waiting.popleft()
            self._under_way[task.url] = task
            try:
                await self._visit(task)
            except asyncio.CancelledError:
                self._waiting.appendleft(task)
                raise
            finally:
                del self._under_way[task.url]
                self._news.set()
            self.totals.urls += 1
            self._on_progress(self)
            if self.totals.urls % SAVE_EVERY == 0:
                self._save()

    async def _visit(self, task: Task) -> None:
        try:
            got = await self._fetch(task.url, CODINGS[0])
            self._count(got)
            if got.status >= 400:
                self.totals.failures.append((task.url, f"status {got.status}", task.source))
                return
            self._read(task, got)
            if _depends_on_coding(got):
                for coding in CODINGS[1:]:
                    self._count(await self._fetch(task.url, coding))
        except (Unreachable, BadSitemap) as error:
            self.totals.failures.append((task.url, str(error), task.source))

    async def _fetch(self, url: str, coding: str) -> Got:
        """The answer, after as many tries as it takes and politeness allows."""
        pause_s = PAUSE_S
        for turn in range(TRIES):
            await self._pace.turn()
            is_last = turn == TRIES - 1
            self.totals.requests += 1
            try:
                got = await self._get(url, coding)
            except Unreachable:
                if is_last:
                    raise
                self._pace.pause(pause_s)
            else:
                if is_last or got.status not in (429, 503):
                    return got
                asked = got.headers.get("retry-after", "")
                is_delay = asked.isascii() and asked.isdigit() and len(asked) < 10
                self._pace.pause(min(float(asked) if is_delay else pause_s, MAX_PAUSE_S))
            pause_s *= 2
        raise AssertionError("unreachable")

    def _count(self, got: Got) -> None:
        self.totals.bytes += got.size
        self.totals.cache[verdict(got.headers.get("cache-status"))] += 1

    # ------------------------------------------------------------ what answers lead to

    def _read(self, task: Task, got: Got) -> None:
        if 300 <= got.status < 400:
            self._lead_on(task, [got.headers.get("location", "")], task.kind)
            return
        kind = got.headers.get("content-type", "").partition(";")[0].strip().lower()
        if task.kind == "sitemap" or (task.kind == "start" and _is_sitemap(task.url, kind)):
            self._from_sitemap = self._from_sitemap or task.kind == "start"
            self._read_sitemap(task, got)
        elif kind in ("text/html", "application/xhtml+xml"):
            self.totals.pages += 1
            links = reading.html_links(text_of(got), task.url)
            self._lead_on(task, links.parts, "part")
            if not self._from_sitemap:
                self._lead_on(task, links.pages, "page")
        elif kind == "text/css":
            self._lead_on(task, reading.css_links(text_of(got)), "part")

    def _read_sitemap(self, task: Task, got: Got) -> None:
        self._sitemaps += 1
        if got.size > len(got.start):
            raise BadSitemap("it is larger than 8 MiB as it is sent")
        found = reading.sitemap(_decoded(got), task.url)
        self._lead_on(task, found.pages, "page")
        if self._sitemaps + len(found.sitemaps) > MAX_SITEMAPS:
            raise BadSitemap("it names too many sitemaps")
        self._lead_on(task, found.sitemaps, "sitemap")

    def _lead_on(self, task: Task, links: list[str] | tuple[str, ...], kind: str) -> None:
        for link in links:
            url = reading.absolute(link, task.url)
            if url is None:
                continue
            own = self.site.own(url)
            if own is None:
                self.totals.skipped["another host"] += url not in self._seen
                self._seen.add(url)
            else:
                self._add(Task(own, kind, task.url))

    # ------------------------------------------------------------ state

    def _save(self) -> None:
        """Write down how far it is, in place of what was written before."""
        if self._state is None:
            return
        tasks = [*self._under_way.values(), *self._waiting]
        waiting = dict.fromkeys((task.url, task.kind, task.source) for task in tasks)
        state = {
            "edgeproxy_warm": 1,
            "start": self.start,
            "from_sitemap": self._from_sitemap,
            "seen": sorted(self._seen),
            "waiting": list(waiting),
        }
        draft = self._state.with_name(f"{self._state.name}.new")
        draft.write_text(json.dumps(state))
        draft.replace(self._state)

    def _resume(self) -> bool:
        """Go on where an earlier run for the same start was interrupted. ValueError if the file
        is something else."""
        if self._state is None or not self._state.exists():
            return False
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
            if state["edgeproxy_warm"] != 1:
                raise ValueError("another format")
            waiting = [Task(str(url), str(kind), str(by)) for url, kind, by in state["waiting"]]
            seen = {str(url) for url in state["seen"]}
            start, from_sitemap = str(state["start"]), bool(state["from_sitemap"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._state} is not the state of a warm-up: {error}") from None
        if start != self.start or not waiting:
            return False
        self._waiting, self._seen, self._from_sitemap = deque(waiting), seen, from_sitemap
        self.was_resumed = True
        return True


def verdict(cache_status: str | None) -> str:
    """What our member of Cache-Status says, in a word or two."""
    if cache_status is None:
        return "no Cache-Status"
    mine = re.findall(r"(?:^|,)\s*edgeproxy((?:;[^,\"]*(?:\"[^\"]*\")?)*)", cache_status)
    if not mine:
        return "no Cache-Status"
    pairs = (pair.strip().partition("=") for pair in mine[-1].split(";"))
    found = {name: value for name, _, value in pairs if name}
    if "hit" in found:
        return "stale" if found.get("ttl", "").startswith("-") else "hit"
    if found.get("detail") == "stale_if_error":
        return "stale"
    if "stored" in found:
        return "revalidated" if found.get("fwd-status") == "304" else "stored"
    if "collapsed" in found:
        return "collapsed"
    return f"not stored: {found.get('detail', found.get('fwd', 'unknown'))}"


def _is_sitemap(url: str, content_type: str) -> bool:
    path = url.partition("?")[0].lower()
    if content_type in ("application/xml", "text/xml", "application/gzip", "application/x-gzip"):
        return True
    return path.endswith((".xml", ".xml.gz", "sitemap.txt"))


def _depends_on_coding(got: Got) -> bool:
    vary = got.headers.get("vary", "").lower()
    return "accept-encoding" in vary or "content-encoding" in got.headers


def _decoded(got: Got) -> bytes:
    if got.headers.get("content-encoding", "").lower() == "gzip":
        try:
            return zlib.decompressobj(31).decompress(got.start, reading.MAX_SITEMAP_BYTES)
        except zlib.error:
            return b""
    return got.start


def text_of(got: Got) -> str:
    """The start of a page or style sheet, by the charset that it declares."""
    declared = re.search(
        r"charset=[\"']?([\w.:-]+)", got.headers.get("content-type", ""), re.IGNORECASE
    )
    data = _decoded(got)[:MAX_READ_BYTES]
    try:
        return data.decode(declared[1] if declared else "utf-8", "replace")
    except LookupError:
        return data.decode("utf-8", "replace")
