"""The front on real sockets, before a core that records what reaches it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from edgeproxy.engine.front import HTTP1, Front, FrontSettings, Peer, client_key
from edgeproxy.engine.http1 import Http1
from edgeproxy.engine.listening import ListenAddress
from edgeproxy.engine.pipe import PipeEnd, duplex
from edgeproxy.policy.model import Limits
from tests.hostile import Case
from tests.hostile_classes import whole_corpus

WAIT_S = 10.0
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: x\r\nSec-WebSocket-Accept: y\r\n\r\n"

Handler = Callable[[bytes, PipeEnd], Awaitable[None]]


async def answer_ok(request: bytes, end: PipeEnd) -> None:
    end.write(OK[:-2] if request.startswith(b"HEAD ") else OK)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that only the event loop can bring about and nothing announces."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Core:
    """Records each request it is given, and lets `handler` write the answer."""

    def __init__(self, handler: Handler = answer_ok) -> None:
        self.handler = handler
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.began = asyncio.Event()  # there is a request
        self.ended = asyncio.Event()  # a stream was ended by the front
        self.was_reset = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connect(self, peer: Peer) -> PipeEnd:
        self.peers.append(peer)
        front_end, core_end = duplex(peername=peer.peername, sockname=peer.sockname)
        task = asyncio.get_running_loop().create_task(self._serve(core_end))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return front_end

    async def _serve(self, end: PipeEnd) -> None:
        data = b""
        try:
            while True:
                while (found := _first_request(data)) is None:
                    more = await end.read(65536)
                    if not more:
                        return
                    data += more
                request, data = found
                self.requests.append(request)
                self.began.set()
                await self.handler(request, end)
        except ConnectionResetError:
            self.was_reset = True
        finally:
            self.ended.set()
            end.close()


def _first_request(data: bytes) -> tuple[bytes, bytes] | None:
    """A canonical request, its body as one chunk if it is chunked, and what follows."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    if b"\r\nTransfer-Encoding: chunked" in head:
        body = b""
        while b"\r\n" in rest:
            digits, _, rest = rest.partition(b"\r\n")
            size = int(digits, 16)
            if len(rest) < size + 2:
                return None
            body, rest = body + rest[:size], rest[size + 2 :]
            if not size:
                chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
                return head + end + chunk + b"0\r\n\r\n", rest
        return None
    _, found, length = head.partition(b"\r\nContent-Length: ")
    size = int(length.partition(b"\r\n")[0]) if found else 0
    if len(rest) < size:
        return None
    return head + end + rest[:size], rest[size:]


class Client:
    """A raw connection to the front."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readuntil(mark)

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readexactly(size)

    async def all(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def address_of(address: ListenAddress) -> tuple[str, int]:
    return address.host, address.port


class Place:
    """A front that listens, its core, and a way to connect to it."""

    def __init__(self, front: Front, core: Core, address: tuple[str, int]) -> None:
        self.front, self.core, self.address = front, core, address
        self._clients: list[Client] = []

    async def client(self, **options: Any) -> Client:
        client = Client(*await asyncio.open_connection(*self.address, **options))
        self._clients.append(client)
        return client

    async def ask(self, raw: bytes) -> bytes:
        """All that comes back for `raw`, sent in one go and followed by the end of our side."""
        client = await self.client()
        client.send(raw)
        client.writer.write_eof()
        return await client.all()

    async def close(self) -> None:
        await self.front.stop(0)
        for client in self._clients:
            client.writer.close()


@asynccontextmanager
async def place(
    handler: Handler = answer_ok, *, encoded_slashes: bool = False, **limits: Any
) -> AsyncIterator[Place]:
    settings = FrontSettings(Limits.model_validate(limits), encoded_slashes)
    core = Core(handler)
    front = Front(core.connect, lambda: settings, {HTTP1: Http1})
    where = Place(front, core, address_of(await front.listen(ListenAddress("127.0.0.1"))))
    try:
        yield where
    finally:
        await where.close()


def statuses(raw: bytes, *, bodies: bool = True) -> list[int]:
    """The statuses of a run of responses that are framed by Content-Length."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        found.append(int(head[9:12]))
        _, has_length, length = head.partition(b"\r\nContent-Length: ")
        if has_length and bodies:
            raw = raw[int(length.partition(b"\r\n")[0]) :]
    return found


