"""The tiers at work: restarts, large bodies from their files, damage, and brotli for Pages."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import brotli
import pytest
from aiohttp import web

from edgeproxy.pages import Pages
from edgeproxy.testing import Proxy, Reply, running

POLICY = """\
version: 1
origins: {{site: {{url: "http://site.example/", kind: {kind}}}}}
cache:
  memory: {{max_size: {memory}}}
  disk: {{path: "{folder}"}}
  encodings: [br]
  rules: {{all: {{ttl: 1h, stale_if_error: 0s}}}}
routes: [{{name: site, cache: all}}]
"""
LARGE = random.Random(5).randbytes(3_000_000)
MIDDLE = random.Random(6).randbytes(600_000)
BROWSER = {"accept-encoding": "gzip, deflate, br, zstd"}


def policy(folder: Path, *, memory: str = "64MiB", kind: str = "pages") -> str:
    return POLICY.format(folder=folder / "cache", memory=memory, kind=kind)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Pages]:
    root = tmp_path / "site"
    root.mkdir()
    words = "".join(f"<p>paragraph {number**3}, much like any other</p>\n" for number in range(900))
    (root / "index.html").write_text(f"<!doctype html><title>home</title>{words}")
    (root / "large.bin").write_bytes(LARGE)
    (root / "middle.bin").write_bytes(MIDDLE)
    (root / "small.html").write_text("small")
    async with Pages(root) as pages:
        yield pages


async def stored(proxy: Proxy, target: str, **headers: str) -> Reply:
    """Ask until the answer comes from the cache, and what goes on behind it has settled."""
    for _ in range(100):
        reply = await proxy.get(target, headers=headers)
        if "; hit" in reply.cache_status:
            await proxy.server.app.plan.cache.settled()
            return reply
    raise AssertionError(reply.cache_status)


async def test_a_large_body_is_sent_from_its_file_whole_and_in_part(
    site: Pages, tmp_path: Path
) -> None:
    for name, content, moved in (("large", LARGE, False), ("middle", MIDDLE, True)):
        async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
            await stored(proxy, f"/{name}.bin")
        async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
            first = await proxy.get(f"/{name}.bin")
            assert first.body == content
            assert first.headers["content-length"] == str(len(content))
            assert first.cache_status.endswith("detail=disk_promoted" if moved else "detail=disk")
            second = await proxy.get(f"/{name}.bin", headers={"range": "bytes=262000-270000"})
            assert second.status == 206
            assert second.body == content[262000:270001]
            assert second.cache_status.endswith("detail=memory" if moved else "detail=disk")
            head = await proxy.get(f"/{name}.bin", method="HEAD")
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-length"] == str(len(content))
            stats = proxy.server.app.plan.cache.levels.stats()
            assert stats["disk"]["promoted"] == 1 + moved  # one is the record of variants


async def test_a_large_body_goes_to_many_at_once_and_stays_out_of_memory(
    site: Pages, tmp_path: Path
) -> None:
    async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
        await stored(proxy, "/large.bin")
    async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
        replies = await asyncio.gather(*(proxy.get("/large.bin") for _ in range(8)))
        assert all(reply.body == LARGE for reply in replies)
        memory = proxy.server.app.plan.cache.levels.stats()["memory"]
        assert memory["bytes"] < 10_000  # the record of variants


def damage(folder: Path, at: int) -> None:
    (file,) = [path for path in folder.rglob("bodies/*") if path.is_file()]
    content = bytearray(LARGE)
    content[at] ^= 1
    file.write_bytes(content)


async def received(url: str) -> tuple[bytes, bool]:
    """What came, and whether it was all."""
    got = b""
    plain = {"accept-encoding": "identity"}
    async with aiohttp.ClientSession(headers=plain) as client, client.get(url) as answer:
        try:
            async for chunk in answer.content.iter_any():
                got += chunk
        except aiohttp.ClientPayloadError:
            return got, False
    return got, True


async def test_a_damaged_body_breaks_off_and_the_next_one_is_fetched(
    site: Pages, tmp_path: Path
) -> None:
    async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
        await stored(proxy, "/large.bin")
    damage(tmp_path, 2_000_000)
    async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
        got, is_whole = await received(f"{proxy.url}large.bin")
        assert not is_whole
        assert len(got) < 2_000_000
        assert LARGE.startswith(got)
        again = await proxy.get("/large.bin")
        assert again.body == LARGE
        assert "hit" not in again.cache_status


async def test_a_small_page_moves_up_after_a_restart(site: Pages, tmp_path: Path) -> None:
    async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
        await stored(proxy, "/small.html")
    async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
        details = [(await proxy.get("/small.html")).cache_status for _ in range(2)]
        assert details[0].endswith("detail=disk_promoted")
        assert details[1].endswith("detail=memory")


async def test_pages_gets_brotli_after_the_first_answer(site: Pages, tmp_path: Path) -> None:
    truth = (tmp_path / "site" / "index.html").read_bytes()
    async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
        first = await proxy.get("/", headers=BROWSER)
        assert first.headers["content-encoding"] == "gzip"
        await stored(proxy, "/", **BROWSER)
        second = await proxy.get("/", headers=BROWSER)
        assert second.headers["content-encoding"] == "br"
        assert brotli.decompress(second.body) == truth
        assert len(second.body) < len(first.body)
        assert "accept-encoding" in second.headers["vary"].lower()
        assert second.headers["etag"].startswith("W/")
        for field in ("gzip", "identity", "br;q=0", "br", "gzip, br;q=0.2"):
            reply = await proxy.get("/", headers={"accept-encoding": field})
            coding = reply.headers.get("content-encoding", "identity")
            body = reply.body
            if coding == "gzip":
                assert field.startswith("gzip")
                body = gzip.decompress(body)
            elif coding == "br":
                assert field == "br"
                body = brotli.decompress(body)
            assert body == truth
        same = await proxy.get("/", headers={**BROWSER, "if-none-match": second.headers["etag"]})
        assert same.status == 304
        part = await proxy.get("/", headers={**BROWSER, "range": "bytes=5-14"})
        assert (part.status, part.body) == (206, truth[5:15])
        assert "content-encoding" not in part.headers
    async with running(policy(tmp_path), origins={"site": site.url}) as proxy:
        kept = await proxy.get("/", headers=BROWSER)
        assert kept.cache_status.endswith("detail=disk_promoted")
        assert kept.headers["content-encoding"] == "br"


async def test_an_app_that_never_compresses_is_compressed_here(
    tmp_path: Path, serve_app: Callable[[web.Application], Awaitable[str]]
) -> None:
    text = "".join(f"line {number**2}\n" for number in range(2000))

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text, headers={"ETag": '"v1"', "Cache-Control": "max-age=60"})

    app = web.Application()
    app.router.add_get("/text", answer)
    url = await serve_app(app)
    async with running(policy(tmp_path, kind="http"), origins={"site": url}) as proxy:
        await stored(proxy, "/text", **BROWSER)
        reply = await proxy.get("/text", headers=BROWSER)
        assert reply.headers["content-encoding"] == "br"
        assert brotli.decompress(reply.body).decode() == text
        plain = await proxy.get("/text")
        assert plain.body.decode() == text
        assert plain.headers["etag"] == '"v1"'
        assert plain.headers["vary"] == "Accept-Encoding"
