"""Purging by marks: against a slow model, while fetches are under way, across restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.caching import contents
from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.purges import (
    ANY_TAG,
    EVERYTHING,
    MAX_TAGS,
    Changes,
    Mark,
    Purges,
    Selection,
    public_url,
    response_tags,
)
from edgeproxy.caching.tiers import Listed, StoredResponse
from edgeproxy.caching.upkeep import SLOWEST_FETCH_S
from edgeproxy.http import Headers, Request

from .conftest import Clock, FakeOrigin, Site, down, page, text

FRESH = "max-age=600"


def stored(url: str = "a.org/", *tags: str, asked_s: float = 100.0) -> StoredResponse:
    return StoredResponse(
        key=url, status=200, headers=Headers(), body=b"x", stored_at_s=asked_s,
        requested_at_s=asked_s, fresh_for_s=600.0, tags=tags, url=url,
    )  # fmt: skip


class Kept:
    """What a tier would have written down."""

    def __init__(self) -> None:
        self.marks: dict[tuple[str, str], Mark] = {}

    def save(self, changes: Changes) -> None:
        for mark in changes.gone:
            old = self.marks.get((mark.kind, mark.value))
            if old and old.hard_s <= mark.hard_s and old.soft_s <= mark.soft_s:
                del self.marks[mark.kind, mark.value]
        for name, mark in changes.new.items():
            old = self.marks.get(name, Mark(*name, 0, 0))
            self.marks[name] = Mark(
                *name, max(old.hard_s, mark.hard_s), max(old.soft_s, mark.soft_s)
            )


# ---------------------------------------------------------------- against a model

HOSTS = ("a.org", "b.org")
PATHS = ("/", "/x", "/x/", "/x/y", "/xy", "/x/y?q=1", "/x?q")
URLS = tuple(host + path for host in HOSTS for path in PATHS)
TAGS = ("red", "blue", "Red")

selections = st.one_of(
    st.sampled_from([*URLS, *PATHS]).map(lambda url: Selection(urls=(url,))),
    st.sampled_from(["/", "/x", "/x/", "/x/y", "a.org", "b.org/x", "b.org/x/"]).map(
        lambda prefix: Selection(prefixes=(prefix,))
    ),
    st.sampled_from(HOSTS).map(lambda host: Selection(hosts=(host,))),
    st.sampled_from(TAGS).map(lambda tag: Selection(tags=(tag,))),
    st.just(EVERYTHING),
)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("store"), st.sampled_from(URLS), st.lists(st.sampled_from(TAGS), unique=True)
        ),
        st.tuples(st.just("purge"), selections, st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 7.0]), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=40,
)


def matches(selection: Selection, url: str, tags: Sequence[str]) -> bool:
    """The slow way: what a person would say."""
    parts = urlsplit("//" + url)
    path = parts.path

    def below(prefix: str) -> bool:
        host, _, rest = prefix.partition("/")
        if host and host != parts.netloc:
            return False
        wanted = "/" + rest.rstrip("/")
        return wanted == "/" or path == wanted or path.startswith(wanted + "/")

    return (
        selection.everything
        or any(one == (url if not one.startswith("/") else url[len(parts.netloc) :])
               for one in selection.urls)
        or any(below(one) for one in selection.prefixes)
        or parts.netloc in selection.hosts
        or bool(set(tags) & set(selection.tags))
    )  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(steps, st.booleans())
def test_marks_are_what_a_slow_model_says(todo: list[Any], few: bool) -> None:
    clock, kept = Clock(), Kept()
    limit = 2 if few else 1000
    purges = Purges(clock, max_marks=limit)
    entries: list[tuple[StoredResponse, int]] = []
    done: list[tuple[int, Selection, bool]] = []
    for turn, (what, one, other) in enumerate(todo):
        if what == "store":
            entries.append((stored(one, *other, asked_s=purges.stamp()), turn))
        elif what == "purge":
            kept.save(purges.add(one, soft=other))
            done.append((turn, one, other))
        elif what == "wait":
            clock.advance(one)
        else:
            clock.advance(1)
            purges = Purges(clock, max_marks=limit)
            kept.save(purges.merge(kept.marks.values()))
        for entry, born in entries:
            after = [
                soft for at, selection, soft in done
                if at > born and matches(selection, entry.url, entry.tags)
            ]  # fmt: skip
            seen = purges.seen(entry)
            if False in after:
                assert seen is None
            elif after:
                assert seen is None or seen.fresh_for_s <= clock() - entry.stored_at_s
                assert few or seen is not None
            elif not few:
                assert seen is entry
        assert all(len(table) <= limit for table in purges._tables.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["stamp", "purge"]), st.floats(-1e5, 1e5)), max_size=20))
def test_time_that_runs_backwards_uncovers_nothing(todo: list[tuple[str, float]]) -> None:
    clock = Clock()
    purges = Purges(clock)
    stamps: list[tuple[float, int]] = []
    last = -1
    for turn, (what, by_s) in enumerate(todo):
        if what == "stamp":
            stamps.append((purges.stamp(), turn))
        else:
            purges.add(EVERYTHING, soft=False)
            last = turn
        clock.advance(by_s)
        for asked_s, born in stamps:
            assert (purges.seen(stored(asked_s=asked_s)) is None) == (born < last)


def test_an_entry_from_the_future_lies_under_every_mark() -> None:
    clock = Clock()
    purges = Purges(clock)
    purges.add(Selection(tags=("t",)), soft=False)
    assert purges.seen(stored("a.org/", "t", asked_s=clock() + 3600)) is None
    assert purges.seen(stored("a.org/", "u", asked_s=clock() + 3600)) is not None


def test_one_tag_among_100_000_costs_the_same_as_among_ten() -> None:
    clock = Clock()
    purges = Purges(clock)
    entries = [
        stored(f"a.org/{n}", f"tag-{n}", "all", asked_s=purges.stamp()) for n in range(100_000)
    ]
    began_s = time.perf_counter()
    changes = purges.add(Selection(tags=("tag-77",)), soft=False)
    took_s = time.perf_counter() - began_s
    assert [mark.value for mark in changes.new.values()] == ["tag-77"]  # one mark, nothing else
    assert len(purges.marks()) == 1
    print(f"one tag among 100,000: {took_s * 1e6:.0f} us")
    assert took_s < 0.05
    assert [n for n, entry in enumerate(entries) if purges.seen(entry) is None] == [77]


def test_without_marks_a_lookup_pays_nothing() -> None:
    purges = Purges(Clock())
    entry = stored()
    assert purges.is_empty
    assert purges.seen(entry, "a.org/") is entry
    purges.add(EVERYTHING, soft=False)
    purges.drop(purges.marks())
    assert purges.is_empty


def test_a_mark_of_everything_takes_the_place_of_all_before() -> None:
    purges = Purges(Clock())
    for number in range(100):
        purges.add(Selection(urls=(f"/{number}",), tags=(f"{number}",)), soft=bool(number % 2))
    changes = purges.add(EVERYTHING, soft=False)
    assert [mark.kind for mark in purges.marks()] == ["everything"]
    assert len(changes.gone) == 200


def test_a_soft_mark_of_everything_leaves_the_hard_ones() -> None:
    purges = Purges(Clock())
    purges.add(Selection(urls=("/x",)), soft=False)
    purges.add(Selection(urls=("/y",)), soft=True)
    purges.add(EVERYTHING, soft=True)
    assert sorted(mark.kind for mark in purges.marks()) == ["everything", "url"]


@pytest.mark.parametrize("soft", [True, False])
def test_a_mark_that_damage_made_endless_is_not_heeded(soft: bool) -> None:
    purges = Purges(Clock())
    purges.merge([Mark("url", "/", float("inf"), 0), Mark("no such kind", "/", 1, 1)])
    assert purges.is_empty
    purges.add(EVERYTHING, soft=soft)
    assert not purges.is_empty


# ---------------------------------------------------------------- what people write


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Example.org/a", "example.org/a"),
        ("http://example.org", "example.org/"),
        ("//example.org:8080/a?x=1#part", "example.org/a?x=1"),
        ("example.org/a/../b", "example.org/b"),
        ("/a/%7euser", "/a/~user"),
        ("/a?", "/a?"),
        ("https://[::1]:8080/x", "[::1]/x"),
        ("example.org/?u=//other.org/", "example.org/?u=//other.org/"),
    ],
)
def test_urls_are_read_as_requests_are(text: str, url: str) -> None:
    assert public_url(text) == url


@pytest.mark.parametrize(
    "text", ["", "ftp://a.org/", "https:///x", "/a b", "/ä", "/%zz", "/../x", "exa mple.org/", "//"]
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Selection(urls=(text,))


def test_an_empty_selection_means_nothing_and_is_refused() -> None:
    for wrong in ({}, {"tags": ("",)}, {"tags": (ANY_TAG,)}, {"prefixes": ("/a?b",)}):
        with pytest.raises(ValueError, match=r"."):
            Selection(**wrong)  # type: ignore[arg-type]


def test_tags_come_from_three_fields_and_the_policy() -> None:
    headers = Headers.of(
        ("Cache-Tag", "a, b ,,"), ("cache-tag", "c"), ("Surrogate-Key", "d  e a"),
        ("Cache-Groups", '"f g", "h\\"i";x=1, j'),
    )  # fmt: skip
    assert response_tags(headers, ("p",)) == ("p", "a", "b", "c", "d", "e", "f g", 'h"i')


def test_too_many_tags_are_never_fewer_than_there_were() -> None:
    headers = Headers.of(("Cache-Tag", ",".join(f"t{n}" for n in range(MAX_TAGS + 1))))
    tags = response_tags(headers)
    assert len(tags) == MAX_TAGS + 1
    assert tags[-1] == ANY_TAG
    purges = Purges(Clock())
    purges.add(Selection(tags=(f"t{MAX_TAGS}",)), soft=False)
    assert purges.seen(stored("a.org/", *tags, asked_s=1.0)) is None


# ---------------------------------------------------------------- reading through


async def until(claim: Callable[[], object]) -> None:
    """Let others go on until `claim` holds."""
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - what it waits for knows no events
            await asyncio.sleep(0)


def selected(**names: Any) -> Selection:
    return Selection(**{name: (value,) for name, value in names.items()})


async def test_a_purge_drops_and_an_invalidation_asks_for_news(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH, etag='"1"'))
    await site.get()
    await site.cache.invalidate(selected(urls="/"))
    site.origin.will(page(status=304, etag='"1"'))
    answer = await site.get()
    assert answer.verdict == "revalidated"
    assert site.origin.requests[-1].headers.get("if-none-match") == '"1"'
    assert (await site.get()).verdict == "hit"
    await site.cache.purge(selected(urls="/"))
    site.origin.will(page("new", cache_control=FRESH))
    answer = await site.get()
    assert (answer.verdict, await text(answer)) == ("miss", "new")
    assert "if-none-match" not in site.origin.requests[-1].headers
    assert (await site.get()).verdict == "hit"


@pytest.mark.parametrize(
    "selection",
    [
        selected(urls="https://site.example/"), selected(prefixes="/"), selected(tags="one"),
        selected(hosts="SITE.example:8080"), selected(tags="rule's"), EVERYTHING,
    ],
)  # fmt: skip
async def test_every_selection_finds_the_answer(site: Site, selection: Selection) -> None:
    site.origin.will(page(cache_control=FRESH, cache_tag="one,two"))
    settings = CacheRule(tags=("rule's",))
    await site.get(rule=settings)
    assert (await site.get(rule=settings)).verdict == "hit"
    await site.cache.purge(selection)
    assert (await site.get(rule=settings)).verdict == "miss"


async def test_what_is_for_caches_is_kept_from_clients(site: Site) -> None:
    site.origin.will(
        page(cache_control=FRESH, cache_tag="a", surrogate_key="b", cache_groups='"c"')
    )
    for _ in range(2):
        headers = (await site.get()).response.headers
        assert "cache-tag" not in headers
        assert "surrogate-key" not in headers
        assert headers.get("cache-groups") == '"c"'
    site.cache = Cache(site.tiers, max_object_size=1000, pass_tags=True, now=site.clock)
    headers = (await site.get("other")).response.headers
    assert headers.get("cache-tag") == "a"


async def test_a_purge_holds_against_a_fetch_under_way(site: Site) -> None:
    site.origin.will(page("old", cache_control=FRESH), page("new", cache_control=FRESH))
    site.origin.hold()
    before = asyncio.ensure_future(site.get())
    await until(lambda: site.fetches)
    await site.cache.purge(selected(urls="/"))
    after = asyncio.ensure_future(site.get())
    await until(lambda: site.fetches == 2)
    site.origin.release()
    assert await text(await before) == "old"  # it had asked before
    assert await text(await after) == "new"
    await site.cache.settled()
    answer = await site.get()
    assert (answer.verdict, await text(answer)) == ("hit", "new")


async def test_a_tag_purged_under_way_is_not_stored_nor_shared(site: Site) -> None:
    """Its tags are known only when it comes in."""
    site.origin.will(page("old", cache_control=FRESH, cache_tag="t"), page("new"))
    site.origin.hold()
    asked = [asyncio.ensure_future(site.get()) for _ in range(5)]
    await until(lambda: site.fetches)
    await site.cache.purge(selected(tags="t"))
    asked += [asyncio.ensure_future(site.get()) for _ in range(5)]
    await asyncio.sleep(0)
    site.origin.release()
    texts = [await text(answer) for answer in await asyncio.gather(*asked)]
    await site.cache.settled()
    assert set(texts[5:]) == {"new"}
    assert all(entry.tags != ("t",) for entry in site.tiers[0].entries.values())


async def test_a_revalidation_under_way_does_not_bring_back_what_was_purged(site: Site) -> None:
    settings = CacheRule.model_validate({"stale_while_revalidate": "1h"})
    site.origin.will(page("old", cache_control="max-age=1", etag='"1"'))
    await site.get(rule=settings)
    site.clock.advance(5)
    site.origin.will(page(status=304, etag='"1"', cache_control=FRESH), page("new"))
    site.origin.hold()
    assert (await site.get(rule=settings)).verdict == "stale"
    await until(lambda: site.fetches == 2)
    await site.cache.purge(EVERYTHING)
    site.origin.release()
    await site.cache.settled()
    site.origin.will(page("new", cache_control=FRESH))
    assert await text(await site.get(rule=settings)) == "new"


async def test_what_was_purged_does_not_stand_in_for_a_failing_origin(site: Site) -> None:
    settings = CacheRule.model_validate({"stale_if_error": "7d"})
    site.origin.will(page("old", cache_control="max-age=1"))
    await site.get(rule=settings)
    site.clock.advance(5)
    site.origin.will(down())
    site.origin.hold()
    under_way = asyncio.ensure_future(site.get(rule=settings))
    await until(lambda: site.fetches == 2)
    await site.cache.purge(EVERYTHING)
    site.origin.release()
    with pytest.raises(Exception, match="nobody listens"):
        await under_way


async def test_what_was_invalidated_stands_in_where_the_rule_allows(site: Site) -> None:
    settings = CacheRule.model_validate({"stale_while_revalidate": "1m", "stale_if_error": "7d"})
    site.origin.will(page("old", cache_control=FRESH))
    await site.get(rule=settings)
    await site.cache.invalidate(EVERYTHING)
    site.origin.will(page("new", cache_control=FRESH))
    answer = await site.get(rule=settings)
    assert (answer.verdict, await text(answer)) == ("stale", "old")
    await site.cache.settled()
    assert await text(await site.get(rule=settings)) == "new"
    await site.cache.invalidate(EVERYTHING)
    site.clock.advance(120)  # longer than it may be served while it is asked about
    site.origin.will(down())
    assert (await site.get(rule=settings)).verdict == "stale"


async def test_a_deeper_tier_is_purged_as_well(deep_site: Site) -> None:
    site = deep_site
    site.origin.will(page("old", cache_control=FRESH), page("new", cache_control=FRESH))
    await site.get()
    site.tiers[0].entries.clear()
    await site.cache.purge(EVERYTHING)
    assert await text(await site.get()) == "new"


async def test_the_url_that_counts_is_the_public_one(site: Site) -> None:
    site.origin.will(page(cache_control=FRESH))

    async def get(url: str) -> str:
        request = Request("GET", "origin.example", "/base/")
        answer = await site.cache.read_through(request, "k", None, site.origin, url=url)
        return answer.verdict

    assert [await get("www.a.org/"), await get("www.a.org/"), await get("b.org/")] == [
        "miss", "hit", "hit",
    ]  # fmt: skip
    await site.cache.purge(selected(urls="https://origin.example/base/"))
    assert await get("b.org/") == "hit"
    await site.cache.purge(selected(urls="https://b.org/"))
    assert await get("b.org/") == "miss"
    await site.cache.purge(selected(hosts="b.org"))
    assert await get("www.a.org/") == "miss"  # it was stored for the other


# ---------------------------------------------------------------- after a publish


async def test_what_comes_again_unchanged_keeps_its_validators(site: Site) -> None:
    site.origin.will(page("same", cache_control=FRESH, etag='"1"', last_modified="x"))
    await site.get()
    await site.cache.invalidate(EVERYTHING)
    site.origin.will(page("same", cache_control=FRESH, etag='"2"', x_new="y"))
    answer = await site.get(if_none_match='"1"')
    assert answer.response.status == 304
    assert "detail=unchanged" in answer.status
    assert answer.response.headers.get("etag") == '"1"'
    assert answer.response.headers.get("x-new") == "y"
    assert (await site.get(if_none_match='"1"')).response.status == 304
    # The origin is asked with what it calls the page by now, and its news changes nothing here.
    await site.cache.invalidate(EVERYTHING)
    site.origin.will(page(status=304, etag='"2"', cache_control=FRESH))
    answer = await site.get(if_none_match='"1"')
    assert site.origin.requests[-1].headers.get("if-none-match") == '"2"'
    assert (answer.response.status, answer.verdict) == (304, "revalidated")
    await site.cache.invalidate(EVERYTHING)
    site.origin.will(page("other", cache_control=FRESH, etag='"3"'))
    answer = await site.get(if_none_match='"1"')
    assert (answer.response.status, answer.response.headers.get("etag")) == (200, '"3"')


@pytest.mark.parametrize("change", [{"content_type": "text/plain"}, {"content_encoding": "gzip"}])
async def test_the_same_bytes_of_another_kind_are_another_page(
    site: Site, change: dict[str, str]
) -> None:
    site.origin.will(page(cache_control=FRESH, etag='"1"', content_type="text/html"))
    await site.get()
    await site.cache.invalidate(EVERYTHING)
    site.origin.will(page(**{"cache_control": FRESH, "etag": '"2"', **change}))
    assert (await site.get()).response.headers.get("etag") == '"2"'


async def test_what_is_gone_is_kept_as_long_as_the_rule_says(site: Site) -> None:
    settings = CacheRule.model_validate({"ttl": "30d", "keep_gone": "7d", "stale_if_error": 0})
    site.origin.will(page("asset", etag='"1"'))
    await site.get(rule=settings)
    site.clock.advance(86400 * 31)
    site.origin.will(page("gone", status=404))
    answer = await site.get(rule=settings)
    assert (answer.response.status, await text(answer)) == (200, "asset")
    assert "detail=gone" in answer.status
    assert answer.verdict == "stale"
    fetches = site.fetches
    assert (await site.get(rule=settings)).verdict == "hit"
    assert site.fetches == fetches
    site.clock.advance(86400 * 6.9)
    assert (await site.get(rule=settings)).response.status == 200
    assert site.fetches == fetches + 1
    site.clock.advance(86400)
    assert (await site.get(rule=settings)).response.status == 404


async def test_what_comes_back_is_not_gone_any_more(site: Site) -> None:
    settings = CacheRule.model_validate({"ttl": "1m", "keep_gone": "1h"})
    site.origin.will(page("asset", etag='"1"'))
    await site.get(rule=settings)
    for _ in range(3):
        site.clock.advance(3000)
        site.origin.will(page(status=410))
        assert (await site.get(rule=settings)).response.status == 200
        site.clock.advance(120)
        site.origin.will(page(status=304, etag='"1"'))
        assert (await site.get(rule=settings)).verdict == "revalidated"


async def test_what_was_purged_is_not_kept_though_gone(site: Site) -> None:
    settings = CacheRule.model_validate({"ttl": "1m", "keep_gone": "1h"})
    site.origin.will(page("asset"))
    await site.get(rule=settings)
    await site.cache.purge(EVERYTHING)
    site.origin.will(page(status=404))
    assert (await site.get(rule=settings)).response.status == 404


# ---------------------------------------------------------------- written down, swept up


@dataclass
class Shelf:
    """What lasts: entries and marks."""

    entries: dict[str, StoredResponse] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)


class LastingTier:
    """A tier whose shelf outlives it. With `fails`, nothing can be written down."""

    name = "disk"

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.stored = shelf, shelf.entries
        self.fails = False
        self.heard: Callable[[Sequence[Mark]], None] = lambda marks: None

    def get(self, id: str) -> StoredResponse | None:
        return None

    def stats(self) -> dict[str, int]:
        return {"objects": len(self.stored), "bytes": 0, "max_bytes": 0}

    async def load(self, id: str) -> StoredResponse | None:
        await self.read_marks()
        return self.stored.get(id)

    async def put(self, id: str, entry: StoredResponse) -> None:
        self.stored[id] = entry

    async def remove(self, id: str) -> None:
        self.stored.pop(id, None)

    def follow_marks(self, heard: Callable[[Sequence[Mark]], None]) -> None:
        self.heard = heard

    async def read_marks(self) -> None:
        self.heard(list(self.shelf.kept.marks.values()))

    async def save_marks(self, new: Sequence[Mark], gone: Sequence[Mark] = ()) -> bool:
        if self.fails:
            return False
        self.shelf.kept.save(Changes({(m.kind, m.value): m for m in new}, list(gone)))
        return True


class ListedTier(LastingTier):
    """The same, and it can be listed."""

    async def entries(self) -> AsyncIterator[Sequence[Listed]]:
        yield [Listed(entry, len(entry.body)) for entry in self.stored.values()]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def cache_over(shelf: Shelf, clock: Clock, kind: type[LastingTier] = LastingTier) -> Cache:
    return Cache([kind(shelf)], max_object_size=1000, now=clock)


async def get(cache: Cache, origin: FakeOrigin, path: str = "/") -> str:
    request = Request("GET", "site.example", path)
    answer = await cache.read_through(request, path, None, origin)
    await cache.settled()
    return answer.verdict


async def test_a_purge_outlasts_a_restart(shelf: Shelf, clock: Clock) -> None:
    origin = FakeOrigin(clock, [page(cache_control=FRESH)])
    cache = cache_over(shelf, clock)
    await cache.upkeep.open()
    for path in ("/a", "/b"):
        assert await get(cache, origin, path) == "miss"
    assert await cache.purge(selected(urls="/a")) == []
    await cache.close()
    again = cache_over(shelf, clock)
    await again.upkeep.open()
    assert await get(again, origin, "/a") == "miss"
    assert await get(again, origin, "/b") == "hit"
    await again.close()


async def test_a_tier_that_cannot_write_it_down_is_named_and_caught_up(
    shelf: Shelf, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.caching.upkeep.READ_EVERY_S", 0.001)
    cache = cache_over(shelf, clock)
    await cache.upkeep.open()
    (tier,) = cache.levels.tiers
    assert isinstance(tier, LastingTier)
    tier.fails = True
    assert await cache.purge(EVERYTHING) == ["disk"]
    assert not shelf.kept.marks
    tier.fails = False
    await until(lambda: shelf.kept.marks)
    await cache.close()


async def test_another_process_hears_of_it(shelf: Shelf, clock: Clock) -> None:
    origin = FakeOrigin(clock, [page(cache_control=FRESH)])
    one, other = cache_over(shelf, clock), cache_over(shelf, clock)
    for cache in (one, other):
        await cache.upkeep.open()
    assert [await get(one, origin), await get(other, origin)] == ["miss", "hit"]
    await one.purge(EVERYTHING)
    assert await get(other, origin) == "miss"
    for cache in (one, other):
        await cache.close()


async def test_a_sweep_removes_what_is_purged_and_forgets_old_marks(
    shelf: Shelf, clock: Clock
) -> None:
    origin = FakeOrigin(clock, [page(cache_control=FRESH)])
    cache = cache_over(shelf, clock, ListedTier)
    for path in ("/a", "/b", "/c"):
        await get(cache, origin, path)
    await cache.purge(selected(urls="/a"))
    await cache.invalidate(selected(urls="/b"))
    assert await cache.upkeep.sweep() == 1
    assert sorted(shelf.entries) == ["/b", "/c"]
    assert len(cache.purges.marks()) == 2  # a fetch from before may still be under way
    clock.advance(SLOWEST_FETCH_S + 1)
    assert await cache.upkeep.sweep() == 0
    assert [mark.value for mark in cache.purges.marks()] == ["/b"]  # it is stale for as long as
    assert len(shelf.kept.marks) == 1
    await get(cache, origin, "/b")
    clock.advance(SLOWEST_FETCH_S + 1)
    await cache.upkeep.sweep()
    assert cache.purges.is_empty
    assert not shelf.kept.marks


async def test_a_sweep_leaves_what_was_fetched_anew_while_it_read_its_list(
    shelf: Shelf, clock: Clock
) -> None:
    class SlowlyListed(LastingTier):
        async def entries(self) -> AsyncIterator[Sequence[Listed]]:
            batch = [Listed(entry, len(entry.body)) for entry in self.stored.values()]
            await get(cache, origin, "/a")
            yield batch

    origin = FakeOrigin(clock, [page(cache_control=FRESH)])
    cache = cache_over(shelf, clock, SlowlyListed)
    for path in ("/a", "/b"):
        await get(cache, origin, path)
    await cache.purge(EVERYTHING)
    assert await cache.upkeep.sweep() == 1
    assert sorted(shelf.entries) == ["/a"]


async def test_a_lookup_leaves_what_took_the_place_of_what_was_purged(
    shelf: Shelf, clock: Clock
) -> None:
    class SlowlyRead(LastingTier):
        held: asyncio.Event | None = None

        async def load(self, id: str) -> StoredResponse | None:
            entry, held = self.stored.get(id), self.held
            self.held = None
            if held is not None:
                await held.wait()
            return entry

    origin = FakeOrigin(clock, [page(cache_control=FRESH)])
    cache = cache_over(shelf, clock, SlowlyRead)
    await get(cache, origin, "/a")
    await cache.purge(EVERYTHING)
    (tier,) = cache.levels.tiers
    assert isinstance(tier, SlowlyRead)
    tier.held = held = asyncio.Event()
    slow = asyncio.ensure_future(cache.levels.load("/a", Headers(), "identity"))
    await until(lambda: tier.held is None)
    await get(cache, origin, "/a")
    held.set()
    assert (await slow).entry is None
    assert sorted(shelf.entries) == ["/a"]


async def test_a_fetch_slower_than_a_mark_may_last_is_not_stored(site: Site) -> None:
    site.origin.will(page(cache_control="max-age=100000"))
    site.origin.hold()
    under_way = asyncio.ensure_future(site.get())
    await until(lambda: site.fetches)
    site.clock.advance(SLOWEST_FETCH_S + 1)
    site.origin.release()
    await under_way
    await site.cache.settled()
    assert not site.tiers[0].entries


async def test_marks_stay_where_a_tier_cannot_be_listed(shelf: Shelf, clock: Clock) -> None:
    cache = cache_over(shelf, clock)
    await cache.purge(selected(urls="/a"))
    clock.advance(SLOWEST_FETCH_S * 10)
    await cache.upkeep.sweep()
    assert not cache.purges.is_empty


async def test_contents_are_listed_and_checked(shelf: Shelf, clock: Clock) -> None:
    origin = FakeOrigin(clock, [page("text", cache_control=FRESH, cache_tag="t")])
    cache = cache_over(shelf, clock, ListedTier)
    for path in ("/a", "/a/b", "/c"):
        await get(cache, origin, path)
    found = await contents.objects(cache, "/a")
    assert [one["url"] for one in found] == ["site.example/a", "site.example/a/b"]
    assert len(await contents.objects(cache, "https://site.example/", 2)) == 2
    (one,) = await contents.entries_of(cache, "https://site.example/a")
    assert (one["tags"], one["bytes"], one["fresh_for_s"]) == (["t"], 4, 600)
    await cache.purge(selected(urls="/a"))
    assert await contents.entries_of(cache, "/a") == []
    assert contents.stats(cache)["marks"] == {"url": 1}
    (checked,) = await contents.verify(cache)
    assert (checked.objects, checked.damaged) == (3, [])