# ------------------------------------------------------------------ the corpus


CORPUS = whole_corpus()


@pytest.mark.parametrize("file", sorted({case.name.partition("/")[0] for case in CORPUS}), ids=str)
async def test_corpus(file: str) -> None:
    """Whatever comes in, the core gets exactly what is expected and the client its answer."""
    async with place() as where:
        for case in CORPUS:
            if case.name.startswith(f"{file}/"):
                await check(case, where)
        assert statuses(await where.ask(GET)) == [200]
        assert where.front.connections == 0


async def check(case: Case, where: Place) -> None:
    where.core.requests.clear()
    received = await where.ask(case.raw)
    has_head = any(request.startswith(b"HEAD ") for request in case.passed)
    wanted = list(case.statuses)
    if not has_head:
        assert statuses(received) == wanted, case.name
    assert where.core.requests == list(case.passed), case.name
    if case.expect[-1].kind == "refused":
        last = received[received.rindex(b"HTTP/1.1 ") :]
        assert b"\r\nConnection: close\r\n" in last, case.name
        assert b"a.example" not in last, case.name


# ------------------------------------------------------------- good requests


async def test_connection_is_kept_and_so_is_the_stream_to_the_core() -> None:
    async with place() as where:
        client = await where.client()
        for _ in range(3):
            client.send(GET)
            assert await client.until(b"ok") == OK
        assert len(where.core.peers) == 1
        assert where.core.peers[0].peername == client.writer.get_extra_info("sockname")
        assert where.core.peers[0].sockname == where.address
        assert where.front.connections == 1


async def test_twenty_pipelined_requests_are_answered_one_by_one_in_order() -> None:
    under_way = 0

    async def handler(request: bytes, end: PipeEnd) -> None:
        nonlocal under_way
        under_way += 1
        await asyncio.sleep(0)
        assert under_way == 1
        path = request.split(b" ")[1]
        end.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
        under_way -= 1

    async with place(handler) as where:
        raw = b"".join(b"GET /page-%d HTTP/1.1\r\nHost: a.example\r\n\r\n" % n for n in range(20))
        received = await where.ask(raw)
        bodies = [part.split(b"HTTP/")[0] for part in received.split(b"\r\n\r\n")[1:]]
        assert bodies == [b"/page-%d" % n for n in range(20)]


async def test_read_ahead_is_bounded_and_nothing_is_lost() -> None:
    go = asyncio.Event()

    async def handler(request: bytes, end: PipeEnd) -> None:
        await go.wait()
        end.write(OK)

    async with place(handler) as where:
        many = b"GET / HTTP/1.1\r\nHost: a.example\r\nA: %b\r\n\r\n" % (b"x" * 20_000)
        asking = asyncio.create_task(where.ask(many * 100))
        await where.core.began.wait()
        go.set()
        assert statuses(await asking) == [200] * 100


async def test_requests_wait_while_the_client_does_not_read() -> None:
    async with place(send_timeout="20s") as where:
        client = await where.client(limit=1024)
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n" * 300_000)
        got = 0
        async with asyncio.timeout(30):
            while got < 1000:
                got += (await client.reader.read(65536)).count(b" 204 ")
        client.reset()


async def test_half_closed_client_that_reads_late_gets_every_answer() -> None:
    count = 20_000
    async with place() as where:
        client = await where.client(limit=1024)
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n" * count)
        client.writer.write_eof()
        received = await client.all()
        assert statuses(received) == [204] * count


async def test_http_1_0_is_closed_after_the_answer() -> None:
    async with place() as where:
        client = await where.client()
        client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n")
        received = await client.all()
        assert b"\r\nConnection: close\r\n" in received
        assert received.endswith(b"\r\n\r\nok")


async def test_http_1_0_keep_alive_is_confirmed() -> None:
    async with place() as where:
        client = await where.client()
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")
            assert b"\r\nConnection: keep-alive\r\n" in await client.until(b"ok")


