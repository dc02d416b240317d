"""HTTP/3 with clients (RFC 9114): each stream is a request of the front, as one of HTTP/1.1 is.

The frames are cut and counted here (`http3_frames.py`), and what they carry becomes a request
(`fields.py`) that is judged, bounded and answered where all are. What QUIC has of its own to bound
is in `quic_frames.py` and `quic_limits.py`.
"""

from __future__ import annotations

from typing import Any

from edgeproxy.engine.allowance import RESET_COST, Allowance, ConnectionFault
from edgeproxy.engine.deadline import Deadline
from edgeproxy.engine.fields import Fields, Malformed, check_trailers, request_text
from edgeproxy.engine.front import FIRST_REQUEST_S, LINGER_S, Front, client_key
from edgeproxy.engine.http3_frames import (
    Code,
    ControlFrames,
    Kind,
    RequestFrames,
    StreamKind,
    check_settings,
    frame,
    goaway,
    number,
    pull_number,
    settings,
)
from edgeproxy.engine.qpack import NotASection, TooLarge, decoded, encoded
from edgeproxy.engine.quic import Quic
from edgeproxy.engine.streams import Stream
from edgeproxy.engine.turns import Turns
from edgeproxy.engine.waiting import Ends

HELD_HEAD_BYTES = 256 * 1024
"""Of field sections that are not all there yet, on one connection."""

MAX_DATA_BYTES = 16 * 1024  # in a frame, so that all streams get their share
FRAME_OVERHEAD = 8  # of such a frame
FIELDS_PER_COST = 8  # of a request that has more than it should; to read them costs as much
BYTES_PER_COST = 1000  # of answers, which a client confirms by the packet

_QPACK_SET_CAPACITY_0 = b"\x20"  # the one thing that an encoder may say without a table


