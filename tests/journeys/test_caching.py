"""Caching from end to end: one fetch for many, changes, early hints, an origin that fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgeproxy.testing import Proxy, running

POLICY = """\
version: 1
origins:
  app: {url: "http://127.0.0.1:1/", kind: http, connect_timeout: 300ms, first_byte_timeout: 300ms}
cache:
  memory: {}
  rules:
    app: {status_ttl: {404: 1h}}
routes:
  - {name: app, origin: app, cache: app}
"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class App:
    """An origin with a handler that a test may change, and what it was asked."""

    handler: Handler | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""
    runner: web.AppRunner | None = None
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        async with self.news:
            self.asked.append(f"{request.method} {request.path_qs}")
            self.news.notify_all()
        assert self.handler is not None
        return await self.handler(request)

    async def was_asked(self, times: int) -> None:
        async with self.news:
            await self.news.wait_for(lambda: len(self.asked) >= times)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[App]:
    app = App(handler)
    server = web.Application()
    server.router.add_route("*", "/{rest:.*}", app.handle)
    app.runner = web.AppRunner(server, shutdown_timeout=0)
    await app.runner.setup()
    site = web.TCPSite(app.runner, "127.0.0.1", 0)
    await site.start()
    app.url = f"http://127.0.0.1:{app.runner.addresses[0][1]}/"
    try:
        yield app
    finally:
        app.over.set()
        await app.runner.cleanup()


def page(text: str = "page", status: int = 200, **fields: str) -> web.Response:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return web.Response(text=text, status=status, headers=headers)


async def test_many_clients_are_one_fetch() -> None:
    gate = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        await gate.wait()
        return page(cache_control="max-age=60")

    async with serving(slow) as app, running(POLICY, origins={"app": app.url}) as proxy:
        waiting = [asyncio.ensure_future(proxy.get("/")) for _ in range(20)]
        await app.was_asked(1)
        gate.set()
        replies = await asyncio.gather(*waiting)
        assert {reply.body for reply in replies} == {b"page"}
        assert app.asked == ["GET /"]
        assert any("collapsed" in reply.cache_status for reply in replies)
        head = await proxy.get("/", method="HEAD")
        assert (head.body, head.headers["content-length"]) == (b"", "4")
        assert head.cache_status.startswith("edgeproxy; hit")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH"])
@pytest.mark.parametrize("by", ["target", "location", "content-location", "group"])
async def test_a_change_is_seen_at_once(method: str, by: str) -> None:
    count = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        if request.method == "GET":
            return page(str(count), cache_control="max-age=60", cache_groups='"news"')
        fields = {
            "target": {},
            "location": {"location": f"{app.url}page?x=1"},
            "content-location": {"content_location": "/page?x=1"},
            "group": {"cache_group_invalidation": '"news"'},
        }[by]
        return page(status=201, **fields)

    async with serving(answer) as app, running(POLICY, origins={"app": app.url}) as proxy:
        assert (await proxy.get("/page?x=1")).body == b"1"
        assert (await proxy.get("/page?x=1")).body == b"1"
        changed = await proxy.get("/page?x=1" if by == "target" else "/form", method=method)
        assert changed.cache_status == "edgeproxy; fwd=method; fwd-status=201"
        assert (await proxy.get("/page?x=1")).body == b"3"


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        ("POST", 400, {}),
        ("POST", 500, {}),
        ("OPTIONS", 200, {}),
        ("POST", 201, {"location": "http://elsewhere.example/page"}),
    ],
)
async def test_what_has_not_changed_stays(method: str, status: int, fields: dict[str, str]) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return page(cache_control="max-age=60")
        return page(status=status, **fields)

    async with serving(answer) as app, running(POLICY, origins={"app": app.url}) as proxy:
        await proxy.get("/page")
        await proxy.get("/other" if fields else "/page", method=method)
        assert (await proxy.get("/page")).cache_status.startswith("edgeproxy; hit")


# ---------------------------------------------------------------- early hints

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\nConnection: x\r\nX: 1\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npage"


