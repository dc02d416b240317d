"""TLS on a client's connection, under the protocol that reads it as if it were plain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, cast

log = logging.getLogger("edgeproxy.front")

READ_BYTES = 64 * 1024
MAX_UNSENT_BYTES = 64 * 1024

_TEXT = b"400 Bad Request: this port speaks TLS; the address begins with https://\n"
PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_TEXT), _TEXT)
)


class Tls(asyncio.Transport, asyncio.Protocol):
    """The transport of `protocol`, and itself the protocol of the plain connection.

    The connection is made for `protocol` at once, so that it counts while the handshake is under
    way; the handshake must end within a time. If it agrees on one of the `others` (RFC 7301), that
    one speaks from then on. In place of asyncio's own, which does not tell how much the client has
    yet to take, closes when the client has said all, and gives up on one that takes long to read
    the end.
    """

    _plain: asyncio.Transport
    _tls: ssl.SSLObject

    def __init__(
        self,
        context: ssl.SSLContext,
        protocol: asyncio.Protocol,
        others: Mapping[str, Callable[[], asyncio.Protocol]],
        *,
        handshake_s: float,
    ) -> None:
        super().__init__()
        self._context = context
        self._protocol = protocol
        self._others = others
        self._handshake_s = handshake_s
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._is_agreed = False
        self._is_paused = False
        self._has_ended = False  # we send nothing more, and read nothing more
        self._told_end = False
        self._unsent = b""  # written before the handshake has ended

    # ------------------------------------------------- below: the plain connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._plain = cast(asyncio.Transport, transport)
        self._tls = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._handshake_s, self._plain.abort)
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if self._has_ended:
            return
        self._incoming.write(data)
        try:
            if self._is_agreed or self._agree():
                self._read()
        except ssl.SSLError as error:
            self._fail(error)
        self._flush()

    def _agree(self) -> bool:
        """Go on with the handshake; whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self._is_agreed = True
        self._deadline.cancel()
        other = self._others.get(self._tls.selected_alpn_protocol() or "")
        if other is not None:
            self._protocol.connection_lost(None)
            self._protocol = other()
            self._protocol.connection_made(self)
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self.write(unsent)
        return True

    def _read(self) -> None:
        while not self._is_paused and not self._has_ended:
            try:
                data = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                return
            if not data:  # the client closes its side
                if not self.eof_received():
                    self.close()
                return
            self._protocol.data_received(data)

    def _fail(self, error: ssl.SSLError) -> None:
        log.debug("TLS with %s failed: %s", self._plain.get_extra_info("peername"), error.reason)
        self._has_ended = True
        if error.reason == "HTTP_REQUEST":
            self._outgoing.read()
            self._plain.write(PLAIN_HTTP)
        self._flush()  # the alert
        self._plain.close()

    def eof_received(self) -> bool:
        """The client sends no more. It need not say so in TLS: every request is framed."""
        if not self._is_agreed or self._told_end:
            return self._is_agreed
        self._told_end = True
        return bool(self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # ------------------------------------------------- above: what the protocol may do

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._has_ended:
            return
        if not self._is_agreed:
            self._unsent = (self._unsent + data)[:MAX_UNSENT_BYTES]
            return
        view = memoryview(data)
        try:
            while view:  # a record at a time
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            self._fail(error)
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._plain.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._end()
        if not self._plain.is_closing():
            self._plain.write_eof()

    def close(self) -> None:
        self._end()
        self._plain.close()

    def _end(self) -> None:
        """Say in TLS that this was all (RFC 8446, section 6.1), so that no end can be forged."""
        if self._is_agreed and not self._has_ended:
            with contextlib.suppress(ssl.SSLError):  # it would like to hear the client's end
                self._tls.unwrap()
            self._flush()
        self._has_ended = True

    def abort(self) -> None:
        self._has_ended = True
        self._plain.abort()

    def is_closing(self) -> bool:
        return self._plain.is_closing()

    def is_reading(self) -> bool:
        return not self._is_paused and self._plain.is_reading()

    def pause_reading(self) -> None:
        self._is_paused = True
        self._plain.pause_reading()

    def resume_reading(self) -> None:
        self._is_paused = False
        self._plain.resume_reading()
        asyncio.get_running_loop().call_soon(self.data_received, b"")  # what is decrypted already

    def get_write_buffer_size(self) -> int:
        return self._plain.get_write_buffer_size() + len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        return self._plain.get_extra_info(name, default)
