"""What unsafe requests change (RFC 9111, section 4.4), and leaving origins alone."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.caching.backoff import Backoff
from edgeproxy.errors import UpstreamError

from .conftest import Clock, Site, page, text

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


# ---------------------------------------------------------------- rests


def test_one_page_that_breaks_does_not_rest_an_origin() -> None:
    backoff = Backoff(Clock())
    for _ in range(10):
        backoff.failed("a", error="connection_terminated")
        backoff.failed("a", page(status=503).headers)
        assert backoff.trouble("a") is None
        backoff.answered("a")


def test_three_failures_in_a_row_do() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(3):
        assert backoff.trouble("a") is None
        backoff.failed("a", error="http_response_timeout")
    assert backoff.trouble("a") is not None
    assert backoff.trouble("b") is None
    clock.advance(31)
    assert backoff.trouble("a") is None
    backoff.failed("a", error="http_response_timeout")  # it had its chance
    clock.advance(59)
    assert backoff.trouble("a") is not None


@pytest.mark.parametrize("error", ["connection_refused", "dns_error", "connection_timeout"])
def test_an_origin_where_nobody_is_rests_at_once(error: str) -> None:
    backoff = Backoff(Clock())
    backoff.failed("a", error=error)
    trouble = backoff.trouble("a")
    assert trouble is not None
    assert trouble.is_disconnected


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
