"""A client of HTTP/2 that may say anything: for journeys, and for threats."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame
from yarl import URL

from edgeproxy.testing import Proxy

Fields = Sequence[tuple[bytes, bytes]]

GET = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"))
POST = ((b":method", b"POST"), *GET[1:], (b":path", b"/"))


def get(path: bytes = b"/", *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [*GET, (b":path", path), *more]


@dataclass(slots=True)
class Answer:
    """What came on one stream. `reset` is the code of RST_STREAM."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[bytes] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.get(b":status") or 0)

    def get(self, name: bytes) -> bytes | None:
        return dict(self.fields).get(name)

    @property
    def is_over(self) -> bool:
        return self.ended or self.reset is not None


class Client:
    """One connection. What is received stands in `answers`, by stream, and in `goaways`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.greeted = False
        self._partial = b""
        self.takes_data = True  # opens the windows for more, once data has come
        self.answers: dict[int, Answer] = {}
        self.goaways: list[int] = []
        self.last_stream = 2**31 - 1  # that the server will answer
        self.settings: dict[int, int] = {}
        self.pings = 0
        self.h2 = H2Connection(
            H2Configuration(
                header_encoding=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=True,
            )
        )

    # ------------------------------------------------------------ saying

    async def hello(self) -> None:
        self.greeted = True
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        await self.raw(self.h2.data_to_send())

    async def raw(self, data: bytes | Frame) -> None:
        with suppress(ConnectionError):
            self.writer.write(data.serialize() if isinstance(data, Frame) else data)
            await self.writer.drain()

    def begin(self, fields: Iterable[tuple[bytes, bytes]], *, ended: bool = True) -> int:
        """A request, to be sent with the next `flush`; its stream."""
        number = self.h2.get_next_available_stream_id()
        self.answers[number] = Answer()
        self.h2.send_headers(number, list(fields), end_stream=ended)
        return number

    def send(self, number: int, data: bytes, *, ended: bool = False) -> None:
        """A part of the body."""
        self.h2.send_data(number, data, end_stream=ended)

    def cancel(self, number: int) -> None:
        """Want no answer any more."""
        self.h2.reset_stream(number)

    async def ask(
        self, fields: Iterable[tuple[bytes, bytes]], *parts: bytes, trailers: Fields = ()
    ) -> Answer:
        """A request, its body in `parts`, and what comes of it."""
        number = self.begin(fields, ended=not parts and not trailers)
        for part in parts:
            is_last = part is parts[-1] and not trailers
            self.send(number, part, ended=is_last)
        if trailers:
            self.h2.send_headers(number, list(trailers), end_stream=True)
        await self.flush()
        return await self.answer(number)

    # ----------------------------------------------------------- hearing

    async def answer(self, number: int) -> Answer:
        """What came on a stream, once it has ended, or the connection has."""
        answer = self.answers[number]
        while not answer.is_over and await self.hear():
            pass
        return answer

    @property
    def is_leaving(self) -> bool:
        """Whether the server takes no more requests."""
        return bool(self.goaways)

    def may_ask_again(self, number: int) -> bool:
        """Whether the server has said that it did nothing for this request."""
        return number > self.last_stream or self.answers[number].reset == 7  # REFUSED_STREAM

    async def end(self) -> list[int]:
        """The codes of all GOAWAY, once the server has closed."""
        while await self.hear():
            pass
        return self.goaways

    async def hear(self) -> bool:
        """Take what has come; False at the end."""
        try:
            async with asyncio.timeout(20):
                data = await self.reader.read(65536)
        except (ConnectionError, ssl.SSLError):
            return False
        if not data:
            return False
        for event in self.h2.receive_data(self._without_goaways(data)):
            self._take(event)
        if self.greeted:
            await self.flush()
        return True

    def _without_goaways(self, data: bytes) -> bytes:
        """The frames that are complete. `h2` would end all streams at a GOAWAY."""
        self._partial += data
        frames = b""
        while len(self._partial) >= 9:
            frame, size = Frame.parse_frame_header(memoryview(self._partial[:9]))
            if len(self._partial) < 9 + size:
                break
            if isinstance(frame, GoAwayFrame):
                frame.parse_body(memoryview(self._partial[9 : 9 + size]))
                self.goaways.append(frame.error_code)
                self.last_stream = frame.last_stream_id
            else:
                frames += self._partial[: 9 + size]
            self._partial = self._partial[9 + size :]
        return frames

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.RemoteSettingsChanged):
            self.settings |= {int(k): one.new_value for k, one in event.changed_settings.items()}
        elif isinstance(event, events.PingAckReceived):
            self.pings += 1
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        if isinstance(event, events.ResponseReceived):
            answer.fields = list(event.headers)
        elif isinstance(event, events.InformationalResponseReceived):
            answer.interim.append(dict(event.headers)[b":status"])
        elif isinstance(event, events.DataReceived):
            answer.body += event.data
            if self.takes_data:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.StreamEnded):
            answer.ended = True
        elif isinstance(event, events.StreamReset):
            answer.reset = int(event.error_code)


def tls_port(proxy: Proxy) -> int:
    port = URL(proxy.server.urls[1]).port
    assert port is not None
    return port


def unchecked() -> ssl.SSLContext:
    """A client's context that offers HTTP/2 and takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@asynccontextmanager
async def connected(
    proxy: Proxy | int, *, greets: bool = True, window: int = 65535
) -> AsyncIterator[Client]:
    """A connection to `proxy`, or its port for TLS, that has agreed on HTTP/2; `window` is that of
    its streams."""
    port = proxy if isinstance(proxy, int) else tls_port(proxy)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=unchecked())
    agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    assert agreed == "h2", agreed
    client = Client(reader, writer)
    client.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
    client.h2.local_settings.acknowledge()
    if greets:
        await client.hello()
    try:
        yield client
    finally:
        writer.transport.abort()
