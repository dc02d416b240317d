"""The frames that an HTTP/3 client sends (RFC 9114, section 7), counted before they cost anything.

Pure: bytes of a stream in, frames out. Only field sections are held until they are whole, and their
size is checked before; bodies pass as they come, and what means nothing to us is skipped.

How the input is cut into pieces never changes the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from edgeproxy.engine.allowance import SMALL_DATA_BYTES, Allowance, ConnectionFault

MAX_SETTINGS_BYTES = 1024


class Kind(IntEnum):
    """Types of frames (RFC 9114, section 7.2)."""

    DATA = 0x0
    HEADERS = 0x1
    CANCEL_PUSH = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    GOAWAY = 0x7
    MAX_PUSH_ID = 0xD


class Setting(IntEnum):
    """RFC 9114, section 7.2.4.1; RFC 9204, section 5."""

    QPACK_MAX_TABLE_CAPACITY = 0x1
    MAX_FIELD_SECTION_SIZE = 0x6
    QPACK_BLOCKED_STREAMS = 0x7


class StreamKind(IntEnum):
    """Types of unidirectional streams (RFC 9114, section 6.2; RFC 9204, section 4.2)."""

    CONTROL = 0x0
    PUSH = 0x1
    QPACK_ENCODER = 0x2
    QPACK_DECODER = 0x3


class Code(IntEnum):
    """Error codes (RFC 9114, section 8.1; RFC 9204, section 6)."""

    NO_ERROR = 0x100
    GENERAL_PROTOCOL_ERROR = 0x101
    INTERNAL_ERROR = 0x102
    STREAM_CREATION_ERROR = 0x103
    CLOSED_CRITICAL_STREAM = 0x104
    FRAME_UNEXPECTED = 0x105
    FRAME_ERROR = 0x106
    EXCESSIVE_LOAD = 0x107
    SETTINGS_ERROR = 0x109
    MISSING_SETTINGS = 0x10A
    REQUEST_REJECTED = 0x10B
    REQUEST_CANCELLED = 0x10C
    REQUEST_INCOMPLETE = 0x10D
    MESSAGE_ERROR = 0x10E
    DECOMPRESSION_FAILED = 0x200
    ENCODER_STREAM_ERROR = 0x201


_OF_HTTP2 = frozenset((0x2, 0x6, 0x8, 0x9))  # never to be sent (section 7.2.8)
_SETTINGS_OF_HTTP2 = frozenset((0x0, 0x2, 0x3, 0x4, 0x5))
_NOT_IN_REQUESTS = frozenset(
    (Kind.CANCEL_PUSH, Kind.SETTINGS, Kind.PUSH_PROMISE, Kind.GOAWAY, Kind.MAX_PUSH_ID, *_OF_HTTP2)
)
_NOT_IN_CONTROL = frozenset((Kind.DATA, Kind.HEADERS, Kind.PUSH_PROMISE, *_OF_HTTP2))


def number(value: int) -> bytes:
    """A number in as few bytes as it takes (RFC 9000, section 16)."""
    if value < 1 << 6:
        return value.to_bytes(1)
    if value < 1 << 14:
        return (value | 1 << 14).to_bytes(2)
    if value < 1 << 30:
        return (value | 2 << 30).to_bytes(4)
    return (value | 3 << 62).to_bytes(8)


def frame(kind: int, payload: bytes) -> bytes:
    return number(kind) + number(len(payload)) + payload


def settings(head_size: int) -> bytes:
    """The first frame of ours: no table of compression, and how large a field section may be."""
    pairs = (
        (Setting.QPACK_MAX_TABLE_CAPACITY, 0),
        (Setting.QPACK_BLOCKED_STREAMS, 0),
        (Setting.MAX_FIELD_SECTION_SIZE, head_size),
    )
    return frame(Kind.SETTINGS, b"".join([number(name) + number(value) for name, value in pairs]))


def goaway(first_refused: int) -> bytes:
    """The client may ask again for this stream and those after it (section 5.2)."""
    return frame(Kind.GOAWAY, number(first_refused))


def pull_number(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """The number at `at` and where it ends; None if it is not all there."""
    if at >= len(data):
        return None
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        return None
    value = int.from_bytes(data[at : at + size]) & ((1 << (8 * size - 2)) - 1)
    return value, at + size


class _Frames:
    """Cuts a stream into frames. Subclasses say which are held, and what may be there."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._buffer = bytearray()
        self._kind: int | None = None
        self._left = 0  # bytes of the frame that are to come

    @property
    def held(self) -> int:
        """Bytes that are kept until there are more."""
        return len(self._buffer)

    @property
    def is_within_frame(self) -> bool:
        return self._kind is not None or bool(self._buffer)

    def feed(self, data: bytes, now_s: float) -> Iterator[tuple[int, bytes]]:
        """Kinds and payloads of what is held, and of DATA as it comes. Raises ConnectionFault."""
        self._buffer += data
        while self._kind is not None or self._begin(now_s):
            kind = self._kind
            assert kind is not None
            is_held = self._is_held(kind)
            size = min(self._left, len(self._buffer))
            if size < self._left and (is_held or not size):
                return
            payload = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._left -= size
            if not self._left:
                self._kind = None
            if is_held or kind == Kind.DATA:
                yield kind, payload

    def _begin(self, now_s: float) -> bool:
        """Take the next frame's type and length; False if they are not all there."""
        kind = pull_number(self._buffer, 0)
        length = pull_number(self._buffer, kind[1]) if kind is not None else None
        if kind is None or length is None:
            return False
        del self._buffer[: length[1]]
        self._check(kind[0], length[0], now_s)
        self._kind, self._left = kind[0], length[0]
        return True

    def _is_held(self, kind: int) -> bool:
        """Whether frames of this kind are given whole: each sort of stream has its own."""
        raise NotImplementedError

    def _check(self, kind: int, size: int, now_s: float) -> None:
        """Raise what is wrong with a frame of this size here, before any of it is held."""
        raise NotImplementedError


