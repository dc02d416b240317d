"""The packets and frames of QUIC that a client sends (RFC 9000, section 19), counted as they come.

Those that carry no request are paid for; and of what the library would keep of them, only so much
is kept as clients need who mean no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.buffer import encode_uint_var
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

from edgeproxy.engine.allowance import RESET_COST, SMALL_DATA_BYTES, Allowance

MAX_HELLO_BYTES = 64 * 1024  # of the handshake
MAX_GAPS = 128  # in what has come of a stream, or of its packets; more is no loss of packets
MAX_ACK_RANGES = 32  # in what a client tells of ours; of more, the newest count
MAX_ACKS = 4  # frames of them in a datagram; one is usual
MAX_UNCONFIRMED = 2048  # packets of ours that the client says nothing of
ASK_AFTER = 512  # of them, whether it is there
MAX_PEER_IDS = 256  # ever, of a client's connection ids
MAX_PATHS = 2  # addresses of a client that are in use: the last, and the one before

_COSTS = {
    QuicFrameType.PING: 1,
    QuicFrameType.RESET_STREAM: RESET_COST // 2,  # clients that cancel send both of these
    QuicFrameType.STOP_SENDING: RESET_COST // 2,
    QuicFrameType.CRYPTO: 1,
    QuicFrameType.MAX_DATA: 1,
    QuicFrameType.MAX_STREAM_DATA: 1,
    QuicFrameType.MAX_STREAMS_BIDI: 1,
    QuicFrameType.MAX_STREAMS_UNI: 1,
    QuicFrameType.DATA_BLOCKED: 1,
    QuicFrameType.STREAM_DATA_BLOCKED: 1,
    QuicFrameType.STREAMS_BLOCKED_BIDI: 1,
    QuicFrameType.STREAMS_BLOCKED_UNI: 1,
    QuicFrameType.NEW_CONNECTION_ID: 2,
    QuicFrameType.RETIRE_CONNECTION_ID: 2,
    QuicFrameType.PATH_CHALLENGE: 2,
    QuicFrameType.PATH_RESPONSE: 1,
}


class PaidQuic(QuicConnection):
    """A connection whose client pays for what it sends from `allowance`; `how` is as ever."""

    def __init__(self, allowance: Allowance, **how: Any) -> None:
        super().__init__(**how)
        self._allowance = allowance
        self._acks = 0  # frames in the datagram under way
        self._has_paid = False  # for something in it
        handlers = self._handlers
        for kind, cost in _COSTS.items():
            handle, epochs = handlers[kind]
            handlers[kind] = partial(self._handle_paid, handle, cost), epochs

    @property
    def _handlers(self) -> dict[int, tuple[Callable[..., None], Any]]:
        return self._QuicConnection__frame_handlers  # type: ignore[attr-defined, no-any-return]

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Raises ConnectionFault, and whatever the library makes of input it does not expect."""
        self._acks = 0
        self._has_paid = False
        used = self._local_max_data.used
        super().receive_datagram(data, addr, now)
        if not self._has_paid and self._local_max_data.used - used < SMALL_DATA_BYTES:
            self._allowance.spend(1, now)
        del self._network_paths[MAX_PATHS:]
        for space in self._spaces.values():
            while len(space.ack_queue) > MAX_GAPS // 4:  # section 13.2.3
                space.ack_queue.shift()
        self._bound_unconfirmed()

    def _bound_unconfirmed(self) -> None:
        space = self._spaces.get(tls.Epoch.ONE_RTT)
        unconfirmed = len(space.sent_packets) if space is not None else 0
        if unconfirmed > MAX_UNCONFIRMED:
            raise _fault(QuicErrorCode.PROTOCOL_VIOLATION, QuicFrameType.ACK)
        if unconfirmed > ASK_AFTER and not self._ping_pending:
            self.send_ping(0)

    def _pay(self, cost: int, now_s: float) -> None:
        self._has_paid = True
        self._allowance.spend(cost, now_s)

    def _handle_paid(
        self,
        handle: Callable[[QuicReceiveContext, int, Buffer], None],
        cost: int,
        context: QuicReceiveContext,
        frame_type: int,
        buf: Buffer,
    ) -> None:
        self._pay(cost, context.time)
        handle(context, frame_type, buf)
        if len(self._peer_cid_sequence_numbers) > MAX_PEER_IDS:
            raise _fault(QuicErrorCode.CONNECTION_ID_LIMIT_ERROR, frame_type)

    def _handle_ack_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        self._acks += 1
        largest, told = _shortened(buf, has_ecn=frame_type == QuicFrameType.ACK_ECN)
        if largest >= self._packet_number or self._acks > MAX_ACKS:
            raise _fault(QuicErrorCode.PROTOCOL_VIOLATION, frame_type)
        super()._handle_ack_frame(context, frame_type, Buffer(data=told))

    def _handle_crypto_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start = buf.tell()
        offset, length = buf.pull_uint_var(), buf.pull_uint_var()
        buf.seek(start)
        gaps = self._crypto_streams[context.epoch].receiver._ranges
        if offset + length > MAX_HELLO_BYTES or len(gaps) > MAX_GAPS:
            raise _fault(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type)
        super()._handle_crypto_frame(context, frame_type, buf)

    def _handle_stream_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        start, used = buf.tell(), self._local_max_data.used
        super()._handle_stream_frame(context, frame_type, buf)
        fresh = self._local_max_data.used - used
        if fresh < SMALL_DATA_BYTES and not (fresh and frame_type & 1):
            self._pay(1, context.time)
        end = buf.tell()
        buf.seek(start)
        stream = self._streams.get(buf.pull_uint_var())
        buf.seek(end)
        if stream is not None and len(stream.receiver._ranges) > MAX_GAPS:
            raise _fault(QuicErrorCode.FLOW_CONTROL_ERROR, frame_type)

    def _handle_stop_sending_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        """A client that says it again has not heard that we know; the library would fail."""
        start = buf.tell()
        stream = self._streams.get(buf.pull_uint_var())
        if stream is not None and stream.sender._reset_error_code is not None:
            buf.pull_uint_var()
            return
        buf.seek(start)
        super()._handle_stop_sending_frame(context, frame_type, buf)


def _shortened(buf: Buffer, *, has_ecn: bool) -> tuple[int, bytes]:
    """The largest number in an ACK, and the frame with no more than MAX_ACK_RANGES (section 19.3):
    the library compares each with all that is not confirmed."""
    largest, delay, ranges = (buf.pull_uint_var() for _ in range(3))
    start = buf.tell()
    kept = min(ranges, MAX_ACK_RANGES)
    for _ in range(1 + 2 * kept):
        buf.pull_uint_var()
    text = buf.data_slice(start, buf.tell())
    for _ in range(2 * (ranges - kept)):
        buf.pull_uint_var()
    start = buf.tell()
    for _ in range(3 if has_ecn else 0):
        buf.pull_uint_var()
    head = b"".join([encode_uint_var(value) for value in (largest, delay, kept)])
    return largest, head + text + buf.data_slice(start, buf.tell())


def _fault(code: int, frame_type: int) -> QuicConnectionError:
    return QuicConnectionError(code, frame_type, "a limit is exceeded")