async def test_http_1_0_gets_a_chunked_answer_without_chunks() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" + CHUNKED_OK)

    async with place(handler) as where:
        client = await where.client()
        client.send(b"GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")
        received = await client.all()
        assert received == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"


async def test_chunked_answer_in_pieces() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        for at in range(len(CHUNKED_OK)):
            end.write(CHUNKED_OK[at : at + 1])
            await asyncio.sleep(0)

    async with place(handler) as where:
        client = await where.client()
        for _ in range(2):
            client.send(GET)
            received = await client.until(b"0\r\n\r\n")
            head, _, body = received.partition(b"\r\n\r\n")
            assert head == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
            assert body == b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"


async def test_head_204_and_304_have_no_body() -> None:
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
    left = list(answers)

    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(left.pop(0))

    async with place(handler) as where:
        head = GET.replace(b"GET", b"HEAD")
        received = await where.ask(head + GET + GET + head)
    assert statuses(received, bodies=False) == [200, 204, 304, 200]
    assert received.count(b"Content-Length: 50\r\n") == 2
    assert b"Content-Length: 0" not in received


async def test_interim_answers_are_relayed_but_for_100() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)

    async with place(handler) as where:
        received = await where.ask(GET)
    assert received.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK")


async def test_connection_fields_of_the_core_are_replaced() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(OK.replace(b"Content", b"Connection: close\r\nKeep-Alive: 1\r\nContent"))

    async with place(handler) as where:
        client = await where.client()
        for _ in range(2):
            client.send(GET)
            assert await client.until(b"ok") == OK


async def test_100_continue_is_sent_once_the_head_is_good() -> None:
    async with place() as where:
        client = await where.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\n"
            b"Content-Length: 5\r\n\r\n"
        )
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert where.core.requests == []
        client.send(b"hello")
        assert await client.until(b"ok") == OK
        assert where.core.requests[0].endswith(b"\r\n\r\nhello")


