"""Both ends of the wire as bytes: an origin that records and misbehaves, and a client that does."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as an origin got it."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def get(self, name: str) -> str | None:
        """The value of the field, in all its lines; None without one."""
        values = [value for key, value in self.fields if key.lower() == name]
        return ", ".join(values) if values else None


_LINE = re.compile(rb"([A-Z!#$%&'*+\-.^_`|~0-9]+) (/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\t\x20-\x7e\x80-\xff]*)")
_ONLY_ON_A_CONNECTION = frozenset(
    ("keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "upgrade")
) | {"http2-settings"}


def read_canonical(data: bytes, authority: str) -> list[Asked]:
    """The requests in `data`. AssertionError for anything that could be read in two ways."""
    found: list[Asked] = []
    while data:
        head, mark, data = data.partition(b"\r\n\r\n")
        assert mark, f"a head without an end: {head!r}"
        first, *lines = head.split(b"\r\n")
        line = _LINE.fullmatch(first)
        assert line, f"not a canonical request line: {first!r}"
        fields: list[tuple[str, str]] = []
        for raw in lines:
            match = _FIELD.fullmatch(raw)
            assert match, f"not a canonical field: {raw!r}"
            fields.append((match[1].decode().lower(), match[2].decode("latin-1").strip(" \t")))
        names = [name for name, _ in fields]
        assert [value for name, value in fields if name == "host"] == [authority], fields
        assert not _ONLY_ON_A_CONNECTION.intersection(names), names
        lengths = [value for name, value in fields if name == "content-length"]
        codings = [value for name, value in fields if name == "transfer-encoding"]
        assert len(lengths) + len(codings) <= 1, f"framed twice: {fields}"
        body = b""
        if lengths:
            assert re.fullmatch("[0-9]{1,18}", lengths[0]), lengths
            length = int(lengths[0])
            assert len(data) >= length, "the body is cut short"
            body, data = data[:length], data[length:]
        elif codings:
            assert codings == ["chunked"], codings
            body, data = _unchunked(data)
        found.append(Asked(line[1].decode(), line[2].decode(), tuple(fields), body))
    return found


def _unchunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, mark, data = data.partition(b"\r\n")
        assert mark, f"a chunk without its size: {size!r}"
        assert re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size), f"not a chunk: {size!r}"
        length = int(size, 16)
        chunk, end, data = data[:length], data[length : length + 2], data[length + 2 :]
        assert (len(chunk), end) == (length, b"\r\n"), "a chunk without its end, or a trailer"
        if not length:
            return body, data
        body += chunk


@dataclass(slots=True)
class Link:
    """One connection that an origin accepted, with all that came in on it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int  # of the connection, from 0
    received: bytearray = field(default_factory=bytearray)
    asked: int = 0  # requests read on this connection

    async def request(self) -> bytes | None:
        """The head and body of the next request as they came; None at the end."""
        head = await self._until(b"\r\n\r\n")
        if head is None:
            return None
        whole = bytes(head)
        length = re.search(rb"(?i)\r\ncontent-length: ?([0-9]+)\r\n", whole)
        if length:
            body = await self._exactly(int(length[1]))
            whole += body or b""
        elif re.search(rb"(?i)\r\ntransfer-encoding: ?chunked\r\n", whole):
            while True:
                size = await self._until(b"\r\n")
                if size is None:
                    return None
                chunk = await self._exactly(int(size, 16) + 2)
                whole += size + (chunk or b"")
                if chunk is None or chunk == b"\r\n":
                    break
        self.asked += 1
        return whole

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End with a RST, as a host that crashed does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Return once the other side has closed."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def _until(self, mark: bytes) -> bytes | None:
        try:
            data = await self.reader.readuntil(mark)
        except asyncio.IncompleteReadError as error:
            self.received += error.partial
            return None
        except ConnectionError:
            return None
        self.received += data
        return data

    async def _exactly(self, length: int) -> bytes | None:
        try:
            data = await self.reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            self.received += error.partial
            return None
        except ConnectionError:
            return None
        self.received += data
        return data


Act = Callable[[Link], Awaitable[None]]
"""What an origin does with one connection. It is closed when this returns."""