class Http3:
    """One connection of a client, counted by the front; so is each stream while it is open."""

    protocol = "HTTP/3.0"

    def __init__(self, front: Front, ends: Ends, quic: Quic, allowance: Allowance) -> None:
        self._front = front
        self._ends = ends
        self._quic = quic
        self._allowance = allowance
        self._limits = front.settings().limits
        self._client = client_key(ends[0])
        self._turns = Turns(front, ends, self._client)
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}  # with something unsent
        self._frames: dict[int, RequestFrames] = {}  # of requests that are not all there
        self._heads: dict[int, float] = {}  # since when a field section of a stream is awaited
        self._unwanted: set[int] = set()  # requests that are over, and are not all there
        self._kinds: dict[int, int] = {}  # of the client's streams in one direction
        self._kindless: dict[int, bytes] = {}  # what there is of a kind
        self._control = ControlFrames(allowance)
        self._control_stream = -1  # ours
        self._is_counted = False  # by the front
        self._is_leaving = False  # no more streams
        self._has_ended = False
        self._sent_bytes = 0  # of answers
        self._watched_from = 0  # of these, how many were confirmed when the deadline was set
        self._watched_until = 0  # and how many had been sent
        self._came_at_s = front.now()
        self._next_number = 0
        self._idle = Deadline(self._leave)
        self._head = Deadline(self._check_heads)
        self._send = Deadline(self._check_sending)
        self._linger = Deadline(self.abort)

    # ------------------------------------------------------ from the client

    def proven(self) -> bool:
        reason = self._front.admit(self, self._client)
        self._is_counted = True
        if reason is None:
            return True
        self.failed(Code.EXCESSIVE_LOAD, 503, reason)
        return False

    def agreed(self) -> None:
        bounded = self._quic.bounded
        self._control_stream = bounded.open(number(StreamKind.CONTROL))
        bounded.write(self._control_stream, settings(self._limits.head_size))
        self._idle.set(self._limits.idle_timeout)
        if self._front.is_stopping:
            self.close_if_idle()

    def received(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        if stream_id & 2:
            self._take_other(stream_id, data, ended=ended)
        else:
            self._take_request_data(stream_id, data, ended=ended)
        if ended:
            self._quic.bounded.settle(stream_id)

    def _take_request_data(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        if stream_id in self._unwanted:  # the client gets no room for more
            if ended:
                self._unwanted.discard(stream_id)
            return
        frames = self._frames.get(stream_id) or self._begin(stream_id)
        if frames is None:
            return
        in_bodies, now_s = 0, self._front.now()
        for kind, payload in frames.feed(data, now_s):
            is_last = ended and not frames.is_within_frame
            if kind == Kind.DATA:
                in_bodies += len(payload)
                self._take_body(stream_id, payload, ended=is_last)
            else:
                self._take_fields(stream_id, payload, ended=is_last)
            if self._has_ended:
                return
            if stream_id not in self._frames:  # over already
                break
        self._quic.bounded.took(stream_id, len(data) - in_bodies)
        if stream_id in self._frames:
            self._watch_head(stream_id, frames, now_s)
        if ended and stream_id in self._frames:
            self._end_request(stream_id, frames)
        if ended:
            self._unwanted.discard(stream_id)

    def _begin(self, stream_id: int) -> RequestFrames | None:
        """What takes a request apart; None if there is to be none."""
        if self._quic.bounded.is_dropped(stream_id):  # it was cancelled before it came
            return None
        if self._is_leaving and stream_id >= self._next_number:
            self._stop(stream_id, Code.REQUEST_REJECTED)
            self._unwanted.add(stream_id)
            return None
        self._next_number = max(self._next_number, stream_id + 4)
        frames = self._frames[stream_id] = RequestFrames(self._limits.head_size, self._allowance)
        return frames

    def _take_fields(self, stream_id: int, section: bytes, *, ended: bool) -> None:
        try:
            fields = decoded(section, 2 * self._limits.head_size)
        except TooLarge:
            raise ConnectionFault(Code.EXCESSIVE_LOAD, "the header section is too large") from None
        except NotASection:
            raise ConnectionFault(
                Code.DECOMPRESSION_FAILED, "a header section cannot be decompressed"
            ) from None
        try:
            if stream_id in self._streams:
                check_trailers(fields)
                if ended:
                    self._take_body(stream_id, b"", ended=True)
            else:
                self._take_request(stream_id, fields, ended=ended)
        except Malformed as error:
            self._refuse(stream_id, error)

    def _take_request(self, stream_id: int, fields: Fields, *, ended: bool) -> None:
        excess = max(0, len(fields) - self._limits.head_fields)  # crumbs of cookies
        self._allowance.spend(excess // FIELDS_PER_COST, self._front.now())
        request = request_text(fields, b"https", ended)
        stream = self._streams[stream_id] = Stream(self, stream_id, request, ended)
        self._idle.clear()
        self._came_at_s = -FIRST_REQUEST_S
        self._quic.expect_answers(are_due=True)
        if ended:
            self._frames.pop(stream_id)
            self._heads.pop(stream_id, None)
        self._turns.add(stream)

    def _take_body(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        if ended:
            self._frames.pop(stream_id, None)
        try:
            self._streams[stream_id].receive(data, len(data), ended=ended)
        except Malformed as error:
            self._refuse(stream_id, error)

    def _end_request(self, stream_id: int, frames: RequestFrames) -> None:
        """The client has said that this was all."""
        if frames.is_within_frame:
            raise ConnectionFault(Code.FRAME_ERROR, "a stream ends within a frame")
        if stream_id in self._streams:
            self._take_body(stream_id, b"", ended=True)
        else:
            self._refuse(stream_id, Malformed("a request has no header section"))

    def _watch_head(self, stream_id: int, frames: RequestFrames, now_s: float) -> None:
        if not frames.is_within_head:
            self._heads.pop(stream_id, None)
            return
        self._heads.setdefault(stream_id, now_s)
        if not self._head.is_set:
            self._head.set(self._limits.head_timeout)
        held = sum([one.held for one in self._frames.values()])
        if held > max(HELD_HEAD_BYTES, self._limits.head_size):
            raise ConnectionFault(Code.EXCESSIVE_LOAD, "too many header sections at once")

    def _check_heads(self) -> None:
        """Whether the field section that has been awaited longest is late."""
        if not self._heads:
            return
        left_s = min(self._heads.values()) + self._limits.head_timeout - self._front.now()
        if left_s > 0:
            self._head.set(left_s)
        else:
            self.failed(Code.EXCESSIVE_LOAD, 408, "the header section comes too slowly")

    def _take_other(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        """Take what has come on a stream in one direction (RFC 9114, section 6.2)."""
        size = len(data)
        if stream_id not in self._kinds:
            data = self._kindless.pop(stream_id, b"") + data
            found = pull_number(data, 0)
            if found is None:
                self._kindless[stream_id] = data
                return
            self._open_other(stream_id, found[0])
            data = data[found[1] :]
        kind, now_s = self._kinds[stream_id], self._front.now()
        if kind == StreamKind.CONTROL:
            for _, payload in self._control.feed(data, now_s):
                check_settings(payload)
        elif kind == StreamKind.QPACK_ENCODER and data.strip(_QPACK_SET_CAPACITY_0):
            raise ConnectionFault(Code.ENCODER_STREAM_ERROR, "the table of compression has no room")
        elif kind == StreamKind.QPACK_DECODER:  # it may say that it has cancelled a stream
            self._allowance.spend(len(data) // 8, now_s)
        if kind in _CRITICAL:
            self._quic.bounded.took(stream_id, size)
            if ended:
                raise _closed_critical()

    def _open_other(self, stream_id: int, kind: int) -> None:
        if kind == StreamKind.PUSH or (kind in _CRITICAL and kind in self._kinds.values()):
            raise ConnectionFault(Code.STREAM_CREATION_ERROR, "a stream is not a client's to open")
        self._kinds[stream_id] = kind
        if kind not in _CRITICAL:
            self._quic.bounded.want_no_more(stream_id, Code.STREAM_CREATION_ERROR)

    def stopped(self, stream_id: int) -> None:
        if stream_id & 3:
            if stream_id & 1 or self._kinds.get(stream_id) in _CRITICAL:
                raise _closed_critical()
            self._quic.bounded.settle(stream_id)
            return
        self._forget(stream_id)
        self._stop(stream_id, Code.REQUEST_CANCELLED)
        self._quic.bounded.settle(stream_id)
        if self._quic.bounded.has_come(stream_id):
            self._unwanted.discard(stream_id)

    def _stop(self, stream_id: int, code: int) -> None:
        """Neither send nor take anything more of a request."""
        self._quic.bounded.drop(stream_id, code)
        self._quic.bounded.want_no_more(stream_id, code)

    def _refuse(self, stream_id: int, error: Malformed) -> None:
        """End a stream whose request is none (RFC 9114, section 4.1.2)."""
        self._front.count_refusal(self._ends[0], 400, str(error))
        self._forget(stream_id)
        self._stop(stream_id, Code.MESSAGE_ERROR)
        self._allowance.spend(RESET_COST, self._front.now())

    def _forget(self, stream_id: int) -> None:
        stream = self._remove(stream_id)
        if stream is not None:
            self._turns.remove(stream)
            stream.lost()
            self._leave_if_idle()

    def _remove(self, stream_id: int) -> Stream | None:
        self._waiting.pop(stream_id, None)
        self._heads.pop(stream_id, None)
        if self._frames.pop(stream_id, None) is not None:
            self._unwanted.add(stream_id)
        return self._streams.pop(stream_id, None)

    # ------------------------------------------------------ what streams may do

    def send_head(self, stream: Stream, fields: Fields, *, ended: bool) -> None:
        self._write(stream, frame(Kind.HEADERS, encoded(fields)), ended=ended)
        self._allowance.earn(RESET_COST)

    def send_body(self, stream: Stream) -> None:
        while self._send_part(stream):
            pass
        if stream.unsent:
            self._waiting[stream.number] = stream

    def _send_waiting(self) -> None:
        """A part of each stream in turn, until the client takes no more."""
        ready = list(self._waiting.values())
        while ready:
            ready = [stream for stream in ready if self._send_part(stream)]
        for stream in [one for one in self._waiting.values() if not one.unsent]:
            del self._waiting[stream.number]
            stream.resume()

    def _send_part(self, stream: Stream) -> bool:
        """Send a frame of DATA; whether there may be another."""
        room = self._quic.bounded.room(stream.number) - FRAME_OVERHEAD if stream.unsent else 0
        if room <= 0 and stream.unsent:
            return False
        data = stream.take(min(room, MAX_DATA_BYTES))
        ended = stream.is_drained
        if data or ended:
            self._write(stream, frame(Kind.DATA, data) if data else b"", ended=ended)
        if ended:
            stream.over()
        return stream.unsent > 0

    def _write(self, stream: Stream, data: bytes, *, ended: bool) -> None:
        self._quic.bounded.write(stream.number, data, ended=ended)
        self._allowance.earn(1 + len(data) // BYTES_PER_COST)
        self._sent_bytes += len(data)
        if not self._send.is_set:
            self._watch_sending()
        self._quic.flush_soon()

    def took(self, stream: Stream, size: int) -> None:
        if not self._has_ended:
            self._quic.bounded.took(stream.number, size)
            self._quic.flush_soon()

    def finish(self, stream: Stream) -> None:
        if not stream.request_ended:  # RFC 9114, section 4.1
            self._quic.bounded.want_no_more(stream.number, Code.NO_ERROR)
        self._drop(stream)

    def reset(self, stream: Stream) -> None:
        self._stop(stream.number, Code.INTERNAL_ERROR)
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        self._remove(stream.number)
        self._quic.flush_soon()
        self._leave_if_idle()

    def released(self) -> None:
        self._turns.released()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._quic.bounded.tls
        return default

    # ------------------------------------------------------------------ pace

    def confirmed(self) -> None:
        if self._waiting:
            self._send_waiting()
        if self._send.is_set and not self._quic.bounded.held:
            self._send.clear()
        if self._linger.is_set and self._quic.bounded.is_settled:
            self._quic.end(Code.NO_ERROR)

    def _watch_sending(self) -> None:
        self._watched_until = self._sent_bytes
        self._watched_from = self._sent_bytes - self._quic.bounded.held
        self._send.set(self._limits.send_timeout)

    def _check_sending(self) -> None:
        """Whether the client has confirmed what it had been sent, or took it at a fair rate."""
        held, limits = self._quic.bounded.held, self._limits
        fair = self._watched_from + limits.body_rate * limits.send_timeout
        if held and self._sent_bytes - held < min(self._watched_until, fair):
            self.failed(Code.EXCESSIVE_LOAD, 408, "the client does not read")
        elif held:
            self._watch_sending()

    # ------------------------------------------------------------ the ending

    def _leave_if_idle(self) -> None:
        if self._streams or self._has_ended:
            return
        self._quic.expect_answers(are_due=False)
        if self._is_leaving or self._front.is_stopping:
            self._leave()
        else:
            self._idle.set(self._limits.idle_timeout)

    def _leave(self) -> None:
        """Take no more requests, and end with the last of those there are (section 5.2)."""
        if self._has_ended:
            return
        if not self._quic.is_agreed:
            self._quic.end(Code.NO_ERROR)
            return
        if not self._is_leaving:
            self._is_leaving = True
            self._quic.bounded.write(self._control_stream, goaway(self._next_number))
            self._quic.flush_soon()
        if not self._streams and not self._linger.is_set:  # what was sent has to be confirmed
            self._linger.set(LINGER_S)

    def failed(self, code: int, status: int, reason: str) -> None:
        if not self._has_ended:
            self._front.count_refusal(self._ends[0], status, reason)
            self._quic.end(code, reason)

    def close_if_idle(self) -> None:
        """Close unless a request is under way, or the first may be on its way."""
        grace_s = self._came_at_s + FIRST_REQUEST_S - self._front.now()
        if grace_s > 0 and not self._has_ended:
            self._idle.set(grace_s)
        else:
            self._leave()

    def abort(self) -> None:
        self._quic.end(Code.NO_ERROR if self._linger.is_set else Code.INTERNAL_ERROR)

    def gone(self) -> None:
        self._has_ended = True
        for deadline in (self._idle, self._head, self._send, self._linger):
            deadline.cancel()
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        self._frames.clear()
        self._turns.end()
        for stream in streams.values():
            stream.lost()
        if self._is_counted:
            self._front.forget(self, self._client)


_CRITICAL = frozenset((StreamKind.CONTROL, StreamKind.QPACK_ENCODER, StreamKind.QPACK_DECODER))


def _closed_critical() -> ConnectionFault:
    return ConnectionFault(Code.CLOSED_CRITICAL_STREAM, "a stream was closed that has to stay")