async def test_large_body_is_streamed_and_paced() -> None:
    size = 8 * 1024 * 1024
    async with place() as where:
        client = await where.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(8):
            client.send(b"x" * (size // 8))
            await client.writer.drain()
        assert await client.until(b"ok") == OK
        assert where.core.requests[0].endswith(b"x" * size)


async def test_large_chunked_body_is_streamed() -> None:
    chunk = b"%x\r\n%b\r\n" % (100_000, b"y" * 100_000)
    async with place() as where:
        raw = b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert statuses(await where.ask(raw + chunk * 20 + b"0\r\n\r\n")) == [200]
        assert where.core.requests[0].count(b"y") == 2_000_000


async def test_half_closed_client_gets_its_answer() -> None:
    go = asyncio.Event()

    async def handler(request: bytes, end: PipeEnd) -> None:
        await go.wait()
        end.write(OK)

    async with place(handler) as where:
        asking = asyncio.create_task(where.ask(GET))
        await where.core.began.wait()
        go.set()
        assert (await asking).endswith(b"ok")


async def test_listens_on_several_addresses() -> None:
    async with place() as where:
        where.address = address_of(await where.front.listen(ListenAddress("127.0.0.1")))
        assert statuses(await where.ask(GET)) == [200]


async def test_settings_are_asked_for_every_request() -> None:
    current = FrontSettings(Limits())
    core = Core()
    front = Front(core.connect, lambda: current, {HTTP1: Http1})
    where = Place(front, core, address_of(await front.listen(ListenAddress("127.0.0.1"))))
    client = await where.client()
    client.send(GET)
    await client.until(b"ok")
    current = FrontSettings(Limits(), encoded_slashes=True)
    client.send(GET.replace(b"/ ", b"/a%2fb "))
    assert await client.until(b"ok") == OK
    current = FrontSettings(Limits.model_validate({"target_length": 64}))
    client.send(GET.replace(b"/ ", b"/" + b"a" * 64 + b" "))
    assert statuses(await client.all()) == [414]
    await where.close()


# --------------------------------------------------------------------- limits


async def test_slow_head_gets_408_and_a_drip_does_not_help() -> None:
    async with place(head_timeout="200ms") as where:
        client = await where.client()

        async def drip() -> None:
            for at in range(len(GET) - 1):
                client.send(GET[at : at + 1])
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert statuses(await client.all()) == [408]
        dripping.cancel()
        assert where.core.peers == []


async def test_idle_connections_are_closed_silently() -> None:
    async with place(idle_timeout="100ms") as where:
        client = await where.client()
        assert await client.all() == b""
        client = await where.client()
        client.send(GET)
        assert await client.all() == OK


async def test_body_that_stops_gets_408() -> None:
    async with place(body_timeout="100ms") as where:
        client = await where.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhe")
        assert statuses(await client.all()) == [408]
        assert where.core.requests == []


async def test_body_that_drips_below_the_rate_gets_408() -> None:
    async with place(body_timeout="100ms", body_rate="1KiB") as where:
        client = await where.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5000\r\n\r\n")

        async def drip() -> None:
            for _ in range(4999):
                client.send(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert statuses(await client.all()) == [408]
        dripping.cancel()


async def test_chunked_body_over_the_limit_gets_413_though_the_core_has_begun() -> None:
    async with place(body_size="40KiB") as where:
        client = await where.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"8000\r\n" + b"x" * 0x8000)
        await until(lambda: bool(where.core.peers))
        client.send(b"\r\n2001\r\n")
        assert statuses(await client.all()) == [413]
        await asyncio.wait_for(where.core.ended.wait(), WAIT_S)
        assert where.core.requests == []
        assert where.core.was_reset


async def test_client_that_does_not_read_is_cut_off() -> None:
    body = b"x" * 1_000_000
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n"

    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(large)
        for _ in range(40):
            end.write(body)
            await end.drain()

    async with place(handler, send_timeout="200ms") as where:
        client = await where.client(limit=1024)
        client.send(GET)
        await asyncio.wait_for(where.core.ended.wait(), WAIT_S)
        with pytest.raises(ConnectionResetError):
            await client.all()
        assert where.front.counts.refused[408, "the client does not read"] == 1


async def test_slow_reader_gets_everything() -> None:
    body = b"x" * 5_000_000

    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 100_000):
            end.write(body[at : at + 100_000])
            await end.drain()

    async with place(handler) as where:
        client = await where.client(limit=4096)
        client.send(GET + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        size = 0
        async with asyncio.timeout(WAIT_S):
            while data := await client.reader.read(30_000):
                size += len(data)
                await asyncio.sleep(0)
        assert size > 2 * len(body)


async def test_connections_over_the_cap_get_503() -> None:
    async with place(connections=2) as where:
        first, second = await where.client(), await where.client()
        first.send(GET)
        await first.until(b"ok")
        third = await where.client()
        assert statuses(await third.all()) == [503]
        assert where.front.connections == 2
        second.writer.close()
        await until(lambda: where.front.connections == 1)
        assert statuses(await where.ask(GET)) == [200]


async def test_connections_of_one_client_over_the_cap_get_503() -> None:
    async with place(connections_per_client=1) as where:
        first = await where.client()
        first.send(GET)
        await first.until(b"ok")
        assert statuses(await where.ask(GET)) == [503]
        other = await where.client(local_addr=("127.0.0.2", 0))
        other.send(GET)
        assert await other.until(b"ok") == OK


async def test_lack_of_descriptors_pauses_accepting_and_heals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.get_running_loop()
    async with place() as where:
        client = socket.create_connection(where.address)  # waits in the backlog
        client.setblocking(False)
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, client.fileno() + 64), hard))
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(client.fileno()))
            await until(lambda: bool(caplog.records))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)
        with client:
            async with asyncio.timeout(3):
                await loop.sock_sendall(client, GET)
                assert await loop.sock_recv(client, 1000) == OK
    (record,) = caplog.records
    assert record.getMessage().startswith("no connection can be taken for a moment: ")


@pytest.mark.parametrize(
    ("peername", "key"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::"),
        ("", ""),
        (None, ""),
    ],
)
def test_clients_are_told_apart_by_address_or_64(peername: Any, key: str) -> None:
    assert client_key(peername) == key


