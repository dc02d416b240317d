"""A client of HTTP/3 that may say anything: for journeys, and for threats."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from edgeproxy.engine.http3_frames import Kind, frame
from edgeproxy.engine.qpack import encoded
from edgeproxy.testing import Proxy
from tests.http2_client import Answer, Fields, tls_port

MAX_WAIT_S = 20


class Client(asyncio.DatagramProtocol):
    """One connection. What is received stands in `answers`, by stream, and in `goaways`."""

    transport: asyncio.DatagramTransport

    def __init__(self, quic: QuicConnection) -> None:
        self.quic = quic
        self.answers: dict[int, Answer] = {}
        self.goaways: list[int] = []
        self.closed: events.ConnectionTerminated | None = None
        self.agreed = False
        self.pings = 0
        self.datagrams: list[bytes] = []  # as they came
        self.sent_bytes = 0
        self.is_deaf = False  # what comes is dropped
        self._h3: H3Connection | None = None
        self._heard = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def h3(self) -> H3Connection:
        assert self._h3 is not None
        return self._h3

    # ------------------------------------------------------------ saying

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def begin(self, fields: Iterable[tuple[bytes, bytes]], *, ended: bool = True) -> int:
        """A request, to be sent with the next `flush`; its stream."""
        number = self.quic.get_next_available_stream_id()
        self.answers[number] = Answer()
        self.quic.send_stream_data(number, frame(Kind.HEADERS, encoded(fields)), ended)
        return number

    def send(self, number: int, data: bytes, *, ended: bool = False) -> None:
        """A part of the body."""
        self.quic.send_stream_data(number, frame(Kind.DATA, data), ended)

    def send_trailers(self, number: int, fields: Fields) -> None:
        self.quic.send_stream_data(number, frame(Kind.HEADERS, encoded(fields)), True)

    async def ask(
        self, fields: Iterable[tuple[bytes, bytes]], *parts: bytes, trailers: Fields = ()
    ) -> Answer:
        """A request, its body in `parts`, and what comes of it."""
        number = self.begin(fields, ended=not parts and not trailers)
        for part in parts:
            self.send(number, part, ended=part is parts[-1] and not trailers)
        if trailers:
            self.send_trailers(number, trailers)
        await self.flush()
        return await self.answer(number)

    async def flush(self) -> None:
        self.transmit()

    def transmit(self) -> None:
        loop = asyncio.get_running_loop()
        for data, _ in self.quic.datagrams_to_send(loop.time()):
            self.raw(data)
        if self._timer is not None:
            self._timer.cancel()
        at_s = self.quic.get_timer()
        if at_s is not None:
            self._timer = loop.call_at(at_s, self._look)

    def raw(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self.transport.sendto(data)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self.quic.handle_timer(max(loop.time(), self.quic.get_timer() or 0))
        self._take_events()
        self.transmit()

    # ----------------------------------------------------------- hearing

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams.append(data)
        if self.is_deaf:
            return
        self.quic.receive_datagram(data, ("127.0.0.1", 0), asyncio.get_running_loop().time())
        self._take_events()
        self.transmit()

    def error_received(self, exc: Exception) -> None:
        pass

    def _take_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            self._take(event)
        closing = self.quic._close_event
        if self.closed is None and closing is not None:
            self.closed = closing  # without waiting until it is forgotten
        self._heard.set()

    def _take(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.HandshakeCompleted):
            self.agreed = True
        elif isinstance(event, events.PingAcknowledged):
            self.pings += 1
        elif isinstance(event, events.StreamReset):
            if event.stream_id in self.answers:
                self.answers[event.stream_id].reset = event.error_code
        if self._h3 is None:
            return
        for told in self._h3.handle_event(event):
            if isinstance(told, HeadersReceived):
                self._take_head(self.answers[told.stream_id], told)
            elif isinstance(told, DataReceived):
                self.answers[told.stream_id].body += told.data
                self.answers[told.stream_id].ended |= told.stream_ended

    def _take_head(self, answer: Answer, told: HeadersReceived) -> None:
        status = dict(told.headers)[b":status"]
        if status.startswith(b"1"):
            answer.interim.append(status)
        else:
            answer.fields = list(told.headers)
        answer.ended |= told.stream_ended

    async def hear(self) -> bool:
        """Wait for what comes next; False if the connection is closed."""
        if self.closed is not None:
            return False
        self._heard.clear()
        async with asyncio.timeout(MAX_WAIT_S):
            await self._heard.wait()
        return self.closed is None

    async def answer(self, number: int) -> Answer:
        """What came on a stream, once it has ended, or the connection has."""
        answer = self.answers[number]
        while not answer.is_over and await self.hear():
            pass
        return answer

    async def end(self) -> list[int]:
        """The code with which the server has closed."""
        while await self.hear():
            pass
        assert self.closed is not None
        return [self.closed.error_code]

    async def hello(self) -> None:
        self._h3 = H3Connection(self.quic)
        await self.flush()


def configuration(**more: Any) -> QuicConfiguration:
    """Of a client that takes any certificate."""
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=["h3"],
        server_name="a.example",
        verify_mode=ssl.CERT_NONE,
        **more,
    )


@asynccontextmanager
async def unconnected(
    proxy: Proxy | int, settings: QuicConfiguration | None = None
) -> AsyncIterator[Client]:
    """A client that has said nothing yet."""
    port = proxy if isinstance(proxy, int) else tls_port(proxy)
    client = Client(QuicConnection(configuration=settings or configuration()))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: client, remote_addr=("127.0.0.1", port)
    )
    try:
        yield client
    finally:
        if client._timer is not None:
            client._timer.cancel()
        with suppress(Exception):
            client.quic.close(error_code=0x100)
            client.transmit()
        if client._timer is not None:
            client._timer.cancel()
        transport.close()


@asynccontextmanager
async def connected(
    proxy: Proxy | int, *, greets: bool = True, window: int = 1024 * 1024, **more: Any
) -> AsyncIterator[Client]:
    """A connection to `proxy`, or its port for TLS; `window` is that of its streams."""
    settings = configuration(max_stream_data=window, **more)
    async with unconnected(proxy, settings) as client:
        client.quic.connect(("127.0.0.1", 0), asyncio.get_running_loop().time())
        await client.flush()
        while not client.agreed and await client.hear():
            pass
        assert client.agreed, client.closed
        if greets:
            await client.hello()
        yield client
