"""`limits.body_memory`: what all fetches together may hold."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.caching.cache import Cache
from edgeproxy.http import Headers, Response

from .conftest import Chunks, Clock, DictTier, FakeOrigin, Site, page, text, turns

FRESH = "max-age=60"


@pytest.fixture
def small_site(clock: Clock) -> Site:
    """With room for 500,000 bytes under way."""
    tiers, origin = [DictTier()], FakeOrigin(clock)
    cache = Cache(tiers, max_object_size=1_000_000, body_memory=500_000, now=clock)
    return Site(clock, origin, tiers, cache)


def stream(chunks: Chunks, length: int | None = None) -> Response:
    head = page(cache_control=FRESH)
    return Response(head.status, Headers(head.headers.fields), chunks.body(length))


@pytest.mark.parametrize("length", [None, 800_000])
async def test_a_body_beyond_the_budget_streams_and_is_not_stored(
    small_site: Site, length: int | None
) -> None:
    site = small_site
    site.origin.will(stream(Chunks(*[b"x" * 100_000] * 8), length))
    answer = await site.get()
    assert len(await text(answer)) == 800_000
    await answer.response.body.close()
    await site.cache.settled()
    assert not site.tiers[0].entries
    assert site.cache.body_memory.used == 0


@pytest.mark.parametrize("length", [None, 300_000])
async def test_what_is_held_is_given_back(small_site: Site, length: int | None) -> None:
    site = small_site
    for key in "abcdef":
        site.origin.will(stream(Chunks(*[b"x" * 100_000] * 3), length))
        assert len(await text(await site.get(key))) == 300_000
        await site.cache.settled()
        assert (await site.get(key)).verdict == "hit"
    assert site.cache.body_memory.used == 0


async def test_two_large_fetches_do_not_fit_together(small_site: Site) -> None:
    site = small_site
    slow = Chunks(*[b"x" * 100_000] * 3, gated=True)
    site.origin.will(stream(slow, 300_000), stream(Chunks(b"y" * 300_000), 300_000))
    one = asyncio.ensure_future(site.get("one"))
    await turns(5)
    two = await site.get("two")
    assert "detail=no_memory" in two.status
    assert len(await text(two)) == 300_000
    slow.let(10)
    assert len(await text(await one)) == 300_000
    await site.cache.settled()
    assert list(site.tiers[0].entries) == ["one"]
    assert site.cache.body_memory.used == 0


async def test_a_fetch_that_fails_or_is_given_up_gives_back(small_site: Site) -> None:
    site = small_site
    site.origin.will(stream(Chunks(*[b"x" * 100_000] * 3, breaks=True)))
    with pytest.raises(Exception, match="broke off"):
        await text(await site.get())
    await site.cache.settled()
    assert site.cache.body_memory.used == 0
    site.origin.will(stream(Chunks(b"x" * 100_000, gated=True)))
    client = asyncio.ensure_future(site.get())
    await turns(5)
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)
    await site.cache.settled()
    assert site.cache.body_memory.used == 0
