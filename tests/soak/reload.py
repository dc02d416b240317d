"""edgeproxy given new policies under load, every third of them a bad one.

`make soak-reload ROUNDS=200`. A process of its own is told by SIGHUP. Meanwhile visitors ask on
connections that they keep for all the time, a WebSocket is open throughout, and uploads are under
way across several reloads each. Failed is

- a request that is not answered 200 with the whole page, or by a policy that was not in force while
  it was under way;
- a connection that is closed, or a message or upload that comes back otherwise than it went.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]

from tests.soak.progress import Progress  # noqa: E402

VISITORS = 8
PIECE = b"0123456789abcdef" * 1024
POLICY = """\
version: 1
origins: {site: {url: "http://site.example/", kind: http}}
cache: {memory: {max_size: SIZE}, rules: {all: {ttl: 1s}}}
routes:
  - {name: live, match: {path: /live}, websocket: true}
MORE\
  - {name: site, cache: all, response_headers: {set: {x-turn: "TURN"}}}
"""


def policy_of(turn: int, routes: int) -> str:
    """Another one each time; every sixth with another memory, so that a plugin begins anew."""
    size = f"{8 + turn // 6 % 2}MiB"
    more = "".join(
        f"  - {{name: more{n}, match: {{path: /more/{n}}}, origin: site}}\n" for n in range(routes)
    )
    return POLICY.replace("TURN", str(turn)).replace("SIZE", size).replace("MORE", more)


def bad_policy(number: int, good: str) -> str:
    """A policy that cannot be loaded, of several kinds in turn."""
    return (
        good.replace("response_headers", "response_haeders"),
        "version: [1\n",
        good.replace("cache: all", "cache: none"),
        good + "geo: {database: /nowhere/countries.mmdb}\n",
        "",
    )[number % 5]


@dataclass
class Report:
    loaded: int = 0
    refused: int = 0
    requests: int = 0
    messages: int = 0
    uploads: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # each request took

    def __str__(self) -> str:
        took = sorted(self.seconds) or [0.0]
        p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
        return (
            f"{self.loaded} policies loaded, {self.refused} bad ones refused; {self.requests} "
            f"requests on {VISITORS} connections (p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest "
            f"{took[-1] * 1000:.0f} ms), {self.messages} messages on one WebSocket, {self.uploads} "
            f"uploads; failed: {len(self.failed)}"
        )


class Soak:
    """The origin, the visitors, and who reloads. `turn` is the policy in force."""

    def __init__(self, folder: Path, *, routes: int = 0) -> None:
        self.report = Report()
        self._routes = routes  # that nobody visits
        self._file = folder / "policy.yaml"
        self._turn = 0
        self._is_over = False
        self._reloaded = asyncio.Condition()
        self._answered = asyncio.Event()  # as many requests as are wanted
        self._wanted = 0
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, rounds: int, *, progress: Progress | None = None) -> Report:
        async with self._origin() as origin, self._edgeproxy(origin) as url:
            tasks = [asyncio.create_task(self._visit(url, number)) for number in range(VISITORS)]
            tasks += [asyncio.create_task(self._talk(url)), asyncio.create_task(self._upload(url))]
            for number in range(rounds):
                await self._reload(number)
                if progress is not None:
                    progress.tell(f"{number + 1}/{rounds}: {self.report}")
            self._is_over = True
            async with self._reloaded:
                self._reloaded.notify_all()
            await asyncio.gather(*tasks)
        if progress is not None:
            progress.end()
        return self.report

    # ------------------------------------------------------------ who reloads

    async def _reload(self, number: int) -> None:
        """A reload, once visitors have seen the last one."""
        self._wanted = self.report.requests + VISITORS
        self._answered.clear()
        await self._answered.wait()
        assert self._process is not None
        is_bad = number % 3 == 2
        policy = policy_of(self._turn + 1, self._routes)
        self._write(bad_policy(number // 3, policy) if is_bad else policy)
        if not is_bad:
            self._turn += 1  # from now on an answer may come from it
        self._process.send_signal(signal.SIGHUP)
        said = await self._said("was not reloaded", "is in force")
        if is_bad == ("is in force" in said):
            self.report.failed.append(f"reload {number}: {said}")
        self.report.refused += is_bad
        self.report.loaded += not is_bad
        async with self._reloaded:
            self._reloaded.notify_all()

    def _write(self, text: str) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self._file)

    async def _said(self, *words: str) -> str:
        """The next line of the log with one of `words`."""
        assert self._process is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(30):
            while line := (await self._process.stderr.readline()).decode():
                if any(word in line for word in words):
                    return line
        raise RuntimeError("edgeproxy has ended")

    # ------------------------------------------------------------ who visits

    async def _visit(self, url: str, number: int) -> None:
        """Ask on one connection for all the time."""
        host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for count in itertools.count():
            if self._is_over:
                break
            path, began_s = f"/page/{count % 20}", time.monotonic()
            before = self.report.loaded  # the last that was said to be in force
            writer.write(f"GET {path} HTTP/1.1\r\nHost: www.example.org\r\n\r\n".encode())
            try:
                turn = await _page(reader, path)
            except (OSError, EOFError, ValueError) as error:
                self.report.failed.append(f"visitor {number}, request {count}: {error!r}")
                break
            if not before <= turn <= self._turn:
                self.report.failed.append(f"{path} by {turn}, while {before} was in force")
            self.report.requests += 1
            self.report.seconds.append(time.monotonic() - began_s)
            if self.report.requests >= self._wanted:
                self._answered.set()
        self._answered.set()
        writer.close()

    async def _talk(self, url: str) -> None:
        """One WebSocket for all the time."""
        async with aiohttp.ClientSession() as client, client.ws_connect(url + "live") as socket:
            while not self._is_over:
                text = f"message {self.report.messages}"
                try:
                    await socket.send_str(text)
                    if await socket.receive_str(timeout=30) != text:
                        raise ValueError("another message came back")
                except (OSError, TypeError, ValueError, TimeoutError) as error:
                    self.report.failed.append(f"the WebSocket: {error!r}")
                    return
                self.report.messages += 1
                await asyncio.sleep(0.002)

    async def _upload(self, url: str) -> None:
        """One upload after the other, each across three reloads."""
        digest = hashlib.sha256()

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(4):
                digest.update(PIECE)
                yield PIECE
                async with self._reloaded:
                    if not self._is_over:
                        await self._reloaded.wait()

        async with aiohttp.ClientSession() as client:
            while not self._is_over:
                digest = hashlib.sha256()
                try:
                    async with client.post(url + "upload", data=pieces()) as answer:
                        said = await answer.text()
                        if (answer.status, said) != (200, digest.hexdigest()):
                            raise ValueError(f"{answer.status}: {said}")
                except (aiohttp.ClientError, ValueError) as error:
                    self.report.failed.append(f"an upload: {error!r}")
                self.report.uploads += 1

    # ------------------------------------------------------------ both ends

    @contextlib.asynccontextmanager
    async def _edgeproxy(self, origin: str) -> AsyncIterator[str]:
        self._write(policy_of(0, self._routes))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgeproxy", "run", str(self._file), "--origin", origin,
            "--listen", "127.0.0.1:0", "--access-log", "off", cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        try:
            started = (await self._process.stdout.readline()).decode()
            yield started.split()[2]
        finally:
            self._process.terminate()
            await self._process.communicate()

    @contextlib.asynccontextmanager
    async def _origin(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/page/{number}", _answer)
        app.router.add_get("/live", _echo)
        app.router.add_post("/upload", _take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()


async def _page(reader: asyncio.StreamReader, path: str) -> int:
    """Read one answer, which has to be the page at `path`: the policy that gave it."""
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(fields["content-length"]))
    if " 200 " not in status or body.decode() != _text(path):
        raise ValueError(f"{status}: {body[:100]!r}")
    return int(fields["x-turn"])


def _text(path: str) -> str:
    return f"{path} {hashlib.sha256(path.encode()).hexdigest() * 20}"


async def _answer(request: web.Request) -> web.Response:
    return web.Response(text=_text(request.path))


async def _take(request: web.Request) -> web.Response:
    digest = hashlib.sha256()
    async for piece in request.content.iter_any():
        digest.update(piece)
    return web.Response(text=digest.hexdigest())


async def _echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--routes", type=int, default=0, help="in each policy besides, up to 9000")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeproxy-") as folder:
        report = asyncio.run(
            Soak(Path(folder), routes=options.routes).run(options.rounds, progress=Progress())
        )
    print("\n".join(report.failed[:20]), end="\n" if report.failed else "")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
