"""What the journeys of several workers share: a policy, and visitors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.journeys.origins import Origin

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Crew:
    """What starts a proxy with workers, by `run`: its policy is in `folder`."""

    run: Callable[..., Awaitable[Child]]
    origin: Origin
    folder: Path

    async def serve(self, *arguments: str | Path, env: Mapping[str, str] = {}, **how: Any) -> Child:
        """As the policy says that `write` writes; with `arguments` besides."""
        file = write(self.folder, **how)
        arguments = file, "--origin", self.origin.url, *arguments
        return await self.run(*arguments, EDGEPROXY_TOKEN=TOKEN, **env)


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
