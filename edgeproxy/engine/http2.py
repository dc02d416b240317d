"""HTTP/2 with clients (RFC 9113): each stream is a request of the front, as one of HTTP/1.1 is.

The frames are counted (`frames.py`) before `h2` makes anything of them, and what they carry becomes
a request (`fields.py`) that is judged, bounded and answered where all are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from edgeproxy.engine.allowance import RESET_COST, Allowance, ConnectionFault
from edgeproxy.engine.deadline import Deadline
from edgeproxy.engine.fields import Fields, Malformed, check_trailers, request_text
from edgeproxy.engine.frames import (
    MAX_FRAME_BYTES,
    Code,
    FrameReader,
    Kind,
    goaway,
)
from edgeproxy.engine.front import FIRST_REQUEST_S, LINGER_S, Front, client_key
from edgeproxy.engine.streams import Stream
from edgeproxy.engine.turns import Turns
from edgeproxy.engine.waiting import Ends

MAX_STREAMS = 100  # at once on a connection; RFC 9113, section 6.5.2 wants no fewer
STREAM_WINDOW = 65_535  # bytes of a body that the client may send ahead
CONNECTION_WINDOW = 256 * 1024  # of all bodies on a connection
TABLE_BYTES = 4096  # of the compression of fields, whatever the client allows us
FIELDS_PER_FRAME = 8  # of a request that has more than it should; to read them costs as much
UNFLUSHED_BYTES = 64 * 1024  # written together

_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=False,
    validate_inbound_headers=False,  # `fields.py` is stricter, and spares the other streams
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class Http2(asyncio.Protocol):
    """One connection of a client, counted by the front; so is each stream while it is open."""

    protocol = "HTTP/2.0"

    _transport: asyncio.Transport
    _allowance: Allowance
    _frames: FrameReader
    _turns: Turns

    def __init__(self, front: Front, ends: Ends | None) -> None:
        self._front = front
        self._ends = ends or (None, None)
        self._limits = front.settings().limits
        self._client = ""
        self._h2 = H2Connection(_CONFIG)
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: self._limits.head_size,
            },
        )
        # Somewhat more than the front takes, which answers 431 on the stream.
        self._h2.decoder.max_header_list_size = 2 * self._limits.head_size
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}  # with something unsent
        self._is_receiving = False
        self._is_full = False  # the client does not read what is written
        self._is_leaving = False  # no more streams
        self._has_ended = False
        self._unflushed = 0
        self._will_flush = False
        self._send_left = 0  # bytes, when the deadline was set
        self._came_at_s = front.now()
        self._last_number = 0
        self._idle = Deadline(self._leave)
        self._head = Deadline(self._is_slow)
        self._send = Deadline(self._check_sending)
        self._linger = Deadline(self.abort)

    # ------------------------------------------------------ from the client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._ends[0] is None:
            peername, sockname = map(transport.get_extra_info, ("peername", "sockname"))
            self._ends = peername, sockname
        self._client = client_key(self._peername)
        self._turns = Turns(self._front, self._ends, self._client)
        self._allowance = Allowance(Code.ENHANCE_YOUR_CALM, self._front.now())
        self._frames = FrameReader(self._limits.head_size, self._allowance)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - STREAM_WINDOW)
        reason = self._front.admit(self, self._client)
        if reason is not None:
            self._fail(Code.ENHANCE_YOUR_CALM, 503, reason)
            return
        self._flush()
        self._idle.set(self._limits.idle_timeout)
        self._head.set(self._limits.head_timeout)  # for the preface

    @property
    def _peername(self) -> Any:
        return self._ends[0]

    def data_received(self, data: bytes) -> None:
        if self._has_ended:
            return
        self._is_receiving = True
        try:
            for kind, frame in self._frames.feed(data, self._front.now()):
                self._take_frame(kind, frame)
        except ConnectionFault as fault:
            status = 429 if fault.code == Code.ENHANCE_YOUR_CALM else 400
            self._fail(fault.code, status, str(fault))
        finally:
            self._is_receiving = False
        if not self._has_ended:
            self._flush()
            if not self._frames.is_within_head:
                self._head.clear()
            elif not self._head.is_set:
                self._head.set(self._limits.head_timeout)

    def _take_frame(self, kind: int, frame: bytes) -> None:
        if self._has_ended:
            return
        if kind == Kind.GOAWAY:  # to `h2` this would be the end of the streams under way, too
            self._is_leaving = True
            self._leave_if_idle()
            return
        try:
            found = self._h2.receive_data(frame)
        except (ProtocolError, ValueError, LookupError) as error:
            code = getattr(error, "error_code", Code.PROTOCOL_ERROR)
            raise ConnectionFault(code, "HTTP/2 is spoken wrongly") from error
        for event in found:
            take = _TAKES.get(type(event))
            if take is not None:
                take(self, event)

    def _take_request(self, event: events.RequestReceived) -> None:
        number = self._last_number = event.stream_id
        ended = event.stream_ended is not None
        excess = max(0, len(event.headers) - self._limits.head_fields)  # crumbs of cookies
        self._allowance.spend(excess // FIELDS_PER_FRAME, self._front.now())
        if self._is_leaving:
            self._h2.reset_stream(number, Code.REFUSED_STREAM)
            return
        try:
            request = request_text(event.headers, b"https", ended)
        except Malformed as error:
            self._refuse(number, error)
            return
        stream = self._streams[number] = Stream(self, number, request, ended)
        self._idle.clear()
        self._came_at_s = -FIRST_REQUEST_S
        self._turns.add(stream)

    def _take_data(self, event: events.DataReceived) -> None:
        number, size = event.stream_id, event.flow_controlled_length
        stream = self._streams.get(number)
        if stream is None:
            self._h2.acknowledge_received_data(size, number)
            return
        try:
            stream.receive(event.data, size, ended=event.stream_ended is not None)
        except Malformed as error:
            self._refuse(number, error)

    def _take_trailers(self, event: events.TrailersReceived) -> None:
        number = event.stream_id
        stream = self._streams.get(number)
        if stream is None:
            return
        try:
            check_trailers(event.headers)
            stream.receive(b"", 0, ended=True)
        except Malformed as error:
            self._refuse(number, error)

    def _take_reset(self, event: events.StreamReset) -> None:
        if not event.remote_reset:  # the client has made us reset it
            self._allowance.spend(RESET_COST, self._front.now())
        self._forget(event.stream_id)

    def _take_settings(self, event: events.RemoteSettingsChanged) -> None:
        self._h2.encoder.header_table_size = min(TABLE_BYTES, self._h2.encoder.header_table_size)
        self._send_waiting()

    def _take_window(self, event: events.WindowUpdated) -> None:
        self._send_waiting()

    def _refuse(self, number: int, error: Malformed) -> None:
        """End a stream whose request is none (RFC 9113, section 8.1.1)."""
        self._front.count_refusal(self._peername, 400, str(error))
        self._h2.reset_stream(number, Code.PROTOCOL_ERROR)
        self._forget(number)
        self._allowance.spend(RESET_COST, self._front.now())

    def _forget(self, number: int) -> None:
        self._waiting.pop(number, None)
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._turns.remove(stream)
            stream.lost()
            self._leave_if_idle()

    def eof_received(self) -> bool:
        """The client has gone: without its windows and answers there is nothing to go on with."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended = True
        for deadline in (self._idle, self._head, self._send, self._linger):
            deadline.cancel()
        self._lose_streams()
        self._front.forget(self, self._client)

    def _lose_streams(self) -> None:
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        self._turns.end()
        for stream in streams.values():
            stream.lost()

    # ------------------------------------------------------ what streams may do

    def send_head(self, stream: Stream, fields: Fields, *, ended: bool) -> None:
        self._h2.send_headers(stream.number, fields, end_stream=ended)
        self._allowance.earn(RESET_COST)
        self._flush_soon(0)

    def send_body(self, stream: Stream) -> None:
        while not self._is_full and self._send_frame(stream):
            pass
        if stream.unsent:
            self._waiting[stream.number] = stream

    def _send_waiting(self) -> None:
        """A frame of each stream in turn, until the client takes no more."""
        ready = list(self._waiting.values())
        while ready and not self._is_full:
            ready = [stream for stream in ready if self._send_frame(stream)]
        for stream in [one for one in self._waiting.values() if not one.unsent]:
            del self._waiting[stream.number]
            stream.resume()

    def _send_frame(self, stream: Stream) -> bool:
        """Send a frame of DATA; whether there may be another."""
        window = min(self._h2.local_flow_control_window(stream.number), MAX_FRAME_BYTES)
        if window <= 0 and stream.unsent:
            return False
        data = stream.take(window)
        ended = stream.is_drained
        if data or ended:
            self._h2.send_data(stream.number, data, end_stream=ended)
            self._allowance.earn(RESET_COST)
            self._flush_soon(len(data))
        if ended:
            stream.over()
        return stream.unsent > 0

    def took(self, stream: Stream, size: int) -> None:
        if not self._has_ended:
            self._h2.acknowledge_received_data(size, stream.number)
            self._flush_soon(0)

    def finish(self, stream: Stream) -> None:
        if not stream.request_ended:  # RFC 9113, section 8.1
            self._h2.reset_stream(stream.number, Code.NO_ERROR)
        self._drop(stream)

    def reset(self, stream: Stream) -> None:
        self._h2.reset_stream(stream.number, Code.INTERNAL_ERROR)
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        self._waiting.pop(stream.number, None)
        self._flush_soon(0)
        self._leave_if_idle()

    def released(self) -> None:
        self._turns.released()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def _flush_soon(self, size: int) -> None:
        """Write what is to be sent, together with what else there is in this turn of the loop."""
        self._unflushed += size
        if self._unflushed > UNFLUSHED_BYTES:
            self._flush()
        elif not self._is_receiving and not self._will_flush:
            self._will_flush = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        self._unflushed = 0
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)

    # ------------------------------------------------------------ the ending

    def _leave_if_idle(self) -> None:
        if self._streams or self._has_ended:
            return
        if self._is_leaving or self._front.is_stopping:
            self._leave()
        else:
            self._idle.set(self._limits.idle_timeout)

    def _leave(self) -> None:
        """Take no more streams, and end with the last of those there are."""
        if self._has_ended:
            return
        self._is_leaving = True
        self._say_goodbye(Code.NO_ERROR)
        if not self._streams:
            self._end()

    def _fail(self, code: int, status: int, reason: str) -> None:
        self._front.count_refusal(self._peername, status, reason)
        self._h2.clear_outbound_data_buffer()
        self._say_goodbye(code)
        self._end()

    def _say_goodbye(self, code: int) -> None:
        """By ourselves: after a GOAWAY of its own, `h2` lets no stream end."""
        self._flush()
        self._transport.write(goaway(self._last_number, code))

    def _end(self) -> None:
        """Close so that the client can read what was written."""
        self._has_ended = True
        self._lose_streams()
        self._head.clear()
        self._idle.clear()
        if self._transport.is_closing():
            return
        self._transport.write_eof()
        self._linger.set(LINGER_S)

    def _is_slow(self) -> None:
        self._fail(Code.ENHANCE_YOUR_CALM, 408, "the header section comes too slowly")

    def close_if_idle(self) -> None:
        """Close unless a request is under way, or the first may be on its way."""
        grace_s = self._came_at_s + FIRST_REQUEST_S - self._front.now()
        if grace_s > 0 and not self._has_ended:
            self._idle.set(grace_s)
        else:
            self._leave()

    def abort(self) -> None:
        self._has_ended = True
        self._lose_streams()
        self._transport.abort()

    # ------------------------------------------------------------------ pace

    def pause_writing(self) -> None:
        """The client does not read: then we do not, either."""
        self._is_full = True
        self._transport.pause_reading()
        self._head.clear()
        self._watch_sending()

    def resume_writing(self) -> None:
        self._is_full = False
        self._send.clear()
        if not self._has_ended:
            self._transport.resume_reading()
            self._send_waiting()

    def _watch_sending(self) -> None:
        self._send_left = self._transport.get_write_buffer_size()
        self._send.set(self._limits.send_timeout)

    def _check_sending(self) -> None:
        limits = self._limits
        taken = self._send_left - self._transport.get_write_buffer_size()
        if taken < limits.body_rate * limits.send_timeout:
            self._front.count_refusal(self._peername, 408, "the client does not read")
            self.abort()
        else:
            self._watch_sending()


_TAKES: dict[type, Callable[[Http2, Any], None]] = {
    events.RequestReceived: Http2._take_request,
    events.DataReceived: Http2._take_data,
    events.TrailersReceived: Http2._take_trailers,
    events.StreamReset: Http2._take_reset,
    events.WindowUpdated: Http2._take_window,
    events.RemoteSettingsChanged: Http2._take_settings,
}