class RequestFrames(_Frames):
    """The frames of a request: HEADERS, then DATA, then perhaps HEADERS (section 4.1).

    `head_size` bounds a field section as it is sent.
    """

    def __init__(self, head_size: int, allowance: Allowance) -> None:
        super().__init__(allowance)
        self._head_size = head_size
        self._sections = 0

    @property
    def is_within_head(self) -> bool:
        """Whether the next thing to come is, or may be, a part of a field section."""
        is_between = self._kind is None and bool(self._buffer)
        return not self._sections or self._kind == Kind.HEADERS or is_between

    def _is_held(self, kind: int) -> bool:
        return kind == Kind.HEADERS

    def _check(self, kind: int, size: int, now_s: float) -> None:
        if kind in _NOT_IN_REQUESTS:
            raise ConnectionFault(Code.FRAME_UNEXPECTED, "a frame does not belong in a request")
        if kind == Kind.HEADERS:
            self._sections += 1
            if self._sections > 2:
                raise ConnectionFault(Code.FRAME_UNEXPECTED, "a request goes on after its end")
            if size > self._head_size:
                raise ConnectionFault(Code.EXCESSIVE_LOAD, "the header section is too large")
        elif kind == Kind.DATA:
            if self._sections != 1:
                raise ConnectionFault(Code.FRAME_UNEXPECTED, "a body is where none may be")
            if size < SMALL_DATA_BYTES:
                self._allowance.spend(1, now_s)
        else:
            self._allowance.spend(1 + size // SMALL_DATA_BYTES, now_s)


class ControlFrames(_Frames):
    """The frames of the client's control stream: SETTINGS, then what little there may be."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__(allowance)
        self._has_settings = False

    def _is_held(self, kind: int) -> bool:
        return kind == Kind.SETTINGS

    def _check(self, kind: int, size: int, now_s: float) -> None:
        if not self._has_settings and kind != Kind.SETTINGS:
            raise ConnectionFault(Code.MISSING_SETTINGS, "the first frame is not SETTINGS")
        if kind in _NOT_IN_CONTROL or (self._has_settings and kind == Kind.SETTINGS):
            raise ConnectionFault(Code.FRAME_UNEXPECTED, "a frame does not belong there")
        if kind == Kind.SETTINGS and size > MAX_SETTINGS_BYTES:
            raise ConnectionFault(Code.EXCESSIVE_LOAD, "there are too many settings")
        self._has_settings = True
        self._allowance.spend(1 + size // SMALL_DATA_BYTES, now_s)


def check_settings(payload: bytes) -> None:
    """Raises ConnectionFault if these are none (section 7.2.4). None of them concerns us."""
    at, seen = 0, set()
    while at < len(payload):
        name = pull_number(payload, at)
        value = pull_number(payload, name[1]) if name is not None else None
        if name is None or value is None:
            raise ConnectionFault(Code.FRAME_ERROR, "the settings are cut off")
        if name[0] in seen or name[0] in _SETTINGS_OF_HTTP2:
            raise ConnectionFault(Code.SETTINGS_ERROR, "a setting is repeated, or is of HTTP/2")
        seen.add(name[0])
        at = value[1]
