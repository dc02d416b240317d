"""A client that goes away before its answer is there takes nothing with it and leaves nothing."""

import asyncio

from aiohttp import web

from edgeproxy.testing import running

POLICY = """\
version: 1
origins: {site: {url: "http://origin.invalid/"}}
routes: [{name: all, cache: false}]
"""


async def test_connection_to_the_origin_is_let_go_when_the_client_left_before_the_head() -> None:
    asked, answer, dropped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def origin(request: web.Request) -> web.StreamResponse:
        asked.set()
        await answer.wait()
        response = web.StreamResponse(headers={"content-length": "100000000"})
        await response.prepare(request)
        try:
            for _ in range(1000):
                await response.write(bytes(100_000))
        except ConnectionError:
            dropped.set()
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", origin)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with running(POLICY, origins={"site": f"http://127.0.0.1:{port}/"}) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        await asked.wait()
        writer.transport.abort()
        front = proxy.server._front
        assert front is not None
        while front.connections:
            await asyncio.sleep(0)
        answer.set()
        async with asyncio.timeout(10):
            await dropped.wait()
            while not proxy.log:
                await asyncio.sleep(0)
        assert proxy.log[0]["error"] == "the client went away"
        assert not proxy.server._core.addon.waiting
    await runner.cleanup()
