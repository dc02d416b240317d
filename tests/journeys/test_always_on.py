"""A site is warmed, its origin goes away for weeks, and every page of it is still served."""

from __future__ import annotations

import asyncio
import gzip
import logging
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.tiers import Tier
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Body, Headers, Request, Response
from edgeproxy.pages import Fault, Pages
from edgeproxy.policy.load import parse
from edgeproxy.testing import Proxy, running
from edgeproxy.warm.command import fetched
from edgeproxy.warm.crawl import Crawl, Got, Pace, Totals

POLICY = """\
version: 1
origins:
  site: {{url: "https://you.github.io/", connect_timeout: 1s, first_byte_timeout: {patience}}}
cache:
  memory: {{max_size: 32MiB}}
  disk: {{path: {folder}}}
  rules:
    kept: {{ttl: {ttl}, stale_if_error: 30d, status_ttl: {{301: 10s, 404: 10s}}}}
routes:
  - {{name: site, cache: kept}}
"""


def policy(folder: Path, ttl: str = "0s", patience: str = "5s") -> str:
    return POLICY.format(folder=folder, ttl=ttl, patience=patience)


async def warm(proxy: Proxy, start: str = "", *aliases: str) -> Totals:
    """What `edgeproxy warm` does, as fast as it goes."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def get(url: str, coding: str) -> Got:
            return await fetched(session, url, coding)

        loop = asyncio.get_running_loop()
        pace = Pace(1e6, loop.time, asyncio.sleep)
        return await Crawl(proxy.url + start, get, pace, aliases=aliases, concurrency=8).run()


def site(folder: Path) -> Path:
    """A site of 30 pages that hang together by their links, with what pages need."""
    files = {
        "index.html": '<link rel=stylesheet href="/s.css"><a href="/page/0">start</a>',
        "s.css": "@font-face { src: url(/font.woff2) }" + "p { color: red }" * 50,
        "font.woff2": "font" * 500,
        "404.html": "nothing here",
        "robots.txt": "User-agent: *\nDisallow: /private\n",
        "private.html": "not for robots",
        "image.png": "png" * 100_000,
    }
    for number in range(30):
        files[f"page/{number}.html"] = (
            f'<a href="/page/{number + 1}">on</a><img src="/image.png">{number}' * 20
        )
    files["page/30.html"] = '<a href="/folder">the end</a>'
    files["folder/index.html"] = "the end " * 20
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


async def assert_all_served(proxy: Proxy, root: Path, *, without: tuple[str, ...] = ()) -> None:
    """Every file, whole and in both codings, as a copy that stands in."""
    for file in files(root):
        name = file.relative_to(root).as_posix()
        if name in without or name.startswith("."):
            continue
        target = "/" + quote(name.removesuffix("index.html"))
        if name.startswith("page/"):
            target = target.removesuffix(".html")
        for coding in ("gzip", "identity"):
            reply = await proxy.get(target, headers={"accept-encoding": coding})
            body = reply.body
            if reply.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert (reply.status, body) == (200, file.read_bytes()), (target, reply.cache_status)


async def test_a_warmed_site_is_served_complete_without_its_origin_also_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, folder = site(tmp_path / "site"), tmp_path / "cache"
    left_out = ("private.html", "404.html")
    async with Pages(root) as origin:
        async with running(policy(folder), origins={"site": origin.url}) as proxy:
            totals = await warm(proxy)
            assert totals.failures == []
            assert totals.pages == 33
            assert totals.skipped == {}
            await gone(origin, proxy)
            with caplog.at_level(logging.INFO, "edgeproxy"):
                await assert_all_served(proxy, root, without=left_out)
            says = [text for text in caplog.messages if text.startswith("origin ")]
            assert len(says) == 1
            assert says[0].endswith("is down: connection_refused; stored copies stand in")
            reply = await proxy.get("/page/3")
            assert "; hit; ttl=" in reply.cache_status
            assert reply.cache_status.endswith("; detail=origin_down")
            assert reply.headers["proxy-status"] == (
                'edgeproxy; error=connection_refused; next-hop="site"'
            )
            (report,) = proxy.server.app.health.reports()
            assert (report.state, report.cause) == ("down", "connection_refused")
            assert (await proxy.get("/page/31")).status == 502  # a miss is tried, and told
        async with running(policy(folder), origins={"site": origin.url}) as proxy:
            await assert_all_served(proxy, root, without=left_out)
            await origin.start()
            await back(proxy, "/page/3")


async def gone(origin: Pages, proxy: Proxy) -> None:
    """Stop `origin` once all that it has sent is stored."""
    await proxy.server.app.plan.cache.settled()
    await origin.stop()


async def back(proxy: Proxy, target: str) -> None:
    """Return once `target` is the origin's own answer again; probes are 4 s apart at most here."""
    async with asyncio.timeout(20):
        while True:
            reply = await proxy.get(target)
            assert reply.status == 200
            if "proxy-status" not in reply.headers:
                return
            await asyncio.sleep(0.05)


