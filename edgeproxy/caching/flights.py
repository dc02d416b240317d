"""One fetch that several clients wait for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.http import Response


@dataclass(frozen=True, slots=True)
class Kept:
    """The origin's answer as a whole, at hand. `shared`: it may answer others and be stored."""

    entry: StoredResponse
    shared: bool
    fwd_status: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stale:
    """The origin failed, and the copy at hand may stand in."""

    entry: StoredResponse
    fwd_status: int | None  # None: it did not answer at all


@dataclass(frozen=True, slots=True)
class Single:
    """An answer for the client that caused it and nobody else; its body may be a stream."""

    response: Response
    reason: str
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """There is nothing to answer with."""

    error: Exception


Outcome = Kept | Stale | Single | Failed


class Flight:
    """A fetch under way. Its first client leads, others follow.

    It runs as a task of its own: whoever leaves, it goes on as long as somebody waits. A leader
    that asked for a whole body gets a large one as it comes in; followers wait until it is known
    that they may share it.
    """

    def __init__(
        self,
        key: str,
        url: str = "",
        asked_at_s: float = 0.0,
        *,
        in_background: bool = False,
        may_stream: bool = False,
    ) -> None:
        self.key = key
        self.url = url
        self.asked_at_s = asked_at_s  # a stamp of `Purges`: who asks after a purge must not follow
        self.may_stream = may_stream
        self.task: asyncio.Task[None] | None = None
        self.is_doomed = False  # what it brings must not be kept: the key was purged meanwhile
        self._is_background = in_background
        self._waiting = 1 if in_background else 0
        self._led = not in_background
        loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Outcome] = loop.create_future()
        self._first: asyncio.Future[Outcome] = loop.create_future()

    @property
    def has_leader(self) -> bool:
        """Somebody is there to take an answer that cannot be shared."""
        return self._led

    @property
    def has_landed(self) -> bool:
        return self._outcome.done()

    @property
    def is_unwatched(self) -> bool:
        """Begun in the background, and nobody has joined."""
        return self._is_background and self._waiting == 1

    async def lead(self) -> Outcome:
        """Wait as the client that caused the fetch."""
        try:
            return await self._wait(self._first)
        except asyncio.CancelledError:
            self._led = False
            if self._first.done() and isinstance(first := self._first.result(), Single):
                await first.response.body.close()
            raise

    async def follow(self) -> Outcome:
        """Wait as another client. A Single is not for this one: it is for the leader."""
        return await self._wait(self._outcome)

    async def _wait(self, future: asyncio.Future[Outcome]) -> Outcome:
        self.joined()
        try:
            return await asyncio.shield(future)
        finally:
            self.left()

    def joined(self) -> None:
        self._waiting += 1

    def left(self) -> None:
        """One client fewer. Without any, a fetch that has not landed ends."""
        self._waiting -= 1
        if self._waiting == 0 and not self.has_landed and self.task is not None:
            self.task.cancel()

    def leader_left(self) -> None:
        """The leader has given up the stream that was handed over."""
        self._led = False
        self.left()

    async def ended(self) -> None:
        """Return when what the fetch brought is in the tiers."""
        if self.task is not None:
            await asyncio.wait({self.task})

    def land(self, outcome: Outcome) -> None:
        """Tell everybody. A leader that has begun to stream is told by its stream."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)
        if not self._first.done():
            self._first.set_result(outcome)

    def hand_over(self, response: Response, reason: str) -> None:
        """Let the leader go ahead with a body that is still coming in."""
        self.joined()  # its stream waits from now on
        self._first.set_result(Single(response, reason))
