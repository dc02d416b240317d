"""What the journeys of several workers share: a policy, an origin, and visitors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.journeys.conftest import Child

RUN = (sys.executable, "-m", "edgeproxy", "run")
TOKEN = "a token for this test alone"
POLICY = """\
version: 1
workers: 2
admin: {{listen: "unix:{folder}/admin.sock", token: "${{env:EDGEPROXY_TOKEN}}"}}
origins: {{site: {{url: "http://site.example/", kind: http}}}}
cache:
  memory: {{max_size: 8MiB}}
  rules: {{all: {{ttl: 1h, stale_if_error: 0s}}}}
limits: {{shutdown_timeout: 10s}}
routes:
  - {{name: hello, match: {{path: /hello}}, respond: {{body: WORD}}}}
  - {{name: site, cache: all}}
"""
DISK = "  disk: {{path: {folder}/cache, max_size: 64MiB}}\n"


def write(folder: Path, word: str = "WORD", *, disk: bool = False, text: str = POLICY) -> Path:
    file = folder / "policy.yaml"
    text = text.replace("  rules:", DISK + "  rules:") if disk else text
    file.write_text(text.format(folder=folder).replace("WORD", word))
    return file


@dataclass
class Origin:
    """Answers each path with its number of requests; `gate` holds answers back."""

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.gate.set()

    async def answer(self, request: web.Request) -> web.Response:
        async with self.came:
            self.asked[request.path] += 1
            self.came.notify_all()
        number = self.asked[request.path]
        await self.gate.wait()
        return web.Response(text=f"{request.path} {number}")

    async def has_been_asked(self, count: int) -> None:
        async with asyncio.timeout(20), self.came:
            await self.came.wait_for(lambda: self.asked.total() >= count)


class Visitor:
    """One connection to the proxy, kept open: it stays with the worker that has accepted it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def come(cls, proxy: Child) -> Visitor:
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def get(self, path: str, method: str = "GET") -> tuple[str, dict[str, str]]:
        """Body and fields; ConnectionError if the connection does not bring a whole answer."""
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: site.example\r\n\r\n".encode())
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            fields = dict(line.split(": ", 1) for line in head[1:-2])
            body = await self.reader.readexactly(int(fields["content-length"]))
        except asyncio.IncompleteReadError as error:
            raise ConnectionError from error
        assert head[0] == "http/1.1 200 ok", head
        return body.decode(), fields

    def leave(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def visitors(proxy: Child, count: int = 16) -> AsyncIterator[list[Visitor]]:
    found = [await Visitor.come(proxy) for _ in range(count)]
    try:
        yield found
    finally:
        for visitor in found:
            visitor.leave()


async def by_worker(proxy: Child, found: list[Visitor]) -> dict[str, list[Visitor]]:
    """The visitors by who serves them: ids of requests begin with what is a process's own."""
    groups: dict[str, list[Visitor]] = defaultdict(list)
    for number, visitor in enumerate(found):
        path = f"/hello?who={number}-{id(visitor)}"
        before = len(proxy.out)
        await visitor.get(path)
        line = await proxy.said(lambda line: '"/hello"' in line, after=before)
        groups[json.loads(line)["request_id"][:8]].append(visitor)
    return groups


async def admin(folder: Path, path: str, **body: Any) -> tuple[int, Any]:
    connector = aiohttp.UnixConnector(str(folder / "admin.sock"))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as client:
        how = {"json": body} if body or path.endswith("/reload") else {}
        async with client.request("POST" if how else "GET", f"http://admin{path}", **how) as answer:
            return answer.status, await answer.json()