async def test_a_miss_finds_an_origin_that_is_back_and_that_ends_the_outage(
    tmp_path: Path,
) -> None:
    """Row 22: the first good answer at once, and no breaker that is stuck."""
    root = site(tmp_path / "site")
    async with (
        Pages(root) as origin,
        running(policy(tmp_path / "cache"), origins={"site": origin.url}) as proxy,
    ):
        await proxy.get("/")
        await gone(origin, proxy)
        for _ in range(5):
            assert (await proxy.get("/")).status == 200
        await origin.start()
        assert (await proxy.get("/page/1")).status == 200
        reply = await proxy.get("/")
        assert "proxy-status" not in reply.headers
        assert "fwd=stale; fwd-status=304" in reply.cache_status


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500), Fault(status=502), Fault(status=503), Fault(status=504),
        Fault(status=429), Fault(status=503, retry_after=120), Fault(reset=True),
        Fault(stall=True), Fault(cut_after_bytes=3), Fault(reset_after_bytes=3),
    ],
    ids=str,
)  # fmt: skip
async def test_no_failure_replaces_a_good_copy(tmp_path: Path, fault: Fault) -> None:
    root = site(tmp_path / "site")
    settings = policy(tmp_path / "cache", patience="200ms" if fault.stall else "5s")
    async with (
        Pages(root) as origin,
        running(settings, origins={"site": origin.url}) as proxy,
    ):
        paths = ["/", "/page/1", "/page/2", "/s.css"]
        good = [await proxy.get(path) for path in paths]
        await proxy.server.app.plan.cache.settled()
        origin.publish()  # so that nothing is answered with a bare 304
        origin.set_fault("/**", fault)
        for _ in range(3):
            for path, before in zip(paths, good, strict=True):
                reply = await proxy.get(path)
                assert (reply.status, reply.body) == (200, before.body), reply.cache_status
        origin.clear_faults()
        await gone(origin, proxy)
        for path, before in zip(paths, good, strict=True):
            assert (await proxy.get(path)).body == before.body


async def test_a_site_that_pages_does_not_know_is_down_and_not_gone(tmp_path: Path) -> None:
    """Pages answers 404 for every path of a name under which nothing is published."""
    root = site(tmp_path / "site")
    async with Pages(root, host="127.0.0.1") as origin:
        port = origin.port
        async with running(policy(tmp_path / "cache"), origins={"site": origin.url}) as proxy:
            paths = ["/", "/page/1", "/s.css"]
            good = [await proxy.get(path, headers={"accept-encoding": "gzip"}) for path in paths]
            await gone(origin, proxy)
            async with Pages(root, host="gone.github.io", listen=f"127.0.0.1:{port}") as other:
                assert other.port == port
                for _ in range(2):
                    for path, before in zip(paths, good, strict=True):
                        reply = await proxy.get(path, headers={"accept-encoding": "gzip"})
                        assert (reply.status, reply.body) == (200, before.body)
                        assert "error=destination_not_found" in reply.headers["proxy-status"]
                assert (await proxy.get("/page/9")).status == 502


