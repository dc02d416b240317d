"""Bodies while they come in, and the memory that they may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from edgeproxy.errors import UpstreamError
from edgeproxy.http import Body


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
    """A body while it comes in: kept for the store, and read by one client at its own pace.

    `take` is the fetch's side, iteration the client's. A body that gets longer than the store
    takes is left to the client, who then reads the rest from the origin directly.
    """

    def __init__(self, source: Body) -> None:
        self._source = source
        self._chunks: list[bytes] = []
        self._iterator = aiter(source)
        self._is_rest_theirs = False
        self._error: UpstreamError | None = None
        self._is_complete = False
        self._changed = asyncio.Event()
        self.size = 0  # bytes that have come in

    async def take(self, max_bytes: int, held: Held) -> bytes | None:
        """The whole body, or None if it is longer, or more than can be `held`; its rest is then
        the client's."""
        async for chunk in self._iterator:
            self._chunks.append(chunk)
            self.size += len(chunk)
            if self.size > max_bytes or not held.grow_to(self.size):
                self._is_rest_theirs = True
                self._changed.set()
                return None
            self._changed.set()
        return b"".join(self._chunks)

    def end(self, error: UpstreamError | None = None) -> None:
        """Nothing more will come: the body is complete, or has failed."""
        self._error, self._is_complete = error, True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at = 0
        while True:
            while at < len(self._chunks):
                yield self._chunks[at]
                at += 1
            if self._is_rest_theirs:
                self._chunks.clear()
                async for chunk in self._iterator:
                    yield chunk
                return
            if self._error is not None:
                raise self._error
            if self._is_complete:
                return
            self._changed.clear()
            await self._changed.wait()