async def test_refusals_are_logged_and_counted_without_the_input(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "edgeproxy.front"):
        async with place() as where:
            await where.ask(b"GET /secret HTTP/1.1\r\nHost: secret\r\nA : secret\r\n\r\n")
            assert where.front.counts.refused == {(400, "a field name is malformed"): 1}
    (record,) = caplog.records
    assert record.getMessage() == "refused: 400, a field name is malformed"
    assert record.__dict__["client"][0] == "127.0.0.1"


async def test_refusal_reaches_a_client_that_goes_on_sending() -> None:
    async with place(body_size="1KiB") as where:
        client = await where.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3000000\r\n\r\n")
        client.send(b"x" * 3_000_000)
        assert statuses(await client.all()) == [413]


async def test_refused_head_request_gets_no_body() -> None:
    async with place() as where:
        received = await where.ask(b"HEAD / HTTP/1.1\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.endswith(b"\r\n\r\n")


# ------------------------------------------------------------ faults of a side


async def test_core_that_takes_no_stream_gives_502() -> None:
    def connect(peer: Peer) -> PipeEnd:
        raise OSError("no core")

    front = Front(connect, lambda: FrontSettings(Limits()), {HTTP1: Http1})
    where = Place(front, Core(), address_of(await front.listen(ListenAddress("127.0.0.1"))))
    assert statuses(await where.ask(GET)) == [502]
    await where.close()


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 300_000,
    ],
    ids=range(8),
)
async def test_unusable_answer_becomes_502(written: bytes) -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(written)
        end.close()

    async with place(handler) as where:
        client = await where.client()
        client.send(GET)
        received = await client.all()
        assert statuses(received) == [502]
        assert b"\r\nConnection: close\r\n" in received