def answering(*answers: bytes) -> Act:
    """Each request on a connection gets the next of `answers`, the last one again and again."""

    async def act(link: Link) -> None:
        while (raw := await link.request()) is not None:
            answer = answers[min(link.asked, len(answers)) - 1]
            head, mark, _ = answer.partition(b"\r\n\r\n")
            await link.send(head + mark if raw.startswith(b"HEAD ") else answer)

    return act


def once(raw: bytes) -> Act:
    """`raw` in answer to one request, then an orderly close."""

    async def act(link: Link) -> None:
        if await link.request() is not None:
            await link.send(raw)

    return act


class Origin:
    """A server on loopback that does as `act` says and keeps every byte it got."""

    def __init__(self, act: Act | None = None, **listen: object) -> None:
        self.act = act or answering(OK)
        self.links: list[Link] = []
        self._listen = listen
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}/"

    @property
    def received(self) -> bytes:
        """All connections' bytes, one after the other."""
        return b"".join(bytes(link.received) for link in self.links)

    def requests(self) -> list[Asked]:
        """All that was asked; AssertionError if any of it is not canonical."""
        return [
            asked
            for link in self.links
            for asked in read_canonical(bytes(link.received), self.authority)
        ]

    async def hang_up(self) -> None:
        """Close every connection there is, and return when they are closed."""
        for link in self.links:
            link.writer.close()
        for link in self.links:
            with suppress(ConnectionError):
                await link.writer.wait_closed()

    def forget(self) -> None:
        """Begin to record anew."""
        for link in self.links:
            link.received.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=1 << 26, **self._listen
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = Link(reader, writer, len(self.links))
        self.links.append(link)
        try:
            await self.act(link)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._tasks.discard(task)


# -------------------------------------------------------------------- clients


@dataclass(frozen=True, slots=True)
class Answer:
    """One response as a client reads it. `whole` tells whether its framing was kept to."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool = True

    def get(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key == name]
        return ", ".join(values) if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


async def send(port: int, raw: bytes, *, half_close: bool = True, within_s: float = 10.0) -> bytes:
    """All that comes back for `raw` until the proxy closes. TimeoutError if it does not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()
    try:
        async with asyncio.timeout(within_s):
            with suppress(ConnectionError):
                writer.write(raw)
                if half_close:
                    writer.write_eof()
                await writer.drain()
            with suppress(ConnectionError):
                while data := await reader.read(65536):
                    got += data
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return bytes(got)


def answers(data: bytes, methods: Iterable[str] = ()) -> list[Answer]:
    """The responses in `data`, to requests with these methods (GET if there are more)."""
    left = list(methods)
    found: list[Answer] = []
    while data:
        head, mark, data = data.partition(b"\r\n\r\n")
        assert mark, f"a response head without an end: {head!r}"
        first, *lines = head.decode("latin-1").split("\r\n")
        assert re.fullmatch(r"HTTP/1\.1 [1-5][0-9][0-9] [^\r\n]*", first), first
        status = int(first[9:12])
        fields: list[tuple[str, str]] = []
        for line in lines:
            assert _FIELD.fullmatch(line.encode("latin-1")), f"not a field: {line!r}"
            name, _, value = line.partition(":")
            fields.append((name.lower(), value.strip()))
        if status < 200:
            continue
        values = dict(fields)
        method = left.pop(0) if left else "GET"
        whole = True
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif "content-length" in values:
            assert "transfer-encoding" not in values, fields
            length = int(values["content-length"])
            body, data = data[:length], data[length:]
            whole = len(body) == length
        elif values.get("transfer-encoding") == "chunked":
            try:
                body, data = _unchunked(data)
            except AssertionError:
                body, data, whole = data, b"", False
        else:
            body, data = data, b""
        found.append(Answer(status, tuple(fields), body, whole))
    return found


async def ask(
    port: int,
    target: str = "/",
    *fields: str,
    method: str = "GET",
    body: bytes = b"",
    host: str = "site.example",
    within_s: float = 10.0,
) -> Answer:
    """One request on a connection of its own."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
    got = answers(await send(port, raw, half_close=False, within_s=within_s), [method])
    assert len(got) == 1, got
    return got[0]
