"""A clock, tiers and an origin for reading through the cache: all in memory, nothing waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.errand import Answer
from edgeproxy.caching.fields import format_date
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Body, Headers, Request, Response


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class DictTier:
    """A tier in a dict. With `slow`, entries can only be had by waiting."""

    def __init__(self, name: str = "memory", *, slow: bool = False) -> None:
        self.name = name
        self.slow = slow
        self.entries: dict[str, StoredResponse] = {}

    def get(self, id: str) -> StoredResponse | None:
        return None if self.slow else self.entries.get(id)

    async def load(self, id: str) -> StoredResponse | None:
        if self.slow:
            await asyncio.sleep(0)
        return self.entries.get(id)

    async def put(self, id: str, entry: StoredResponse) -> None:
        if self.slow:
            await asyncio.sleep(0)
        self.entries[id] = entry

    async def remove(self, id: str) -> None:
        self.entries.pop(id, None)

    def stats(self) -> dict[str, int]:
        return {"objects": len(self.entries), "bytes": 0, "max_bytes": 0}


class BrokenTier(DictTier):
    """A tier that breaks its promise and raises."""

    def get(self, id: str) -> StoredResponse | None:
        raise RuntimeError("get")

    async def load(self, id: str) -> StoredResponse | None:
        raise RuntimeError("load")

    async def put(self, id: str, entry: StoredResponse) -> None:
        raise RuntimeError("put")

    async def remove(self, id: str) -> None:
        raise RuntimeError("remove")


class Chunks:
    """A body that comes in pieces, each when the test lets it, and may break off."""

    def __init__(self, *chunks: bytes, breaks: bool = False, gated: bool = False) -> None:
        self.chunks = chunks
        self.breaks = breaks
        self.gate = asyncio.Semaphore(0 if gated else 1_000_000)
        self.sent = 0
        self.closed = 0

    def let(self, pieces: int = 1) -> None:
        for _ in range(pieces):
            self.gate.release()

    def body(self, length: int | None = None) -> Body:
        async def stream() -> AsyncIterator[bytes]:
            for chunk in self.chunks:
                await self.gate.acquire()
                self.sent += 1
                yield chunk
            await self.gate.acquire()
            if self.breaks:
                raise UpstreamError("origin", "http_response_incomplete", "it broke off")

        async def close() -> None:
            self.closed += 1

        return Body(None, stream=stream(), length=length, close=close)


Reply = Response | Exception | Callable[[Request], Response]


@dataclass
class FakeOrigin:
    """Answers what it is told to, one reply after the other, the last one for ever.

    While `held`, requests wait until `release`.
    """

    clock: Clock
    replies: list[Reply] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    held: asyncio.Event | None = None

    def will(self, *replies: Reply) -> None:
        self.replies = list(replies)

    def hold(self) -> None:
        self.held = asyncio.Event()

    def release(self) -> None:
        assert self.held is not None
        self.held.set()

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        if self.held is not None:
            await self.held.wait()
        else:
            await asyncio.sleep(0)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        response = reply(request) if callable(reply) else reply.copy()
        if "date" not in response.headers:
            response.headers.add("Date", format_date(self.clock()))
        return response


def page(text: str = "page", *, status: int = 200, **fields: str) -> Response:
    """A response with `fields`, underscores for hyphens."""
    named = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return Response(status, Headers.of(*named), Body(text.encode()))


def down() -> UpstreamError:
    return UpstreamError("origin", "connection_refused", "nobody listens")


@dataclass
class Site:
    """A cache in front of an origin, and clients that ask it."""

    clock: Clock
    origin: FakeOrigin
    tiers: list[DictTier]
    cache: Cache

    def request(self, *, method: str = "GET", **fields: str) -> Request:
        named = [(name.replace("_", "-"), value) for name, value in fields.items()]
        return Request(method, "site.example", "/", headers=Headers.of(*named))

    async def get(
        self, key: str = "key", *, rule: CacheRule | None = None, method: str = "GET", **fields: str
    ) -> Answer:
        request = self.request(method=method, **fields)
        return await self.cache.read_through(request, key, rule, self.origin)

    @property
    def fetches(self) -> int:
        return len(self.origin.requests)

    def at_once(self, key: str = "key", **fields: str) -> Answer:
        """The answer, if it comes without suspending."""
        work = self.cache.read_through(self.request(**fields), key, None, self.origin)
        try:
            work.send(None)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        work.close()
        raise AssertionError("it had to wait")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(clock: Clock) -> Site:
    tiers = [DictTier()]
    origin = FakeOrigin(clock)
    return Site(clock, origin, tiers, Cache(tiers, max_object_size=1_000_000, now=clock))


@pytest.fixture
def deep_site(clock: Clock) -> Site:
    """With a second, slow tier."""
    tiers = [DictTier(), DictTier("disk", slow=True)]
    origin = FakeOrigin(clock)
    return Site(clock, origin, tiers, Cache(tiers, max_object_size=1_000_000, now=clock))


async def text(answer: Answer) -> str:
    return b"".join([chunk async for chunk in answer.response.body]).decode()


async def turns(count: int = 10) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def content(answer: Answer) -> bytes:
    """All that comes, as an engine takes it."""
    try:
        return b"".join([piece async for piece in answer.response.body])
    finally:
        await answer.response.body.close()
