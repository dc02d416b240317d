"""Rows 19, 21 and 24: what has no end, or grows when it is opened, does not fill the memory."""

from __future__ import annotations

import asyncio
import gzip
import re
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from tests import http3_client
from tests.certificates import Authority
from tests.http2_client import connected, get
from tests.threats.raw import OK, Act, Link, Origin, answering, ask

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux tells it"
)

MIB = 1024  # in the kernel's kilobytes
COUNT = 60  # requests at once; the proxy asks its origin 64 times at once

POLICY = """\
version: 1
origins:
  site:
    url: http://127.0.0.1:1/
    kind: http
    connect_timeout: 500ms
    first_byte_timeout: 500ms
    idle_timeout: 1s
    total_timeout: 1500ms
cache: {memory: {max_size: 4MiB}, max_object_size: 1MiB}
limits: {send_timeout: 800ms}
tls:
  certificates: [{certificate: FOLDER/server.pem, key: FOLDER/server.key}]
  protocols: [h3, h2, http/1.1]
routes:
  - {name: plain, match: {path: /plain}, origin: site, cache: false}
  - {name: links, match: {path: /links/**}, origin: site, filters: [{rewrite_links: {}}]}
  - {name: kept, origin: site}
"""


@dataclass(frozen=True, slots=True)
class Child:
    """A proxy in a process of its own."""

    port: int
    tls_port: int
    pid: int

    def peak(self) -> int:
        """The most memory it has held since `rest`, in kilobytes."""
        return self._status("VmHWM")

    def rest(self) -> int:
        """What it holds now; the peak is measured anew from here."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self._status("VmRSS")

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise AssertionError(name)


@asynccontextmanager
async def child(origin: Origin, folder: Path) -> AsyncIterator[Child]:
    policy = folder / "policy.yaml"
    Authority.in_folder(folder, "authority").sign(folder, "server", "a.example")
    policy.write_text(POLICY.replace("FOLDER", str(folder)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeproxy", "run", str(policy), "--listen", "127.0.0.1:0",
        "--listen-tls", "127.0.0.1:0",
        "--origin", f"site={origin.url}", "--access-log", "off", "--log-level", "ERROR",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode()
        ports = [int(port) for port in re.findall("https?://127.0.0.1:([0-9]+)/", line)]
        yield Child(*ports, process.pid)
        process.terminate()
        async with asyncio.timeout(15):
            assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def _endless(start: bytes, piece: bytes) -> Act:
    async def act(link: Link) -> None:
        await link.request()
        await link.send(start)
        while True:
            await link.send(piece)

    return act


FRESH = b"Cache-Control: max-age=60\r\n"
ENDLESS = {
    "a head": _endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 5000),
    "a line": _endless(b"HTTP/1.1 200 OK\r\na: ", b"b" * 65536),
    "interim answers": _endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000),
    "chunks": _endless(
        b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % FRESH,
        b"10000\r\n" + b"x" * 65536 + b"\r\n",
    ),
    "tiny chunks": _endless(
        b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % FRESH, b"1\r\nx\r\n" * 5000
    ),
    "a chunk line": _endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 65536
    ),
    "trailers": _endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 5000
    ),
    "a body": _endless(b"HTTP/1.1 200 OK\r\n%b\r\n" % FRESH, b"x" * 65536),
    "a long body": _endless(
        b"HTTP/1.1 200 OK\r\n%bContent-Length: 9999999999\r\n\r\n" % FRESH, b"x" * 65536
    ),
}
BOMB = gzip.compress(bytes(300 << 20), 9)
NESTED = gzip.compress(gzip.compress(b"<p>" * (100 << 20), 9), 9)
BROKEN = zlib.compressobj(9, zlib.DEFLATED, 31).compress(b"<a href=x>" * (1 << 20))


async def _reading(port: int, path: str) -> None:
    """A client that takes all that it gets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n".encode()
        )
        while await reader.read(1 << 20):
            pass
    writer.close()


