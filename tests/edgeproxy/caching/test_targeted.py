"""Targeted cache control (RFC 9213), and what rules change about storing."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.freshness import explicit_lifetime_s, governing
from edgeproxy.caching.rules import jittered_s
from edgeproxy.http import Headers

from .conftest import Clock, DictTier, FakeOrigin, Site, page, text

NOW_S = 1_700_000_000.0


def rule(**settings: Any) -> CacheRule:
    return CacheRule.model_validate(settings)


def headers(**fields: str) -> Headers:
    return Headers.of(*[(name.replace("_", "-"), value) for name, value in fields.items()])


@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        ({"cdn_cache_control": "max-age=60", "cache_control": "max-age=5"}, 60),
        ({"cdn_cache_control": "max-age=60", "expires": "0"}, 60),
        ({"cdn_cache_control": "no-transform", "cache_control": "max-age=5"}, None),
        ({"cdn_cache_control": "", "cache_control": "max-age=5"}, 5),
        ({"cdn_cache_control": 'max-age="60"', "cache_control": "max-age=5"}, 5),
        ({"cdn_cache_control": "max-age=-1", "cache_control": "max-age=5"}, 5),
        ({"cdn_cache_control": "max-age=60, &", "cache_control": "max-age=5"}, 5),
        ({"cdn_cache_control": "Max-Age=60", "cache_control": "max-age=5"}, 5),
        ({"cdn_cache_control": "max-age=99999999999"}, 2**31),
        ({"edgeproxy_cache_control": "max-age=7", "cdn_cache_control": "max-age=60"}, 7),
        ({"edgeproxy_cache_control": "max-age=x", "cdn_cache_control": "max-age=60"}, 60),
    ],
)
def test_the_first_valid_target_governs(fields: dict[str, str], lifetime: int | None) -> None:
    assert explicit_lifetime_s(headers(**fields), NOW_S) == lifetime


def test_a_directive_that_is_false_is_not_there() -> None:
    assert "no-store" not in governing(headers(cdn_cache_control="no-store=?0, max-age=1"))[0]
    assert "no-store" in governing(headers(cdn_cache_control='no-store="x"'))[0]


async def test_a_target_stores_what_browsers_must_not(site: Site) -> None:
    site.origin.will(page(cache_control="no-store", cdn_cache_control="max-age=60"))
    await site.get()
    hit = await site.get()
    assert hit.verdict == "hit"
    assert hit.response.headers.get("cache-control") == "no-store"
    assert hit.response.headers.get("cdn-cache-control") == "max-age=60"


@pytest.mark.parametrize("control", ["no-store", "private", "no-cache", "max-age=0"])
async def test_a_target_forbids_what_browsers_may_keep(site: Site, control: str) -> None:
    site.origin.will(page(cache_control="max-age=60", cdn_cache_control=control))
    await site.get()
    assert (await site.get()).verdict != "hit"


async def test_heuristics_can_be_switched_off(site: Site) -> None:
    site.origin.will(page(last_modified="Tue, 14 Nov 2000 00:00:00 GMT"))
    await site.get("on")
    assert (await site.get("on")).verdict == "hit"
    settings = rule(heuristics=False)
    await site.get("off", rule=settings)
    assert (await site.get("off", rule=settings)).verdict == "miss"


@pytest.mark.parametrize(("status", "control"), [(405, ""), (414, ""), (501, ""), (599, "public")])
async def test_errors_go_by_heuristics_only_if_a_rule_says_so(
    site: Site, status: int, control: str
) -> None:
    fields = {"cache_control": control} if control else {}
    site.origin.will(page(status=status, last_modified="Tue, 14 Nov 2000 00:00:00 GMT", **fields))
    await site.get("off")
    assert (await site.get("off")).verdict != "hit"
    settings = rule(heuristic_errors=True)
    await site.get("on", rule=settings)
    assert (await site.get("on", rule=settings)).verdict == "hit"


async def test_cookies_are_shared_only_if_a_rule_says_so_and_freshness_is_stated(
    site: Site,
) -> None:
    settings = rule(share_cookies=True, ttl="1h")
    site.origin.will(page(cache_control="max-age=60", set_cookie="a=b"))
    await site.get(rule=settings)
    hit = await site.get(rule=settings)
    assert (hit.verdict, hit.response.headers.get("set-cookie")) == ("hit", "a=b")
    site.origin.will(page(set_cookie="a=b"))
    await site.get("unsaid", rule=settings)
    assert (await site.get("unsaid", rule=settings)).verdict == "pass"


def test_jitter_shortens_what_is_left_and_nothing_else() -> None:
    settings = rule(jitter=0.1)
    assert jittered_s(settings, 100, 20, 0.0) == 100
    assert jittered_s(settings, 100, 20, 1.0) == pytest.approx(92)
    assert jittered_s(settings, 10, 20, 1.0) == 10
    assert jittered_s(None, 100, 20, 1.0) == 100


async def test_what_is_stored_together_ends_apart(clock: Clock) -> None:
    chances = iter((0.0, 1.0))
    origin, tiers = FakeOrigin(clock), [DictTier()]
    cache = Cache(tiers, max_object_size=1000, now=clock, chance=lambda: next(chances))
    site = Site(clock, origin, tiers, cache)
    origin.will(page(cache_control="max-age=100"))
    settings = rule(jitter=0.5)
    statuses = [(await site.get(key, rule=settings)).status for key in ("one", "two")]
    assert [status.rpartition("ttl=")[2] for status in statuses] == ["100", "50"]


async def test_the_key_is_shown_if_the_policy_says_so(clock: Clock) -> None:
    origin, tiers = FakeOrigin(clock), [DictTier()]
    cache = Cache(tiers, max_object_size=1000, now=clock, status_key=True)
    site = Site(clock, origin, tiers, cache)
    origin.will(page(cache_control="max-age=100"))
    for _ in range(2):
        answer = await site.get('a "b"\nc\\é')
        assert answer.status.endswith('; key="a \\"b\\" c\\\\\\\\xe9"')


async def test_immutable_is_passed_on(site: Site) -> None:
    control = "max-age=60, immutable"
    site.origin.will(page(cache_control=control))
    await site.get()
    hit = await site.get(cache_control="max-age=0")
    assert (hit.verdict, hit.response.headers.get("cache-control")) == ("hit", control)
    assert await text(hit) == "page"
