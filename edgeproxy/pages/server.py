"""The network: `Pages` listens, counts and logs; `Connection` is one client's."""

import asyncio
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from .answer import (
    Passage,
    Representation,
    Switches,
    deliver,
    error,
    host_name,
    is_address,
    represent,
    trouble,
)
from .cdn import Cdn
from .faults import End, Fault, Faults, Pause, plan
from .messages import Answer, Request
from .site import Site, normalised
from .wire import MAX_HEAD_BYTES, head_of, read_head

LOG_LIMIT = 20_000  # requests; at this length the older half of `Pages.log` is dropped
MAX_COPIED_BYTES = 65_536  # a larger body is written without being joined to its head
LINGER_S = 2.0  # for a client that does not close after the last answer
MAX_WAITING_BYTES = 1_048_576  # read ahead of a client that sends while it is being answered


class Pages:
    """A site, served as GitHub Pages would serve it. For previews and tests, not for the public.

    `async with Pages(folder) as pages:` listens while the block runs. The keyword arguments are
    the switches of `docs/pages.md`; `now` is the clock, in seconds. The attributes `requests`,
    `bytes_sent` and `log` tell what reached it, so that a test can prove that nothing did.
    """

    def __init__(
        self,
        root: Path,
        *,
        base: str = "/",
        host: str | None = None,
        domain: str | None = None,
        enforce_https: bool = False,
        slash_redirect_cacheable: bool = False,
        permissions_policy: bool = False,
        edge_region: str | None = None,
        cdn: bool = False,
        replicas: int = 1,
        now: Callable[[], float] = time.time,
        listen: str = "127.0.0.1:0",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if replicas not in (1, 2):
            raise ValueError(f"replicas is {replicas}; it must be 1 or 2")
        self.switches = Switches(
            base=normalised_base(base),
            host=host_name(host) if host is not None else None,
            domain=host_name(domain) if domain else None,
            enforce_https=enforce_https,
            slash_redirect_cacheable=slash_redirect_cacheable,
            permissions_policy=permissions_policy,
            edge_region=edge_region,
        )
        self.site = Site(Path(root), now, replicas)
        self.requests: Counter[str] = Counter()  # by path as sent, without the query
        self.bytes_sent: Counter[str] = Counter()  # of bodies, by the same path
        self.log: list[Request] = []
        self.on_answer: Callable[[Request, Answer, Fault | None], None] | None = None
        self.sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep  # how faults wait
        self._address, self._port = parse_listen(listen)
        self._now = now
        self._cdn = Cdn() if cdn else None
        self._tls = tls
        self._fetches = 0
        self._faults = Faults()
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self._keeps_port = False

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        self._keeps_port = True
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._keeps_port = False
        await self.stop()

    async def start(self) -> None:
        """Listen. After a `stop` on the same port as before. Raises OSError if it is taken."""
        if self._server is not None:
            return
        if not is_loopback(self._address):
            print(
                f"pages: warning: {self._address} is not a loopback address; "
                "this is a preview only, not a public server",
                file=sys.stderr,
            )
        listener = self._reserved or bound(self._address, self._port)
        self._reserved = None
        self._port = listener.getsockname()[1]
        if self._tls is not None:
            self._tls.sni_callback = remember_tls_name
        try:
            self._server = await asyncio.get_running_loop().create_server(
                partial(Connection, self), sock=listener, ssl=self._tls, backlog=1024
            )
        except BaseException:
            listener.close()
            raise

    async def stop(self) -> None:
        """Close the port and every connection, whatever is under way on it."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for connection in list(self._connections):
                connection.abort()
            await server.wait_closed()
            if self._keeps_port:
                # Bound but not listening: connections are refused, and nobody takes the port.
                self._reserved = bound(self._address, self._port)
        elif self._reserved is not None and not self._keeps_port:
            self._reserved.close()
            self._reserved = None

    @property
    def port(self) -> int:
        """The port, known once `start` has run where it was given as 0."""
        return self._port

    @property
    def url(self) -> str:
        """Where the site begins: `http://127.0.0.1:PORT/base/`."""
        host = f"[{self._address}]" if ":" in self._address else self._address
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host}:{self._port}{quote(self.switches.base)}"

    # ------------------------------------------------------------ what tests ask of it

    def publish(self, new_root: Path | None = None) -> None:
        """Deploy again, perhaps another folder: all times and ETags become new."""
        self.site.publish(new_root)

    def set_fault(self, pattern: str, fault: Fault) -> None:
        """Let paths like `pattern` fail; `docs/pages.md` has the grammar."""
        self._faults.set(pattern, fault)

    def clear_faults(self) -> None:
        self._faults.clear()

    # ------------------------------------------------------------ what connections ask of it

    def respond(self, request: Request) -> tuple[Answer, Fault | None]:
        """The answer to `request`, after counting it, and the fault that is to spoil it."""
        path = request.path
        self.requests[path] += 1
        self.log.append(request)
        if len(self.log) >= LOG_LIMIT:
            del self.log[: LOG_LIMIT // 2]
        now = self._now()
        fault = self._faults.take(path)
        whole, passage = self._whole(request, fault, now)
        answer = deliver(whole, request, passage, now=now)
        if fault and fault.content_length_delta:
            answer = with_wrong_length(answer, fault.content_length_delta)
        if self.on_answer:
            self.on_answer(request, answer, fault)
        return answer, fault

    def refuse(self) -> Answer:
        """The answer to bytes that are no request."""
        now = self._now()
        return deliver(error(400, now), Request("GET", "/"), Passage(), now=now)

    def _whole(
        self, request: Request, fault: Fault | None, now: float
    ) -> tuple[Representation, Passage]:
        if fault and fault.status is not None:
            retry_after = None if fault.retry_after is None else str(fault.retry_after)
            return trouble(fault.status, retry_after, now), Passage()
        if self._cdn is None:
            return self._fetch(request, now), Passage()
        return self._cdn.get(request, now, lambda: self._fetch(request, now))

    def _fetch(self, request: Request, now: float) -> Representation:
        """Ask the web server, its replicas in turn."""
        replica = self._fetches % self.site.replicas
        self._fetches += 1
        return represent(request, self.site, self.switches, now=now, replica=replica)


class Connection(asyncio.Protocol):
    """One client's connection: requests in turn, pipelined ones too, until one side ends it."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._transport: asyncio.Transport
        self._scheme: Literal["http", "https"] = "http"
        self._tls_name: str | None = None
        self._waiting = bytearray()
        self._to_skip = 0  # bytes of a request body that are still to come
        self._is_blocked = False  # the client reads more slowly than we write
        self._is_ending = False  # the last answer is written; what still comes is dropped
        self._task: asyncio.Task[None] | None = None  # a fault that is being played

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self._scheme = "https"
            self._tls_name = getattr(tls, "tls_name", None)
        self._pages._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pages._connections.discard(self)
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._is_blocked = True

    def resume_writing(self) -> None:
        self._is_blocked = False
        self._advance()

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        self._advance()
        if len(self._waiting) > MAX_WAITING_BYTES:
            self._transport.pause_reading()

    def abort(self) -> None:
        self._transport.abort()

    def _advance(self) -> None:
        """Answer every request that has arrived, as far as nothing holds this connection up."""
        if self._is_ending:
            self._waiting.clear()
        while not (self._is_ending or self._is_blocked or self._task):
            if self._to_skip:
                skipped = min(self._to_skip, len(self._waiting))
                del self._waiting[:skipped]
                self._to_skip -= skipped
            end = self._waiting.find(b"\r\n\r\n")
            if self._to_skip or end < 0:
                break
            head = self._waiting[:end].decode("latin-1")
            del self._waiting[: end + 4]
            self._serve(head.lstrip("\r\n"))
        if len(self._waiting) > MAX_HEAD_BYTES and not (self._is_blocked or self._task):
            self._refuse()
        self._transport.resume_reading()

    def _serve(self, head: str) -> None:
        incoming = read_head(head, self._scheme, self._tls_name)
        if incoming is None or len(head) > MAX_HEAD_BYTES:
            self._refuse()
            return
        self._to_skip = incoming.body_bytes
        path = incoming.request.path
        answer, fault = self._pages.respond(incoming.request)
        first = head_of(answer, keep_alive=incoming.keep_alive)
        if fault is not None:
            self._task = asyncio.create_task(
                self._play(fault, path, first, answer.body, incoming.keep_alive)
            )
            return
        # Not writelines(): in Python 3.12 and 3.13.0 it never calls pause_writing.
        if len(answer.body) <= MAX_COPIED_BYTES:
            self._transport.write(first + answer.body)
        else:
            self._transport.write(first)
            self._transport.write(answer.body)
        self._pages.bytes_sent[path] += len(answer.body)
        if not incoming.keep_alive:
            self._end()

    def _end(self) -> None:
        """Say that nothing more comes, and read on until the client closes too.

        To close with bytes unread would reset the connection, and the client could lose the answer.
        """
        self._is_ending = True
        if not self._transport.can_write_eof():  # TLS
            self._transport.close()
            return
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)

    def _refuse(self) -> None:
        answer = self._pages.refuse()
        self._waiting.clear()
        self._transport.write(head_of(answer, keep_alive=False) + answer.body)
        self._end()

    async def _play(
        self, fault: Fault, path: str, head: bytes, body: bytes, keep_alive: bool
    ) -> None:
        """Let the client live through a fault, then go on if the connection survived it."""
        for step in plan(fault, head, body):
            match step:
                case Pause(seconds):
                    await self._pages.sleep(seconds)
                case End.STALL:
                    return  # self._task stays set: nothing more is served on this connection
                case End.RESET:
                    reset(self._transport)
                    return
                case End.CLOSE:
                    self._end()
                    return
                case bytes():
                    self._transport.write(step)
                    if step is not head:
                        self._pages.bytes_sent[path] += len(step)
        self._task = None
        if keep_alive:
            self._advance()
        else:
            self._end()