async def test_one_page_that_is_gone_is_gone(tmp_path: Path) -> None:
    """The site itself says so, and a copy of what was taken back must not stay for weeks."""
    root = site(tmp_path / "site")
    async with (
        Pages(root) as origin,
        running(policy(tmp_path / "cache"), origins={"site": origin.url}) as proxy,
    ):
        assert (await proxy.get("/page/1")).status == 200
        (root / "page/1.html").unlink()
        origin.publish()
        reply = await proxy.get("/page/1")
        assert (reply.status, reply.body) == (404, b"nothing here")
        await gone(origin, proxy)
        assert (await proxy.get("/page/1")).status == 404


@pytest.mark.parametrize("name", ["httpcore-docs", "keepachangelog"])
async def test_real_sites_are_served_complete_without_their_origin(
    shared_sites: Path, tmp_path: Path, name: str
) -> None:
    root = shared_sites / name / "site"
    async with (
        Pages(root) as origin,
        running(policy(tmp_path / "cache"), origins={"site": origin.url}) as proxy,
    ):
        aliases = ("https://www.encode.io/httpcore/", "https://keepachangelog.com/")
        totals = await warm(proxy, "", *aliases)
        assert totals.pages > 1
        served = {path for path in origin.requests if path != "/robots.txt"}
        await gone(origin, proxy)
        for path in sorted(served):
            reply = await proxy.get(path, headers={"accept-encoding": "gzip"})
            assert reply.status < 500, path
        again = await warm(proxy, "", *aliases)
        assert (again.urls, again.pages) == (totals.urls, totals.pages)
        assert sorted(again.failures) == sorted(totals.failures)  # links of the site that are dead


ALL_DEFAULTS = """\
version: 1
origins: {{site: {{url: "http://site.example/"}}}}
cache: {{memory: {{}}, disk: {{path: {folder}}}}}
routes: [{{name: all}}]
"""


async def test_copies_stand_in_for_30_days_and_not_longer(tmp_path: Path) -> None:
    """With the tiers as a policy makes them, over restarts, by an injected clock."""

    class Clock:
        now_s = 1_800_000_000.0

    async def good(request: Request) -> Response:
        fields = Headers.of(("cache-control", "max-age=600"), ("content-type", "text/plain"))
        return Response(200, fields, Body(b"good"))

    async def bad(request: Request) -> Response:
        raise UpstreamError("site", "connection_refused", "nobody listens")

    rule = CacheRule(stale_if_error="30d")  # type: ignore[arg-type]
    request = Request("GET", "site.example", "/")

    async def once(forward: object) -> str:
        text = ALL_DEFAULTS.format(folder=tmp_path)
        plugins = [p.instance for p in parse(text, "test").plugins]
        tiers: list[Tier] = [
            tier
            for plugin in plugins
            if hasattr(plugin, "register_tiers")
            for tier in plugin.register_tiers()
        ]
        for plugin in plugins:
            if hasattr(plugin, "startup"):
                await plugin.startup()
        cache = Cache(tiers, max_object_size=1_000_000, now=lambda: Clock.now_s)
        try:
            answer = await cache.read_through(request, "key", rule, forward)  # type: ignore[arg-type]
            await cache.settled()
            return answer.verdict
        finally:
            await cache.close()
            for plugin in plugins:
                if hasattr(plugin, "shutdown"):
                    await plugin.shutdown()

    assert await once(good) == "miss"
    Clock.now_s += 600 + 10 * 86400
    assert await once(bad) == "stale"
    Clock.now_s += 20 * 86400 - 1
    assert await once(bad) == "stale"
    Clock.now_s += 2
    with pytest.raises(UpstreamError):
        await once(bad)
