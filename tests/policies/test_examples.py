"""The example policies, each in front of real sites: what its first comment promises is so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from edgeproxy.pages import Pages
from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import load
from edgeproxy.policytest.suite import Suite
from edgeproxy.testing import Proxy, running

FOLDER = Path(__file__).parents[2] / "policies"
POLICIES = [path for path in sorted(FOLDER.glob("*.yaml")) if not path.stem.endswith("_test")]

FRANCE, GERMANY, JAPAN, PRIVATE = "193.51.208.13", "194.25.0.60", "133.11.0.1", "10.1.2.3"
PHONE = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/140.0 Mobile"
DESKTOP = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

Site = Mapping[str, str]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a disk cache goes there


@asynccontextmanager
async def in_front_of(
    policy: str, sites: Mapping[str, Site], others: Mapping[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """`policy` in front of a local Pages for each of `sites`, all of them at a base path."""
    async with AsyncExitStack() as stack:
        origins = dict(others or {})
        for name, files in sites.items():
            folder = Path("site", name)
            for path, text in files.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
            pages = await stack.enter_async_context(Pages(folder, base="/project/"))
            origins[name] = pages.url
        yield await stack.enter_async_context(running([FOLDER / policy], origins=origins))


def from_address(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


# ------------------------------------------------------------------- all of them


def test_there_are_examples_for_the_usual_wishes() -> None:
    assert len(POLICIES) >= 9


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_it_loads_and_compiles(path: Path) -> None:
    compile_plan(load([path]))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_it_tells_editors_of_the_schema_beside_it(path: Path) -> None:
    name = "edgeproxy-tests" if path.stem.endswith("_test") else "edgeproxy"
    first = path.read_text().partition("\n")[0]
    assert first == f"# yaml-language-server: $schema={name}.schema.json"


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_it_begins_with_the_wish_and_a_line_to_see_it(path: Path) -> None:
    comment: list[str] = []
    for line in path.read_text().splitlines()[1:]:
        if not line.startswith("#"):
            break
        comment.append(line)
    assert len(comment) >= 3
    assert comment[0].startswith("# Wish: ") or path.stem == "demo"
    assert any(line.startswith("#   curl ") for line in comment)


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_its_tests_pass_and_would_notice_every_slip(path: Path) -> None:
    suite = Suite.load([path])
    report = suite.run()
    assert report.passed, report
    assert list(map(str, report.coverage.gaps)) == []
    assert list(map(str, suite.mutate(report).survivors)) == []


# ------------------------------------------------------------------- one by one


async def test_geo() -> None:
    world = {"index.html": "world", "fr/index.html": "bonjour", "guide/index.html": "guide"}
    sites = {"world": world, "europe": {"index.html": "europe", "guide/index.html": "eu guide"}}
    async with in_front_of("geo.yaml", sites) as proxy:
        french = await proxy.get("/", headers=from_address(FRANCE))
        assert (french.status, french.headers["location"]) == (302, "/fr/")
        assert (await proxy.get("/guide/", headers=from_address(FRANCE))).body == b"eu guide"
        assert (await proxy.get("/", headers=from_address(GERMANY))).body == b"europe"
        assert (await proxy.get("/", headers=from_address(JAPAN))).body == b"world"
        unknown = await proxy.get("/", headers=from_address(PRIVATE))
        assert unknown.body == b"world"
        assert "private" in unknown.headers["cache-control"]


@pytest.mark.parametrize(
    ("wishes", "cookie", "location"),
    [
        ("fr-CA, fr;q=0.9, en;q=0.5", "", "/fr/"),
        ("de-AT", "", "/de/"),
        ("ja, en;q=0.5", "", None),
        ("ja", "", None),
        ("", "", None),
        ("fr", "lang=de", "/de/"),
        ("fr", "lang=en", None),
    ],
)
async def test_languages(wishes: str, cookie: str, location: str | None) -> None:
    headers = {
        name: value for name, value in (("Accept-Language", wishes), ("Cookie", cookie)) if value
    }
    async with in_front_of("languages.yaml", {"pages": {"index.html": "hello"}}) as proxy:
        reply = await proxy.get("/", headers=headers)
    assert reply.headers.get("location") == location
    assert reply.status == (302 if location else 200)


async def test_ab_two_sites() -> None:
    sites = {
        "current": {"index.html": "current", "style.css": "current style"},
        "next": {"index.html": "next", "style.css": "next style"},
    }
    async with in_front_of("ab-two-sites.yaml", sites) as proxy:
        first = await proxy.get("/")
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert first.headers["x-site"] == cookie.removeprefix("ep_redesign=")
        returning = await proxy.get("/", headers={"Cookie": cookie})
        assert returning.body == first.body
        assert "set-cookie" not in returning.headers
        forced = await proxy.get("/?redesign=new")
        assert forced.body == b"next"
        style = await proxy.get("/style.css", headers={"Cookie": "ep_redesign=new"})
        assert style.body == b"next style"
        crawler = await proxy.get("/", headers={"User-Agent": "Googlebot/2.1"})
        assert crawler.body == b"current"
        assert "set-cookie" not in crawler.headers


@pytest.mark.parametrize(
    ("old", "status", "new"),
    [
        ("/about-us/", 301, "/company/"),
        ("/about.html", 301, "/company/"),
        ("/v1/guide/start/?ref=mail", 301, "/v2/guide/start/?ref=mail"),
        ("/v1", 301, "/v2/"),
        ("/2019/11/hello-world/", 301, "/blog/hello-world/"),
        ("/shop/shoes/?size=9", 308, "https://shop.example.org/shoes/"),
        ("/press/2018/first/", 410, None),
        ("/", 200, None),
        ("/v1x/", 404, None),
    ],
)
async def test_moved_pages(old: str, status: int, new: str | None) -> None:
    async with in_front_of("moved-pages.yaml", {"pages": {"index.html": "home"}}) as proxy:
        reply = await proxy.get(old)
    assert (reply.status, reply.headers.get("location")) == (status, new)


async def test_security_headers() -> None:
    async with in_front_of("security-headers.yaml", {"pages": {"index.html": "home"}}) as proxy:
        for path, status in (("/", 200), ("/missing", 404)):
            reply = await proxy.get(path)
            assert reply.status == status
            assert reply.headers["strict-transport-security"].startswith("max-age=63072000")
            assert "default-src 'self'" in reply.headers["content-security-policy"]
            assert "\n" not in reply.headers["content-security-policy"]
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in reply.headers


async def test_spa() -> None:
    site = {"index.html": "the application", "assets/app-1f2e.js": "code"}
    async with in_front_of("spa.yaml", {"pages": site}) as proxy:
        for path in ("/", "/orders/42", "/orders/42/"):
            reply = await proxy.get(path, headers={"Accept": "text/html, */*;q=0.8"})
            assert (reply.status, reply.body) == (200, b"the application")
        bundle = await proxy.get("/assets/app-1f2e.js")
        assert bundle.body == b"code"
        assert "max-age=31536000" in bundle.headers["cache-control"]
        assert (await proxy.get("/assets/missing.js")).status == 404


async def test_mobile() -> None:
    site = {
        "guide/index.html": "full",
        "m/guide/index.html": "light",
        "assets/style.css": "style",
    }
    async with in_front_of("mobile.yaml", {"pages": site}) as proxy:
        phone = {"User-Agent": PHONE}
        assert (await proxy.get("/guide/", headers=phone)).body == b"light"
        assert (await proxy.get("/assets/style.css", headers=phone)).body == b"style"
        assert (await proxy.get("/guide/", headers=phone | {"Cookie": "full=1"})).body == b"full"
        full = await proxy.get("/guide/", headers={"User-Agent": DESKTOP})
        assert full.body == b"full"
        assert "user-agent" in full.headers["vary"].lower()


async def test_maintenance() -> None:
    async with in_front_of("maintenance.yaml", {"pages": {"index.html": "new site"}}) as proxy:
        closed = await proxy.get("/")
        assert (closed.status, closed.headers["retry-after"]) == (503, "3600")
        assert b"back in an hour" in closed.body
        team = await proxy.get("/", headers={"Cookie": "preview=spring"})
        assert (team.status, team.body) == (200, b"new site")
        assert (await proxy.get("/healthz")).body == b"ok\n"


async def test_api_beside_site() -> None:
    async def people(request: web.Request) -> web.Response:
        seen = {
            "method": request.method,
            "path": request.path_qs,
            "cookie": request.headers.get("cookie"),
            "authorization": request.headers.get("authorization"),
            "host": request.headers.get("x-forwarded-host"),
            "body": await request.text(),
        }
        return web.json_response(seen, headers={"Set-Cookie": "session=s4; Path=/"})

    async def live(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"echo {message.data}")
        return socket

    app = web.Application()
    app.router.add_route("*", "/people", people)
    app.router.add_get("/api/live", live)
    api = TestServer(app)
    await api.start_server()
    try:
        sites = {"site": {"index.html": "the site"}}
        others = {"api": str(api.make_url("/"))}
        async with in_front_of("api-beside-site.yaml", sites, others) as proxy:
            assert (await proxy.get("/")).body == b"the site"
            assert (await proxy.get("/", method="POST", data=b"x")).status == 405
            reply = await proxy.get(
                "/api/people?page=2",
                method="POST",
                headers={"Cookie": "session=s3", "Authorization": "Bearer t"},
                data=b'{"name": "Ada"}',
            )
            assert json.loads(reply.body) == {
                "method": "POST",
                "path": "/people?page=2",
                "cookie": "session=s3",
                "authorization": "Bearer t",
                "host": f"127.0.0.1:{proxy.port}",
                "body": '{"name": "Ada"}',
            }
            assert reply.headers["set-cookie"] == "session=s4; Path=/"
            for _ in range(2):
                again = await proxy.get("/api/people")
                assert "hit" not in again.cache_status
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{proxy.url}api/live") as socket,
            ):
                await socket.send_str("hello")
                assert await socket.receive_str() == "echo hello"
    finally:
        await api.close()


async def test_several_sites() -> None:
    sites = {"site": {"index.html": "the site"}, "blog": {"index.html": "the blog"}}
    async with in_front_of("several-sites.yaml", sites) as proxy:
        for name, body in {"www.example.org": b"the site", "blog.example.org": b"the blog"}.items():
            for host in (name, name.upper(), f"{name}.", f"{name}:8080"):
                assert (await proxy.get("/", headers={"Host": host})).body == body
        bare = await proxy.get("/guide/?a=b", headers={"Host": "example.org"})
        assert (bare.status, bare.headers["location"]) == (
            301,
            "https://www.example.org/guide/?a=b",
        )
        for host in ("else.example.com", "a.blog.example.org", "127.0.0.1"):
            reply = await proxy.get("/", headers={"Host": host})
            assert (reply.status, b"site of this name" in reply.body) == (421, True)


# ------------------------------------------------------------------- the demo

DEMO_SITE = {
    "index.html": "home",
    "home-bold/index.html": "bold",
    "pocket/index.html": "pocket",
    "de/index.html": "hallo",
    "quick-start/index.html": "quick",
    "_static/logo.svg": "<svg/>",
    "404.html": "nothing here",
}


@pytest.mark.parametrize("address", ["194.25.0.60", "131.130.1.11", "130.59.31.248"])
async def test_demo_sends_visitors_from_german_speaking_countries_to_the_german_home(
    address: str,
) -> None:
    async with in_front_of("demo.yaml", {"pages": DEMO_SITE}) as proxy:
        reply = await proxy.get("/", headers=from_address(address))
        assert (reply.status, reply.headers["location"]) == (302, "/de/")
        english = await proxy.get("/?lang=en", headers=from_address(address))
        assert (english.status, english.body) == (200, b"home")
        assert (await proxy.get("/de/", headers=from_address(address))).body == b"hallo"


async def test_demo_splits_and_keeps_visitors() -> None:
    async with in_front_of("demo.yaml", {"pages": DEMO_SITE}) as proxy:
        bodies = {"control": b"home", "bold": b"bold"}
        for variant, body in bodies.items():
            forced = await proxy.get(f"/?hero={variant}")
            kept = await proxy.get("/", headers={"Cookie": f"ep_hero={variant}"})
            assert forced.body == kept.body == body
            assert forced.headers["x-hero"] == kept.headers["x-hero"] == variant
        seen = {
            (await proxy.get("/", headers=from_address(f"133.11.0.{number}"))).headers["x-hero"]
            for number in range(1, 40)
        }
        assert seen == set(bodies)


async def test_demo_reads_language_device_and_country() -> None:
    async with in_front_of("demo.yaml", {"pages": DEMO_SITE}) as proxy:
        german = await proxy.get("/", headers={"Accept-Language": "de-AT, de;q=0.9, en;q=0.5"})
        assert german.headers["location"] == "/de/"
        assert (await proxy.get("/", headers={"User-Agent": PHONE})).body == b"pocket"
        french = await proxy.get("/", headers=from_address(FRANCE))
        assert french.headers["x-visitor-country"] == "FR"


async def test_demo_caches_redirects_and_edits_headers() -> None:
    async with in_front_of("demo.yaml", {"pages": DEMO_SITE}) as proxy:
        first = await proxy.get("/_static/logo.svg")
        await proxy.server.app.plan.cache.settled()  # or the next one waits for the disk, too
        second = await proxy.get("/_static/logo.svg")
        assert "fwd=uri-miss" in first.cache_status
        assert "; hit" in second.cache_status
        moved = await proxy.get("/manual/quick-start/?a=b")
        assert (moved.status, moved.headers["location"]) == (301, "/quick-start/?a=b")
        page = await proxy.get("/quick-start/")
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in page.headers
        missing = await proxy.get("/nowhere/")
        assert (missing.status, missing.body) == (404, b"nothing here")
