"""A connection that begins with a PROXY header: nobody serves it before its client is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from edgeproxy.addresses import is_within, parse_address
from edgeproxy.engine.proxy_header import BadHeader, read_header

if TYPE_CHECKING:
    from edgeproxy.engine.front import Front

type Ends = tuple[Any, Any]
"""The addresses of a connection's two ends, the other side's first, as Python gives them."""

LOCAL: Ends = (("127.0.0.1", 0), ("127.0.0.1", 0))
"""A Unix socket has no addresses: who may connect to it is on this machine."""

HURRY_S = 1.0  # for a header that may be on its way when the front stops


class Proxied(asyncio.Protocol):
    """Reads the header, then makes the protocol that serves, with `accept`, and is gone.

    A header from a peer that the policy does not trust is not read: it could name any client.
    """

    _transport: asyncio.Transport
    _deadline: asyncio.TimerHandle

    def __init__(
        self,
        front: Front,
        accept: Callable[[Ends | None], asyncio.Protocol],
        ends: Ends | None = None,
    ) -> None:
        self._front = front
        self._accept = accept
        self._ends = ends
        self._data = b""
        self._is_done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = self._front.settings()
        self._expect(settings.limits.head_timeout)
        peer = parse_address(self._peer[0].partition("%")[0])
        if peer is None or not is_within(peer, settings.trusted_proxies):
            self._refuse("a PROXY header is not taken from here: it is not in trusted_proxies")
        elif reason := self._front.admit(self):
            self._refuse(reason)

    @property
    def _peer(self) -> Any:
        return self._ends[0] if self._ends else self._transport.get_extra_info("peername")

    def data_received(self, data: bytes) -> None:
        if self._is_done:
            return
        self._data += data
        try:
            header = read_header(self._data)
        except BadHeader as error:
            self._refuse(f"the connection does not begin with a PROXY header: {error}")
            return
        if header is None:
            return
        ends, told = self._ends, header.told
        if told is not None:
            source = (str(told.source), told.source_port)
            ends = source, (str(told.destination), told.destination_port)
        self._hand_over(ends, self._data[header.size :])

    def _hand_over(self, ends: Ends | None, rest: bytes) -> None:
        self._end()
        self._front.hand_over(self)
        protocol = self._accept(ends)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if rest:
            protocol.data_received(rest)

    def _refuse(self, reason: str) -> None:
        """Close: whether the client speaks TLS is not known, so nothing can be said."""
        self._front.count_refusal(self._peer, 400, reason)
        self.abort()

    def _expect(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(within_s, self._refuse, "no PROXY header came in time")

    def _end(self) -> None:
        self._is_done = True
        self._deadline.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._front.forget(self)

    # What the front asks of its connections.

    def close_if_idle(self) -> None:
        """The front stops. The header may be on its way; it gets a moment."""
        self._deadline.cancel()
        if not self._is_done:
            self._expect(HURRY_S)

    def abort(self) -> None:
        self._end()
        self._transport.abort()
