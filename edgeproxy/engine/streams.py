"""One request of a connection that carries many, as a connection of HTTP/1.1 of its own.

So the front has one way for every request: what reads it, bounds it, answers it at once or hands it
to the core is the same, whatever the client speaks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from edgeproxy.engine.fields import Fields, Malformed, RequestText, response_fields
from edgeproxy.engine.message import (
    LAST_CHUNK,
    Body,
    ChunkedBody,
    FixedBody,
    ResponseHead,
    frame,
    parse_response_head,
)
from edgeproxy.errors import ClientError
from edgeproxy.policy.model import Limits


class Carrier(Protocol):
    """The connection that streams are on."""

    protocol: str  # as the log has it

    def send_head(self, stream: Stream, fields: Fields, *, ended: bool) -> None:
        """Send an answer's head, interim ones too; `ended` if nothing follows."""

    def send_body(self, stream: Stream) -> None:
        """Send of what the stream has unsent as much as the client takes, now and later."""

    def took(self, stream: Stream, size: int) -> None:
        """So many bytes of the request's body are in good hands: the client may send more."""

    def finish(self, stream: Stream) -> None:
        """The answer is sent. Forget the stream; of the request, nothing more is wanted."""

    def reset(self, stream: Stream) -> None:
        """There will be no answer, or no whole one. Say so, and forget the stream."""

    def released(self) -> None:
        """A stream that is over has let go of its lane: there may be room for another."""

    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Stream(asyncio.Transport):
    """The transport of the front's connection, here `lane`, which reads one request from it."""

    def __init__(self, carrier: Carrier, number: int, request: RequestText, ended: bool) -> None:
        super().__init__()
        self.number = number
        self.request = request
        self.request_ended = ended
        self._carrier = carrier
        self._lane: asyncio.Protocol | None = None
        self._is_in_lane = False  # which has been called, and has not returned
        self._left = request.length  # of the body
        self._untold = 0  # bytes received while the lane wanted none
        self._head = b""  # of the answer, while it is incomplete
        self._body: Body | None = None
        self._is_whole = False  # the lane has written all of its answer
        self._is_over = False
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._reading_is_paused = False
        self._writing_is_paused = False

    # ------------------------------------------------- below: what the client sends

    def begin(self, lane: asyncio.Protocol) -> None:
        """Let `lane` have the request."""
        self._lane = lane
        self._is_in_lane = True
        lane.connection_made(self)
        self._give(self.request.text)

    def _give(self, data: bytes) -> None:
        """Let the lane read `data`; it may have ended the answer when it returns."""
        if self._lane is None:
            return
        self._is_in_lane = True
        self._lane.data_received(data)
        self._is_in_lane = False
        if self._is_over:
            self._release()

    def receive(self, data: bytes, size: int, *, ended: bool) -> None:
        """Take a part of the body, for which the client has used up `size`. Raises Malformed."""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (ended and self._left):
                raise Malformed("the body is not as long as content-length says")
        elif self.request.is_chunked:
            data = frame(data) + LAST_CHUNK if ended else frame(data)
        self.request_ended = ended
        if data:
            self._give(data)
        if self._reading_is_paused and not self._is_over:
            self._untold += size
        elif size:
            self._carrier.took(self, size)

    def lost(self) -> None:
        """The client wants no answer, or has gone."""
        self._is_over = True
        self._let_go()
        self._release(ConnectionResetError("the stream was reset"))

    def resume(self) -> None:
        """All that was unsent is sent."""
        if self._writing_is_paused and not self._unsent_bytes and not self._is_over:
            self._writing_is_paused = False
            if self._lane is not None:
                self._lane.resume_writing()

    # ------------------------------------------------- what is to be sent

    @property
    def unsent(self) -> int:
        return self._unsent_bytes

    @property
    def is_drained(self) -> bool:
        """Whether all of the answer's body has been taken."""
        return self._is_whole and not self._unsent_bytes

    def take(self, size: int) -> bytes:
        """The next bytes of the answer's body, at most `size`."""
        if not self._unsent:
            return b""
        part = self._unsent.popleft()
        if len(part) > size:
            self._unsent.appendleft(part[size:])
            part = part[:size]
        self._unsent_bytes -= len(part)
        return part

    def over(self) -> None:
        """The end of the answer is sent: let the lane go, once it is out of its own way."""
        if not self._is_over:
            self._is_over = True
            self._carrier.finish(self)
            self._let_go()
            self._release_soon()

    def _release_soon(self) -> None:
        if not self._is_in_lane:  # but perhaps called by it
            asyncio.get_running_loop().call_soon(self._release)

    def _release(self, error: Exception | None = None) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.connection_lost(error)
            self._carrier.released()

    def _let_go(self) -> None:
        self._unsent.clear()
        self._unsent_bytes = 0
        if self._untold:
            untold, self._untold = self._untold, 0
            self._carrier.took(self, untold)

    # ------------------------------------------------- above: what the lane may do

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_over or self._is_whole:
            return
        if self._body is not None:
            self._write_body(self._body, bytes(data))
            return
        text = self._head + data
        end = text.find(b"\r\n\r\n") + 4
        self._head = text if end < 4 else b""
        if end >= 4:
            self._write_head(parse_response_head(text[:end]), text[end:])

    def _write_head(self, answer: ResponseHead, rest: bytes) -> None:
        if answer.status < 200:
            self._carrier.send_head(self, response_fields(answer), ended=False)
            if rest:
                self.write(rest)
            return
        body = self._body = self._body_of(answer)
        self._is_whole = body.done
        self._carrier.send_head(self, response_fields(answer), ended=body.done)
        if body.done:
            self.over()
        elif rest:
            self._write_body(body, rest)

    def _body_of(self, answer: ResponseHead) -> Body:
        if not answer.has_body(self.request.method):
            return FixedBody(0)
        return ChunkedBody(_UNBOUNDED) if answer.chunked else FixedBody(answer.length or 0)

    def _write_body(self, body: Body, data: bytes) -> None:
        try:
            part = body.feed(data)
        except ClientError:  # it is the front's own
            self.abort()
            return
        if part:
            self._unsent.append(part)
            self._unsent_bytes += len(part)
        self._is_whole = body.done
        if part or body.done:
            self._carrier.send_body(self)
        if self._unsent_bytes and not self._writing_is_paused and not self._is_over:
            self._writing_is_paused = True  # the client takes no more: neither do we
            if self._lane is not None:
                self._lane.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._is_whole:
            self.abort()

    def close(self) -> None:
        self.write_eof()

    def abort(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._carrier.reset(self)
            self._let_go()
            self._release_soon()

    def is_closing(self) -> bool:
        return self._is_over

    def is_reading(self) -> bool:
        return not self._reading_is_paused

    def pause_reading(self) -> None:
        self._reading_is_paused = True

    def resume_reading(self) -> None:
        self._reading_is_paused = False
        if self._untold:
            untold, self._untold = self._untold, 0
            self._carrier.took(self, untold)

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "protocol":
            return self._carrier.protocol
        return default if name == "socket" else self._carrier.get_extra_info(name, default)


_UNBOUNDED = Limits.model_construct(body_size=1 << 62, head_size=1 << 16, head_fields=10_000)
