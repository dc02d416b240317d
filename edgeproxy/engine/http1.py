"""HTTP/1.1 with clients: reads every request once, strictly, and bounds it (RFC 9112).

What passes goes to the core in canonical form through an in-memory stream, one per client
connection; the next request follows when the answer to the one before is complete. What does not
pass gets a short answer and a close that lets the client read it. Nothing is forwarded from here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

from edgeproxy.engine.accelerator import Accelerator, Begun
from edgeproxy.engine.front import FIRST_REQUEST_S, LINGER_S, Front, FrontSettings, Peer, client_key
from edgeproxy.engine.message import (
    CONTINUE,
    LAST_CHUNK,
    Body,
    ChunkedBody,
    FixedBody,
    RequestHead,
    RequestReader,
    ResponseHead,
    body_of,
    frame,
    parse_response_head,
)
from edgeproxy.engine.pipe import PipeEnd
from edgeproxy.engine.waiting import Ends
from edgeproxy.errors import ClientError
from edgeproxy.policy.model import Limits

log = logging.getLogger("edgeproxy.front")

HELD_BODY_BYTES = 16 * 1024
"""The core sees a request once so much of its body is there and good, or all of it."""

READ_AHEAD_BYTES = 64 * 1024
"""Bytes of later requests kept while one is under way; reading pauses above."""

MAX_RESPONSE_HEAD_BYTES = 256 * 1024
MAX_INTERIM_RESPONSES = 16

_NEVER = math.inf


def _answer(error: ClientError, *, with_body: bool = True) -> bytes:
    """A short answer of our own, the last one on its connection."""
    phrase = HTTPStatus(error.status).phrase
    body = f"{error.status} {phrase}: {error.reason}\n".encode("ascii")
    lines = [
        f"HTTP/1.1 {error.status} {phrase}",
        f"Date: {formatdate(usegmt=True)}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *(f"{name}: {value}" for name, value in error.headers),
        "Connection: close",
        "\r\n",
    ]
    return "\r\n".join(lines).encode("ascii") + (body if with_body else b"")


def _framing(head: RequestHead, answer: ResponseHead) -> tuple[tuple[bytes, ...], Body | None]:
    """The framing fields of `answer` to `head`, and what reads its body (RFC 9112, section 6)."""
    if not answer.has_body(head.method):
        if answer.length is None or answer.status == 204:  # RFC 9110, section 8.6
            return (), None
        return (b"Content-Length: %d" % answer.length,), None
    if answer.chunked:  # a client of HTTP/1.0 knows no chunks: there the close ends the body
        own = (b"Transfer-Encoding: chunked",) if head.minor == 1 else ()
        return own, ChunkedBody(_UNBOUNDED)
    length = answer.length or 0
    return (b"Content-Length: %d" % length,), FixedBody(length)


class Http1(asyncio.Protocol):
    """One client connection: at most one request under way, `_head`; its answer, `_answer`."""

    __slots__ = (
        "_answer",
        "_answer_body",
        "_answer_closes",
        "_begun",
        "_body",
        "_body_bytes",
        "_body_paused_s",
        "_body_since_s",
        "_came_at_s",
        "_client",
        "_core",
        "_core_is_full",
        "_discarding",
        "_ends",
        "_eof",
        "_front",
        "_gone",
        "_head",
        "_held",
        "_held_bytes",
        "_interim",
        "_is_serving",
        "_paused_at_s",
        "_peer",
        "_read_deadline_s",
        "_reader",
        "_reading_is_paused",
        "_response_buffer",
        "_send_deadline_s",
        "_send_left",
        "_settings",
        "_timer",
        "_timer_at_s",
        "_transport",
        "_tunnel",
        "_waits_for",
        "_who",
        "_writing_is_paused",
    )

    _transport: asyncio.Transport
    _peer: Peer
    _settings: FrontSettings

    def __init__(self, front: Front, ends: Ends | None = None) -> None:
        self._front = front
        self._ends = ends  # in place of those that the socket tells
        self._client = ""
        self._who = ""  # what it speaks, from where; empty if the accelerator is not to be asked
        self._reader = RequestReader()
        self._core: PipeEnd | None = None
        self._begun: Begun | None = None  # the journey that the core is to go on with
        # The request under way.
        self._head: RequestHead | None = None
        self._body: Body | None = None  # while it is incomplete
        self._held: list[bytes] | None = None  # not yet given to the core
        self._held_bytes = 0
        self._body_bytes = 0
        self._body_since_s = 0.0
        self._body_paused_s = 0.0
        # Its answer.
        self._response_buffer = b""
        self._answer: ResponseHead | None = None
        self._answer_body: Body | None = None
        self._answer_closes = False
        self._interim = 0
        # The connection.
        self._came_at_s = -_NEVER  # once it has made a request
        self._tunnel = False
        self._discarding = False  # the last answer is written
        self._eof = False
        self._gone = False
        self._is_serving = False
        self._core_is_full = False
        self._reading_is_paused = False
        self._writing_is_paused = False
        self._paused_at_s = 0.0
        # Deadlines.
        self._waits_for = "idle"
        self._read_deadline_s = _NEVER
        self._send_deadline_s = _NEVER
        self._send_left = 0  # bytes, when the deadline was set
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = _NEVER

    # ------------------------------------------------------ from the client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        ends = self._ends or (
            transport.get_extra_info("peername"),
            transport.get_extra_info("sockname"),
        )
        scheme = "https" if transport.get_extra_info("ssl_object") else "http"
        protocol = transport.get_extra_info("protocol", "HTTP/1.1")
        self._peer = Peer(*ends, scheme, protocol)
        self._came_at_s = self._front.now()
        self._client = client_key(self._peer.peername)
        self._settings = self._front.settings()
        if self._client and self._front.accelerator is not None:
            self._who = f"{self._peer.scheme} {protocol} {self._peer.peername[0]}"
        reason = self._front.admit(self, self._client)
        if reason is None:
            self._expect("idle", self._settings.limits.idle_timeout)
        else:
            self._turn_away(reason)

    def _turn_away(self, reason: str) -> None:
        self._front.count_refusal(self._peer.peername, 503, reason)
        self._transport.write(_answer(ClientError(503, reason)))
        if self._front.may_linger:
            self._finish()
        else:
            self._close_now()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        if self._body is not None:
            self._take_body(data)
        elif self._tunnel:
            self._touch_tunnel()
            if self._core is not None:
                self._core.write(data)
            return
        else:
            reader = self._reader
            reader.buffer = reader.buffer + data if reader.buffer else data
        if self._head is None:
            self._serve()
        if len(self._reader.buffer) > READ_AHEAD_BYTES:
            self._pace_reading()

    def eof_received(self) -> bool:
        """The client writes no more; True keeps the connection for the answer."""
        self._eof = True
        if self._discarding:
            return False
        if self._tunnel:
            self._drop_core()
            self._close_now()
            return False
        if self._body is not None:
            self._refuse(ClientError(400, "the request ends early"))
        else:
            self._serve()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = self._discarding = True
        if self._timer is not None:
            self._timer.cancel()
        self._drop_core(abort=True)
        self._front.forget(self, self._client)

    def pause_writing(self) -> None:
        self._writing_is_paused = True
        self._watch_sending()
        if self._core is not None:
            self._core.pause_reading()

    def resume_writing(self) -> None:
        self._writing_is_paused = False
        if not self._discarding:
            self._send_deadline_s = _NEVER
        if self._core is not None:
            self._core.resume_reading()
        if self._head is None and not self._discarding:
            self._serve()
            self._pace_reading()

    # ------------------------------------------------------------- requests

    def _serve(self) -> None:
        """Begin one request after the other for as long as each is answered at once."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._may_begin() and self._begin():
                pass
        finally:
            self._is_serving = False
        if self._eof and self._may_begin():
            if self._reader.buffer:
                self._refuse(ClientError(400, "the request ends early"))
            else:
                self._close_now()

    def _may_begin(self) -> bool:
        return self._head is None and not self._writing_is_paused and not self._discarding

    def _begin(self) -> bool:
        """Begin the next request; False if it is not all there, or refused."""
        reader = self._reader
        if not reader.buffer:
            return False
        self._settings = settings = self._front.settings()
        accelerator = self._front.accelerator if settings.is_accelerated and self._who else None
        line, tail = (b"", b"") if accelerator is None else reader.first()
        if tail and accelerator is not None and self._recall(accelerator, line, tail):
            return True
        try:
            head = reader.next_head(settings.limits, encoded_slashes=settings.encoded_slashes)
        except ClientError as error:
            self._refuse(error)
            return False
        if head is None:
            if reader.buffer and self._waits_for != "head":
                self._expect("head", settings.limits.head_timeout)
            return False
        self._head = head
        self._came_at_s = -_NEVER
        self._expect("answer", settings.limits.answer_timeout)
        body = body_of(head, settings.limits)
        if body is not None:
            self._begin_body(head, body)
        elif head.target == b"*":
            self._answer_options(head)
        elif settings.challenges is not None and (
            proof := settings.challenges.http(head.method, head.target)
        ):
            self._answer_challenge(head, proof)
        elif accelerator is not None and accelerator.takes(head):
            self._begin_journey(accelerator, head, line, tail)
        else:
            self._pass(head.serialise())
        return True

    def _recall(self, accelerator: Accelerator, line: bytes, tail: bytes) -> bool:
        """Send what is remembered for a request of these bytes; False if nothing is."""
        size = len(line) + len(tail)
        if size > self._settings.limits.head_size or self._front.is_stopping or self._eof:
            return False
        wire = accelerator.recall(self._who, line, tail)
        if wire is None:
            return False
        self._reader.skip(size)
        self._came_at_s = -_NEVER
        self._expect("idle", self._settings.limits.idle_timeout)
        self._transport.writelines(wire)
        return True

    def _begin_journey(
        self, accelerator: Accelerator, head: RequestHead, line: bytes, tail: bytes
    ) -> None:
        """Answer at once if that can be; else let the core go on with what has begun."""
        peer = self._peer
        spoken = peer.scheme, self._protocol_of(head)
        begun = accelerator.begin(self._who, peer.peername[0], spoken, head, line, tail)
        if isinstance(begun, list):
            self._head = None
            self._expect("idle", self._settings.limits.idle_timeout)
            self._transport.writelines(begun)
        elif (response := begun.response) is not None:
            self._send_whole(head, begun, *begun.delivered(response))
        else:
            self._begun = begun
            self._pass(head.serialise())

    def _begin_body(self, head: RequestHead, body: Body) -> None:
        self._body = body
        self._held = [head.serialise()]
        self._held_bytes = self._body_bytes = 0
        self._body_since_s = self._front.now()
        self._body_paused_s = 0.0
        self._expect("body", self._settings.limits.body_timeout)
        if self._reader.buffer:
            data, self._reader.buffer = self._reader.buffer, b""
            self._take_body(data)
        elif head.expects_continue:  # RFC 9110, section 10.1.1
            self._transport.write(CONTINUE)

    def _take_body(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        try:
            part = body.feed(data)
        except ClientError as error:
            self._refuse(error)
            return
        if type(body) is ChunkedBody:
            self._body_bytes += len(part)
            part = frame(part) + LAST_CHUNK if body.done else frame(part)
        else:
            self._body_bytes += len(part)
        if body.done:
            self._reader.buffer = body.rest
            self._body = None
            self._expect("answer", self._settings.limits.answer_timeout)
        elif not self._keeps_pace():
            return
        self._pass_body(part)

    def _pass_body(self, part: bytes) -> None:
        if self._held is None:
            if self._core is not None:
                self._core.write(part)
            return
        self._held.append(part)
        self._held_bytes += len(part)
        if self._body is None or self._held_bytes > HELD_BODY_BYTES:
            held, self._held = self._held, None
            self._pass(b"".join(held))

    def _keeps_pace(self) -> bool:
        """Hold a body to its deadline and to its rate, not counting the time we did not read."""
        limits = self._settings.limits
        now = self._front.now()
        late_s = now - self._body_since_s - self._body_paused_s - limits.body_timeout
        if late_s > 0 and self._body_bytes < late_s * limits.body_rate:
            self._refuse(ClientError(408, "the body comes too slowly"))
            return False
        self._expect("body", limits.body_timeout)
        return True

    def _pass(self, data: bytes) -> None:
        """Give the core the request, over a new stream if there is none."""
        if self._core is None:
            try:
                core = self._front.connect(self._peer)
            except Exception:
                log.exception("the core takes no stream")
                self._fail("the request could not be processed")
                return
            self._core = core
            if self._writing_is_paused:
                core.pause_reading()
            core.receive(self)
        self._core.put("begun", self._begun)
        if self._head is not None:
            self._core.put("protocol", self._protocol_of(self._head))
        self._core.write(data)

    def _protocol_of(self, head: RequestHead) -> str:
        return self._peer.protocol if head.minor else "HTTP/1.0"

    def _answer_options(self, head: RequestHead) -> None:
        """`OPTIONS *` asks about the server as a whole (RFC 9110, section 9.3.7)."""
        date = f"Date: {formatdate(usegmt=True)}".encode("ascii")
        answer = ResponseHead(204, b"No Content", [date])
        self._send_head(head, answer)

    def _answer_challenge(self, head: RequestHead, proof: bytes) -> None:
        """An authority looks at a proof (RFC 8555, section 8.3): no policy has a say in it."""
        date = f"Date: {formatdate(usegmt=True)}".encode("ascii")
        kind = b"Content-Type: application/octet-stream"
        self._send_head(head, ResponseHead(200, b"OK", [date, kind], len(proof)), proof)

    # --------------------------------------------------------- from the core

    def pipe_data(self, data: bytes) -> None:
        if self._tunnel:
            self._touch_tunnel()
            self._transport.write(data)
            return
        if self._waits_for == "answer":
            self._expect("answer", self._settings.limits.answer_timeout)
        if self._answer_body is not None:
            self._relay_body(self._answer_body, data)
        elif self._head is None or self._held is not None:
            log.warning("the core wrote without a request; its stream is closed")
            self._drop_core(abort=True)
        else:
            self._relay_head(self._head, self._response_buffer + data)

    def pipe_ended(self) -> None:
        self._drop_core()
        if self._tunnel:
            self._finish()
        elif self._head is not None and self._held is None and not self._discarding:
            self._fail("the core ended before its answer did")

    def pipe_full(self) -> None:
        self._core_is_full = True
        self._pace_reading()

    def pipe_ready(self) -> None:
        self._core_is_full = False
        self._pace_reading()

    def _relay_head(self, head: RequestHead, data: bytes) -> None:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._response_buffer = data
            if len(data) > MAX_RESPONSE_HEAD_BYTES:
                self._fail("the response head is too large")
            return
        self._response_buffer = b""
        try:
            answer = parse_response_head(data[:end])
        except ValueError as error:
            self._fail(str(error))
            return
        rest = data[end:]
        if answer.status == 101:
            self._open_tunnel(head, answer, rest)
        elif answer.status < 200:
            self._relay_interim(head, answer, rest)
        elif answer.has_body(head.method) and answer.length is None and not answer.chunked:
            self._fail("the response has no framing")
        else:
            self._send_head(head, answer, rest)

    def _relay_interim(self, head: RequestHead, answer: ResponseHead, rest: bytes) -> None:
        """RFC 9110, section 15.2. 100 is ours to send; HTTP/1.0 clients know none."""
        self._interim += 1
        if self._interim > MAX_INTERIM_RESPONSES:
            self._fail("too many interim responses")
            return
        if head.minor == 1 and answer.status != 100:
            self._transport.write(answer.serialise())
        if rest:
            self._relay_head(head, rest)

    def _send_head(self, head: RequestHead, answer: ResponseHead, rest: bytes = b"") -> None:
        """Write the head with framing and Connection of our own, and what is there of the body."""
        text, body = self._framed(head, answer)
        if body is None or body.done:
            self._transport.write(text)
            self._end_answer(rest)
        else:
            self._answer_body = body
            self._relay_body(body, rest, text)

    def _send_whole(self, head: RequestHead, begun: Begun, text: bytes, data: bytes) -> None:
        """The same for an answer that is all there, and no work of the core."""
        try:
            text, _ = self._framed(head, parse_response_head(text))
        except ValueError as error:
            begun.finish(b"", b"", closes=True)
            self._fail(str(error))
            return
        self._transport.write(text + data)
        begun.finish(text, data, closes=self._answer_closes)
        self._end_answer(b"")

    def _framed(self, head: RequestHead, answer: ResponseHead) -> tuple[bytes, Body | None]:
        """The head as the client gets it, and what reads the body; whether the answer closes."""
        self._answer = answer
        own, body = _framing(head, answer)
        self._answer_closes = (
            not head.keep_alive
            or self._body is not None
            or self._front.is_stopping
            or (self._eof and not self._reader.buffer)
            or (head.minor == 0 and type(body) is ChunkedBody)
        )
        if self._answer_closes:
            own += (b"Connection: close",)
        elif head.minor == 0:
            own += (b"Connection: keep-alive",)
        tells = self._front.alt_svc
        if tells and self._peer.scheme == "https" and not answer.has(b"alt-svc"):
            own += (tells,)
        return answer.serialise(*own), body

    def _relay_body(self, body: Body, data: bytes, before: bytes = b"") -> None:
        try:
            part = body.feed(data) if data else b""
        except ClientError:
            self._fail("the response is framed badly")
            return
        if type(body) is ChunkedBody and self._head is not None and self._head.minor == 1:
            part = frame(part) + LAST_CHUNK if body.done else frame(part)
        if before:
            part = before + part
        if part:
            self._transport.write(part)
        if body.done:
            self._end_answer(body.rest)

    def _end_answer(self, rest: bytes) -> None:
        """The answer is complete: close, or go on to the next request."""
        self._head = self._answer = self._answer_body = self._begun = None
        self._interim = 0
        if rest:
            log.warning("the core wrote more than its answer; its stream is closed")
            self._drop_core(abort=True)
        if self._answer_closes or self._front.is_stopping:
            self._finish()
            return
        self._expect("idle", self._settings.limits.idle_timeout)
        if self._reading_is_paused:
            self._pace_reading()
        if self._reader.buffer or self._eof:
            self._serve()

    def _open_tunnel(self, head: RequestHead, answer: ResponseHead, rest: bytes) -> None:
        """Join both sides after a WebSocket handshake (RFC 6455), until either ends."""
        if not head.is_websocket:
            self._fail("the core switched protocols unasked")
            return
        own = (b"Connection: Upgrade", b"Upgrade: websocket")
        self._transport.write(answer.serialise(*own) + rest)
        self._tunnel = True
        self._touch_tunnel()
        early, self._reader.buffer = self._reader.buffer, b""
        if self._core is not None:
            self._core.write(early)
        self._pace_reading()
        if self._eof:
            self._drop_core()
            self._close_now()

    def _touch_tunnel(self) -> None:
        self._expect("tunnel", self._settings.limits.idle_timeout)

    # ------------------------------------------------------------ the ending

    def _refuse(self, error: ClientError) -> None:
        """Answer `error` if no answer has begun, and close."""
        self._front.count_refusal(self._peer.peername, error.status, error.reason)
        self._end_with(error)

    def _fail(self, reason: str, status: int = 502) -> None:
        """The core gave no usable answer: 502, or a visible truncation if one has begun."""
        log.warning("no answer from the core: %s", reason, extra={"client": self._peer.peername})
        self._end_with(ClientError(status, "no answer could be had"))

    def _end_with(self, error: ClientError) -> None:
        if self._discarding:
            return
        if self._answer is not None or self._tunnel:
            self.abort()
            return
        method = self._head.method if self._head else self._reader.buffer[:5].rstrip(b" ")
        self._transport.write(_answer(error, with_body=method != b"HEAD"))
        self._drop_core(abort=True)
        self._finish()

    def _finish(self) -> None:
        """Close so that the client can read what was written (RFC 9112, section 9.6)."""
        self._drop_core()
        self._let_go()
        if self._eof or self._transport.is_closing():
            self._close_now()
            return
        self._expect("close", LINGER_S)
        self._pace_reading()
        self._transport.write_eof()

    def _close_now(self) -> None:
        """Close as soon as what was written is sent."""
        self._let_go()
        self._transport.close()

    def _let_go(self) -> None:
        """Take nothing more from the client, and bound the time it has to read."""
        self._discarding = True
        self._head = self._body = self._held = None
        self._reader.buffer = b""
        self._read_deadline_s = _NEVER
        if self._transport.get_write_buffer_size():
            self._watch_sending()

    def _drop_core(self, *, abort: bool = False) -> None:
        core, self._core = self._core, None
        begun, self._begun = self._begun, None
        self._core_is_full = False
        if begun is not None:
            begun.abandon()
        if core is not None and abort:
            core.abort()
        elif core is not None:
            core.close()

    def close_if_idle(self) -> None:
        """Close unless a request has begun, or the first may be on its way."""
        if self._head is not None or self._discarding or self._reader.buffer:
            return
        grace_s = self._came_at_s + FIRST_REQUEST_S - self._front.now()
        if grace_s > 0:
            self._expect("idle", grace_s)
        else:
            self._drop_core()
            self._close_now()

    def abort(self) -> None:
        """Close at once with a reset, so that no client takes what it has for the whole."""
        self._let_go()
        self._drop_core(abort=True)
        sock = self._transport.get_extra_info("socket")
        if sock is not None and not self._gone:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # --------------------------------------------------------- pace and time

    def _pace_reading(self) -> None:
        """Read from the client unless the core or the read-ahead is full."""
        if self._discarding or self._gone:
            pause = False
        elif self._body is not None or self._tunnel:
            pause = self._core_is_full
        else:
            is_waiting = self._head is not None or self._writing_is_paused
            pause = is_waiting and len(self._reader.buffer) > READ_AHEAD_BYTES
        if pause == self._reading_is_paused or self._gone or self._eof:
            return
        self._reading_is_paused = pause
        if pause:
            self._transport.pause_reading()
            self._paused_at_s = self._front.now()
            if self._waits_for != "answer":
                self._read_deadline_s = _NEVER
            return
        self._transport.resume_reading()
        if self._body is not None:
            self._body_paused_s += self._front.now() - self._paused_at_s
            self._expect("body", self._settings.limits.body_timeout)
        elif self._tunnel and not self._discarding:
            self._touch_tunnel()

    def _watch_sending(self) -> None:
        self._send_left = self._transport.get_write_buffer_size()
        self._send_deadline_s = self._front.now() + self._settings.limits.send_timeout
        self._set_timer(self._send_deadline_s)

    def _is_reading_on(self) -> bool:
        """Whether the client took what was to send at `body_rate` at least."""
        self._send_deadline_s = _NEVER
        left = self._transport.get_write_buffer_size()
        limits = self._settings.limits
        if left and self._send_left - left < limits.body_rate * limits.send_timeout:
            return False
        if left:
            self._watch_sending()
        return True

    def _expect(self, what: str, within_s: float) -> None:
        """Something must come, or `_too_late` ends the wait for `what`."""
        self._waits_for = what
        self._read_deadline_s = deadline = self._front.now() + within_s
        if deadline < self._timer_at_s:
            self._set_timer(deadline)

    def _set_timer(self, at_s: float) -> None:
        """One timer per connection. It is not moved when a deadline is; it looks when it fires."""
        if at_s >= self._timer_at_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = at_s
        delay_s = max(0.0, at_s - self._front.now())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._check_deadlines)

    def _check_deadlines(self) -> None:
        self._timer = None
        self._timer_at_s = _NEVER
        now = self._front.now()
        if now >= self._send_deadline_s and not self._is_reading_on():
            self._front.count_refusal(self._peer.peername, 408, "the client does not read")
            self.abort()
        elif now >= self._read_deadline_s:
            self._read_deadline_s = _NEVER
            self._too_late()
        if not self._gone:
            next_s = min(self._read_deadline_s, self._send_deadline_s)
            if next_s < _NEVER:
                self._set_timer(next_s)

    def _too_late(self) -> None:
        if self._waits_for == "head":
            self._refuse(ClientError(408, "the header section comes too slowly"))
        elif self._waits_for == "body":
            self._refuse(ClientError(408, "the body comes too slowly"))
        elif self._waits_for == "answer" and self._writing_is_paused:
            self._expect("answer", self._settings.limits.answer_timeout)
        elif self._waits_for == "answer":
            self._fail("the core is silent", 504)
        elif self._waits_for == "close" and self._transport.get_write_buffer_size():
            self._expect("close", LINGER_S)
        else:
            self._drop_core()
            self._close_now()


_UNBOUNDED = Limits.model_construct(
    body_size=1 << 62, head_size=MAX_RESPONSE_HEAD_BYTES, head_fields=10_000
)
