"""Ranges come from the page's own bytes, and freshness from what holds."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeproxy.caching.purges import EVERYTHING
from edgeproxy.pages import Pages
from edgeproxy.testing import running

MIB = 2**20
POLICY = """\
version: 1
origins:
  site: {url: "https://example.github.io/"}
cache:
  memory: {max_size: 64MiB}
routes:
  - {name: stored, match: {path: /stored/**}, rewrite: {strip_prefix: /stored}}
  - {name: fetched, match: {path: /fetched/**}, rewrite: {strip_prefix: /fetched}, cache: false}
"""

TEXT = "".join(f"line {number}\n" for number in range(4000)).encode()


@pytest.fixture
def root(make_site: Any) -> Any:
    folder = make_site(index="home")
    (folder / "lines.txt").write_bytes(TEXT)
    return folder


async def test_the_origin_does_cut_compressed_bytes(root: Any) -> None:
    """Why all this is needed: what Pages does when asked for a range and gzip."""
    headers = {"Range": "bytes=0-99", "Accept-Encoding": "gzip"}
    async with (
        Pages(root) as site,
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(site.url + "lines.txt", headers=headers) as answer,
    ):
        assert (answer.status, answer.headers["Content-Encoding"]) == (206, "gzip")
        assert await answer.read() != TEXT[:100]


@pytest.mark.parametrize("route", ["stored", "fetched"])
@pytest.mark.parametrize("coding", ["identity", "gzip", "gzip, deflate, br"])
@pytest.mark.parametrize("warmed_with", [None, "identity", "gzip"])
@pytest.mark.parametrize(
    ("spec", "first", "last"),
    [("0-99", 0, 99), ("30000-", 30000, len(TEXT) - 1), ("-50", len(TEXT) - 50, len(TEXT) - 1)],
)
async def test_a_range_is_cut_from_the_identity_bytes(
    root: Any, route: str, coding: str, warmed_with: str | None, spec: str, first: int, last: int
) -> None:
    async with Pages(root) as site, running(POLICY, origins={"site": site.url}) as proxy:
        target = f"/{route}/lines.txt"
        if warmed_with:
            await proxy.get(target, headers={"accept-encoding": warmed_with})
        headers = {"range": f"bytes={spec}", "accept-encoding": coding}
        reply = await proxy.get(target, headers=headers)
        assert reply.status == 206
        assert reply.headers["content-range"] == f"bytes {first}-{last}/{len(TEXT)}"
        assert "content-encoding" not in reply.headers
        assert reply.body == TEXT[first : last + 1]
        whole = await proxy.get(target, headers={"accept-encoding": coding})
        assert whole.status == 200
        assert whole.body in (TEXT, gzip.compress(TEXT, mtime=0)) or (
            gzip.decompress(whole.body) == TEXT
        )
        for request in site.log:
            if "Range" in request.headers:
                assert request.headers["Accept-Encoding"] == "identity"


async def test_a_range_beyond_the_end_tells_the_size_of_the_identity_bytes(root: Any) -> None:
    async with Pages(root) as site, running(POLICY, origins={"site": site.url}) as proxy:
        for route in ("stored", "fetched"):
            headers = {"range": "bytes=999999-", "accept-encoding": "gzip"}
            reply = await proxy.get(f"/{route}/lines.txt", headers=headers)
            assert reply.status == 416
            assert reply.headers["content-range"] == f"bytes */{len(TEXT)}"


async def test_one_stored_copy_answers_all_ranges(root: Any) -> None:
    async with Pages(root) as site, running(POLICY, origins={"site": site.url}) as proxy:
        await proxy.get("/stored/lines.txt")
        for first in range(0, 3000, 100):
            reply = await proxy.get(
                "/stored/lines.txt", headers={"range": f"bytes={first}-{first + 99}"}
            )
            assert reply.status == 206
            assert reply.body == TEXT[first : first + 100]
            assert "hit" in reply.cache_status
        assert site.requests["/lines.txt"] == 1


async def test_freshness_comes_from_max_age_less_age_and_not_from_a_stale_expires(
    root: Any,
) -> None:
    now_s = time.time() - 400
    gzip_too = {"accept-encoding": "gzip"}
    async with Pages(root, cdn=True, now=lambda: now_s) as site:
        async with aiohttp.ClientSession() as session:
            async with session.get(site.url, headers=gzip_too) as first:
                born = first.headers["Expires"]
            now_s += 400
            async with session.get(site.url, headers=gzip_too) as later:
                # The simulated CDN ages its answer, and leaves Expires behind.
                assert later.headers["Age"] == "400"
                assert later.headers["Expires"] == born
                assert later.headers["Cache-Control"] == "max-age=600"
        async with running(POLICY, origins={"site": site.url}) as proxy:
            reply = await proxy.get("/stored/", headers=gzip_too)
            assert "stored" in reply.cache_status
            assert "expires" not in reply.headers
            reply = await proxy.get("/stored/", headers=gzip_too)
            left_s = int(reply.cache_status.partition("ttl=")[2].partition(";")[0])
            assert 180 <= left_s <= 200
            assert 400 <= int(reply.headers["age"]) <= 420


@pytest.mark.parametrize(
    ("fields", "is_stored"),
    [
        ("Cache-Control: max-age=600\r\nExpires: Thu, 01 Jan 2015 00:00:00 GMT", True),
        ("Cache-Control: max-age=600\r\nAge: 700\r\nExpires: Tue, 01 Jan 2115 00:00:00 GMT", False),
        ("Expires: Tue, 01 Jan 2115 00:00:00 GMT", False),
    ],
    ids=["past Expires", "too old", "Expires alone"],
)
async def test_expires_decides_nothing(raw_origin: Any, fields: str, is_stored: bool) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 2\r\n\r\nok".encode()
    async with raw_origin(answer) as origin, running(POLICY, origins={"site": origin.url}) as proxy:
        await proxy.get("/stored/")
        reply = await proxy.get("/stored/")
        assert ("; hit" in reply.cache_status) is is_stored
        assert len(origin.heads) == (1 if is_stored else 2)


# ---------------------------------------------------------------- larger than what is kept whole

FILM = random.Random(9).randbytes(5 * MIB + 999)
FILM_POLICY = """\
version: 1
origins: {{site: {{url: "https://example.github.io/"}}}}
cache:
  disk: {{path: "{folder}"}}
  max_object_size: 2MiB
  rules: {{media: {{ttl: 1h}}}}
routes: [{{name: site, cache: media}}]
"""


@pytest.fixture
def film(make_site: Any) -> Any:
    folder = make_site(index="home")
    (folder / "film.mp4").write_bytes(FILM)
    return folder


def span(wanted: str) -> bytes:
    first, _, last = wanted.partition("-")
    return FILM[int(first) : int(last) + 1 if last else None]


async def test_a_player_is_served_from_parts_even_after_a_restart(
    film: Any, tmp_path: Path
) -> None:
    policy = FILM_POLICY.format(folder=tmp_path / "cache")
    seeks = ["0-1", "0-", f"{4 * MIB}-", f"{MIB - 5}-{2 * MIB + 5}", f"{5 * MIB}-"]
    async with Pages(film) as site:
        async with running(policy, origins={"site": site.url}) as proxy:
            for wanted in seeks:
                reply = await proxy.get("/film.mp4", headers={"range": f"bytes={wanted}"})
                assert (reply.status, reply.body) == (206, span(wanted))
            assert "edgeproxy; hit" in reply.cache_status
            await proxy.server.app.plan.cache.settled()
        fetched = [request.headers.get("Range") for request in site.log]
        assert fetched == [None, *[f"bytes={n * MIB}-{n * MIB + MIB - 1}" for n in range(5)],
                           f"bytes={5 * MIB}-{len(FILM) - 1}"]  # fmt: skip
        async with running(policy, origins={"site": site.url}) as proxy:
            for wanted in seeks:
                reply = await proxy.get("/film.mp4", headers={"range": f"bytes={wanted}"})
                assert (reply.status, reply.body) == (206, span(wanted))
                assert "edgeproxy; hit" in reply.cache_status
            assert len(site.log) == len(fetched)
            whole = await proxy.get("/film.mp4")
            assert (whole.status, whole.body) == (200, FILM)
            assert "fwd=bypass" in whole.cache_status
            await proxy.server.app.plan.cache.purge(EVERYTHING)
            again = await proxy.get("/film.mp4", headers={"range": "bytes=0-1"})
            assert "fwd-status=200; stored" in again.cache_status


async def test_many_players_at_once_cost_the_origin_one(film: Any, tmp_path: Path) -> None:
    policy = FILM_POLICY.format(folder=tmp_path / "cache")
    async with Pages(film) as site, running(policy, origins={"site": site.url}) as proxy:
        wanted = [f"{first}-" for first in (0, 0, MIB, 3 * MIB, 0, MIB)]
        replies = await asyncio.gather(
            *[proxy.get("/film.mp4", headers={"range": f"bytes={one}"}) for one in wanted]
        )
        for one, reply in zip(wanted, replies, strict=True):
            assert (reply.status, reply.body) == (206, span(one))
        parts = [r.headers["Range"] for r in site.log if "Range" in r.headers]
        assert len(parts) == len(set(parts)) == 6
