"""Reading through the cache, against a cache so simple that it can be seen to be right."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

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
            body = kept.body
        self.entries.pop(place, None)
        if now.forbids not in ("no-store", "private"):
            is_fresh = bool(now.max_age) and not now.forbids
            if is_fresh or now.has_etag:
                self.entries[place] = Kept(body, now, now_s)
        return body


versions = st.builds(
    Version,
    number=st.integers(-1, 5),
    max_age=st.sampled_from([None, 0, 5, 50]),
    forbids=st.sampled_from(["", "", "", "no-store", "private", "no-cache"]),
    must_revalidate=st.booleans(),
    while_revalidate=st.sampled_from([0, 0, 10]),
    has_etag=st.booleans(),
)
steps = st.lists(
    st.one_of(
        versions,
        st.sampled_from([1.0, 4.0, 6.0, 20.0, 60.0, 2.0 * DAY_S]),
        st.sampled_from(["one", "two"]),
        st.sampled_from(["one", "two"]),
    ),
    min_size=2,
    max_size=40,
)


@given(vary=st.booleans(), first=versions, steps=steps)
@settings(max_examples=300, deadline=None)
def test_clients_get_what_the_model_gives(
    vary: bool, first: Version, steps: list[Version | float | str]
) -> None:
    asyncio.run(compare(vary, first, steps))


async def compare(vary: bool, first: Version, steps: list[Version | float | str]) -> None:
    clock = Clock()
    origin = FakeOrigin(clock)
    model = Model(vary)
    cache = Cache([DictTier()], max_object_size=1000, now=clock)
    now = first
    for number, step in enumerate(steps):
        if isinstance(step, Version):
            now = step
        elif isinstance(step, float):
            clock.advance(step)
        else:
            version = now
            origin.will(lambda request, version=version: version.response(request, vary))  # type: ignore[misc]
            before = len(origin.requests), model.asked
            request = Request("GET", "site.example", "/", headers=Headers.of(("X", step)))
            expected = model.get(step, now, clock())
            try:
                # Each step is another origin to the cache, so that none of them rests.
                answer = await cache.read_through(request, "key", None, origin, origin=str(number))
            except UpstreamError:
                body = None
            else:
                body = b"".join([chunk async for chunk in answer.response.body]).decode()
            await cache.settled()
            assert body == expected, (number, step)
            assert len(origin.requests) - before[0] == model.asked - before[1], (number, step)
