"""One URL, several answers: by what clients accept, and by any field that an origin names."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import brotli
import pytest
from aiohttp import web

from edgeproxy.caching.levels import MAX_VARIANTS
from edgeproxy.caching.purges import EVERYTHING
from edgeproxy.testing import Proxy, Reply, running

Serve = Callable[[web.Application], Awaitable[str]]

POLICY = """\
version: 1
origins: {app: {url: "http://app.example/", kind: http}}
cache:
  memory: {max_size: 64MiB}
  disk: {path: "@FOLDER@/cache"}
  encodings: [CODINGS]
routes: [{name: app}]
"""
TEXT = "".join(f"<p>paragraph {number**3}, much like any other</p>\n" for number in range(900))


@dataclass
class App:
    """An origin that has gzip, as most do, and counts what it is asked for."""

    asked: Counter[str | None] = field(default_factory=Counter)  # by Accept-Encoding
    text: str = TEXT

    async def handle(self, request: web.Request) -> web.Response:
        accepted = request.headers.get("Accept-Encoding")
        self.asked[accepted] += 1
        fields = {"Cache-Control": "max-age=600", "Vary": "Accept-Encoding", "ETag": '"plain"'}
        body = self.text.encode()
        if "gzip" in (accepted or ""):
            body = gzip.compress(body, mtime=0)
            fields |= {"Content-Encoding": "gzip", "ETag": '"gzip"'}
        return web.Response(body=body, headers=fields, content_type="text/html")

    async def serve(self, serve_app: Serve) -> str:
        app = web.Application()
        app.router.add_get("/{name:.*}", self.handle)
        return await serve_app(app)


def policy(folder: Path, *codings: str) -> str:
    text = POLICY.replace("@FOLDER@", str(folder))
    return text.replace("CODINGS", ", ".join(codings))


def decoded(reply: Reply) -> str:
    """What the client makes of it."""
    decode: dict[str, Callable[[bytes], bytes]] = {
        "identity": lambda data: data,
        "gzip": gzip.decompress,
        "br": brotli.decompress,
        "zstd": _zstd,
    }
    return decode[coding(reply)](reply.body).decode()


def _zstd(data: bytes) -> bytes:
    try:
        module = import_module("compression.zstd")
    except ImportError:
        module = import_module("backports.zstd")
    text: bytes = module.decompress(data)
    return text


def coding(reply: Reply) -> str:
    return reply.headers.get("content-encoding", "identity")


async def settled(proxy: Proxy) -> None:
    await proxy.server.app.plan.cache.settled()


# ---------------------------------------------------------------- what clients accept

SPELLINGS = {
    "gzip": "gzip",
    "gzip, deflate, br, zstd": "gzip",
    "GZip;q=1.0": "gzip",
    "x-gzip": "gzip",
    "*": "gzip",
    "deflate, gzip;q=0.001": "gzip",
    " gzip ,deflate": "gzip",
    "br": "identity",
    "identity": "identity",
    "gzip;q=0, *": "identity",
    "gzip;q=0": "identity",
    "deflate": "identity",
    "gzip;level=9": "identity",
}


async def test_however_it_is_spelt_the_origin_is_asked_for_one_of_two(
    serve_app: Serve, tmp_path: Path
) -> None:
    app = App()
    async with running(policy(tmp_path), origins={"app": await app.serve(serve_app)}) as proxy:
        for _ in range(2):
            for spelling, expected in SPELLINGS.items():
                reply = await proxy.get("/page", headers={"accept-encoding": spelling})
                assert (coding(reply), decoded(reply)) == (expected, TEXT), spelling
                assert reply.headers["vary"].lower() == "accept-encoding"
                await settled(proxy)
        assert app.asked == {"gzip": 1, "identity": 1}


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("br, zstd", "zstd"),  # the policy's order, among equals
        ("br, zstd;q=0.9", "br"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate, zstd", "zstd"),
        ("gzip, br;q=0.5, zstd;q=0.5", "gzip"),  # which it likes better
        ("gzip;q=0.5, br;q=0.5", "br"),
        ("*;q=0.1", "zstd"),
        ("br;q=0, zstd;q=0, *", "gzip"),
        ("br;q=0, zstd;q=0", "identity"),
        ("gzip", "gzip"),
        ("identity", "identity"),
        ("", "identity"),
    ],
)
async def test_each_gets_the_best_coding_that_he_accepts(
    serve_app: Serve, tmp_path: Path, accepted: str, expected: str
) -> None:
    app = App()
    url = await app.serve(serve_app)
    async with running(policy(tmp_path, "zstd", "br"), origins={"app": url}) as proxy:
        for spelling in ("gzip", "identity"):
            await proxy.get("/page", headers={"accept-encoding": spelling})
        await settled(proxy)  # by then all codings of both have been made
        reply = await proxy.get("/page", headers={"accept-encoding": accepted})
        assert (coding(reply), decoded(reply)) == (expected, TEXT)
        assert "; hit" in reply.cache_status
        assert reply.headers["content-length"] == str(len(reply.body))
        tag = reply.headers["etag"]
        assert tag.startswith("W/") == (expected in ("br", "zstd"))
        fields = {"accept-encoding": accepted, "if-none-match": tag}
        assert (await proxy.get("/page", headers=fields)).status == 304
        assert app.asked == {"gzip": 1, "identity": 1}


async def test_what_was_made_outlives_a_restart_and_not_a_purge(
    serve_app: Serve, tmp_path: Path
) -> None:
    app = App()
    url = await app.serve(serve_app)
    wanted = {"accept-encoding": "gzip, zstd"}
    # The key holds the public name, which is another address after a restart.
    fields = {**wanted, "host": "site.example"}
    async with running(policy(tmp_path, "zstd"), origins={"app": url}) as proxy:
        await proxy.get("/page", headers=fields)
        await settled(proxy)
    async with running(policy(tmp_path, "zstd"), origins={"app": url}) as proxy:
        kept = await proxy.get("/page", headers=fields)
        assert (coding(kept), decoded(kept)) == ("zstd", TEXT)
        assert app.asked == {"gzip": 1}
        app.text = TEXT[::-1]
        await proxy.server.app.plan.cache.purge(EVERYTHING)
        fresh = await proxy.get("/page", headers=fields)
        assert (coding(fresh), decoded(fresh)) == ("gzip", TEXT[::-1])


async def test_ranges_are_of_the_plain_bytes_whatever_is_accepted(
    serve_app: Serve, tmp_path: Path
) -> None:
    app = App()
    url = await app.serve(serve_app)
    async with running(policy(tmp_path, "zstd", "br"), origins={"app": url}) as proxy:
        for accepted in ("gzip", "br", "zstd", "identity"):
            fields = {"accept-encoding": accepted, "range": "bytes=100-299"}
            reply = await proxy.get("/page", headers=fields)
            assert (reply.status, coding(reply)) == (206, "identity")
            assert reply.body == TEXT.encode()[100:300]
        assert app.asked == {"identity": 1}


# ---------------------------------------------------------------- what an origin names in Vary


async def test_many_variants_are_kept_apart_and_their_number_is_bounded(
    serve_app: Serve, tmp_path: Path
) -> None:
    asked: Counter[str] = Counter()

    async def shade(request: web.Request) -> web.Response:
        name = request.headers.get("X-Shade", "none")
        asked[name] += 1
        fields = {"Cache-Control": "max-age=600", "Vary": "X-Shade, Accept-Language"}
        return web.Response(text=f"{name} {request.headers.get('Accept-Language')}", headers=fields)

    app = web.Application()
    app.router.add_get("/", shade)
    shades = [f"shade{number}" for number in range(4 * MAX_VARIANTS)]
    url = await serve_app(app)
    async with running(policy(tmp_path), origins={"app": url}) as proxy:

        async def get(name: str, language: str = "de") -> Reply:
            fields = {"x-shade": name, "accept-language": language, "host": "site.example"}
            reply = await proxy.get("/", headers=fields)
            assert reply.body.decode() == f"{name} {language}"
            return reply

        for start in range(0, len(shades), 16):
            await asyncio.gather(*(get(name) for name in shades[start : start + 16]))
            await settled(proxy)
        for tier in proxy.server.app.plan.cache.levels.stats().values():
            assert tier["objects"] <= MAX_VARIANTS + 1  # and the record of what there is
        assert set(asked.values()) == {1}
        newest = await get(shades[-1])
        assert "; hit" in newest.cache_status
        oldest = await get(shades[0])
        assert "fwd=vary-miss" in oldest.cache_status
        assert "fwd=vary-miss" in (await get(shades[-1], "fr")).cache_status
        await settled(proxy)
        assert "; hit" in (await get(shades[-1])).cache_status


async def test_a_field_that_is_spelt_otherwise_is_the_same_where_that_is_safe(
    serve_app: Serve, tmp_path: Path
) -> None:
    asked: list[str] = []

    async def page(request: web.Request) -> web.Response:
        asked.append(request.headers["Accept-Language"])
        fields = {"Cache-Control": "max-age=600", "Vary": "Accept-Language"}
        return web.Response(text="hallo", headers=fields)

    app = web.Application()
    app.router.add_get("/", page)
    async with running(policy(tmp_path), origins={"app": await serve_app(app)}) as proxy:
        for spelling in ("de, en", "de,en", "DE ,  en", "de,\ten"):
            await proxy.get("/", headers={"accept-language": spelling})
            await settled(proxy)
        assert asked == ["de, en"]
        await proxy.get("/", headers={"accept-language": "en, de"})  # another order is another wish
        assert asked == ["de, en", "en, de"]


# ---------------------------------------------------------------- what a rule has in the key

KEYED = """\
version: 1
origins: {app: {url: "http://app.example/", kind: http}}
cache:
  rules:
    app:
      ttl: 1h
      ignore_query: [utm_*, fbclid]
      query: sort
      key: {headers: [x-app], cookies: [theme]}
