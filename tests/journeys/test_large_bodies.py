"""Large bodies while they come in: many read along, and a break is seen by all at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from edgeproxy.testing import Proxy, running

POLICY = """\
version: 1
origins: {app: {url: "http://app.example/", kind: http}}
cache: {rules: {kept: {ttl: 1h, stale_if_error: 0s}}}
routes:
  - {name: passed, match: {path: /passed}, cache: false}
  - {name: kept, cache: kept}
"""
KIB = 1024
BLOCK = bytes(range(256)) * 4 * KIB  # 1 MiB


@dataclass
class Origin:
    """Sends a piece when it is told to, and counts who asked."""

    length: int | None = None  # that it states; None: chunked
    asked: int = 0
    url: str = ""
    _how: str = "closes"
    _pieces: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def end(self) -> None:
        """The body is complete."""
        self.send(b"")

    def stop(self, how: str) -> None:
        """Go away in the middle of the body."""
        self._how = how
        self._pieces.put_nowait(None)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            chunked = self.length is None
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {self.length}"
            head = f'HTTP/1.1 200 OK\r\nETag: "v1"\r\n{framing}\r\n\r\n'
            writer.write(head.encode())
            piece: bytes | None = b"..."
            while piece and (piece := await self._pieces.get()) is not None:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
            if self._how == "talks nonsense":
                writer.write(b"nonsense\r\n" * 10)
        if self._how == "resets":
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(length: int | None) -> AsyncIterator[tuple[Origin, Proxy]]:
    origin = Origin(length)
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0)
    origin.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with running(POLICY, origins={"app": origin.url}) as proxy, asyncio.timeout(30):
        yield origin, proxy
    server.close()


class Client:
    """Reads an answer by hand, so that nothing is hidden."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._left = 0  # of the chunk that is being read
        self.head = ""

    @classmethod
    async def get(cls, proxy: Proxy, target: str, *fields: str, method: str = "GET") -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", proxy.port, limit=64 * KIB))
        lines = [f"{method} {target} HTTP/1.1", "Host: x", "Accept-Encoding: identity", *fields]
        client._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        client.head = (await client._reader.readuntil(b"\r\n\r\n")).decode()
        return client

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    async def read(self, size: int) -> bytes:
        """That many bytes of the body."""
        if "chunked" not in self.head:
            return await self._reader.readexactly(size)
        got = b""
        while len(got) < size:
            if not self._left:
                self._left = int(await self._reader.readline(), 16)
                assert self._left, "it ended"
            piece = await self._reader.readexactly(min(self._left, size - len(got)))
            self._left -= len(piece)
            got += piece
            if not self._left:
                assert await self._reader.readexactly(2) == b"\r\n"
        return got

    async def rest(self) -> bytes:
        """Whatever else comes, until the other side closes or resets."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self._reader.read(64 * KIB):
                got += piece
        return got

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_all_who_ask_meanwhile_read_along_from_the_first_byte(framing: str) -> None:
    async with serving(3 * len(BLOCK) if framing == "length" else None) as (origin, proxy):
        origin.send(BLOCK)
        first = await Client.get(proxy, "/file")
        assert await first.read(900 * KIB) == BLOCK[: 900 * KIB]
        others = [await Client.get(proxy, "/file") for _ in range(3)]
        for other in others:
            assert "collapsed" in other.head
            assert await other.read(900 * KIB) == BLOCK[: 900 * KIB]
        origin.send(BLOCK, BLOCK)
        origin.end()
        for client in (first, *others):
            assert await client.read(len(BLOCK) * 3 - 900 * KIB) == (3 * BLOCK)[900 * KIB :]
            await client.close()
        await proxy.server.app.plan.cache.settled()
        assert origin.asked == 1
        again = await proxy.get("/file", headers={"host": "x"})
        assert (again.body, "; hit" in again.cache_status) == (3 * BLOCK, True)


async def test_a_client_that_takes_nothing_holds_nobody_back() -> None:
    size = 8
    async with serving(size * len(BLOCK)) as (origin, proxy):
        origin.send(BLOCK)
        slow, quick = [await Client.get(proxy, "/file") for _ in range(2)]
        origin.send(*[BLOCK] * (size - 1))
        origin.end()
        assert await quick.read(size * len(BLOCK)) == size * BLOCK
        assert await slow.read(size * len(BLOCK)) == size * BLOCK
        for client in (slow, quick):
            await client.close()
        assert origin.asked == 1


async def test_heads_conditions_and_ranges_are_answered_meanwhile() -> None:
    async with serving(2 * len(BLOCK)) as (origin, proxy):
        origin.send(BLOCK)
        first = await Client.get(proxy, "/file")
        head = await Client.get(proxy, "/file", method="HEAD")
        assert f"content-length: {2 * len(BLOCK)}\r\n" in head.head.lower()
        known = await Client.get(proxy, "/file", 'If-None-Match: "v1"')
        assert known.status == 304
        part = await Client.get(proxy, "/file", "Range: bytes=1000-1999")
        assert (part.status, await part.read(1000)) == (206, BLOCK[1000:2000])
        waiting = asyncio.ensure_future(Client.get(proxy, "/file", "Range: bytes=-1000"))
        origin.send(BLOCK)
        origin.end()
        late = await waiting
        assert (late.status, await late.read(1000)) == (206, BLOCK[-1000:])
        assert await first.read(2 * len(BLOCK)) == 2 * BLOCK
        for client in (first, head, known, part, late):
            await client.close()
        assert origin.asked == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("target", ["/kept", "/passed"])
@pytest.mark.parametrize("lags", [False, True])
@pytest.mark.parametrize("how", ["closes", "resets", "talks nonsense"])
async def test_a_break_is_seen_at_once_by_all(
    framing: str, target: str, lags: bool, how: str
) -> None:
    """Whether they have read all that there is, or have megabytes before them still."""
    async with serving(12 * len(BLOCK) if framing == "length" else None) as (origin, proxy):
        origin.send(BLOCK)
        clients = [await Client.get(proxy, target)]
        if target == "/kept":
            clients.append(await Client.get(proxy, target))
        if lags:
            origin.send(*[BLOCK] * 9)
        else:
            for client in clients:
                assert await client.read(len(BLOCK)) == BLOCK
        origin.stop(how)
        for client in clients:
            rest = await client.rest()
            assert not rest.endswith(b"0\r\n\r\n")  # neither an end, nor another answer
            assert b"HTTP/1.1" not in rest
            await client.close()
        assert origin.asked == 1
