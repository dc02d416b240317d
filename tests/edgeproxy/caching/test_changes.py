"""What unsafe requests change (RFC 9111, section 4.4), and what stands in for no answer."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.errors import UpstreamError

from .conftest import Site, page, text

FRESH = "max-age=60"
URL = "site.example/"


async def test_what_has_changed_is_fetched_anew_in_all_variants(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, vary="X"))
    for x in "12":
        await site.get(x=x)
    await site.cache.heed_change([URL])
    for x in "12":
        assert (await site.get(x=x)).verdict == "miss"
    assert (await site.get(x="1")).verdict == "hit"


async def test_it_holds_against_a_fetch_under_way(site: Site) -> None:
    site.origin.will(page("old", cache_control=FRESH), page("new", cache_control=FRESH))
    site.origin.hold()
    before = asyncio.ensure_future(site.get())
    for _ in range(5):
        await asyncio.sleep(0)
    await site.cache.heed_change([URL])
    site.origin.release()
    assert await text(await before) == "old"
    await site.cache.settled()
    assert await text(await site.get()) == "new"


async def test_what_has_changed_does_not_stand_in(site: Site) -> None:
    site.origin.will(
        page(cache_control=FRESH), UpstreamError("origin", "connection_refused", "down")
    )
    await site.get()
    await site.cache.heed_change([URL])
    with pytest.raises(UpstreamError):
        await site.get()


async def test_groups_change_together(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, cache_groups='"news", "all"'))
    await site.get("one")
    site.origin.will(page(cache_control=FRESH, cache_groups='"other"'))
    await site.get("two")
    await site.cache.heed_change([], ["news", " ", "*"])
    assert (await site.get("one")).verdict == "miss"
    assert (await site.get("two")).verdict == "hit"


async def test_a_url_that_cannot_be_marked_marks_its_host(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    await site.get()
    await site.cache.heed_change(["site.example/\x7f"])
    assert (await site.get()).verdict == "miss"


@pytest.mark.parametrize(
    "error",
    [
        "connection_refused", "connection_terminated", "dns_error", "connection_timeout",
        "http_response_timeout", "http_protocol_error", "http_response_incomplete",
    ],
)  # fmt: skip
async def test_a_copy_stands_in_for_every_way_not_to_answer(site: Site, error: str) -> None:
    site.origin.will(page(cache_control=FRESH), UpstreamError("origin", error, "it failed"))
    await site.get()
    site.clock.advance(61)
    for _ in range(5):
        answer = await site.get()
        assert (answer.verdict, await text(answer)) == ("stale", "page")