@contextlib.asynccontextmanager
async def raw_origin(*parts: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                for part in parts:
                    writer.write(part)
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def raw_get(proxy: Proxy, version: str = "1.1", path: str = "/") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(f"GET {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    data = await reader.read()
    writer.close()
    return data


async def test_early_hints_are_passed_on_and_not_stored() -> None:
    processing = b"HTTP/1.1 102 Processing\r\n\r\n"
    async with (
        raw_origin(processing, HINTS, FINAL) as url,
        running(POLICY, origins={"app": url}) as proxy,
    ):
        first = await raw_get(proxy)
        assert first.startswith(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n")
        hints, _, final = first.partition(b"\r\n\r\n")[2].partition(b"\r\n\r\n")
        assert b"Link: </s.css>; rel=preload" in hints
        assert b"X: 1" not in hints
        assert final.startswith(b"HTTP/1.1 200 OK\r\n")
        again = await raw_get(proxy)
        assert again.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"edgeproxy; hit" in again
        assert b"Link" not in again


async def test_clients_of_http_1_0_get_no_hints() -> None:
    async with raw_origin(HINTS, FINAL) as url, running(POLICY, origins={"app": url}) as proxy:
        assert (await raw_get(proxy, "1.0")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_flood_of_hints_is_cut_off() -> None:
    async with (
        raw_origin(HINTS * 1000, FINAL) as url,
        running(POLICY, origins={"app": url}) as proxy,
    ):
        answer = await raw_get(proxy)
        assert 1 <= answer.count(b"HTTP/1.1 103") <= 8
        assert answer.endswith(b"page")


# ---------------------------------------------------------------- large bodies

MIB = 1024 * 1024


async def test_a_large_body_streams_while_it_is_stored_and_others_join() -> None:
    gate = asyncio.Event()

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Cache-Control": "max-age=60"})
        response.content_length = 3 * MIB
        await response.prepare(request)
        await response.write(b"a" * MIB)
        await gate.wait()
        await response.write(b"b" * 2 * MIB)
        return response

    async with serving(large) as app, running(POLICY, origins={"app": app.url}) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % proxy.port)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(MIB // 2) == b"a" * (MIB // 2)  # the rest is not sent yet
        second = asyncio.ensure_future(proxy.get("/"))
        await asyncio.sleep(0)
        gate.set()
        rest = await reader.readexactly(3 * MIB - MIB // 2)
        writer.close()
        assert (await second).body == b"a" * (MIB // 2) + rest
        assert app.asked == ["GET /"]
        part = await proxy.get("/", headers={"range": f"bytes={MIB - 1}-{MIB}"})
        assert (part.status, part.body) == (206, b"ab")


# ---------------------------------------------------------------- an origin that fails


async def refuse(app: App) -> None:
    assert app.runner is not None
    await app.runner.cleanup()


async def reset(app: App) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return page()

    app.handler = handler


async def be_silent(app: App) -> None:
    async def handler(request: web.Request) -> web.Response:
        await app.over.wait()
        return page()

    app.handler = handler


async def answer_503(app: App) -> None:
    async def handler(request: web.Request) -> web.Response:
        return page(status=503)

    app.handler = handler


@pytest.mark.parametrize("fail", [refuse, reset, be_silent, answer_503])
async def test_a_stale_copy_is_served_and_a_missing_one_is_explained(
    fail: Callable[[App], Awaitable[None]],
) -> None:
    async def fine(request: web.Request) -> web.Response:
        return page(cache_control="max-age=0", etag='"a"')

    async with serving(fine) as app, running(POLICY, origins={"app": app.url}) as proxy:
        await proxy.get("/")
        await fail(app)
        for _ in range(5):
            reply = await proxy.get("/")
            assert (reply.status, reply.body) == (200, b"page")
        missing = await proxy.get("/missing")
        assert missing.status in (502, 503, 504)
        if fail is not answer_503:
            assert "edgeproxy; error=" in missing.headers["proxy-status"]


async def test_copies_stand_in_while_the_name_of_the_origin_cannot_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a restart, when nothing is known of its address any more."""

    async def fine(request: web.Request) -> web.Response:
        return page(cache_control="max-age=0", etag='"a"')

    is_known = True
    loop = asyncio.get_running_loop()
    find = loop.getaddrinfo

    async def resolve(host: str, port: int, **how: Any) -> Any:
        if host != "app.example":
            return await find(host, port, **how)
        if not is_known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await find("127.0.0.1", port, **how)

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    async with serving(fine) as app:
        policy = POLICY.replace("http://127.0.0.1:1/", app.url.replace("127.0.0.1", "app.example"))
        policy = policy.replace("memory: {}", f'disk: {{path: "{tmp_path}/cache"}}')
        policy = policy.replace("kind: http", "kind: http, allow_private: true")
        fields = {"host": "site.example"}
        async with running(policy) as proxy:
            assert (await proxy.get("/", headers=fields)).body == b"page"
        is_known = False
        async with running(policy) as proxy:
            for _ in range(5):
                reply = await proxy.get("/", headers=fields)
                assert (reply.status, reply.body) == (200, b"page")
                assert "error=dns_error" in reply.headers["proxy-status"]
            assert "detail=origin_down" in reply.cache_status
            missing = await proxy.get("/missing", headers=fields)
            assert missing.status == 502
            assert "error=dns_error" in missing.headers["proxy-status"]
            is_known = True
            assert (await proxy.get("/missing", headers=fields)).status == 200
            assert "proxy-status" not in (await proxy.get("/", headers=fields)).headers
        assert app.asked == ["GET /", "GET /missing", "GET /"]


async def test_stale_while_revalidate_asks_once() -> None:
    gate = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if len(app.asked) > 1:
            await gate.wait()
        return page(str(len(app.asked)), cache_control="max-age=0, stale-while-revalidate=60")

    async with serving(answer) as app, running(POLICY, origins={"app": app.url}) as proxy:
        await proxy.get("/")
        for _ in range(10):
            assert (await proxy.get("/")).body == b"1"
        await app.was_asked(2)
        gate.set()
        assert app.asked == ["GET /", "GET /"]


async def test_what_is_not_there_is_remembered() -> None:
    async def missing(request: web.Request) -> web.Response:
        return page(status=404)

    async with serving(missing) as app, running(POLICY, origins={"app": app.url}) as proxy:
        for _ in range(3):
            assert (await proxy.get("/nothing")).status == 404
        assert len(app.asked) == 1


async def test_clients_do_not_queue_for_what_cannot_be_shared() -> None:
    together = asyncio.Barrier(5)

    async def private(request: web.Request) -> web.Response:
        if request.path == "/each" and len(app.asked) > 1:
            await together.wait()  # nobody is answered until all have asked
        return page(cache_control="private")

    async with serving(private) as app, running(POLICY, origins={"app": app.url}) as proxy:
        await proxy.get("/each")
        replies = await asyncio.gather(*[proxy.get("/each") for _ in range(5)])
        assert {reply.status for reply in replies} == {200}
        assert all("detail=hit_for_miss" in reply.cache_status for reply in replies)
