"""A walk through a site in memory: what is fetched, how fast, and going on after a break."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.warm.command import in_units, summary
from edgeproxy.warm.crawl import Crawl, Got, Pace, Totals, Unreachable, verdict

ROOT = "http://a.org/"


@dataclass
class Time:
    """A clock that jumps to when the next sleeper wakes."""

    now_s: float = 0.0

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        await asyncio.sleep(0)
        self.now_s = max(self.now_s, until_s)


@dataclass
class Web:
    """A site by path: HTML as text, anything else as a `Got`, or what to raise."""

    pages: dict[str, Any]
    time: Time = field(default_factory=Time)
    asked: list[tuple[float, str, str]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def get(self, url: str, coding: str) -> Got:
        path = url.removeprefix(ROOT)
        self.asked.append((self.time.now_s, path, coding))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        found = self.pages.get(path, answer("", 404))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Got) else answer(found)

    def paths(self) -> Counter[str]:
        return Counter(path for _, path, _ in self.asked)


def answer(body: str | bytes, status: int = 200, kind: str = "text/html", **fields: str) -> Got:
    data = body.encode() if isinstance(body, str) else body
    headers = {"content-type": kind, "cache-status": "edgeproxy; fwd=uri-miss; stored"}
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    return Got(status, headers, data, len(data))


def links(*targets: str) -> str:
    return "".join(f'<a href="{target}">x</a>' for target in targets)


def crawl(web: Web, start: str = ROOT, *, rate: float = 10, **options: Any) -> Crawl:
    return Crawl(start, web.get, Pace(rate, web.time.now, web.time.sleep), **options)


async def test_links_are_followed_on_the_same_host_each_once() -> None:
    web = Web({
        "": links("a", "b", "a#x", "http://b.org/", "/"), "a": links("b", "c/"), "b": links("a"),
        "c/": '<img src="d.png">', "c/d.png": answer(b"png", kind="image/png"),
    })  # fmt: skip
    totals = await crawl(web).run()
    assert web.paths() == Counter(["robots.txt", "", "a", "b", "c/", "c/d.png"])
    assert (totals.urls, totals.pages, totals.failures) == (5, 4, [])
    assert totals.skipped == {"another host": 1}
    assert totals.cache == {"stored": 5}


async def test_what_depends_on_the_coding_is_fetched_in_both() -> None:
    packed = gzip.compress(links("a").encode())
    web = Web({
        "": answer(packed, vary="Accept-Encoding", content_encoding="gzip"),
        "a": answer("", kind="text/plain"),
    })  # fmt: skip
    await crawl(web).run()
    assert [(path, coding) for _, path, coding in web.asked[1:]] == [
        ("", "gzip"), ("", "identity"), ("a", "gzip"),
    ]  # fmt: skip


async def test_style_sheets_and_redirects_lead_on() -> None:
    web = Web({
        "": '<link rel=stylesheet href="s.css"><a href="old">',
        "s.css": answer("@font-face { src: url(f.woff2) }", kind="text/css"),
        "f.woff2": answer(b"", kind="font/woff2"),
        "old": answer("", 301, location="/new"), "new": "new",
    })  # fmt: skip
    totals = await crawl(web).run()
    assert web.paths()["f.woff2"] == web.paths()["new"] == 1
    assert totals.failures == []


SITEMAP = "<urlset><url><loc>http://a.org/{}</loc></url></urlset>"


async def test_a_sitemap_and_its_index_say_what_there_is() -> None:
    index = (
        "<sitemapindex><sitemap><loc>http://a.org/1.xml</loc></sitemap>"
        "<sitemap><loc>http://a.org/2.xml.gz</loc></sitemap></sitemapindex>"
    )
    web = Web({
        "index.xml": answer(index, kind="application/xml"),
        "1.xml": answer(SITEMAP.format("a"), kind="application/xml"),
        "2.xml.gz": answer(gzip.compress(SITEMAP.format("b").encode()), kind="application/gzip"),
        "a": '<img src="a.png">' + links("not-in-the-sitemap"), "b": "b",
        "a.png": answer(b"", kind="image/png"),
    })  # fmt: skip
    totals = await crawl(web, ROOT + "index.xml").run()
    assert totals.failures == []
    assert set(web.paths()) == {"robots.txt", "index.xml", "1.xml", "2.xml.gz", "a", "b", "a.png"}


async def test_a_sitemap_may_know_the_site_by_another_name() -> None:
    text = SITEMAP.replace("http://a.org/", "https://you.github.io/p/").format("a")
    web = Web({"s.xml": answer(text, kind="application/xml"), "a": "a"})
    await crawl(web, ROOT + "s.xml", aliases=("https://you.github.io/p/",)).run()
    assert web.paths()["a"] == 1


async def test_robots_txt_is_respected_and_names_sitemaps() -> None:
    robots = "User-agent: *\nDisallow: /no/\nSitemap: http://a.org/s.xml\nCrawl-delay: 3"
    web = Web({
        "robots.txt": answer(robots, kind="text/plain"), "": links("no/x", "yes"), "yes": "",
        "s.xml": answer(SITEMAP.format("hidden"), kind="application/xml"), "hidden": "",
    })  # fmt: skip
    totals = await crawl(web, concurrency=1).run()
    assert "no/x" not in web.paths()
    assert web.paths()["hidden"] == 1
    assert totals.skipped == {"robots.txt": 1}
    moments = [moment for moment, _, _ in web.asked[1:]]
    assert all(later - earlier > 2.99 for earlier, later in itertools.pairwise(moments))


@pytest.mark.parametrize("status", [500, 503])
async def test_without_knowing_what_is_allowed_nothing_is_fetched(status: int) -> None:
    web = Web({"robots.txt": answer("", status)})
    with pytest.raises(Unreachable, match=str(status)):
        await crawl(web).run()
    assert set(web.paths()) == {"robots.txt"}


async def test_it_is_no_faster_than_asked_and_no_wider() -> None:
    web = Web({"": links(*(f"p{n}" for n in range(40)))} | {f"p{n}": "" for n in range(40)})
    await crawl(web, rate=5, concurrency=3).run()
    moments = sorted(moment for moment, _, _ in web.asked)
    for index in range(len(moments) - 5):
        assert moments[index + 5] - moments[index] > 0.99
    assert web.most_under_way <= 3


async def test_retry_after_is_obeyed_by_all() -> None:
    busy = answer("", 429, retry_after="120")
    web = Web({"": links("a", "b"), "a": [busy, busy, answer("ok")], "b": "b"})
    totals = await crawl(web, concurrency=1).run()
    assert totals.failures == []
    moments = [moment for moment, path, _ in web.asked if path == "a"]
    assert [later - earlier for earlier, later in itertools.pairwise(moments)] == (
        pytest.approx([120, 120], abs=1)
    )


async def test_failures_are_told_with_where_they_are_linked_from() -> None:
    web = Web({"": links("gone", "broken", "busy"), "broken": Unreachable("reset"),
               "busy": answer("", 503)})  # fmt: skip
    totals = await crawl(web).run()
    assert sorted(totals.failures) == [
        (f"{ROOT}broken", "reset", ROOT),
        (f"{ROOT}busy", "status 503", ROOT),
        (f"{ROOT}gone", "status 404", ROOT),
    ]
    assert web.paths()["broken"] == web.paths()["busy"] == 4
    assert f"{ROOT}gone: status 404, linked from {ROOT}" in summary(totals)


async def test_an_endless_site_has_an_end() -> None:
    class Calendar(dict[str, Any]):
        def get(self, path: str, default: Any = None) -> Any:
            return default if path == "robots.txt" else links(f"x{len(path)}{path}", f"y{path}")

    web = Web(Calendar())
    totals = await crawl(web, rate=1e6, max_urls=100).run()
    assert totals.urls == 100
    assert totals.skipped["beyond --max-urls"] > 0


async def test_it_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    pages = {f"p{n}": links(f"p{n + 1}") for n in range(30)}
    web = Web({"": links("p0"), "p30": "", **pages})
    first = crawl(web, state=state)
    work = asyncio.ensure_future(first.run())
    while len(web.asked) < 12:  # noqa: ASYNC110 - the crawl runs in this loop, and nothing waits
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    second = crawl(web, state=state)
    totals = await second.run()
    assert second.was_resumed
    assert {f"p{n}" for n in range(31)} <= set(web.paths())
    assert sum(web.paths().values()) - web.paths()["robots.txt"] <= 33  # one was under way
    assert totals.urls < 25
    third = crawl(web, state=state)
    await third.run()
    assert not third.was_resumed  # it was complete: everything once more


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"edgeproxy_warm": 2}', "not json"])
async def test_a_file_that_is_no_state_is_left_alone(tmp_path: Path, text: str) -> None:
    state = tmp_path / "notes.txt"
    state.write_text(text)
    with pytest.raises(ValueError, match="is not the state of a warm-up"):
        await crawl(Web({}), state=state).run()
    assert state.read_text() == text


async def test_the_state_of_another_site_is_begun_anew(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text(json.dumps({
        "edgeproxy_warm": 1, "start": "http://b.org/", "from_sitemap": False, "seen": [],
        "waiting": [["http://b.org/x", "page", ""]],
    }))  # fmt: skip
    web = Web({"": "home"})
    await crawl(web, state=state).run()
    assert set(web.paths()) == {"robots.txt", ""}


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (None, "no Cache-Status"),
        ("other; hit", "no Cache-Status"),
        ("edgeproxy; hit; ttl=60; detail=memory", "hit"),
        ("origin; fwd=miss, edgeproxy; hit; ttl=-3; detail=origin_down", "stale"),
        ("edgeproxy; fwd=stale; ttl=-3; detail=stale_if_error", "stale"),
        ("edgeproxy; fwd=uri-miss; fwd-status=200; stored; ttl=600", "stored"),
        ("edgeproxy; fwd=stale; fwd-status=304; stored; ttl=600", "revalidated"),
        ("edgeproxy; fwd=uri-miss; collapsed; ttl=600", "collapsed"),
        ("edgeproxy; fwd=uri-miss; fwd-status=200; detail=private", "not stored: private"),
        ("edgeproxy; fwd=bypass", "not stored: bypass"),
        ('edgeproxy; hit; key="a, edgeproxy; fwd=miss"; ttl=6', "hit"),
    ],
)
def test_cache_status_in_a_word(field: str | None, said: str) -> None:
    assert verdict(field) == said


def test_a_summary_is_short() -> None:
    totals = Totals(urls=3, pages=2, requests=6, bytes=1_234_567)
    totals.cache.update({"stored": 4, "no Cache-Status": 2})
    totals.failures = [(f"{ROOT}{n}", "status 404", "") for n in range(50)]
    text = summary(totals, was_resumed=True)
    assert text.splitlines()[0] == (
        "3 URLs since it was interrupted: 2 pages and what belongs to them, 6 requests, 1.2 MB"
    )
    assert "and 30 more" in text
    assert in_units(999) == "999 B"
    assert in_units(12_300_000_000) == "12.3 GB"
