"""Reading through the cache, against a cache so simple that it can be seen to be right."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.caching.cache import Cache
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Headers, Request, Response

from .conftest import Clock, DictTier, FakeOrigin, page

DAY_S = 86400


@dataclass(frozen=True)
class Version:
    """What the origin has at a time. A `number` of -1: it does not answer."""

    number: int
    max_age: int | None = None
    forbids: str = ""  # no-store, private, no-cache or nothing
    must_revalidate: bool = False
    while_revalidate: int = 0
    has_etag: bool = False

    @property
    def etag(self) -> str | None:
        return f'"{self.number}"' if self.has_etag else None

    @property
    def says_something(self) -> bool:
        has_lifetime = self.max_age is not None or self.while_revalidate > 0
        return has_lifetime or self.must_revalidate or bool(self.forbids)

    def response(self, request: Request, vary: bool) -> Response:
        if self.number < 0:
            raise UpstreamError("origin", "connection_terminated", "it does not answer")
        parts = [self.forbids] if self.forbids else []
        parts += [] if self.max_age is None else [f"max-age={self.max_age}"]
        parts += ["must-revalidate"] if self.must_revalidate else []
        if self.while_revalidate:
            parts.append(f"stale-while-revalidate={self.while_revalidate}")
        fields = {"cache_control": ", ".join(parts)} if parts else {}
        fields |= {"etag": self.etag} if self.etag else {}
        fields |= {"vary": "X"} if vary else {}
        asked = request.headers.get("if-none-match")
        if asked is not None and asked == self.etag:
            return page("", status=304, **fields)
        return page(f"{self.number} for {request.headers.get('x') if vary else 'all'}", **fields)


@dataclass
class Kept:
    body: str
    version: Version
    since_s: float


@dataclass
class Model:
    """One URL. No tiers, no flights, no tables: a dict, and the rules in the order of the RFC."""

    vary: bool
    entries: dict[str, Kept] = field(default_factory=dict)
    asked: int = 0

    def get(self, x: str, now: Version, now_s: float) -> str | None:
        """The body that a client gets; None for an error."""
        place = x if self.vary else ""
        kept = self.entries.get(place)
        if kept is None:
            return self.fetch(place, None, now, now_s)
        lifetime = 0 if kept.version.forbids else kept.version.max_age or 0
        stale_for_s = now_s - kept.since_s - lifetime
        if stale_for_s < 0:
            return kept.body
        is_strict = kept.version.must_revalidate or bool(kept.version.forbids)
        if stale_for_s < kept.version.while_revalidate and not is_strict:
            self.fetch(place, kept, now, now_s)
            return kept.body
        body = self.fetch(place, kept, now, now_s)
        if body is None and not is_strict and stale_for_s < DAY_S:
            return kept.body
        return body

    def fetch(self, place: str, kept: Kept | None, now: Version, now_s: float) -> str | None:
        self.asked += 1
        if now.number < 0:
            return None
        body = f"{now.number} for {place or 'all'}"
        if kept is not None and kept.version.has_etag and kept.version.etag == now.etag:
            body = kept.body  # a 304, which changes only what it names
            now = now if now.says_something else kept.version
        self.entries.pop(place, None)
        if now.forbids not in ("no-store", "private"):
            is_fresh = bool(now.max_age) and not now.forbids
            if is_fresh or now.has_etag:
                if kept is not None and kept.version.has_etag and kept.body == body:
                    now = replace(now, has_etag=True)  # the same bytes keep the name they had
                self.entries[place] = Kept(body, now, now_s)
        return body


versions = st.builds(
    Version,
    number=st.sampled_from([1, 1, 1, 2, 2, 3, -1, -1]),
    max_age=st.sampled_from([None, 0, 5, 5, 5, 50]),
    forbids=st.sampled_from([""] * 8 + ["no-store", "private", "no-cache"]),
    must_revalidate=st.sampled_from([False, False, True]),
    while_revalidate=st.sampled_from([0, 10]),
    has_etag=st.booleans(),
)
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 4, 6, 7, 12, 60, 2 * DAY_S]),  # seconds that pass
        st.one_of(st.none(), st.none(), versions),  # what the origin has from then on
        st.sampled_from(["one", "two"]),  # who asks
    ),
    min_size=2,
    max_size=30,
)

Step = tuple[float, Version | None, str]


@given(vary=st.booleans(), first=versions, steps=steps)
@settings(max_examples=300, deadline=None)
def test_clients_get_what_the_model_gives(vary: bool, first: Version, steps: list[Step]) -> None:
    asyncio.run(compare(vary, first, steps))


async def compare(vary: bool, first: Version, steps: list[Step]) -> None:
    clock = Clock()
    origin = FakeOrigin(clock)
    model = Model(vary)
    cache = Cache([DictTier()], max_object_size=1000, now=clock)
    version = first
    origin.will(lambda request: version.response(request, vary))
    for number, (wait_s, new, x) in enumerate(steps):
        clock.advance(wait_s)
        version = new or version
        before = len(origin.requests), model.asked
        expected = model.get(x, version, clock())
        request = Request("GET", "site.example", "/", headers=Headers.of(("X", x)))
        try:
            # Each step is another origin to the cache, so that none of them rests.
            answer = await cache.read_through(request, "key", None, origin, origin=str(number))
        except UpstreamError:
            body = None
        else:
            body = b"".join([chunk async for chunk in answer.response.body]).decode()
        await cache.settled()
        assert body == expected, number
        assert len(origin.requests) - before[0] == model.asked - before[1], number
