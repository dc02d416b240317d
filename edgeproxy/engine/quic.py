"""One connection of QUIC on a socket for datagrams: its timers, and what is sent and when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from aioquic.quic import events

from edgeproxy.engine.allowance import ConnectionFault
from edgeproxy.engine.deadline import Deadline
from edgeproxy.engine.quic_limits import BoundedQuic

log = logging.getLogger("edgeproxy.front")

MAX_MOVES = 64  # of a client to another port, as its router makes it; more is no router

HELD_UP_S = 0.025
"""Until what was due and could not be sent is tried again, as to an address that is not proven."""

type Send = Callable[[bytes, Any], None]
"""Sends a datagram to an address."""


class Rider(Protocol):
    """What is spoken on a connection."""

    def proven(self) -> bool:
        """The client is where it says; whether it may go on."""

    def agreed(self) -> None:
        """The handshake is done."""

    def received(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        """Take what has come on a stream. May raise ConnectionFault."""

    def stopped(self, stream_id: int) -> None:
        """The client wants nothing more of a stream, or sends nothing more."""

    def confirmed(self) -> None:
        """The client has been heard: perhaps more can be sent."""

    def failed(self, code: int, status: int, reason: str) -> None:
        """Something is wrong: count it, and `end` the connection."""

    def gone(self) -> None:
        """The connection is no more."""


class Quic:
    """`bounded`, by which it is understood; `send` and `forget` are those of its listener.

    `local` is the address of ours that the client came to.
    """

    def __init__(
        self,
        bounded: BoundedQuic,
        send: Send,
        forget: Callable[[Quic], None],
        local: Any,
        *,
        handshake_s: float,
        keep_alive_s: float,
    ) -> None:
        self.bounded = bounded
        self.is_agreed = False
        self.is_proven = False
        self.has_ended = False
        self.rider: Rider
        self.send = send
        self._forget = forget
        self.local = local
        self._keep_alive_s = keep_alive_s
        self._loop = asyncio.get_running_loop()
        self._will_flush = False
        self.address: Any = None  # of the client
        self._moves = 0
        self._timer = Deadline(self._look)
        self._handshake = Deadline(self._is_late)
        self._handshake.set(handshake_s)
        self._ping = Deadline(self._keep_alive)

    # ------------------------------------------------------ from the client

    def receive(self, data: bytes, address: Any) -> None:
        """Take a datagram. One from another host is dropped: we have said that none may be
        (RFC 9000, section 9). Another port is what a router makes of it."""
        if self.has_ended or not self._may_be_from(address):
            return
        try:
            self.bounded.receive_datagram(data, address, self._loop.time())
            self.address = self.bounded.address
            self._dispatch()
        except ConnectionFault as fault:
            self.rider.failed(fault.code, 400, str(fault))
        except Exception as error:  # of the library, by which no client may harm others
            self._break(error)
        if self.bounded.fault is not None and not self.has_ended:
            self._break(None)
        self.flush_soon()

    def _may_be_from(self, address: Any) -> bool:
        if self.address is None or address == self.address:
            return True
        if address[0] != self.address[0] or self._moves >= MAX_MOVES:
            return False
        self._moves += 1
        return True

    def _dispatch(self) -> None:
        if not self.is_proven and self.bounded.is_proven:
            self.is_proven = True
            if not self.rider.proven():
                return
        while (event := self.bounded.next_event()) is not None:
            take = None if self.has_ended else _TAKES.get(type(event))
            if take is not None:
                take(self, event)
        if not self.has_ended and self.bounded.fault is None:
            self.rider.confirmed()

    def _take_agreement(self, _: events.HandshakeCompleted) -> None:
        self._handshake.clear()
        self.is_agreed = True
        self.rider.agreed()

    def _take_data(self, event: events.StreamDataReceived) -> None:
        self.rider.received(event.stream_id, event.data, ended=event.end_stream)

    def _take_stop(self, event: events.StreamReset | events.StopSendingReceived) -> None:
        self.rider.stopped(event.stream_id)

    def _take_end(self, _: events.ConnectionTerminated) -> None:
        self.abort()

    def _break(self, error: Exception | None) -> None:
        """What the client does is no QUIC. If the library knows why, it tells the client."""
        if error is not None:
            log.warning("QUIC with %s failed: %r", self.address, error)
        self.rider.failed(-1, 400, "QUIC is spoken wrongly")

    # ------------------------------------------------------ to the client

    def flush_soon(self) -> None:
        """Send what is to be sent, together with what else there is in this turn of the loop."""
        if not self._will_flush and not self.has_ended:
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        if self.has_ended:
            return
        try:
            self._transmit()
            if self.bounded.owes_streams:  # which was found out while sending
                self._transmit()
        except Exception as error:
            self._break(error)
        else:
            self._wait()

    def _transmit(self) -> None:
        for data, address in self.bounded.datagrams_to_send(self._loop.time()):
            self.send(data, address)

    def _wait(self) -> None:
        """Look again when the library wants it."""
        at_s = self.bounded.get_timer()
        if at_s is None:
            self._timer.clear()
        else:
            left_s = at_s - self._loop.time()
            self._timer.set(left_s if left_s > 0 else HELD_UP_S)

    def _look(self) -> None:
        try:
            self.bounded.handle_timer(self._loop.time())
            self._dispatch()
        except Exception as error:
            self._break(error)
        self._flush()

    def expect_answers(self, *, are_due: bool) -> None:
        """Ask from time to time whether a client that waits for us is still there."""
        if not are_due:
            self._ping.clear()
        elif not self._ping.is_set:
            self._ping.set(self._keep_alive_s)

    def _keep_alive(self) -> None:
        self.bounded.send_ping(0)
        self._ping.set(self._keep_alive_s)
        self.flush_soon()

    # ------------------------------------------------------ the ending

    def _is_late(self) -> None:
        self.rider.failed(-1, 408, "the handshake comes too slowly")

    def end(self, code: int, reason: str = "") -> None:
        """Say why, and forget the connection: what comes later gets a reset. A `code` below 0 means
        that it is about QUIC, and the library may know better."""
        if self.has_ended:
            return
        if code >= 0:
            self.bounded.close(error_code=code, reason_phrase=reason)
        else:
            self.bounded.violated()
        if self.bounded.may_tell:
            try:
                self._transmit()
            except Exception as error:
                log.debug("the end cannot be told to %s: %r", self.address, error)
        self.abort()

    def abort(self) -> None:
        """Forget the connection."""
        if self.has_ended:
            return
        self.has_ended = True
        for deadline in (self._handshake, self._ping, self._timer):
            deadline.cancel()
        self._forget(self)
        self.rider.gone()
        self.bounded.let_go()


_TAKES: dict[type, Callable[[Quic, Any], None]] = {
    events.HandshakeCompleted: Quic._take_agreement,
    events.StreamDataReceived: Quic._take_data,
    events.StreamReset: Quic._take_stop,
    events.StopSendingReceived: Quic._take_stop,
    events.ConnectionTerminated: Quic._take_end,
}
