"""Row 33: whatever is done to the admin listener, visitors are served, and operators get in."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.admin.runner import MAX_CONNECTIONS
from edgeproxy.testing import running
from tests.threats.raw import Origin, answers, ask, send

TOKEN = "a-token-that-nobody-guesses"
POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
origins: {site: {url: "http://127.0.0.1:9/", kind: http}}
routes: [{name: all, cache: false}]
"""


def request(port: int, token: str) -> bytes:
    return (
        f"GET /version HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    ).encode()


async def test_flood_of_the_admin_listener_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)
    async with Origin() as origin, running(POLICY, origins={"site": origin.url}) as proxy:
        port = int(proxy.server.admin.address.rpartition(":")[2])
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
        for number, (_, writer) in enumerate(silent):
            writer.write((b"", b"GET /version HTTP/1.1\r\n", b"\0" * 100, b"POST ")[number % 4])
        guesses = [send(port, request(port, f"guess {n}"), half_close=False) for n in range(300)]
        guessing = asyncio.gather(*guesses, return_exceptions=True)
        for _ in range(20):
            assert (await ask(proxy.port)).status == 200
        for got in await guessing:
            assert isinstance(got, ConnectionError) or b" 200 " not in got
        oldest = silent[: 600 - 300 - MAX_CONNECTIONS]  # which are closed, whatever they say
        async with asyncio.timeout(10):
            await asyncio.gather(*(reader.read() for reader, _ in oldest), return_exceptions=True)
        [told] = answers(await send(port, request(port, TOKEN), half_close=False))
        assert told.status == 200
        assert (await ask(proxy.port)).status == 200
        for _, writer in silent:
            writer.close()
        await asyncio.gather(
            *(writer.wait_closed() for _, writer in silent), return_exceptions=True
        )