async def _not_reading(port: int, path: str) -> None:
    """A client that takes nothing, until it is turned out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n".encode())
    with suppress(ConnectionError, TimeoutError):
        await reader.read(1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(1.2):
            await asyncio.Event().wait()
    writer.transport.abort()


Client = Callable[[int, str], Awaitable[None]]


async def test_nothing_without_an_end_fills_the_memory(tmp_path: Path) -> None:
    """Each from four clients at once; 48 MiB above what the proxy held before, at the most."""
    too_much = []
    async with Origin() as origin, child(origin, tmp_path) as proxy:
        for _ in range(20):
            await ask(proxy.port, "/plain")
        for name, act in ENDLESS.items():
            origin.act = act
            await origin.hang_up()
            before = proxy.rest()
            clients: list[Client] = [_reading, _reading, _not_reading, _not_reading]
            paths = ["/plain", f"/{name.replace(' ', '-')}"] * 2
            async with asyncio.timeout(20):
                await asyncio.gather(
                    *(
                        client(proxy.port, path)
                        for client, path in zip(clients, paths, strict=True)
                    ),
                    return_exceptions=True,
                )
            grown = proxy.peak() - before
            if grown > 48 * MIB:
                too_much.append(f"{name}: {grown // MIB} MiB")
        origin.act = answering(OK)
        assert (await ask(proxy.port, "/plain")).status == 200
    assert not too_much, too_much


async def test_page_that_grows_when_it_is_opened_goes_through_as_it_came(tmp_path: Path) -> None:
    """Row 24: 32 MiB more at the most."""
    wrong = []
    async with Origin() as origin, child(origin, tmp_path) as proxy:
        for _ in range(20):
            await ask(proxy.port, "/links/first")
        for number, packed in enumerate((BOMB, NESTED, BROKEN, b"\x1f\x8b" + bytes(1000), b"")):

            async def act(link: Link, packed: bytes = packed) -> None:
                while await link.request() is not None:
                    head = (
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n"
                        b"Content-Length: %d\r\n\r\n" % len(packed)
                    )
                    await link.send(head + packed)

            origin.act = act
            await origin.hang_up()
            before = proxy.rest()
            for turn in range(3):
                reply = await ask(proxy.port, f"/links/{number}/{turn}", "Accept-Encoding: gzip")
                if (reply.status, reply.body) not in ((200, packed), (502, reply.body)):
                    wrong.append(f"{number}: {reply.status}, {len(reply.body)} bytes")
            grown = proxy.peak() - before
            if grown > 32 * MIB:
                wrong.append(f"{number}: {grown // MIB} MiB")
    assert not wrong, wrong


async def test_upload_to_an_origin_that_does_not_read_is_held_back(tmp_path: Path) -> None:
    async def act(link: Link) -> None:
        await link.reader.readuntil(b"\r\n\r\n")
        link.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with Origin() as origin, child(origin, tmp_path) as proxy:
        for _ in range(20):
            await ask(proxy.port, "/plain")
        origin.act = act
        await origin.hang_up()
        before = proxy.rest()

        async def upload() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            head = b"POST /plain HTTP/1.1\r\nHost: a.example\r\nContent-Length: 90000000\r\n\r\n"
            with suppress(ConnectionError, TimeoutError):
                writer.write(head)
                async with asyncio.timeout(1.2):
                    for _ in range(900):
                        writer.write(b"x" * 100_000)
                        await writer.drain()
            writer.transport.abort()

        await asyncio.gather(*(upload() for _ in range(4)))
        assert proxy.peak() - before < 32 * MIB


async def _streams_of_http_3(port: int, window: int) -> None:
    """The same client of HTTP/3: it does not even confirm that anything has come."""
    async with http3_client.connected(port, window=window, max_data=window) as client:
        for _ in range(COUNT):
            client.begin(get(b"/plain"))
        await client.flush()
        client.is_deaf = True
        with suppress(TimeoutError):
            async with asyncio.timeout(1.2):
                await asyncio.Event().wait()


async def _streams(port: int, window: int) -> None:
    """A client of HTTP/2 that opens its windows so far, asks COUNT times, and takes nothing."""
    async with connected(port, window=window) as client:
        client.h2.increment_flow_control_window(window or 1)
        for _ in range(COUNT):
            client.begin(get(b"/plain"))
        await client.flush()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with suppress(TimeoutError):
            async with asyncio.timeout(1.2):
                await asyncio.Event().wait()


async def test_streams_that_nobody_reads_bind_no_more_than_connections(tmp_path: Path) -> None:
    """Answers without an end: by HTTP/1.1, then on one connection of HTTP/2 or HTTP/3, its windows
    shut or wide open; 16 MiB more at the most."""
    async with Origin() as origin, child(origin, tmp_path) as proxy:
        for _ in range(20):
            await ask(proxy.port, "/plain")
        origin.act = ENDLESS["a long body"]
        await origin.hang_up()
        before = proxy.rest()
        await asyncio.gather(*(_not_reading(proxy.port, "/plain") for _ in range(COUNT)))
        of_connections = proxy.peak() - before
        for streams, window in product((_streams, _streams_of_http_3), (0, 1 << 30)):
            before = proxy.rest()
            await streams(proxy.tls_port, window)
            assert proxy.peak() - before < of_connections + 16 * MIB
