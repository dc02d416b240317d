"""A small site that has every case of the table of paths, and two ways to ask it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeproxy.pages import Answer, Headers, Request
from edgeproxy.pages.answer import Switches
from edgeproxy.pages.answer import answer as answer_to
from edgeproxy.pages.site import Site

NOW = 1_700_000_000

FILES = {
    "index.html": b"<!doctype html><title>Home</title>",
    "404.html": b"<!doctype html><title>Nothing here</title>",
    "page.html": b"<!doctype html><title>Page</title>",
    "dir/index.html": b"<!doctype html><title>Folder</title>",
    "both.html": b"<!doctype html><title>both.html</title>",
    "both/index.html": b"<!doctype html><title>both/index.html</title>",
    "noindex/file.txt": b"a file in a folder without an index",
    "both ends/\u00e9t\u00e9.html": b"<!doctype html><title>A name to escape</title>",
    "style.css": b"body { color: black }\n" * 20,
    "letters.txt": b"abcdefghijklmnopqrstuvwxyz",
    "tiny.txt": b"0123456789",
    "empty.txt": b"",
    "picture.png": b"\x89PNG" + b"\0" * 200,
    "archive.gz": b"\x1f\x8b" + b"\0" * 100,
    "map.pmtiles": b"\0" * 100_000,
    "CNAME": b"example.org\n",
    ".nojekyll": b"",
    ".git/config": b"[core]",
    ".well-known/security.txt": b"Contact: mailto:security@example.org\n",
    ".well-known/.secret": b"hidden all the same",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The site's folder, with a secret beside it that no request may reach."""
    root = tmp_path / "site"
    for name, body in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    (tmp_path / "secret.txt").write_bytes(b"outside of the site")
    return root


@pytest.fixture
def site(folder: Path) -> Site:
    return Site(folder, lambda: NOW)


class Asked(NamedTuple):
    """An answer with its headers by name, in any case."""

    status: int
    headers: Headers
    body: bytes


type Ask = Callable[..., Asked]


@pytest.fixture
def ask(site: Site) -> Ask:
    """`ask("/dir", {"Range": "bytes=0-1"}, method="HEAD", base="/project/")`, without a network."""

    def ask(
        target: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        scheme: Any = "http",
        tls_name: str | None = None,
        replica: int = 0,
        now: float = NOW,
        **switches: Any,
    ) -> Asked:
        fields = Headers({"Host": "user.github.io", **(headers or {})}.items())
        request = Request(method, target, fields, scheme, tls_name)
        found: Answer = answer_to(request, site, Switches(**switches), now=now, replica=replica)
        return Asked(found.status, Headers(found.headers), found.body)

    return ask


class Wire:
    """A client on a socket that sends the bytes it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def head(self) -> Asked:
        """The next answer's head."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        return Asked(int(status_line.split()[1]), Headers((n, v) for n, v in pairs), b"")

    async def answer(self) -> Asked:
        """The next answer, its body as long as Content-Length says."""
        head = await self.head()
        body = await self.reader.readexactly(int(head.headers.get("content-length", "0")))
        return head._replace(body=body)

    async def ask(self, target: str, *lines: str, method: str = "GET") -> Asked:
        self.send(f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *lines)
        return await self.answer()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    """`await connect(pages)`: a new connection; all are closed when the test ends."""
    opened: list[Wire] = []

    async def connect(pages: Any, **options: Any) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", pages.port, **options))
        opened.append(wire)
        return wire

    yield connect
    for wire in opened:
        wire.writer.transport.abort()
