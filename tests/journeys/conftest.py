"""What the journeys share: origins with code of their own, child processes, raw exchanges."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, Signals

import pytest
from aiohttp import web

from tests.journeys.crew import Crew
from tests.journeys.origins import Origin, served

WORKERS = os.environ.get("EDGEPROXY_TEST_WORKERS", "")
"""How many workers `edgeproxy run` has wherever a journey starts it and does not say."""

ACCELERATOR = os.environ.get("EDGEPROXY_TEST_ACCELERATOR", "on")

StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawOrigin:
    """An origin that sends bytes as they are, and keeps the request heads it was sent."""

    def __init__(self, *answers: bytes) -> None:
        """`answers` in turn, the last one again and again; each ends its connection."""
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> RawOrigin:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
            if length:
                self.bodies.append(await reader.readexactly(int(length[1])))
            elif b"chunked" in head.lower():
                body = await reader.readuntil(b"0\r\n\r\n")
                self.bodies.append(body)
            writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def fields(self, index: int = -1) -> dict[str, str]:
        """The fields of a request, names in lower case; repeats are joined."""
        found: dict[str, str] = {}
        for line in self.heads[index].decode("latin-1").split("\r\n")[1:-2]:
            name, _, value = line.partition(": ")
            name = name.lower()
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found


@pytest.fixture
def raw_origin() -> type[RawOrigin]:
    return RawOrigin


@pytest.fixture
async def serve_app() -> AsyncIterator[Callable[[web.Application], Awaitable[str]]]:
    """Serves aiohttp applications on free ports; gives their URLs."""
    async with contextlib.AsyncExitStack() as stack:
        yield lambda app: stack.enter_async_context(served(app))


@dataclass
class Child:
    """`edgeproxy run` as a process of its own; what it prints is kept line by line."""

    process: asyncio.subprocess.Process
    url: str = ""
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def run(cls, *arguments: str | Path, **env: str) -> Child:
        """`edgeproxy run ARGUMENTS` on a free port, once it serves."""
        if WORKERS and "--workers" not in arguments:
            arguments = (*arguments, "--workers", WORKERS)
        if ACCELERATOR == "off" and any(isinstance(word, Path) for word in arguments):
            arguments = (Path(__file__).with_name("without_accelerator.yaml"), *arguments)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgeproxy", "run", *map(str, arguments),
            "--listen", "127.0.0.1:0",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **env},
        )  # fmt: skip
        child = cls(process)
        try:
            await child.read_on()
        except BaseException:
            await child.end()
            raise
        return child

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    async def read_on(self) -> None:
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            assert stream is not None
            self._readers.append(asyncio.create_task(self._keep(stream, lines)))
        said = await self.said(lambda line: line.startswith("edgeproxy serves "))
        self.url = said.split()[2]

    async def _keep(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            async with self._news:
                lines.append(line.decode())
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    async def said(self, wanted: Callable[[str], bool], *, after: int = 0) -> str:
        """The first line that is `wanted`, once it is printed."""
        async with asyncio.timeout(40), self._news:
            while True:
                for line in (*self.out[after:], *self.err):
                    if wanted(line):
                        return line
                assert self.process.returncode is None, "".join(self.err)
                await self._news.wait()

    async def said_since(self, before: int, wanted: Callable[[str], bool]) -> str:
        """The same, of the messages from a number on."""
        async with asyncio.timeout(40), self._news:
            while not (found := [line for line in self.err[before:] if wanted(line)]):
                await self._news.wait()
            return found[0]

    def signal(self, number: Signals) -> None:
        self.process.send_signal(number)

    async def end(self, number: Signals = SIGKILL) -> int:
        """Send a signal, wait for the end, and give the exit status."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(number)
        async with asyncio.timeout(20):
            status = await self.process.wait()
            await asyncio.gather(*self._readers)
        return status

    def workers(self) -> list[int]:
        """The processes that it has begun, by id."""
        process = self.process.pid
        return [
            int(id) for id in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]

    def memory_bytes(self, key: str) -> int:
        """`VmRSS`, what the processes hold in memory, or `VmHWM`, the most they ever did."""
        total = 0
        for process in (self.process.pid, *self.workers()):
            text = Path(f"/proc/{process}/status").read_text()
            found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
            assert found is not None
            total += int(found[1]) * 1024
        return total


@pytest.fixture
async def edgeproxy_run() -> AsyncIterator[Callable[..., Awaitable[Child]]]:
    """Starts `edgeproxy run ARGUMENTS` on a free port, and gives it once it serves."""
    children: list[Child] = []

    async def run(*arguments: str | Path, **env: str) -> Child:
        child = await Child.run(*arguments, **env)
        children.append(child)
        return child

    yield run
    for child in children:
        await child.end()


@pytest.fixture
async def crew(
    edgeproxy_run: Callable[..., Awaitable[Child]], tmp_path: Path
) -> AsyncIterator[Crew]:
    """A proxy with workers, to be started, and its origin."""
    async with Origin.serving() as origin:
        yield Crew(edgeproxy_run, origin, tmp_path)


@pytest.fixture
def ask() -> Callable[..., Awaitable[bytes]]:
    """Sends bytes to a port, and gives all that comes until the other side closes."""

    async def exchange(port: int, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    return exchange


def small_site(folder: Path, **pages: str) -> Path:
    """A site of a few pages: `index` is `/`, other names are files or `name/index.html`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        file = folder / ("index.html" if name == "index" else f"{name}.html")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<!doctype html><title>{name}</title>{text}")
    return folder


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small site: names of pages and their text."""

    def make(name: str = "site", **pages: str) -> Path:
        return small_site(tmp_path / name, **pages)

    return make


@pytest.fixture
def install(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a distribution with one plugin: its name and its code. Gives the folder to find it."""

    def install(name: str, code: str) -> Path:
        folder = tmp_path / "packages"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[edgeproxy]\n{name} = {name}:Plugin\n")
        (folder / f"{name}.py").write_text(code)
        return folder

    return install