routes: [{name: app, cache: app}]
"""


async def test_a_rule_says_what_of_the_request_answers_depend_on(serve_app: Serve) -> None:
    asked: list[str] = []

    async def page(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        theme, app = request.cookies.get("theme"), request.headers.get("X-App")
        return web.Response(text=f"{request.query_string} {theme} {app}")

    app = web.Application()
    app.router.add_get("/", page)
    async with running(KEYED, origins={"app": await serve_app(app)}) as proxy:

        async def get(target: str, cookie: str = "", name: str = "") -> Reply:
            fields = {"cookie": cookie, "x-app": name}
            sent = {field: value for field, value in fields.items() if value}
            reply = await proxy.get(target, headers=sent)
            await settled(proxy)
            return reply

        first = await get("/?b=2&utm_source=x&a=1", "theme=dark; id=1", "one")
        assert first.body == b"a=1&b=2 dark one"
        assert asked == ["/?a=1&b=2"]
        # Browsers may keep it, caches in between not; and what it depended on is named.
        assert "private" in first.headers["cache-control"]
        assert {"cookie", "x-app"} <= set(first.headers["vary"].replace(" ", "").split(","))
        same = await get("/?a=1&fbclid=7&b=2", "id=2; theme=dark", "one")
        assert (same.body, "; hit" in same.cache_status) == (b"a=1&b=2 dark one", True)
        assert (await get("/?a=1&b=2", "theme=light", "one")).body == b"a=1&b=2 light one"
        assert (await get("/?a=1&b=2", "", "one")).body == b"a=1&b=2 None one"
        assert (await get("/?a=1&b=2", "theme=dark", "two")).body == b"a=1&b=2 dark two"
        assert len(asked) == 4
        for _ in range(4):  # also once answers are remembered
            for theme, name in (("dark", "one"), ("light", "one"), ("dark", "two")):
                again = await get("/?a=1&b=2", f"theme={theme}", name)
                assert again.body == f"a=1&b=2 {theme} {name}".encode()
        assert len(asked) == 4
        await proxy.server.app.plan.cache.purge(EVERYTHING)
        assert "; hit" not in (await get("/?a=1&b=2", "theme=dark", "two")).cache_status
