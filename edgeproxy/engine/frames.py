"""The frames that an HTTP/2 client sends (RFC 9113, section 4), counted before they cost anything.

Pure: bytes in, whole frames out, one at a time. Frames that ask for work and carry no request are
paid for from an allowance. Who has used it up, or sends what no client sends, is told and
disconnected.

How the input is cut into pieces never changes the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from edgeproxy.engine.allowance import RESET_COST, SMALL_DATA_BYTES, Allowance, ConnectionFault

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME_BYTES = 16384  # RFC 9113, section 6.5.2: we allow no more than everybody has to
MAX_CONTINUATIONS = 8  # in one field block

_HEAD_BYTES = 9


class Kind(IntEnum):
    """Types of frames (RFC 9113, section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    """Error codes (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    ENHANCE_YOUR_CALM = 11


_END_STREAM = 0x1  # ACK, for SETTINGS and PING
_END_HEADERS = 0x4
_FREE = frozenset((Kind.HEADERS, Kind.CONTINUATION, Kind.GOAWAY))


def goaway(last_stream: int, code: int) -> bytes:
    """The frame that ends a connection: the client may ask again for what came after the last."""
    head = b"\0\0\x08" + bytes((Kind.GOAWAY,)) + bytes(5)
    return head + last_stream.to_bytes(4) + code.to_bytes(4)


class FrameReader:
    """Cuts frames from what a client sends. `head_size` bounds a field block as it is sent; what
    carries no request is paid for from `allowance`."""

    __slots__ = (
        "_allowance",
        "_block",
        "_buffer",
        "_continuations",
        "_head_size",
        "_open",
    )

    def __init__(self, head_size: int, allowance: Allowance) -> None:
        self._head_size = head_size
        self._buffer = b""
        self._open = False  # the preface and the first SETTINGS are there
        self._block: int | None = None  # bytes of the field block that is under way
        self._continuations = 0
        self._allowance = allowance

    @property
    def is_within_head(self) -> bool:
        """Whether a field block, or a frame that is no body, has begun and is not all there."""
        if self._block is not None:
            return True
        return bool(self._buffer) and self._buffer[3:4] != b"\0"

    def feed(self, data: bytes, now_s: float) -> Iterator[tuple[int, bytes]]:
        """Type and bytes of each frame that is complete. Raises ConnectionFault at a bad one.

        The preface comes with the first.
        """
        self._buffer = self._buffer + data if self._buffer else data
        position = start = 0
        try:
            if not self._open:
                if not self._has_preface():
                    return
                start = len(PREFACE)
            while (end := self._frame_end(start)) > 0:
                kind = self._buffer[start + 3]
                self._count(kind, self._buffer[start + 4], end - start - _HEAD_BYTES, now_s)
                frame = self._buffer[position:end]
                position = start = end
                yield kind, frame
        finally:
            self._buffer = self._buffer[position:]

    def _has_preface(self) -> bool:
        if not PREFACE.startswith(self._buffer[: len(PREFACE)]):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the preface of HTTP/2 is missing")
        return len(self._buffer) >= len(PREFACE)

    def _frame_end(self, start: int) -> int:
        """Where the frame at `start` ends; -1 if more must come. The size is checked first."""
        if len(self._buffer) < start + _HEAD_BYTES:
            return -1
        size = int.from_bytes(self._buffer[start : start + 3])
        if size > MAX_FRAME_BYTES:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame is too large")
        end = start + _HEAD_BYTES + size
        return end if end <= len(self._buffer) else -1

    def _count(self, kind: int, flags: int, size: int, now_s: float) -> None:
        if not self._open:
            if kind != Kind.SETTINGS or flags & _END_STREAM:  # section 3.4
                raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._open = True
        if self._block is not None or kind in (Kind.HEADERS, Kind.CONTINUATION):
            self._count_block(kind, flags, size)
        if kind == Kind.PUSH_PROMISE:  # section 8.4
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client cannot push")
        if kind == Kind.DATA:
            if size < SMALL_DATA_BYTES and not flags & _END_STREAM:
                self._allowance.spend(1, now_s)
        elif kind == Kind.RST_STREAM:
            self._allowance.spend(RESET_COST, now_s)
        elif kind not in _FREE:
            self._allowance.spend(1 + size // SMALL_DATA_BYTES, now_s)

    def _count_block(self, kind: int, flags: int, size: int) -> None:
        """HEADERS and its CONTINUATIONs, between which nothing may stand (section 4.3)."""
        if (kind == Kind.CONTINUATION) != (self._block is not None):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a field block is broken up")
        if self._block is None:
            self._block = self._continuations = 0
        else:
            self._continuations += 1
        self._block += size
        if self._block > self._head_size or self._continuations > MAX_CONTINUATIONS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "the header section is too large")
        if flags & _END_HEADERS:
            self._block = None
