"""An in-memory duplex stream: what one end writes, the other reads. One event loop, no sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

HIGH_WATER = 256 * 1024
"""Bytes unread at one end above which the other end's `drain` waits."""

_LOW_WATER = HIGH_WATER // 4


class Receiver(Protocol):
    """Is called as things happen at its end, in place of awaiting `read` and `drain`."""

    def pipe_data(self, data: bytes) -> None:
        """The other end wrote `data`."""

    def pipe_ended(self) -> None:
        """The other end writes no more. Comes once, after all its data."""

    def pipe_full(self) -> None:
        """The other end has more unread than it should: pause writing."""

    def pipe_ready(self) -> None:
        """The other end has read on: writing may go on."""


class PipeEnd:
    """One end: reader and writer in one, with the methods of asyncio's StreamReader and Writer.

    An end is read either with `read`, or by a receiver set with `receive`.
    """

    __slots__ = (
        "_closed",
        "_drains",
        "_ended",
        "_extra",
        "_full",
        "_paused",
        "_peer",
        "_reader",
        "_receiver",
        "_reset",
        "_told",
        "_unread",
        "_unread_bytes",
        "_wrote_eof",
    )

    _peer: PipeEnd

    def __init__(self, extra: dict[str, Any]) -> None:
        self._extra = extra
        self._unread: deque[bytes] = deque()  # written by the other end
        self._unread_bytes = 0
        self._ended = False  # the other end writes no more
        self._reset = False  # the other end was aborted
        self._closed = False
        self._wrote_eof = False
        self._full = False  # the other end's unread bytes passed the high-water mark
        self._paused = False
        self._told = False  # the receiver knows of the end
        self._receiver: Receiver | None = None
        self._reader: asyncio.Future[None] | None = None
        self._drains: list[asyncio.Future[None]] = []

    # -- reading

    async def read(self, n: int = -1) -> bytes:
        """At most `n` bytes, as soon as there are any; all up to the end if `n` is negative.

        b"" at the end. Raises ConnectionResetError if the other end was aborted.
        """
        if n == 0:
            return b""
        if n < 0:
            parts = []
            while part := await self.read(HIGH_WATER):
                parts.append(part)
            return b"".join(parts)
        while not self._unread:
            if self._reset:
                raise ConnectionResetError("the other end of the pipe was aborted")
            if self._ended or self._closed:
                return b""
            await self._wait_for_data()
        return self._take(n)

    async def _wait_for_data(self) -> None:
        if self._reader is not None:
            raise RuntimeError("another task is reading from this end already")
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _take(self, n: int) -> bytes:
        parts = []
        wanted = n
        while wanted and self._unread:
            part = self._unread.popleft()
            if len(part) > wanted:
                self._unread.appendleft(part[wanted:])
                part = part[:wanted]
            parts.append(part)
            wanted -= len(part)
        self._unread_bytes -= n - wanted
        self._peer._has_read_on(self._unread_bytes)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def receive(self, receiver: Receiver) -> None:
        """Let `receiver` be called from now on, first with what is there already."""
        self._receiver = receiver
        if not self._paused:
            self.resume_reading()

    def pause_reading(self) -> None:
        """Keep what comes, so that the other end's `drain` waits when it is much."""
        self._paused = True

    def resume_reading(self) -> None:
        """Hand the receiver what was kept, and all that comes after."""
        self._paused = False
        while self._unread and self._receiver is not None and not self._paused:
            data = self._unread.popleft()
            self._unread_bytes -= len(data)
            self._receiver.pipe_data(data)
        self._peer._has_read_on(self._unread_bytes)
        self._tell_end()

    def _tell_end(self) -> None:
        if self._ended and not self._unread and not self._paused and not self._told:
            receiver = self._receiver
            if receiver is not None:
                self._told = True
                receiver.pipe_ended()

    def _feed(self, data: bytes) -> None:
        if self._receiver is not None and not self._paused and not self._unread:
            self._receiver.pipe_data(data)
            return
        self._unread.append(data)
        self._unread_bytes += len(data)
        self._wake()

    def _feed_end(self) -> None:
        self._ended = True
        self._wake()
        self._tell_end()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # -- writing

    def write(self, data: bytes) -> None:
        """Queue `data` for the other end; dropped silently once either end is closed."""
        if not data or self._wrote_eof or self.is_closing():
            return
        peer = self._peer
        peer._feed(data if type(data) is bytes else bytes(data))
        if peer._unread_bytes > HIGH_WATER and not self._full:
            self._full = True
            if self._receiver is not None:
                self._receiver.pipe_full()

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    async def drain(self) -> None:
        """Wait while the other end has too much unread. ConnectionResetError if it is closed."""
        if self._closed:
            return
        if self._peer._closed:
            raise ConnectionResetError("the other end of the pipe is closed")
        if self._full:
            waiter = asyncio.get_running_loop().create_future()
            self._drains.append(waiter)
            try:
                await waiter
            finally:
                self._drains.remove(waiter)

    def _has_read_on(self, unread_bytes: int) -> None:
        if self._full and unread_bytes <= _LOW_WATER:
            self._full = False
            for waiter in self._drains:
                if not waiter.done():
                    waiter.set_result(None)
            if self._receiver is not None:
                self._receiver.pipe_ready()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Write no more; reading goes on."""
        if not self._wrote_eof:
            self._wrote_eof = True
            self._peer._feed_end()

    # -- closing

    def close(self) -> None:
        """Neither read nor write any more. The other end still reads what was written."""
        if self._closed:
            return
        self._closed = True
        self._receiver = None
        self._unread.clear()
        self._unread_bytes = 0
        self._wake()
        for waiter in (*self._drains, *self._peer._drains):
            if not waiter.done():
                waiter.set_exception(ConnectionResetError("the pipe is closed"))
        self.write_eof()

    def abort(self) -> None:
        """Close, and let the other end fail at once rather than read on."""
        if not self._closed:
            self._peer._reset = not self._peer._closed
            self._peer._unread.clear()
            self._peer._unread_bytes = 0
            self.close()

    def is_closing(self) -> bool:
        """Whether either end is closed."""
        return self._closed or self._peer._closed

    async def wait_closed(self) -> None:
        """Nothing to wait for: `close` is immediate."""

    def put(self, name: str, value: Any) -> None:
        """Leave something for the other end to `take`."""
        self._extra[name] = value

    def take(self, name: str) -> Any:
        """What was left under `name`, which is gone then; None if there is nothing."""
        return self._extra.pop(name, None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername`, `sockname` and `scheme` of the client connection; else `default`."""
        return self._extra.get(name, default)


def duplex(**extra: Any) -> tuple[PipeEnd, PipeEnd]:
    """Two ends of one stream; `extra` is what `get_extra_info` knows at both."""
    one, other = PipeEnd(extra), PipeEnd(extra)
    one._peer, other._peer = other, one
    return one, other
