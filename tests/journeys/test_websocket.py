"""WebSockets pass on routes that allow them, to origins that are apps, and nowhere else."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from edgeproxy.pages import Pages
from edgeproxy.testing import Proxy, running

POLICY = """\
version: 1
origins:
  app: {url: "http://app.example/", kind: http}
  site: {url: "http://site.example/"}
routes:
  - {name: live, match: {path: /live/**}, origin: app, websocket: true}
  - {name: plain, match: {path: /plain/**}, origin: app}
  - {name: site, origin: site, websocket: true}
"""

BIG = 4 * 1024 * 1024

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class App:
    """Echoes; `close CODE` makes it close, `headers` answers with what the handshake said."""

    def __init__(self) -> None:
        self.closed_with: asyncio.Queue[int | None] = asyncio.Queue()
        self.requests = 0
        self.app = web.Application()
        self.app.router.add_get("/{tail:.*}", self.live)

    async def live(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(text="no upgrade was asked for")
        if request.path.endswith("/refused"):
            return web.Response(status=403, text="not you")
        socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=2 * BIG)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data.startswith("close "):
                await socket.close(code=int(message.data[6:]), message=b"as you wish")
            elif message.data == "headers":
                await socket.send_json(dict(request.headers))
            else:
                await socket.send_str(message.data)
        await self.closed_with.put(socket.close_code)
        return socket


def live_url(proxy: Proxy, path: str = "/live/feed") -> str:
    return proxy.url.rstrip("/") + path


async def test_frames_pass_both_ways_also_large_ones(serve_app: Any) -> None:
    app = App()
    origin = await serve_app(app.app)
    async with (
        running(POLICY, origins={"app": origin}) as proxy,
        aiohttp.ClientSession() as client,
        client.ws_connect(live_url(proxy), max_msg_size=2 * BIG) as socket,
    ):
        for text in ("hello", "", "grüße " * 100):
            await socket.send_str(text)
            assert await socket.receive_str() == text
        for size in (1, 125, 126, 65535, 65536, BIG):
            data = os.urandom(size)
            await socket.send_bytes(data)
            assert await socket.receive_bytes() == data
        await asyncio.gather(*(socket.send_str(str(number)) for number in range(200)))
        assert [await socket.receive_str() for _ in range(200)] == [*map(str, range(200))]


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4321])
async def test_close_codes_reach_the_other_side(serve_app: Any, code: int) -> None:
    app = App()
    origin = await serve_app(app.app)
    async with running(POLICY, origins={"app": origin}) as proxy, aiohttp.ClientSession() as client:
        async with client.ws_connect(live_url(proxy)) as socket:
            await socket.send_str(f"close {code}")
            message = await socket.receive()
            assert (message.type, message.data, message.extra) == (
                WSMsgType.CLOSE, code, "as you wish",
            )  # fmt: skip
        async with client.ws_connect(live_url(proxy)) as socket:
            await socket.close(code=code)
        async with asyncio.timeout(10):
            assert code in {await app.closed_with.get(), await app.closed_with.get()}


async def test_a_client_that_vanishes_frees_the_origin(serve_app: Any) -> None:
    app = App()
    origin = await serve_app(app.app)
    async with running(POLICY, origins={"app": origin}) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(HANDSHAKE % b"/live/feed")
        assert (await reader.readline()).startswith(b"HTTP/1.1 101")
        writer.transport.abort()
        async with asyncio.timeout(10):
            await app.closed_with.get()


async def test_the_handshake_reaches_the_app_with_its_own_fields_only(serve_app: Any) -> None:
    app = App()
    origin = await serve_app(app.app)
    async with running(POLICY, origins={"app": origin}) as proxy, aiohttp.ClientSession() as client:
        url = live_url(proxy, "/live/feed?room=1")
        headers = {"Cookie": "session=1", "X-Forwarded-For": "1.2.3.4", "Origin": "http://public"}
        async with client.ws_connect(url, protocols=("chat",), headers=headers) as socket:
            assert socket.protocol == "chat"
            await socket.send_str("headers")
            seen = {name.lower(): value for name, value in (await socket.receive_json()).items()}
        assert seen["host"] == origin.removeprefix("http://").rstrip("/")
        assert seen["cookie"] == "session=1"
        assert seen["x-forwarded-for"] == "127.0.0.1"
        assert seen["x-forwarded-host"] == f"127.0.0.1:{proxy.port}"
        assert seen["origin"] == "http://public"


async def test_the_access_log_has_a_line_for_it(serve_app: Any) -> None:
    app = App()
    origin = await serve_app(app.app)
    async with running(POLICY, origins={"app": origin}) as proxy, aiohttp.ClientSession() as client:
        async with client.ws_connect(live_url(proxy)) as socket:
            await socket.send_str("hello")
            await socket.receive_str()
        async with asyncio.timeout(10):
            await app.closed_with.get()
    assert [(line["status"], line["route"]) for line in proxy.log] == [(101, "live")]


async def test_a_route_without_websocket_does_not_upgrade(serve_app: Any) -> None:
    app = App()
    origin = await serve_app(app.app)
    async with running(POLICY, origins={"app": origin}) as proxy:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(HANDSHAKE % b"/plain/feed")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 101 " not in head.splitlines()[0]
            assert b"upgrade" not in head.lower()
            writer.close()
            await writer.wait_closed()
        # The app was asked without the upgrade, as if the client had not named it.
        assert head.startswith(b"HTTP/1.1 200")


async def test_a_site_is_never_asked_to_upgrade(make_site: Any) -> None:
    async with (
        Pages(make_site(index="home")) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(HANDSHAKE % b"/")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert "Upgrade" not in site.log[-1].headers
        writer.close()
        await writer.wait_closed()


async def test_an_app_that_refuses_the_upgrade_is_heard(serve_app: Any) -> None:
    app = App()
    origin = await serve_app(app.app)
    async with running(POLICY, origins={"app": origin}) as proxy, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await client.ws_connect(live_url(proxy, "/live/refused"))
        assert refusal.value.status == 403


@pytest.mark.parametrize("upgrade", [b"h2c", b"TLS/1.0", b"foo, websocket"])
async def test_no_other_upgrade_passes(serve_app: Any, upgrade: bytes) -> None:
    app = App()
    origin = await serve_app(app.app)
    async with running(POLICY, origins={"app": origin}) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            (HANDSHAKE % b"/live/feed").replace(b"Upgrade: websocket", b"Upgrade: " + upgrade)
        )
        assert b" 101 " not in await reader.readline()
        writer.close()
        await writer.wait_closed()