@pytest.mark.parametrize("written", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_silent_core_gives_504(written: bytes) -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(written)
        await end.read(1)

    async with place(handler, answer_timeout="100ms") as where:
        client = await where.client()
        client.send(GET)
        assert statuses(await client.all())[-1] == 504
        await asyncio.wait_for(where.core.ended.wait(), WAIT_S)


async def test_core_that_falls_silent_in_its_answer_is_seen_as_truncation() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(OK[:-1])
        await end.read(1)

    async with place(handler, answer_timeout="100ms") as where:
        client = await where.client()
        client.send(GET)
        with pytest.raises(ConnectionResetError):
            await client.all()


@pytest.mark.parametrize(
    "written",
    [OK[:-1], CHUNKED_OK[:-5], CHUNKED_OK[:-3], CHUNKED_OK[:-5] + b"x"],
    ids=["length", "chunks", "last-chunk", "bad-chunk"],
)
@pytest.mark.parametrize("minor", [0, 1])
async def test_truncated_answer_is_seen_as_such(written: bytes, minor: int) -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(written)
        end.close()

    async with place(handler) as where:
        client = await where.client()
        client.send(b"GET / HTTP/1.%d\r\nHost: a.example\r\n\r\n" % minor)
        with pytest.raises(ConnectionResetError):
            await client.all()


async def test_surplus_of_the_core_never_reaches_the_client() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async with place(handler) as where:
        client = await where.client()
        for _ in range(2):
            client.send(GET)
            assert await client.until(b"ok") == OK
        assert len(where.core.peers) == 2


async def test_core_that_closes_between_requests_is_connected_anew() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(OK)
        end.close()

    async with place(handler) as where:
        client = await where.client()
        for _ in range(3):
            client.send(GET)
            assert await client.until(b"ok") == OK
        assert len(where.core.peers) == 3


async def test_early_answer_to_an_upload_closes_the_connection() -> None:
    seen = asyncio.Event()

    class Early(Core):
        async def _serve(self, end: PipeEnd) -> None:
            await end.read(65536)
            end.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            while await end.read(65536):
                pass
            seen.set()

    core = Early()
    front = Front(core.connect, lambda: FrontSettings(Limits()), {HTTP1: Http1})
    where = Place(front, core, address_of(await front.listen(ListenAddress("127.0.0.1"))))
    client = await where.client()
    client.send(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 90000\r\n\r\n")
    client.send(b"x" * 30_000)
    received = await client.all()
    assert statuses(received) == [403]
    assert b"\r\nConnection: close\r\n" in received
    await asyncio.wait_for(seen.wait(), WAIT_S)
    await where.close()


@pytest.mark.parametrize("written", [b"", OK[:-1]], ids=["before-the-answer", "in-the-answer"])
async def test_client_that_leaves_ends_the_work_of_the_core(written: bytes) -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(written)
        await end.read(1)

    async with place(handler) as where:
        client = await where.client()
        client.send(GET)
        await where.core.began.wait()
        client.reset()
        await asyncio.wait_for(where.core.ended.wait(), WAIT_S)
        assert where.core.was_reset
        await until(lambda: where.front.connections == 0)


# --------------------------------------------------------------------- tunnels


async def tunnel(request: bytes, end: PipeEnd) -> None:
    """Switches protocols, then echoes."""
    end.write(SWITCH + b"hello")
    while data := await end.read(65536):
        end.write(data)
        await end.drain()


async def test_101_opens_a_tunnel_both_ways_until_the_client_ends() -> None:
    async with place(tunnel) as where:
        client = await where.client()
        client.send(HANDSHAKE + b"early")
        head = await client.until(b"\r\n\r\n")
        assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
        assert await client.exactly(10) == b"helloearly"
        data = bytes(range(256)) * 8000
        client.send(data)
        assert await client.exactly(len(data)) == data
        client.writer.write_eof()
        assert await client.all() == b""
        await asyncio.wait_for(where.core.ended.wait(), WAIT_S)


async def test_tunnel_ends_with_the_core() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        end.write(SWITCH + b"bye")
        end.close()

    async with place(handler) as where:
        client = await where.client()
        client.send(HANDSHAKE)
        assert (await client.all()).endswith(b"\r\n\r\nbye")


async def test_idle_tunnel_is_closed() -> None:
    async with place(tunnel, idle_timeout="200ms") as where:
        client = await where.client()
        client.send(HANDSHAKE)
        assert (await client.all()).endswith(b"hello")
        await asyncio.wait_for(where.core.ended.wait(), WAIT_S)


# ------------------------------------------------------------------------ stop


async def test_stop_closes_idle_connections_and_finishes_requests() -> None:
    go = asyncio.Event()

    async def handler(request: bytes, end: PipeEnd) -> None:
        await go.wait()
        end.write(OK)

    async with place(handler) as where:
        idle, busy = await where.client(), await where.client()
        busy.send(GET)
        await where.core.began.wait()
        stopping = asyncio.create_task(where.front.stop(WAIT_S))
        assert await idle.all() == b""
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await where.client()
        go.set()
        received = await busy.all()
        assert statuses(received) == [200]
        assert b"\r\nConnection: close\r\n" in received
        busy.writer.close()
        await asyncio.wait_for(stopping, WAIT_S)
        assert where.front.connections == 0


async def test_stop_serves_what_is_queued_and_what_is_on_its_way() -> None:
    """Connections that nobody has accepted yet, and requests that nobody has read."""
    loop = asyncio.get_running_loop()
    async with place() as where:
        kept = await where.client()
        kept.send(GET)
        await kept.until(b"ok")
        asking = [socket.create_connection(where.address) for _ in range(100)]
        late = socket.create_connection(where.address)
        kept.send(GET)  # goes out at once
        for sock in asking:
            sock.send(GET)
            sock.setblocking(False)
        late.setblocking(False)
        # Nothing of this has been seen by the loop.
        stopping = asyncio.create_task(where.front.stop(WAIT_S))
        for sock in asking:
            with sock:
                assert statuses(await loop.sock_recv(sock, 1000)) == [200]
                assert await loop.sock_recv(sock, 1000) == b""
        assert statuses(await kept.all()) == [200]
        with late:
            await loop.sock_sendall(late, GET)
            assert statuses(await loop.sock_recv(late, 1000)) == [200]
        await stopping
        assert where.front.connections == 0


async def test_stop_aborts_what_does_not_finish_in_time() -> None:
    async def handler(request: bytes, end: PipeEnd) -> None:
        await end.read(1)

    async with place(handler) as where:
        client = await where.client()
        client.send(GET)
        await where.core.began.wait()
        await where.front.stop(0.05)
        assert where.front.connections == 0
        with pytest.raises(ConnectionResetError):
            await client.all()
        assert where.core.was_reset
