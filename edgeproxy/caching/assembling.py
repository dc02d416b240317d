"""Ranges of objects that are kept in parts: from the tiers, and from the origin what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from edgeproxy.caching.answers import content
from edgeproxy.caching.background import Background
from edgeproxy.caching.bodies import Budget, begun
from edgeproxy.caching.errand import Answer, Errand
from edgeproxy.caching.fetching import INCOMPLETE, TROUBLE_STATUSES, Fetcher, failure_of
from edgeproxy.caching.keeping import Keeper
from edgeproxy.caching.levels import Levels
from edgeproxy.caching.parts import (
    PART_BYTES,
    as_whole,
    etag_of,
    is_cut_from,
    is_part,
    key_of,
    length_of,
    part_of,
    span_of,
)
from edgeproxy.caching.reuse import Reuse, response_of
from edgeproxy.caching.rules import unstorable
from edgeproxy.caching.tiers import StoredBody, StoredResponse
from edgeproxy.caching.variants import id_of
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Headers, Response

LOOKED_UP_AHEAD = 8
"""Parts that are looked for before an answer begins, so that it can say whether it is a hit."""


class Changed(UpstreamError):
    """The origin has another version by now."""


class Assembler:
    """Puts ranges together. A part that is missing is fetched once for all who wait for it."""

    def __init__(
        self,
        levels: Levels,
        fetcher: Fetcher,
        keeper: Keeper,
        background: Background,
        budget: Budget,
        now: Callable[[], float],
    ) -> None:
        self._levels = levels
        self._fetcher = fetcher
        self._keeper = keeper
        self._background = background
        self._budget = budget
        self._now = now
        self._under_way: dict[tuple[str, float], asyncio.Task[bytes | None]] = {}

    async def answer(self, errand: Errand, reuse: Reuse) -> Answer | None:
        """The answer by what is kept in parts; None if this client is to have the whole, or the
        origin has another version.

        Raises UpstreamError if the first part cannot be had.
        """
        head = reuse.entry
        pieces = Pieces(self, errand, head)
        response = response_of(errand, as_whole(head), self._now(), body=pieces)
        if response.body.data is None:
            if response.status != 206:
                return None
            try:
                is_here = await self._are_here(errand, head, pieces.asked)
                response.body = await begun(response.body, pieces.close)
            except Changed:
                await self._levels.forget(id_of(head))
                return None
            if not is_here:
                reuse = _partly(reuse)
        status = f"edgeproxy; {reuse.status}"
        return Answer(response, reuse.verdict, status, reuse.cause, tier=reuse.tier)

    def close(self) -> None:
        """End all fetches."""
        for task in self._under_way.values():
            task.cancel()

    async def part(self, errand: Errand, head: StoredResponse, number: int) -> StoredBody | None:
        """The bytes of a part; None if there is no memory for it now."""
        found = await self._stored(errand, head, number)
        if found is not None:
            return found.body
        id = (key_of(head, number), head.requested_at_s)  # nobody joins a fetch from before a purge
        task = self._under_way.get(id)
        if task is None:
            task = self._background.begin(self._fetched(errand, head, number))
            self._under_way[id] = task
            task.add_done_callback(lambda _: self._under_way.pop(id, None))
        try:
            return await asyncio.shield(task)
        except UpstreamError as error:
            raise error.copy() from error
        except asyncio.CancelledError:
            if task.cancelled():  # not this client, but what it waits for
                raise errand.given_up() from None
            raise

    async def direct(
        self, errand: Errand, head: StoredResponse, first: int, end: int
    ) -> AsyncGenerator[bytes]:
        """The bytes from `first` up to `end` from the origin, at the client's pace."""
        response = await self._cut(errand, head, first, end - 1)
        try:
            async for piece in response.body:
                first += len(piece)
                yield piece
        finally:
            await response.body.close()
        if first != end:
            raise errand.failure(INCOMPLETE, "the range ended early")

    async def _are_here(
        self, errand: Errand, head: StoredResponse, asked: list[tuple[int, int]]
    ) -> bool:
        for first, length in asked:
            numbers = range(first // PART_BYTES, -(-(first + length) // PART_BYTES))
            for number in numbers[:LOOKED_UP_AHEAD]:
                if await self._stored(errand, head, number) is None:
                    return False
        return True

    async def _stored(
        self, errand: Errand, head: StoredResponse, number: int
    ) -> StoredResponse | None:
        found = await self._levels.load(key_of(head, number), Headers(), "identity", errand.url)
        return found.entry if found.entry and is_part(head, number, found.entry) else None

    async def _fetched(self, errand: Errand, head: StoredResponse, number: int) -> bytes | None:
        first, last = span_of(head, number)
        held = self._budget.hold()
        if not held.grow_to(last - first + 1):
            return None
        try:
            requested_at_s = self._levels.purges.stamp()
            response = await self._cut(errand, head, first, last)
            body = await self._read(errand, response, last - first + 1)
            has_credentials = errand.asked.has_credentials
            if unstorable(errand.rule, has_credentials, 200, response.headers) is None:
                part = part_of(head, number, body, requested_at_s, self._now())
                await self._keeper.keep_part(part, errand.url)
            return body
        finally:
            held.release()

    async def _cut(self, errand: Errand, head: StoredResponse, first: int, last: int) -> Response:
        """What the origin sends of the same version."""
        request = errand.part_request(etag_of(head), first, last)
        response = await self._fetcher.ask(errand, request)
        if is_cut_from(head, first, last, response):
            return response
        await response.body.close()
        if response.status in TROUBLE_STATUSES:
            said = f"it answers {response.status}"
            raise errand.failure("destination_unavailable", said, status=503)
        raise Changed(errand.origin, INCOMPLETE, "it has another version by now")

    async def _read(self, errand: Errand, response: Response, length: int) -> bytes:
        try:
            body = await response.body.read(length)
            if len(body) != length:
                raise errand.failure(INCOMPLETE, f"{len(body)} of {length} bytes came")
            return body
        except Exception as error:
            failure = failure_of(errand, error)
            raise failure from (None if failure is error else error)
        finally:
            await response.body.close()


class Pieces:
    """The bytes of a large object as one client reads them: a `Readable`."""

    def __init__(self, assembler: Assembler, errand: Errand, head: StoredResponse) -> None:
        self._assembler = assembler
        self._errand = errand
        self._head = head
        self._direct: AsyncGenerator[bytes] | None = None
        self.asked: list[tuple[int, int]] = []  # first position and length

    def __len__(self) -> int:
        return length_of(self._head)

    def stream(self, first: int, length: int) -> AsyncIterator[bytes]:
        self.asked.append((first, length))
        return self._stream(first, first + length)

    async def _stream(self, at: int, end: int) -> AsyncIterator[bytes]:
        while at < end:
            number, skipped = divmod(at, PART_BYTES)
            body = await self._assembler.part(self._errand, self._head, number)
            if body is None:
                self._direct = self._assembler.direct(self._errand, self._head, at, end)
                async for piece in self._direct:
                    yield piece
                return
            wanted = min(end - at, len(body) - skipped)
            async for piece in content(body, skipped, wanted):
                yield piece
            at += wanted

    async def close(self) -> None:
        """This client reads no more. Parts that are under way are still kept."""
        if self._direct is not None:
            await self._direct.aclose()


def _partly(reuse: Reuse) -> Reuse:
    """The same, if not all of it was here (RFC 9211, section 2.2)."""
    kind, semicolon, rest = reuse.status.partition(";")
    if kind != "hit":
        return reuse
    status = f"fwd=partial; fwd-status=206{semicolon}{rest}"
    return Reuse(reuse.entry, "miss" if reuse.verdict == "hit" else reuse.verdict, status)
