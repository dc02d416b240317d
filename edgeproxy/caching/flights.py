"""One fetch that several clients wait for, and read along with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

from edgeproxy.caching.bodies import Growing
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.http import Response


@dataclass(frozen=True, slots=True)
class Kept:
    """The origin's answer as a whole, at hand. `shared`: it may answer others and be stored."""

    entry: StoredResponse
    shared: bool
    fwd_status: int
    detail: str = ""
    is_collapsed: bool = False  # with the fetch of a neighbour


@dataclass(frozen=True, slots=True)
class Coming:
    """The origin's answer, which may answer others, while its body still comes in."""

    entry: StoredResponse  # without its body
    body: Growing
    fwd_status: int


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
    head: StoredResponse | None = None  # by which others may have ranges of it


@dataclass(frozen=True, slots=True)
class GivenAway:
    """An answer that cannot be kept after all, while others have begun to read it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """There is nothing to answer with."""

    error: Exception


Outcome = Kept | Coming | Stale | Single | GivenAway | Failed


class Flight:
    """A fetch under way. Its first client leads, others follow.

    It runs as a task of its own: whoever leaves, it goes on as long as there are clients, or it is
    `is_wanted` without any. What comes of a large body is `Coming` at first, for leader and
    followers alike; who has got that must `leave` in the end.
    """

    def __init__(
        self,
        key: str,
        url: str = "",
        asked_at_s: float = 0.0,
        turn: str = "",
        *,
        in_background: bool = False,
    ) -> None:
        self.key = key
        self.url = url
        self.turn = turn  # what neighbours know it by; empty: it is for one client alone
        self.asked_at_s = asked_at_s  # a stamp of `Purges`: who asks after a purge must not follow
        self.task: asyncio.Task[None] | None = None
        self.is_doomed = False  # what it brings must not be kept: the key was purged meanwhile
        self.is_wanted = in_background
        self.is_unwatched = in_background  # begun without a client, and nobody has joined
        self.has_leader = not in_background  # to take an answer that cannot be shared
        self._clients = 1 if self.has_leader else 0
        loop = asyncio.get_running_loop()
        self._told: asyncio.Future[Outcome] = loop.create_future()
        self._landed: asyncio.Future[Outcome] = loop.create_future()

    @property
    def has_landed(self) -> bool:
        return self._landed.done()

    @property
    def is_cut_short(self) -> bool:
        """It is too much to be kept, and clients read it."""
        return isinstance(told := self._told.result(), Coming) and told.body.is_cut_short

    async def lead(self, *, needs_length: bool, needs_end: bool) -> Outcome:
        """Wait as the client that caused the fetch."""
        try:
            return await self._outcome(needs_length, needs_end)
        except asyncio.CancelledError:
            self.has_leader = False
            if self.has_landed:
                await self.tidy()
            raise

    async def follow(self, *, needs_length: bool, needs_end: bool) -> Outcome:
        """Wait as another client. A Single is not for this one: it is for the leader.

        With `needs_length`, a body is not read along with before its length is known; with
        `needs_end`, not before it is there.
        """
        self.is_unwatched = False
        self._clients += 1
        return await self._outcome(needs_length, needs_end)

    async def _outcome(self, needs_length: bool, needs_end: bool) -> Outcome:
        try:
            told = await asyncio.shield(self._told)
            if not isinstance(told, Coming):
                return told
            if needs_end or (needs_length and told.body.length is None):
                landed = await asyncio.shield(self._landed)
                return GivenAway() if told.body.is_cut_short else landed
            return told
        except asyncio.CancelledError:
            await self.leave()
            raise

    async def leave(self) -> None:
        """One client fewer. A fetch that nobody wants any more ends."""
        self._clients -= 1
        if self._clients == 0 and not self.is_wanted and not self.has_landed and self.task:
            self.task.cancel()
        if self._clients == 0 and self.has_landed:
            await self.tidy()

    async def tidy(self) -> None:
        """After landing: let go what is left for clients that are not there any more."""
        told, landed = self._told.result(), self._landed.result()
        if isinstance(told, Coming):
            if not self._clients:
                await told.body.forget()
        elif isinstance(landed, Single) and not self.has_leader:
            await landed.response.body.close()

    async def ended(self) -> None:
        """Return when what the fetch brought is in the tiers."""
        if self.task is not None:
            try:
                await asyncio.wait({self.task})
            except asyncio.CancelledError:
                await self.leave()
                raise

    def tell(self, outcome: Outcome) -> None:
        """Let clients go ahead with what is known. The first outcome counts."""
        if not self._told.done():
            self._told.set_result(outcome)

    def land(self, outcome: Outcome) -> None:
        """Tell everybody what came of it. Who reads along is told by what is read."""
        self.tell(outcome)
        if not self._landed.done():
            self._landed.set_result(outcome)


class Reading:
    """What one client reads of a body that is coming in.

    `again` gives what follows a start of the body, by a fetch of this client's own.
    """

    def __init__(
        self, flight: Flight, body: Growing, again: Callable[[bytes], AsyncGenerator[bytes]]
    ) -> None:
        self._flight = flight
        self._body = body
        self._again = again
        self._is_served = False  # it has got all that it wants
        self._own: AsyncGenerator[bytes] | None = None
        self._is_heir = False
        self._has_left = False

    def __len__(self) -> int:
        assert self._body.length is not None
        return self._body.length

    async def stream(self, first: int, length: int | None) -> AsyncIterator[bytes]:
        """`length` bytes from `first` on, as they come in; all up to the end if None."""
        at, end = first, None if length is None else first + length
        async for piece in self._body.read(first, end):
            at += len(piece)
            self._is_served = at == end
            yield piece
        if self._body.is_cut_short:
            async for piece in self._rest():
                yield piece
        self._is_served = True

    async def _rest(self) -> AsyncIterator[bytes]:
        rest = self._body.inherit()
        self._is_heir = rest is not None
        if rest is None:
            rest = self._own = self._again(self._body.start)
        async for piece in rest:
            await self._leave()
            yield piece

    async def close(self) -> None:
        """This client reads no more. A fetch that has served somebody is seen to its end."""
        if self._is_heir:
            await self._body.close()
        if self._own is not None:
            await self._own.aclose()
        self._flight.is_wanted = self._flight.is_wanted or self._is_served
        await self._leave()

    async def finish(self) -> None:
        """The head was all that this client wanted."""
        self._is_served = True
        await self.close()

    async def _leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            await self._flight.leave()
