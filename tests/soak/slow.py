"""A well-behaved visitor of edgeproxy, while others are slow on purpose.

`make soak-slow SECONDS=20`. The four modes of slowhttptest: heads that never end, bodies that drip,
answers that are hardly read, and heads with hundreds of ranges. 1,000 connections at a time, each
as if it were from an address of its own; slowhttptest itself opens them if it is installed, else
this does. Meanwhile a visitor asks again and again, for a page that is stored and for one that is
not.

Failed is a mode in which a request of the visitor is not answered 200, or in which the slowest
hundredth of them takes more than twice what it takes in quiet (below 10 ms it does not matter).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]

CONNECTIONS = 1000
PAUSE_S = 0.01  # of the visitor, between two requests
UNHEARD_MS = 10.0  # nobody notices so little
POLICY = """\
version: 1
origins: {site: {url: "http://site.example/", kind: http}}
limits: {connections_per_client: 4096}
routes:
  - {name: passed, match: {path: /passed/**}, cache: false}
  - {name: site}
"""
GET = b"GET /large HTTP/1.1\r\nHost: www.example.org\r\n"
POST = b"POST /passed/form HTTP/1.1\r\nHost: www.example.org\r\nContent-Length: 4096\r\n\r\n"
RANGES = b",".join(b"5-%d" % last for last in range(500))


@dataclass(frozen=True)
class Mode:
    """How to be slow: `words` are slowhttptest's; without it, `start` is sent, then `piece` every
    `every_s`, and `takes` bytes are read at a time."""

    name: str
    words: tuple[str, ...]
    start: bytes
    piece: bytes = b""
    every_s: float = 1.0
    takes: int = 65536
    path: str = "/large"


MODES = (
    Mode("slow heads", ("-H", "-i", "1"), GET, b"X-More: y\r\n"),
    Mode("slow bodies", ("-B", "-i", "1", "-s", "4096", "-x", "10"), POST, b"more=y&",
         path="/passed/form"),
    Mode("slow reading", ("-X", "-n", "1", "-z", "32", "-w", "512", "-y", "1024", "-k", "3"),
         GET + b"\r\n", every_s=1.0, takes=32),
    Mode("ranges", ("-R", "-a", "5", "-b", "500"),
         GET + b"Range: bytes=0-," + RANGES + b"\r\n\r\n"),
)  # fmt: skip


@dataclass
class Seen:
    """What the visitor saw."""

    took_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        took = sorted(self.took_ms)
        return took[int(len(took) * 0.99)] if took else 0.0

    def __str__(self) -> str:
        took = sorted(self.took_ms) or [0.0]
        return (
            f"{len(self.took_ms)} requests, p50 {took[len(took) // 2]:.2f} ms, "
            f"p99 {self.p99_ms:.2f} ms, longest {took[-1]:.0f} ms, failed: {len(self.failed)}"
        )


async def visit(port: int, is_over: Callable[[], bool]) -> Seen:
    """Ask on one connection until it is over, for a hit and a pass in turn."""
    seen = Seen()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, local_addr=("127.0.0.2", 0)
    )  # an address that nobody else is at
    for number in itertools.count():
        if is_over():
            break
        path = "/page" if number % 2 else f"/passed/{number}"
        began_s = time.monotonic()
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: www.example.org\r\n\r\n".encode())
            async with asyncio.timeout(30):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
                await reader.readexactly(length)
            if b" 200 " not in head[:13]:
                raise ValueError(head[:40])
        except (OSError, EOFError, ValueError) as error:
            seen.failed.append(f"{path}: {error!r}")
            break
        seen.took_ms.append((time.monotonic() - began_s) * 1000)
        await asyncio.sleep(PAUSE_S)
    writer.close()
    return seen


async def attack(port: int, mode: Mode, seconds: int, connections: int) -> None:
    """Be slow on so many connections for so long; each that is closed is opened again."""
    until_s = time.monotonic() + seconds
    program = shutil.which("slowhttptest")
    while program is not None and (left_s := int(until_s - time.monotonic())) > 0:
        process = await asyncio.create_subprocess_exec(
            program, *mode.words, "-c", str(connections), "-r", "100", "-l", str(left_s),
            "-u", f"http://127.0.0.1:{port}{mode.path}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await process.wait()
    if program is not None:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(_be_slow(port, mode))


async def _be_slow(port: int, mode: Mode) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            try:
                writer.write(mode.start)
                while not writer.is_closing():
                    await asyncio.sleep(mode.every_s)
                    if mode.piece:
                        writer.write(mode.piece)
                        await writer.drain()
                    elif not await reader.read(mode.takes):
                        break
            finally:
                writer.close()
        except OSError:
            await asyncio.sleep(mode.every_s)


@contextlib.asynccontextmanager
async def origin() -> AsyncIterator[str]:
    async def page(request: web.Request) -> web.Response:
        size = 1_000_000 if request.path == "/large" else 10_000
        return web.Response(body=b"x" * size, headers={"Cache-Control": "max-age=3600"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def edgeproxy(folder: Path, site: str) -> AsyncIterator[int]:
    """The port of a process of its own, without a line for each request or refusal."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeproxy", "run", str(policy), "--origin", f"site={site}",
        "--listen", "127.0.0.1:0", "--access-log", "off", "--log-level", "ERROR", cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield int((await process.stdout.readline()).split()[2].rstrip(b"/").rpartition(b":")[2])
    finally:
        process.terminate()
        await process.wait()


async def measure(port: int, mode: Mode | None, seconds: int, connections: int) -> Seen:
    """What the visitor sees for so long, in quiet or besides an attack."""
    is_over = False
    visiting = asyncio.create_task(visit(port, lambda: is_over))
    if mode is None:
        await asyncio.sleep(seconds)
    else:
        await attack(port, mode, seconds, connections)
    is_over = True
    return await visiting


async def run(seconds: int, connections: int) -> int:
    who = "slowhttptest" if shutil.which("slowhttptest") else "this program"
    print(f"{connections} slow connections of {who}, {seconds} s for each mode")
    with tempfile.TemporaryDirectory(prefix="edgeproxy-") as folder:
        async with origin() as site, edgeproxy(Path(folder), site) as port:
            await measure(port, None, 2, connections)  # to warm up
            quiet = await measure(port, None, seconds, connections)
            print(f"{'in quiet':<13} {quiet}")
            bound_ms = max(2 * quiet.p99_ms, UNHEARD_MS)
            failed = len(quiet.failed)
            for mode in MODES:
                seen = await measure(port, mode, seconds, connections)
                is_slow = seen.p99_ms > bound_ms
                print(f"{mode.name:<13} {seen}{': too slow' if is_slow else ''}")
                failed += len(seen.failed) + is_slow
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options = parser.parse_args()
    return asyncio.run(run(options.seconds, options.connections))


if __name__ == "__main__":
    sys.exit(main())
