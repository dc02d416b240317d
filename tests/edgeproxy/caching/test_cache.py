"""Reading through the cache: each way an answer can come about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.errand import Answer
from edgeproxy.errors import UpstreamError
from edgeproxy.http import Headers, Request, Response

from .conftest import BrokenTier, Chunks, Clock, DictTier, FakeOrigin, Site, down, page, text, turns

FRESH = "max-age=60"


def rule(**settings: Any) -> CacheRule:
    return CacheRule.model_validate(settings)


# ---------------------------------------------------------------- hits


async def test_a_miss_is_stored_and_hit(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    first = await site.get()
    second = await site.get()
    assert (first.verdict, await text(first)) == ("miss", "page")
    assert first.status == "edgeproxy; fwd=uri-miss; fwd-status=200; stored; ttl=60"
    assert (second.verdict, await text(second)) == ("hit", "page")
    assert second.status == "edgeproxy; hit; ttl=60; detail=memory"
    assert site.fetches == 1


async def test_a_hit_in_memory_does_not_suspend(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, vary="Accept-Encoding, Accept-Language"))
    await site.get(accept_encoding="gzip", accept_language="de")
    await site.cache.settled()
    assert site.at_once(accept_encoding="gzip", accept_language="de").verdict == "hit"


async def test_age_grows_and_date_stays(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, age="7"))
    date = (await site.get()).response.headers.get("date")
    site.clock.advance(10.5)
    hit = await site.get()
    assert hit.response.headers.get_all("age") == ["17"]
    assert hit.response.headers.get("date") == date
    assert hit.status == "edgeproxy; hit; ttl=42; detail=memory"


async def test_the_age_it_came_with_is_taken_off(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, age="50"))
    await site.get()
    site.clock.advance(11)
    await site.get()
    assert site.fetches == 2


async def test_what_a_client_edits_is_its_own(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    for _ in range(3):
        answer = await site.get()
        assert "x-edited" not in answer.response.headers
        answer.response.headers.add("X-Edited", "1")


async def test_head_is_answered_from_a_stored_get(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    await site.get()
    head = await site.get(method="HEAD")
    assert (head.verdict, await text(head)) == ("hit", "")
    assert head.response.headers.get("content-length") == "4"


async def test_head_on_a_miss_is_forwarded_and_not_stored(site: Site) -> None:
    site.origin.will(page("", cache_control=FRESH, content_length="4"))
    assert (await site.get(method="HEAD")).verdict == "miss"
    assert site.origin.requests[0].method == "HEAD"
    await site.get()
    assert site.fetches == 2


async def test_request_directives_are_ignored(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    await site.get(cache_control="no-store", pragma="no-cache")
    hit = await site.get(cache_control="no-cache, max-age=0", pragma="no-cache")
    assert hit.verdict == "hit"


async def test_conditions_of_a_client_are_evaluated_here(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, etag='"a"'))
    miss = await site.get(if_none_match='"a"')
    hit = await site.get(if_none_match='W/"a"')
    assert "if-none-match" not in site.origin.requests[0].headers
    assert (miss.verdict, miss.response.status) == ("miss", 304)
    assert (hit.verdict, hit.response.status) == ("hit", 304)
    assert (await site.get(if_match='"b"')).response.status == 412


async def test_ranges_are_cut_here_from_identity(site: Site) -> None:
    def origin(request: Request) -> Response:
        coding = request.headers.get("accept-encoding") or ""
        return page(f"body in {coding}", cache_control=FRESH, vary="Accept-Encoding")

    site.origin.will(origin)
    await site.get(accept_encoding="gzip")
    part = await site.get(accept_encoding="gzip", range="bytes=0-6")
    assert (part.response.status, await text(part)) == (206, "body in")
    assert "range" not in site.origin.requests[1].headers
    rest = await site.get(accept_encoding="gzip", range="bytes=8-")
    assert (rest.verdict, await text(rest)) == ("hit", "identity")
    beyond = await site.get(accept_encoding="gzip", range="bytes=99-")
    assert (beyond.response.status, beyond.verdict) == (416, "hit")
    assert site.fetches == 2


async def test_connection_fields_are_not_stored(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, connection="x-hop", x_hop="1"))
    await site.get()
    assert "x-hop" not in (await site.get()).response.headers


async def test_keys_are_kept_apart(site: Site) -> None:
    site.origin.will(page("one", cache_control=FRESH), page("two", cache_control=FRESH))
    await site.get("a")
    assert await text(await site.get("b")) == "two"
    assert await text(await site.get("a")) == "one"


# ---------------------------------------------------------------- what is not shared


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": "no-store"},
        {"cache_control": "private, max-age=60"},
        {"cache_control": FRESH, "set_cookie": "a=b"},
        {"cache_control": FRESH, "vary": "*"},
    ],
)
async def test_what_may_not_be_shared_is_fetched_each_time(
    site: Site, fields: dict[str, str]
) -> None:
    site.origin.will(page("one", **fields), page("two", **fields))
    settings = rule(ttl="1h", status_ttl={200: "1h"})
    first = await site.get(rule=settings)
    second = await site.get(rule=settings)
    assert [await text(first), await text(second)] == ["one", "two"]
    assert [first.verdict, second.verdict] == ["miss", "pass"]
    assert not site.tiers[0].entries


async def test_an_answer_to_credentials_is_for_their_owner(site: Site) -> None:
    site.origin.will(page("secret", cache_control=FRESH), page("open", cache_control=FRESH))
    assert await text(await site.get(authorization="Basic x")) == "secret"
    assert await text(await site.get()) == "open"
    assert (await site.get(authorization="Basic x")).verdict == "pass"


async def test_an_answer_to_credentials_that_is_public_is_shared(site: Site) -> None:
    site.origin.will(page(cache_control=f"{FRESH}, public"))
    await site.get(authorization="Basic x")
    await site.cache.settled()
    assert (await site.get()).verdict == "hit"
    assert (await site.get(authorization="Basic y")).verdict == "hit"


@pytest.mark.parametrize("status", [400, 405, 413, 414, 416, 429, 431, 500, 501, 502, 503])
async def test_an_error_is_not_stored_without_stated_freshness(site: Site, status: int) -> None:
    site.origin.will(page(status=status), page("fine", cache_control=FRESH))
    assert (await site.get()).response.status == status
    assert await text(await site.get()) == "fine"


async def test_an_error_with_stated_freshness_is_stored(site: Site) -> None:
    site.origin.will(page(status=503, cache_control=FRESH))
    await site.get()
    assert (await site.get()).verdict == "hit"


async def test_a_part_is_never_stored(site: Site) -> None:
    site.origin.will(page(status=206, cache_control=FRESH, content_range="bytes 0-3/9"))
    await site.get()
    await site.get()
    assert site.fetches == 2


async def test_without_freshness_or_validator_nothing_is_kept(site: Site) -> None:
    site.origin.will(page())
    await site.get()
    await site.get()
    assert site.fetches == 2
    assert not site.tiers[0].entries


async def test_conditions_and_ranges_go_through_where_nothing_is_shared(site: Site) -> None:
    site.origin.will(page(cache_control="private"))
    await site.get(if_none_match='"a"')
    await site.get(if_none_match='"a"', range="bytes=0-1", accept_encoding="gzip")
    sent = site.origin.requests[1].headers
    assert (sent.get("if-none-match"), sent.get("range")) == ('"a"', "bytes=0-1")
    assert sent.get("accept-encoding") == "identity"


async def test_what_becomes_private_is_forgotten(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, etag='"a"'), page(cache_control="private"), down())
    await site.get()
    site.clock.advance(61)
    await site.get()
    with pytest.raises(UpstreamError):
        await site.get()


# ---------------------------------------------------------------- Vary


async def test_variants_are_kept_apart(site: Site) -> None:
    def origin(request: Request) -> Response:
        language = request.headers.get("accept-language") or "none"
        return page(language, cache_control=FRESH, vary="Accept-Language")

    site.origin.will(origin)
    for language in ("de", "fr", "de", "fr", "DE"):
        answer = await site.get(accept_language=language)
        assert await text(answer) == language.lower()
    assert await text(await site.get()) == "none"
    assert site.fetches == 3


async def test_a_missing_variant_says_so(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, vary="Accept-Language"))
    await site.get(accept_language="de")
    answer = await site.get(accept_language="fr")
    assert answer.status.startswith("edgeproxy; fwd=vary-miss;")


async def test_the_origin_is_asked_for_the_coding_that_is_stored(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, vary="Accept-Encoding"))
    await site.get(accept_encoding="br, gzip;q=0.5")
    await site.get()
    assert [r.headers.get("accept-encoding") for r in site.origin.requests] == ["gzip", "identity"]
    assert (await site.get(accept_encoding="gzip, deflate")).verdict == "hit"


async def test_vary_that_grows_keeps_variants_apart(site: Site) -> None:
    site.origin.will(
        page("one", cache_control=FRESH, vary="A"),
        page("two", cache_control=FRESH, vary="B"),
        page("three", cache_control=FRESH, vary="A, B"),
    )
    assert await text(await site.get(a="1", b="1")) == "one"
    assert await text(await site.get(a="2", b="1")) == "two"
    assert await text(await site.get(a="2", b="2")) == "three"
    assert await text(await site.get(a="2", b="1")) == "two"
    assert await text(await site.get(a="2", b="2")) == "three"


async def test_variants_of_a_key_are_bounded(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, vary="X"))
    for number in range(200):
        await site.get(x=str(number))
    await site.cache.settled()
    assert len(site.tiers[0].entries) == 65  # and the record of them
    assert (await site.get(x="199")).verdict == "hit"
    assert (await site.get(x="0")).verdict == "miss"


async def test_an_answer_without_vary_takes_the_place_of_variants(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, vary="X"), page(status=404, cache_control=FRESH))
    await site.get(x="1")
    await site.get(x="2")
    await site.cache.settled()
    assert (await site.get(x="1")).response.status == 404
    assert list(site.tiers[0].entries) == ["key"]


async def test_a_key_that_looks_like_a_variant_is_none(site: Site) -> None:
    site.origin.will(page("one", cache_control=FRESH, vary="X"), page("two", cache_control=FRESH))
    await site.get("key", x="1")
    assert await text(await site.get("key\0x=1")) == "two"
    assert await text(await site.get("key", x="1")) == "two"  # pushed out, but never mixed up


# ---------------------------------------------------------------- revalidation


async def test_a_stale_entry_is_revalidated_with_its_validators(site: Site) -> None:
    date = "Tue, 14 Nov 2023 00:00:00 GMT"
    site.origin.will(
        page(cache_control=FRESH, etag='"a"', last_modified=date, x="old"),
        page("", status=304, cache_control="max-age=90", etag='"a"', x="new"),
    )
    await site.get()
    site.clock.advance(61)
    answer = await site.get()
    sent = site.origin.requests[1].headers
    assert (sent.get("if-none-match"), sent.get("if-modified-since")) == ('"a"', date)
    assert (answer.verdict, await text(answer)) == ("revalidated", "page")
    assert answer.status == "edgeproxy; fwd=stale; fwd-status=304; stored; ttl=90"
    assert answer.response.headers.get("x") == "new"
    site.clock.advance(80)
    hit = await site.get()
    assert (hit.verdict, hit.response.headers.get("age")) == ("hit", "80")
    assert hit.response.headers.get("content-length") == "4"


async def test_a_new_version_replaces_the_stale_one(site: Site) -> None:
    site.origin.will(
        page("old", cache_control=FRESH, etag='"a"'), page("new", cache_control=FRESH, etag='"b"')
    )
    await site.get()
    site.clock.advance(61)
    assert await text(await site.get()) == "new"
    assert await text(await site.get()) == "new"
    assert site.fetches == 2


async def test_no_cache_is_revalidated_each_time(site: Site) -> None:
    site.origin.will(
        page(cache_control="no-cache, max-age=60", etag='"a"'), page("", status=304, etag='"a"')
    )
    await site.get()
    for _ in range(3):
        assert (await site.get(rule=rule(ttl="1h"))).verdict == "revalidated"


async def test_a_304_for_something_else_is_not_believed(site: Site) -> None:
    site.origin.will(
        page("old", cache_control=FRESH, etag='"a"'),
        page("", status=304, etag='"b"'),
        page("new", cache_control=FRESH, etag='"b"'),
    )
    await site.get()
    site.clock.advance(61)
    assert await text(await site.get()) == "new"
    assert "if-none-match" not in site.origin.requests[2].headers


async def test_a_304_that_forbids_sharing_is_obeyed(site: Site) -> None:
    site.origin.will(
        page(cache_control=FRESH, etag='"a"'),
        page("", status=304, cache_control="private", etag='"a"'),
    )
    await site.get()
    site.clock.advance(61)
    assert await text(await site.get()) == "page"
    await site.cache.settled()
    assert not site.tiers[0].entries


async def test_a_client_gets_its_304_after_a_revalidation(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, etag='"a"'), page("", status=304, etag='"a"'))
    await site.get()
    site.clock.advance(61)
    assert (await site.get(if_none_match='"a"')).response.status == 304


async def test_head_revalidates_the_stored_get(site: Site) -> None:
    site.origin.will(
        page(cache_control=FRESH, etag='"a"'), page("", status=304, cache_control=FRESH)
    )
    await site.get()
    site.clock.advance(61)
    head = await site.get(method="HEAD")
    assert (head.verdict, await text(head)) == ("revalidated", "")
    assert site.origin.requests[1].method == "GET"


# ---------------------------------------------------------------- stale


SWR = "max-age=60, stale-while-revalidate=30"


@pytest.mark.parametrize("by_rule", [False, True])
async def test_stale_while_revalidate_asks_once_in_the_background(
    site: Site, by_rule: bool
) -> None:
    settings = rule(stale_while_revalidate="30s") if by_rule else None
    control = FRESH if by_rule else SWR
    site.origin.will(page("old", cache_control=control), page("new", cache_control=control))
    await site.get(rule=settings)
    site.clock.advance(70)
    site.origin.hold()
    for _ in range(5):
        answer = await site.get(rule=settings)
        assert (answer.verdict, await text(answer)) == ("stale", "old")
        assert answer.status == "edgeproxy; hit; ttl=-10; detail=memory"
    await turns(5)
    site.origin.release()
    await site.cache.settled()
    assert site.fetches == 2
    assert (await site.get(rule=settings)).verdict == "hit"
    assert await text(await site.get(rule=settings)) == "new"


async def test_beyond_the_window_a_client_waits_for_news(site: Site) -> None:
    site.origin.will(page("old", cache_control=SWR), page("new", cache_control=SWR))
    await site.get()
    site.clock.advance(91)
    assert await text(await site.get()) == "new"


async def test_a_failed_background_revalidation_leaves_the_copy(site: Site) -> None:
    site.origin.will(page("old", cache_control=SWR), down(), page("new", cache_control=SWR))
    await site.get()
    site.clock.advance(70)
    assert await text(await site.get()) == "old"
    await site.cache.settled()
    assert await text(await site.get()) == "old"
    assert site.fetches == 2  # the origin is down
    site.clock.advance(2)
    assert await text(await site.get()) == "old"  # and a probe is on its way
    await site.cache.settled()
    assert await text(await site.get()) == "new"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_stale_copy_is_better_than_an_error(site: Site, status: int) -> None:
    site.origin.will(page(cache_control=f"{FRESH}, stale-if-error=100"), page(status=status))
    await site.get()
    site.clock.advance(70)
    answer = await site.get()
    assert (answer.verdict, answer.response.status) == ("stale", 200)
    assert f"fwd-status={status}" in answer.status


async def test_an_error_goes_through_if_the_copy_is_too_old(site: Site) -> None:
    site.origin.will(page(cache_control=f"{FRESH}, stale-if-error=5"), page(status=503))
    await site.get()
    site.clock.advance(70)
    assert (await site.get()).response.status == 503


async def test_an_error_goes_through_if_nothing_allows_a_stale_copy(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH), page(status=503), down())
    await site.get()
    site.clock.advance(70)
    assert (await site.get()).response.status == 503
    assert (await site.get()).verdict == "stale"  # but not answering at all does


@pytest.mark.parametrize(
    "control", ["must-revalidate, max-age=60", "proxy-revalidate, max-age=60", "s-maxage=60"]
)
async def test_what_must_be_revalidated_is_never_served_stale(site: Site, control: str) -> None:
    site.origin.will(page(cache_control=control), down(), page(status=503))
    settings = rule(stale_while_revalidate="1h", stale_if_error="1h")
    await site.get(rule=settings)
    site.clock.advance(70)
    with pytest.raises(UpstreamError):
        await site.get(rule=settings)
    assert (await site.get(rule=settings)).response.status == 503


async def test_a_rule_says_how_long_a_copy_may_stand_in(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH), down())
    settings = rule(stale_if_error="10m")
    await site.get(rule=settings)
    site.clock.advance(659)
    assert (await site.get(rule=settings)).verdict == "stale"
    site.clock.advance(2)
    with pytest.raises(UpstreamError):
        await site.get(rule=settings)


async def test_without_freshness_a_rule_keeps_a_copy_for_emergencies(site: Site) -> None:
    site.origin.will(page(), down())
    await site.get(rule=rule())
    site.clock.advance(3600)
    assert (await site.get(rule=rule())).verdict == "stale"


# ---------------------------------------------------------------- leaving an origin alone


async def test_an_origin_that_is_down_is_probed_after_1_s_doubling_to_60_s(site: Site) -> None:
    settings = rule(stale_if_error="1d")
    site.origin.will(page(cache_control=FRESH), down())
    await site.get(rule=settings)
    site.clock.advance(61)
    await site.get(rule=settings)
    for pause_s in (1, 2, 4, 8, 16, 32, 60, 60):
        before = site.fetches
        site.clock.advance(pause_s - 0.1)
        assert (await site.get(rule=settings)).verdict == "stale"
        await site.cache.settled()
        assert site.fetches == before
        site.clock.advance(0.2)
        for _ in range(10):
            assert (await site.get(rule=settings)).verdict == "stale"
        await site.cache.settled()
        assert site.fetches == before + 1


async def test_no_client_waits_for_a_probe_and_there_is_one_at_a_time(site: Site) -> None:
    settings = rule(stale_if_error="1d")
    site.origin.will(page(cache_control=FRESH))
    for key in "abc":
        await site.get(key, rule=settings)
    site.origin.will(down(), page("new", cache_control=FRESH))
    site.clock.advance(61)
    first = await site.get("a", rule=settings)
    assert first.status.endswith("detail=stale_if_error")
    assert str(first.cause) == "connection_refused"
    site.clock.advance(2)
    site.origin.hold()
    before = site.fetches
    for _ in range(3):
        for key in "abc":
            answer = await site.get(key, rule=settings)
            assert answer.status == "edgeproxy; hit; ttl=-3; detail=origin_down"
            assert str(answer.cause) == "connection_refused"
    await turns(5)
    assert site.fetches == before + 1
    site.origin.release()
    await site.cache.settled()
    assert await text(await site.get("a", rule=settings)) == "new"
    assert (await site.get("b", rule=settings)).verdict == "miss"  # it is asked again, at once
    assert site.cache.health.reports() == []


async def test_a_copy_without_compression_is_better_than_none(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, vary="Accept-Encoding"), down())
    await site.get(accept_encoding="identity")
    with pytest.raises(UpstreamError):
        await site.get(accept_encoding="gzip")
    answer = await site.get(accept_encoding="gzip")
    assert (answer.verdict, await text(answer)) == ("hit", "page")
    site.clock.advance(100)
    answer = await site.get(accept_encoding="gzip")
    assert answer.status == "edgeproxy; hit; ttl=-40; detail=origin_down"
    with pytest.raises(UpstreamError):
        await site.get(accept_encoding="gzip, identity;q=0")


async def test_a_copy_that_may_not_stand_in_is_not_served_while_the_origin_is_down(
    site: Site,
) -> None:
    site.origin.will(page(cache_control="max-age=60, must-revalidate"), down())
    await site.get()
    site.clock.advance(61)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await site.get()
    assert site.fetches == 3


async def test_retry_after_is_honoured(site: Site) -> None:
    settings = rule()
    site.origin.will(page(cache_control=FRESH), page(status=429, retry_after="300"))
    await site.get(rule=settings)
    site.clock.advance(61)
    await site.get(rule=settings)
    site.clock.advance(299)
    await site.get(rule=settings)
    await site.cache.settled()
    assert site.fetches == 2
    site.clock.advance(2)
    await site.get(rule=settings)
    await site.cache.settled()
    assert site.fetches == 3


async def test_a_miss_is_always_tried_and_ends_the_rest(site: Site) -> None:
    settings = rule()
    site.origin.will(page("old", cache_control=FRESH), down(), page("new", cache_control=FRESH))
    await site.get(rule=settings)
    site.clock.advance(61)
    await site.get(rule=settings)
    assert (await site.get("other", rule=settings)).verdict == "miss"
    assert await text(await site.get(rule=settings)) == "new"


async def test_a_500_is_one_page_s_fault(site: Site) -> None:
    settings = rule()
    site.origin.will(page(cache_control=FRESH), page(status=500))
    await site.get(rule=settings)
    site.clock.advance(61)
    await site.get(rule=settings)
    await site.get(rule=settings)
    assert site.fetches == 3


# ---------------------------------------------------------------- rules of a policy


async def test_ttl_replaces_the_origin_s_freshness(site: Site) -> None:
    site.origin.will(page(cache_control="max-age=5", age="400"))
    settings = rule(ttl="10m")
    await site.get(rule=settings)
    site.clock.advance(599)
    assert (await site.get(rule=settings)).verdict == "hit"
    site.clock.advance(2)
    assert (await site.get(rule=settings)).verdict == "miss"


async def test_a_shorter_ttl_counts_at_once(site: Site) -> None:
    site.origin.will(page())
    await site.get(rule=rule(ttl="10m"))
    site.clock.advance(70)
    assert (await site.get(rule=rule(ttl="1m"))).verdict == "miss"


@pytest.mark.parametrize("status", [301, 404])
async def test_a_status_may_have_a_lifetime(site: Site, status: int) -> None:
    site.origin.will(page(status=status, age="2513"))
    settings = rule(status_ttl={status: "30s"})
    await site.get(rule=settings)
    site.clock.advance(29)
    assert (await site.get(rule=settings)).verdict == "hit"
    site.clock.advance(2)
    assert (await site.get(rule=settings)).verdict == "miss"


async def test_browsers_get_a_lifetime_of_their_own(site: Site) -> None:
    site.origin.will(page(cache_control="max-age=600", expires="0"))
    settings = rule(browser_ttl="1m")
    miss = await site.get(rule=settings)
    site.clock.advance(40)
    hit = await site.get(rule=settings)
    assert miss.response.headers.get_all("cache-control") == ["max-age=60"]
    assert hit.response.headers.get_all("cache-control") == ["max-age=100"]
    assert hit.response.headers.get("age") == "40"
    assert "expires" not in hit.response.headers


async def test_tags_are_stored(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    await site.get(rule=rule(tags=["page", "news"]))
    assert site.tiers[0].entries["key"].tags == ("page", "news")


# ---------------------------------------------------------------- many clients at once


async def together(site: Site, clients: int, **fields: str) -> list[Answer]:
    site.origin.hold()
    waiting = [asyncio.ensure_future(site.get(**fields)) for _ in range(clients)]
    await turns(5)
    site.origin.release()
    return await asyncio.gather(*waiting)


async def test_64_concurrent_misses_are_one_fetch(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    answers = await together(site, 64)
    assert site.fetches == 1
    assert [a.verdict for a in answers].count("collapsed") == 63
    assert {await text(a) for a in answers} == {"page"}
    assert "edgeproxy; fwd=uri-miss; collapsed; ttl=60" in {a.status for a in answers}


async def test_64_concurrent_revalidations_are_one(site: Site) -> None:
    site.origin.will(
        page(cache_control=FRESH, etag='"a"'), page("", status=304, cache_control=FRESH)
    )
    await site.get()
    site.clock.advance(61)
    await together(site, 64)
    assert site.fetches == 2


async def test_what_cannot_be_shared_is_not_shared_by_waiting(site: Site) -> None:
    numbers = iter(range(100))

    def origin(request: Request) -> Response:
        return page(f"for client {next(numbers)}", cache_control="private")

    site.origin.will(origin)
    answers = await together(site, 20)
    assert len({await text(a) for a in answers}) == 20


async def test_clients_do_not_queue_for_what_cannot_be_shared(site: Site) -> None:
    site.origin.will(page(cache_control="private"))
    await site.get()
    site.origin.hold()
    waiting = [asyncio.ensure_future(site.get()) for _ in range(10)]
    await turns(5)
    assert site.fetches == 11
    site.origin.release()
    assert {(await task).status for task in waiting} == {
        "edgeproxy; fwd=bypass; detail=hit_for_miss; fwd-status=200; detail=private"
    }


async def test_what_becomes_shareable_is_shared_again(site: Site) -> None:
    site.origin.will(page(cache_control="private"), page(cache_control=FRESH))
    await site.get()
    await site.get()
    await site.cache.settled()
    assert (await site.get()).verdict == "hit"
    site.clock.advance(61)
    await together(site, 10)
    assert site.fetches == 3


async def test_the_table_of_what_cannot_be_shared_is_bounded(site: Site) -> None:
    site.origin.will(page(cache_control="private"))
    for number in range(5000):
        await site.get(f"key-{number}")
    assert len(site.cache.keeper._hit_for_miss) <= 4096


async def test_followers_of_another_variant_get_their_own(site: Site) -> None:
    def origin(request: Request) -> Response:
        language = request.headers.get("accept-language") or ""
        return page(language, cache_control=FRESH, vary="Accept-Language")

    site.origin.will(origin)
    site.origin.hold()
    languages = ["de", "fr", "it"] * 10
    waiting = [asyncio.ensure_future(site.get(accept_language=one)) for one in languages]
    await turns(5)
    site.origin.release()
    answers = await asyncio.gather(*waiting)
    assert [await text(a) for a in answers] == languages
    assert site.fetches == 3


async def test_keys_that_look_like_variants_share_no_fetch(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    site.origin.hold()
    one = asyncio.ensure_future(site.get("key", accept_encoding="gzip"))
    other = asyncio.ensure_future(site.get("key\0accept-encoding=gzip", accept_encoding="gzip"))
    await turns(5)
    site.origin.release()
    assert {(await one).verdict, (await other).verdict} == {"miss"}
    assert site.fetches == 2


async def test_a_hook_that_edits_the_request_edits_a_copy(site: Site) -> None:
    controls = iter(["private", "private", FRESH, FRESH])

    async def forward(request: Request) -> Response:
        request.headers.set("X", "from a hook")
        return page(cache_control=next(controls), vary="X")

    request = site.request(x="from the client")
    for _ in range(3):
        await site.cache.read_through(request, "key", None, forward)
        assert request.headers.get("x") == "from the client"
    await site.cache.settled()
    assert (await site.get(x="from the client")).verdict == "hit"


async def test_a_follower_with_credentials_does_not_take_another_s_answer(site: Site) -> None:
    def origin(request: Request) -> Response:
        kind = "secret" if "authorization" in request.headers else "open"
        return page(kind, cache_control=FRESH)

    site.origin.will(origin)
    site.origin.hold()
    one = asyncio.ensure_future(site.get())
    other = asyncio.ensure_future(site.get(authorization="Basic x"))
    await turns(5)
    site.origin.release()
    assert [await text(await one), await text(await other)] == ["open", "secret"]


async def test_followers_of_a_failed_leader_get_one_try_together(site: Site) -> None:
    site.origin.will(down(), page(cache_control=FRESH))
    site.origin.hold()
    waiting = [asyncio.ensure_future(site.get()) for _ in range(10)]
    await turns(5)
    site.origin.release()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], UpstreamError)
    assert all(isinstance(result, Answer) for result in results[1:])
    assert site.fetches == 2


async def test_an_origin_that_is_down_is_not_stormed(site: Site) -> None:
    site.origin.will(down())
    site.origin.hold()
    waiting = [asyncio.ensure_future(site.get()) for _ in range(100)]
    await turns(5)
    site.origin.release()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, UpstreamError) for result in results)
    assert len({id(result) for result in results[1:]}) == 99  # nobody raises another's error
    assert site.fetches == 2


async def test_an_origin_that_answers_503_is_not_stormed(site: Site) -> None:
    site.origin.will(page(status=503))
    site.origin.hold()
    waiting = [asyncio.ensure_future(site.get()) for _ in range(100)]
    await turns(5)
    site.origin.release()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert site.fetches == 2
    refused = [result for result in results if isinstance(result, UpstreamError)]
    assert len(refused) == 98
    assert {error.status for error in refused} == {503}


async def test_followers_of_a_failed_revalidation_get_the_stale_copy(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH), down())
    await site.get()
    site.clock.advance(61)
    answers = await together(site, 10)
    assert {a.verdict for a in answers} == {"stale"}
    assert site.fetches == 2


async def test_a_hook_that_fails_is_its_own_client_s_problem(site: Site) -> None:
    site.origin.will(RuntimeError("a hook"), page(cache_control=FRESH))
    site.origin.hold()
    waiting = [asyncio.ensure_future(site.get()) for _ in range(3)]
    await turns(5)
    site.origin.release()
    first, *others = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(first, RuntimeError)
    assert all(isinstance(other, Answer) for other in others)


# ---------------------------------------------------------------- clients that leave


async def leave(task: asyncio.Task[Answer]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_followers_are_served_when_the_leader_leaves(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    site.origin.hold()
    leader = asyncio.ensure_future(site.get())
    await turns(5)
    followers = [asyncio.ensure_future(site.get()) for _ in range(5)]
    await turns(5)
    await leave(leader)
    site.origin.release()
    assert {(await follower).verdict for follower in followers} == {"collapsed"}
    assert site.fetches == 1


async def test_a_fetch_ends_when_nobody_waits(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    site.origin.hold()
    clients = [asyncio.ensure_future(site.get()) for _ in range(3)]
    await turns(5)
    for client in clients:
        await leave(client)
    await site.cache.settled()
    assert not site.tiers[0].entries
    assert not site.cache.sharing._flights
    site.origin.release()
    assert (await site.get()).verdict == "miss"


async def test_a_private_answer_is_closed_when_its_client_has_left(site: Site) -> None:
    chunks = Chunks(b"x")
    site.origin.will(Response(200, Headers.of(("Cache-Control", "private")), chunks.body()))
    site.origin.hold()
    leader = asyncio.ensure_future(site.get())
    await turns(5)
    follower = asyncio.ensure_future(site.get())
    await turns(5)
    await leave(leader)
    site.origin.will(
        Response(200, Headers.of(("Cache-Control", "private")), chunks.body()),
        page("own", cache_control="private"),
    )
    site.origin.release()
    assert await text(await follower) == "own"
    assert chunks.closed == 1


async def test_closing_ends_what_is_under_way(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    site.origin.hold()
    client = asyncio.ensure_future(site.get())
    await turns(5)
    await site.cache.close()
    with pytest.raises(UpstreamError):
        await client


# ---------------------------------------------------------------- large and broken bodies


def stream(chunks: Chunks, length: int | None = None, **fields: str) -> Response:
    head = page(**fields)
    if length is not None:
        head.headers.add("Content-Length", str(length))
    return Response(head.status, head.headers, chunks.body(length))


async def test_a_body_in_pieces_is_stored_whole(site: Site) -> None:
    site.origin.will(stream(Chunks(b"a" * 10, b"b" * 10), cache_control=FRESH))
    assert len(await text(await site.get())) == 20
    hit = await site.get()
    assert (hit.verdict, len(await text(hit))) == ("hit", 20)
    assert hit.response.headers.get("content-length") == "20"


@pytest.mark.parametrize("length", [None, 2_000_000])
async def test_too_large_a_body_streams_and_is_not_stored(site: Site, length: int | None) -> None:
    chunks = Chunks(*[b"x" * 100_000] * 20, gated=True)
    site.origin.will(stream(chunks, length, cache_control=FRESH))
    chunks.let(12)
    answer = await site.get()
    assert chunks.sent <= 12  # the rest has not even been sent
    chunks.let(20)
    assert len(await text(answer)) == 2_000_000
    await answer.response.body.close()
    await site.cache.settled()
    assert not site.tiers[0].entries
    site.origin.will(page())
    assert (await site.get()).verdict == "pass"


async def test_a_range_of_what_is_too_large_comes_from_the_origin(site: Site) -> None:
    chunks = Chunks(b"x")
    part = page("part", status=206, content_range="bytes 0-3/2000000")
    site.origin.will(stream(chunks, 2_000_000, cache_control=FRESH), part)
    answer = await site.get(range="bytes=0-3")
    assert (answer.response.status, await text(answer)) == (206, "part")
    assert chunks.closed == 1
    assert site.origin.requests[1].headers.get("range") == "bytes=0-3"


async def test_followers_do_not_wait_for_what_is_too_large(site: Site) -> None:
    site.origin.will(stream(Chunks(b"x" * 2_000_000), 2_000_000, cache_control=FRESH), page("own"))
    site.origin.hold()
    leader = asyncio.ensure_future(site.get())
    follower = asyncio.ensure_future(site.get())
    await turns(5)
    site.origin.release()
    assert await text(await follower) == "own"
    assert len(await text(await leader)) == 2_000_000


@pytest.mark.parametrize("length", [None, 600_000])
async def test_a_large_body_reaches_the_leader_as_it_comes_in(
    site: Site, length: int | None
) -> None:
    chunks = Chunks(*[b"x" * 100_000] * 6, gated=True)
    site.origin.will(stream(chunks, length, cache_control=FRESH))
    chunks.let(3)
    leader = await site.get()
    follower = asyncio.ensure_future(site.get())
    body = aiter(leader.response.body)
    got = len(await anext(body)) + len(await anext(body)) + len(await anext(body))
    assert got == 300_000
    assert not follower.done()
    chunks.let(4)
    got += sum([len(chunk) async for chunk in body])
    await leader.response.body.close()
    assert got == 600_000
    assert ((await follower).verdict, site.fetches) == ("collapsed", 1)
    await site.cache.settled()
    assert (await site.get()).verdict == "hit"


async def test_a_client_that_has_all_bytes_and_closes_does_not_stop_the_store(site: Site) -> None:
    chunks = Chunks(*[b"x" * 100_000] * 3, gated=True)
    site.origin.will(stream(chunks, 300_000, cache_control=FRESH))
    chunks.let(3)
    leader = await site.get()
    body = aiter(leader.response.body)
    for _ in range(3):
        await anext(body)
    await leader.response.body.close()
    chunks.let(1)
    await site.cache.settled()
    assert (await site.get()).verdict == "hit"


async def test_a_large_fetch_ends_when_its_only_client_leaves(site: Site) -> None:
    chunks = Chunks(*[b"x" * 100_000] * 6, gated=True)
    site.origin.will(stream(chunks, 600_000, cache_control=FRESH))
    chunks.let(3)
    leader = await site.get()
    await leader.response.body.close()
    await site.cache.settled()
    assert chunks.closed == 1
    assert not site.tiers[0].entries


async def test_a_large_fetch_goes_on_for_a_follower(site: Site) -> None:
    chunks = Chunks(*[b"x" * 100_000] * 6, gated=True)
    site.origin.will(stream(chunks, 600_000, cache_control=FRESH))
    chunks.let(3)
    leader = await site.get()
    follower = asyncio.ensure_future(site.get())
    await turns(5)
    await leader.response.body.close()
    chunks.let(10)
    assert len(await text(await follower)) == 600_000


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("how", ["breaks", "short"])
async def test_a_body_that_ends_early_is_never_stored(site: Site, pieces: int, how: str) -> None:
    chunks = Chunks(*[b"x" * 100_000] * pieces, breaks=how == "breaks")
    length = None if how == "breaks" else pieces * 100_000 + 1
    site.origin.will(stream(chunks, length, cache_control=FRESH), page("fine", cache_control=FRESH))
    with pytest.raises(UpstreamError) as caught:
        await text(await site.get())
    assert caught.value.error == "http_response_incomplete"
    await site.cache.settled()
    assert not site.tiers[0].entries
    assert await text(await site.get()) == "fine"


async def test_a_body_that_ends_early_gives_way_to_a_stale_copy(site: Site) -> None:
    chunks = Chunks(b"x", breaks=True)
    site.origin.will(page(cache_control=FRESH), stream(chunks, cache_control=FRESH))
    await site.get()
    site.clock.advance(61)
    answer = await site.get()
    assert (answer.verdict, await text(answer)) == ("stale", "page")


async def test_a_body_that_a_hook_made_counts_by_its_own_length(site: Site) -> None:
    site.origin.will(page("edited", cache_control=FRESH, content_length="4"))
    assert await text(await site.get()) == "edited"
    assert (await site.get()).response.headers.get("content-length") == "6"


# ---------------------------------------------------------------- tiers


async def test_what_lies_deep_moves_up(deep_site: Site) -> None:
    site = deep_site
    site.origin.will(page(cache_control=FRESH, vary="Accept-Language"))
    await site.get(accept_language="de")
    await site.cache.settled()
    memory, disk = site.tiers
    assert memory.entries == disk.entries
    memory.entries.clear()
    answer = await site.get(accept_language="de")
    assert answer.status == "edgeproxy; hit; ttl=60; detail=disk_promoted"
    assert memory.entries == disk.entries
    assert site.at_once(accept_language="de").verdict == "hit"


async def test_variants_survive_a_restart(deep_site: Site, clock: Clock) -> None:
    def origin(request: Request) -> Response:
        return page(request.headers.get("x") or "", cache_control=FRESH, vary="X")

    deep_site.origin.will(origin)
    await deep_site.get(x="1")
    await deep_site.get(x="2")
    await deep_site.cache.close()
    tiers = [DictTier(), deep_site.tiers[1]]
    after = Site(
        clock, FakeOrigin(clock), tiers, Cache(tiers, max_object_size=1_000_000, now=clock)
    )
    assert await text(await after.get(x="1")) == "1"
    assert await text(await after.get(x="2")) == "2"
    assert after.fetches == 0


async def test_a_client_does_not_wait_for_slow_tiers_to_store(deep_site: Site) -> None:
    deep_site.origin.will(page(cache_control=FRESH))
    answers = await together(deep_site, 20)
    assert deep_site.fetches == 1
    assert len(answers) == 20


async def test_a_tier_that_raises_costs_nothing_but_itself(clock: Clock) -> None:
    tiers: list[DictTier] = [BrokenTier("broken"), DictTier("good")]
    origin = FakeOrigin(clock)
    site = Site(clock, origin, tiers, Cache(tiers, max_object_size=1000, now=clock))
    origin.will(page(cache_control=FRESH))
    await site.get()
    assert (await site.get()).status == "edgeproxy; hit; ttl=60; detail=good"


async def test_without_tiers_requests_still_share_a_fetch(clock: Clock) -> None:
    origin = FakeOrigin(clock)
    site = Site(clock, origin, [], Cache([], max_object_size=1000, now=clock))
    origin.will(page(cache_control=FRESH))
    answers = await together(site, 10)
    assert (len(answers), site.fetches) == (10, 1)


async def test_forget_drops_a_key_with_all_its_variants(deep_site: Site) -> None:
    site = deep_site
    site.origin.will(page(cache_control=FRESH, vary="X"))
    await site.get(x="1")
    await site.get(x="2")
    await site.cache.settled()
    await site.cache.forget("key")
    assert not site.tiers[0].entries
    assert not site.tiers[1].entries


async def test_forget_reaches_what_is_being_fetched(site: Site) -> None:
    site.origin.will(page("old", cache_control=FRESH), page("new", cache_control=FRESH))
    site.origin.hold()
    before = asyncio.ensure_future(site.get())
    await turns(5)
    await site.cache.forget("key")
    after = asyncio.ensure_future(site.get())
    await turns(5)
    site.origin.release()
    assert [await text(await before), await text(await after)] == ["old", "new"]
    assert await text(await site.get()) == "new"


# ---------------------------------------------------------------- clocks


async def test_an_entry_from_the_future_is_stale(site: Site) -> None:
    site.origin.will(page("old", cache_control=FRESH), page("new", cache_control=FRESH))
    await site.get()
    site.clock.advance(-86400)
    assert await text(await site.get()) == "new"
    assert (await site.get()).verdict == "hit"


async def test_a_small_step_back_changes_nothing(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))
    await site.get()
    site.clock.advance(-3)
    hit = await site.get()
    assert (hit.verdict, hit.response.headers.get("age")) == ("hit", "0")


async def test_a_step_ahead_ends_freshness(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, etag='"a"'))
    await site.get()
    site.clock.advance(86400)
    await site.get()
    assert site.fetches == 2


async def test_a_step_back_does_not_lengthen_the_rest_of_an_origin(site: Site) -> None:
    settings = rule()
    site.origin.will(page(cache_control=FRESH), down())
    await site.get(rule=settings)
    site.clock.advance(61)
    await site.get(rule=settings)
    site.clock.advance(-86400)
    await site.get(rule=settings)
    await site.cache.settled()
    assert site.fetches == 3


# ---------------------------------------------------------------- an eager loop


def test_everything_holds_where_tasks_start_at_once(clock: Clock) -> None:
    """mitmproxy runs its loop with an eager task factory: a task may end before it is returned."""

    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        tiers = [DictTier()]
        cache = Cache(tiers, max_object_size=1000, now=clock)

        async def at_once(request: Request) -> Response:
            return page(cache_control=FRESH)

        request = Request("GET", "site.example", "/")
        first = await cache.read_through(request, "key", None, at_once)
        second = await cache.read_through(request, "key", None, at_once)
        assert (first.verdict, second.verdict) == ("miss", "hit")
        assert not cache.sharing._flights
        await cache.close()

    asyncio.run(run())
