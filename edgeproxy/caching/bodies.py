"""Bodies while they come in: who reads them meanwhile, and the memory that they may take."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable

from edgeproxy.errors import UpstreamError
from edgeproxy.http import Body

PIECE_BYTES = 256 * 1024
"""A reader gets what has come in meanwhile in pieces of at most this size."""


async def begun(body: Body, close: Callable[[], Awaitable[None]]) -> Body:
    """`body`, once its first piece is at hand. Raises what reading that raises."""
    pieces = aiter(body)
    try:
        first = await anext(pieces, b"")
    except BaseException:
        await close()
        raise

    async def stream() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return Body(None, stream=stream(), length=body.length, close=close)


class Budget:
    """Bytes of memory that all fetches together may hold."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used = 0

    def hold(self) -> Held:
        """The share of one fetch, nothing at first."""
        return Held(self)


class Held:
    """What one fetch holds of a budget. `was_refused`: it wanted more than there was."""

    __slots__ = ("_budget", "bytes", "was_refused")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0
        self.was_refused = False

    def grow_to(self, size: int) -> bool:
        """Hold `size` bytes in all, if there is room for them."""
        more = size - self.bytes
        if more > 0:
            if self._budget.used + more > self._budget.max_bytes:
                self.was_refused = True
                return False
            self._budget.used += more
            self.bytes = size
        return True

    def release(self) -> None:
        """Give all of it back. May be called twice."""
        self._budget.used -= self.bytes
        self.bytes = 0


class Growing:
    """A body while it comes in: taken whole for the store, and read by any number of clients.

    `take` is the fetch's side, `read` the clients', each at its own pace: the fetch waits for none
    of them. What it has taken stays in memory, so that whoever joins begins with the first byte.

    A body of unknown length may turn out to be more than can be stored. Its `start` is then at
    hand, and the first client to get to the end of that goes on with the `rest` from the origin.
    """

    def __init__(self, source: Body, length: int | None, held: Held) -> None:
        self.length = length  # None: it is known at the end only
        self.size = 0  # bytes that have come in
        self.is_cut_short = False  # it is too much; nothing is taken in any more
        self._source = source
        self._iterator = aiter(source)
        self._held = held
        self._pieces: list[bytes] = []
        self._starts: list[int] = []  # where each piece begins
        self._error: UpstreamError | None = None
        self._is_over = False
        self._has_heir = False
        self._changed = asyncio.Event()

    async def take(self, max_bytes: int) -> bytes | None:
        """The whole body, or None if it is longer, or more than can be held."""
        async for piece in self._iterator:
            self._starts.append(self.size)
            self._pieces.append(piece)
            self.size += len(piece)
            if self.size > max_bytes or not self._held.grow_to(self.size):
                self.is_cut_short = True
                self._joined()
                return None
            self._changed.set()
        return self._joined()

    def _joined(self) -> bytes:
        """All that has come in. Readers go on with it, so that it is not in memory twice."""
        self._pieces = [b"".join(self._pieces)]
        self._starts = [0]
        return self._pieces[0]

    def end(self, error: UpstreamError | None = None) -> None:
        """Nothing more is taken in: the body is complete, or has broken off. The first call
        counts."""
        if not self._is_over:
            self._error, self._is_over = error, True
            if error is None and not self.is_cut_short:
                self.length = self.size
            self._changed.set()

    async def over(self) -> None:
        """Return when nothing more is taken in."""
        while not self._is_over:
            await self._change()

    async def read(self, first: int, end: int | None) -> AsyncIterator[bytes]:
        """The bytes from `first` up to `end`, or up to all that is taken in, as they come.

        Raises UpstreamError where the body breaks off.
        """
        at = first
        while end is None or at < end:
            if at < self.size:
                piece = self._piece(at, self.size if end is None else end)
                at += len(piece)
                yield piece
            elif self._error is not None:
                raise self._error.copy()
            elif self._is_over:
                return
            else:
                await self._change()

    def _piece(self, at: int, end: int) -> bytes:
        number = bisect_right(self._starts, at) - 1
        piece, skipped = self._pieces[number], at - self._starts[number]
        wanted = min(end - at, PIECE_BYTES)
        return piece if not skipped and len(piece) <= wanted else piece[skipped : skipped + wanted]

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # ------------------------------------------------------------ more than can be stored

    @property
    def start(self) -> bytes:
        """All that was taken in before it was too much."""
        return self._pieces[0] if self._pieces else b""

    def inherit(self) -> AsyncIterator[bytes] | None:
        """What follows `start`, for the first who asks: it comes at that client's pace."""
        if self._has_heir:
            return None
        self._has_heir = True
        return self._iterator

    async def forget(self) -> None:
        """Nobody needs `start` any more."""
        if self.is_cut_short:
            self._pieces, self._starts = [], []
            self._held.release()
            if not self._has_heir:
                await self._source.close()

    async def close(self) -> None:
        """End the fetch itself."""
        await self._source.close()