# ---------------------------------------------------------------- pieces


def with_wrong_length(answer: Answer, delta: int) -> Answer:
    """`answer` with a Content-Length that is off by `delta`, but not below 0."""
    return replace(
        answer,
        headers=tuple(
            (name, str(max(0, int(value) + delta))) if name == "Content-Length" else (name, value)
            for name, value in answer.headers
        ),
    )


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN, so that the client sees a reset and not an end."""
    connection = transport.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def remember_tls_name(tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    """Keep the name that the client asked for where `Connection` finds it."""
    tls.tls_name = host_name(name) if name else None  # type: ignore[attr-defined]  # our own note


def normalised_base(base: str) -> str:
    """`base` with a slash at both ends: `project` and `/project` become `/project/`."""
    path = normalised(f"/{base}/")
    if path is None or any(character in base for character in "?#"):
        raise ValueError(f"the base path {base!r} is no path; write it like /project/")
    return path


def parse_listen(listen: str) -> tuple[str, int]:
    """`127.0.0.1:8081` or `[::1]:8081` as address and port."""
    address, colon, port = listen.rpartition(":")
    if not colon or not address or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"cannot listen on {listen!r}; write ADDRESS:PORT, such as 127.0.0.1:8081")
    return address.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    return address in ("localhost", "::1") or (address.startswith("127.") and is_address(address))


def bound(address: str, port: int) -> socket.socket:
    """A socket that has the port, without listening yet."""
    family, kind, protocol, _, where = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
