"""A client of HTTP/3 that may say anything: for journeys, and for threats."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pylsqpack
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from edgeproxy.engine.http3_frames import Code, Kind, StreamKind, frame, number, pull_number
from edgeproxy.testing import Proxy
from tests.http2_client import Answer, Fields, tls_port

MAX_WAIT_S = 20
CONTROL_STREAM = 3


_HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def section(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as they are sent (RFC 9204, section 4.5.6), whatever is in them."""
    return b"\0\0" + b"".join(_text(name, 3, 0x20) + _text(value, 7, 0) for name, value in fields)


def _text(text: bytes, prefix: int, flags: int) -> bytes:
    packed = _HUFFMAN.encode(text)
    length = encode_integer(len(packed), prefix)
    length[0] |= flags | 1 << prefix
    return bytes(length) + packed


class Client(asyncio.DatagramProtocol):
    """One connection. What is received stands in `answers`, by stream."""

    transport: asyncio.DatagramTransport

    def __init__(self, quic: QuicConnection) -> None:
        self.quic = quic
        self.answers: dict[int, Answer] = {}
        self.control = b""  # what came on the server's control stream
        self.closed: events.ConnectionTerminated | None = None
        self.agreed = False
        self.pings = 0
        self.datagrams: list[bytes] = []  # as they came
        self.sent_bytes = 0
        self.is_deaf = False  # what comes is dropped
        self.loses: Callable[[], bool] = lambda: False  # a datagram, either way
        self._partial: dict[int, bytes] = {}  # frames of answers
        self._heard = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ saying

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def begin(self, fields: Iterable[tuple[bytes, bytes]], *, ended: bool = True) -> int:
        """A request, to be sent with the next `flush`; its stream."""
        number = self.quic.get_next_available_stream_id()
        self.answers[number] = Answer()
        self.quic.send_stream_data(number, frame(Kind.HEADERS, section(fields)), ended)
        return number

    def send(self, number: int, data: bytes, *, ended: bool = False) -> None:
        """A part of the body."""
        self.quic.send_stream_data(number, frame(Kind.DATA, data), ended)

    def cancel(self, number: int) -> None:
        """Want no answer any more."""
        self.quic.reset_stream(number, Code.REQUEST_CANCELLED)
        self.quic.stop_stream(number, Code.REQUEST_CANCELLED)

    def send_trailers(self, number: int, fields: Fields) -> None:
        self.quic.send_stream_data(number, frame(Kind.HEADERS, section(fields)), True)

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

    @property
    def goaways(self) -> list[int]:
        """The streams that GOAWAY has named."""
        found, at = list[int](), 1  # behind the type of the stream
        while at < len(self.control):
            kind = pull_number(self.control, at)
            length = pull_number(self.control, kind[1]) if kind is not None else None
            assert kind is not None
            assert length is not None
            payload = self.control[length[1] : length[1] + length[0]]
            if kind[0] == Kind.GOAWAY and (stream := pull_number(payload, 0)):
                found.append(stream[0])
            at = length[1] + length[0]
        return found

    @property
    def is_leaving(self) -> bool:
        """Whether the server takes no more requests."""
        return self.closed is not None or bool(self.goaways)

    def may_ask_again(self, number: int) -> bool:
        """Whether the server has said that it did nothing for this request."""
        is_refused = any(number >= first for first in self.goaways)
        return is_refused or self.answers[number].reset == Code.REQUEST_REJECTED

    def inject(self, *frames: bytes) -> None:
        """Send a packet of these frames of QUIC, whatever they are."""
        quic = self.quic
        builder = QuicPacketBuilder(
            host_cid=quic.host_cid, is_client=True, max_datagram_size=1200,
            packet_number=quic._packet_number, peer_cid=quic._peer_cid.cid, peer_token=b"",
            quic_logger=None, spin_bit=False, version=int(quic._version or 0),
        )  # fmt: skip
        builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
        for one in frames:
            builder.start_frame(one[0], capacity=len(one)).push_bytes(one[1:])
        datagrams, _ = builder.flush()
        quic._packet_number = builder.packet_number
        for data in datagrams:
            self.raw(data)

    def raw(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        if not self.loses():
            self.transport.sendto(data)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self.quic.handle_timer(max(loop.time(), self.quic.get_timer() or 0))
        self._take_events()
        self.transmit()

    # ----------------------------------------------------------- hearing

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams.append(data)
        if self.is_deaf or self.loses():
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
        elif isinstance(event, events.StreamReset) and event.stream_id in self.answers:
            self.answers[event.stream_id].reset = event.error_code
        elif isinstance(event, events.StreamDataReceived) and event.stream_id == CONTROL_STREAM:
            self.control += event.data
        elif isinstance(event, events.StreamDataReceived) and event.stream_id in self.answers:
            self._take_data(self.answers[event.stream_id], event)

    def _take_data(self, answer: Answer, event: events.StreamDataReceived) -> None:
        data = self._partial.pop(event.stream_id, b"") + event.data
        at = 0
        while (kind := pull_number(data, at)) and (length := pull_number(data, kind[1])):
            payload = data[length[1] : length[1] + length[0]]
            if len(payload) < length[0]:
                break
            if kind[0] == Kind.HEADERS:
                self._take_head(answer, pylsqpack.Decoder(0, 0).feed_header(0, payload)[1])
            elif kind[0] == Kind.DATA:
                answer.body += payload
            at = length[1] + length[0]
        self._partial[event.stream_id] = data[at:]
        answer.ended |= event.end_stream

    def _take_head(self, answer: Answer, fields: list[tuple[bytes, bytes]]) -> None:
        status = dict(fields)[b":status"]
        if status.startswith(b"1"):
            answer.interim.append(status)
        else:
            answer.fields = fields

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
        """The streams that every client opens."""
        for kind, data in (
            (StreamKind.CONTROL, frame(Kind.SETTINGS, b"")),
            (StreamKind.QPACK_ENCODER, b""),
            (StreamKind.QPACK_DECODER, b""),
        ):
            stream = self.quic.get_next_available_stream_id(is_unidirectional=True)
            self.quic.send_stream_data(stream, number(kind) + data)
        await self.flush()


def configuration(**more: Any) -> QuicConfiguration:
    """Of a client that takes any certificate."""
    more.setdefault("server_name", "a.example")
    return QuicConfiguration(
        is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, **more
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
