"""Connections whose protocol is not known yet: counted and timed, and then handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from edgeproxy.engine.front import Front

type Ends = tuple[Any, Any]
"""The addresses of a connection's two ends, the other side's first, as Python gives them."""

type Accept = Callable[[Ends | None], asyncio.Protocol]
"""Makes what serves a connection between these ends, None for those that the socket tells."""

HURRY_S = 1.0  # for what may be on its way when the front stops


class Waiting(asyncio.Protocol):
    """Looks at what comes first, then makes the protocol that serves, and is gone."""

    _transport: asyncio.Transport
    _deadline: asyncio.TimerHandle
    late = ""  # what is said of a connection on which nothing comes in time

    def __init__(self, front: Front, accept: Accept, ends: Ends | None = None) -> None:
        self._front = front
        self._accept = accept
        self._ends = ends
        self._data = b""
        self._is_done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._expect(self._front.settings().limits.head_timeout)
        if reason := self._unwelcome() or self._front.admit(self):
            self._refuse(reason)

    def _unwelcome(self) -> str:
        """Why nothing is to be heard from this peer; empty if it may speak."""
        return ""

    def data_received(self, data: bytes) -> None:
        if not self._is_done:
            self._data += data
            self._look()

    def _look(self) -> None:
        """Decide on what has come so far, or wait for more."""
        raise NotImplementedError

    @property
    def _peer(self) -> Any:
        return self._ends[0] if self._ends else self._transport.get_extra_info("peername")

    def _hand_over(self, ends: Ends | None, data: bytes) -> None:
        """Have it served, beginning with `data`."""
        self._end()
        self._front.hand_over(self)
        protocol = self._accept(ends)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if data:
            protocol.data_received(data)

    def _refuse(self, reason: str) -> None:
        """Close: whether the client speaks TLS is not known, so nothing can be said."""
        self._front.count_refusal(self._peer, 400, reason)
        self.abort()

    def _expect(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(within_s, self._refuse, self.late)

    def _end(self) -> None:
        self._is_done = True
        self._deadline.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._front.forget(self)

    # What the front asks of its connections.

    def close_if_idle(self) -> None:
        """The front stops. What is awaited may be on its way; it gets a moment."""
        self._deadline.cancel()
        if not self._is_done:
            self._expect(HURRY_S)

    def abort(self) -> None:
        self._end()
        self._transport.abort()
