"""Answers that the front gives again by itself: they age, and end when what they rest on ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.api import (
    EVERYTHING,
    Exchange,
    Fact,
    Matcher,
    Plugin,
    Response,
    Selection,
    Template,
    hookimpl,
)
from edgeproxy.pages import Pages
from edgeproxy.policy.installed import Installed, Registry
from edgeproxy.policy.installed import installed as all_installed
from edgeproxy.testing import Proxy, Reply, running

from .conftest import small_site

POLICY = """\
version: 1
accelerator: on
trusted_proxies: [127.0.0.1/32]
origins: {site: {url: "https://you.github.io/"}}
experiments: {hero: {weights: {plain: 1, bold: 1}}}
cache: {memory: {}, rules: {all: {ttl: 1h, browser_ttl: 1m}}}
routes:
  - name: site
    experiment: {name: hero, variants: {bold: {response_headers: {x-hero: bold}}}}
    response_headers: {set: {x-country: "${geo.country}", x-policy: first}}
    cache: all
"""
GERMAN, FRENCH = "81.169.145.1", "193.51.208.13"


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Pages]:
    async with Pages(small_site(tmp_path / "site", index="home")) as pages:
        yield pages


@pytest.fixture
async def proxy(origin: Pages) -> AsyncIterator[Proxy]:
    async with running(POLICY, origins={"site": origin.url}) as proxy:
        yield proxy


def remembered(proxy: Proxy) -> int:
    return proxy.server.edge.accelerator.remembered


async def ask(proxy: Proxy, path: str = "/", **fields: str) -> Reply:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return await proxy.get(path, headers={"x-forwarded-for": GERMAN, **headers})


async def ask_until_remembered(proxy: Proxy, path: str = "/", **fields: str) -> Reply:
    """An answer that came from memory, as bytes that were ready."""
    for _ in range(6):
        before = remembered(proxy)
        reply = await ask(proxy, path, **fields)
        await proxy.server.app.plan.cache.settled()
        if remembered(proxy) > before:
            return reply
    raise AssertionError(f"never remembered: {reply}")


def lasting(reply: Reply) -> dict[str, str]:
    """The fields that do not age."""
    ageing = ("age", "cache-control", "cache-status", "date")
    return {name.lower(): value for name, value in reply.headers.items()
            if name.lower() not in ageing}  # fmt: skip


async def test_what_is_remembered_is_what_was_told_before(proxy: Proxy) -> None:
    await ask(proxy, cookie="ep_hero=bold")
    await proxy.server.app.plan.cache.settled()
    decided = await ask(proxy, cookie="ep_hero=bold")
    assert "; hit; " in decided.cache_status
    again = await ask_until_remembered(proxy, cookie="ep_hero=bold")
    assert (again.status, again.body, lasting(again)) == (200, decided.body, lasting(decided))
    assert again.headers["x-hero"] == "bold"


async def test_nobody_gets_what_another_audience_is_told(proxy: Proxy) -> None:
    for variant in ("bold", "plain"):
        for address, country in ((GERMAN, "DE"), (FRENCH, "FR")):
            reply = await ask_until_remembered(
                proxy, cookie=f"ep_hero={variant}", x_forwarded_for=address
            )
            assert reply.headers.get("x-hero") == ("bold" if variant == "bold" else None)
            assert reply.headers["x-country"] == country
            assert "set-cookie" not in reply.headers
    fresh = await ask_until_remembered(proxy)
    assert "ep_hero=" in fresh.headers["set-cookie"]


async def test_visitors_alike_share_what_is_remembered(proxy: Proxy) -> None:
    await ask_until_remembered(proxy, cookie="ep_hero=bold")
    before = remembered(proxy)
    reply = await ask(proxy, cookie="other=1; ep_hero=bold", user_agent="never seen before")
    assert reply.headers["x-hero"] == "bold"
    assert remembered(proxy) == before + 1


@pytest.mark.parametrize("limits", ["{}", "{request_rate: 1000, request_burst: 1000}"])
async def test_so_do_visitors_at_other_addresses_of_a_country(origin: Pages, limits: str) -> None:
    policy = f"{POLICY}limits: {limits}\n"
    async with running(policy, origins={"site": origin.url}) as proxy:
        await ask_until_remembered(proxy, cookie="ep_hero=bold")
        before = remembered(proxy)
        address = GERMAN.rpartition(".")[0] + ".2"
        reply = await ask(proxy, cookie="ep_hero=bold", x_forwarded_for=address)
        assert reply.headers["x-country"] == "DE"
        assert remembered(proxy) == before + 1


@pytest.mark.parametrize("how", ["purge", "invalidate"])
async def test_a_purge_holds_at_once(proxy: Proxy, how: str) -> None:
    await ask_until_remembered(proxy)
    await getattr(proxy.server.app, how)(Selection(urls=("/elsewhere",)))
    await ask_until_remembered(proxy)
    await getattr(proxy.server.app, how)(EVERYTHING)
    before = remembered(proxy)
    reply = await ask(proxy)
    assert "fwd=" in reply.cache_status
    assert remembered(proxy) == before


async def test_a_reload_forgets(proxy: Proxy) -> None:
    await ask_until_remembered(proxy)
    await proxy.reload(POLICY.replace("first", "second"))
    reply = await ask(proxy)
    assert reply.headers["x-policy"] == "second"
    assert (await ask_until_remembered(proxy)).headers["x-policy"] == "second"


async def test_what_is_changed_is_changed_for_all(proxy: Proxy) -> None:
    """A stored answer that is replaced ends all that was made of it."""
    await ask_until_remembered(proxy)
    cache = proxy.server.app.plan.cache
    for tier in cache.levels.tiers:
        async for batch in tier.entries():  # type: ignore[attr-defined]
            for listed in batch:
                await cache.forget(listed.entry.key)
    assert "fwd=" in (await ask(proxy)).cache_status


async def test_head_and_conditions_are_remembered_as_what_they_are(proxy: Proxy) -> None:
    page = await ask_until_remembered(proxy)
    assert page.body
    head = await proxy.get("/", method="HEAD", headers={"x-forwarded-for": GERMAN})
    assert (head.status, head.body, head.headers["content-length"]) == (
        200, b"", str(len(page.body)),
    )  # fmt: skip
    known = await ask_until_remembered(proxy, if_none_match=page.headers["etag"])
    assert (known.status, known.body) == (304, b"")
    other = await ask(proxy, if_none_match='"other"')
    assert (other.status, other.body) == (200, page.body)


async def test_the_log_says_the_same_of_what_is_remembered(proxy: Proxy) -> None:
    cookie = "ep_hero=bold"
    await ask_until_remembered(proxy, cookie=cookie)
    await ask(proxy, cookie=cookie, user_agent="another")
    await ask(proxy, cookie=cookie, x_forwarded_for=FRENCH)
    usual, first, again = proxy.log[-4], proxy.log[-3], proxy.log[-2]
    volatile = ("request_id", "time", "duration_ms")
    for entry in (first, again):
        assert entry.keys() == usual.keys()
        assert {k: v for k, v in entry.items() if k not in volatile} == {
            k: v for k, v in usual.items() if k not in volatile
        }
    assert (again["country"], again["variant"], again["cache"]) == ("DE", "hero=bold", "hit")
    assert proxy.log[-1]["country"] == "FR"
    assert len({entry["request_id"] for entry in proxy.log}) == len(proxy.log)


async def test_age_goes_on(proxy: Proxy) -> None:
    first = await ask_until_remembered(proxy)
    async with asyncio.timeout(10):
        while True:
            reply = await ask(proxy)
            if reply.headers["age"] != first.headers["age"]:
                break
    age = int(reply.headers["age"])
    assert age == int(first.headers["age"]) + 1
    assert f"max-age={60 + age}" in reply.headers["cache-control"]


async def test_a_client_that_varies_what_it_asks_fills_no_memory(tmp_path: Path) -> None:
    """Each Accept-Encoding makes an audience of its own, and each answer is a copy of the page."""
    policy = POLICY.replace("memory: {}", "memory: {max_size: 400KiB}")
    async with (
        Pages(small_site(tmp_path / "site", index="x" * 9000)) as pages,
        running(policy, origins={"site": pages.url}) as proxy,
    ):
        await ask_until_remembered(proxy)
        recall = proxy.server.edge.accelerator.recalling()
        assert recall.max_bytes == 200 * 1024
        most = 0
        for number in range(120):
            reply = await ask(proxy, accept_encoding=f"x-{number}")
            assert reply.body.endswith(b"x")
            most = max(most, recall.bytes)
            assert recall.bytes <= recall.max_bytes
        assert most > recall.max_bytes / 2, "too few were remembered to prove anything"


async def test_what_is_over_is_freed_at_once(proxy: Proxy) -> None:
    """Else the collector of cycles frees it, in pauses that every client waits for."""
    await ask_until_remembered(proxy)
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(each, Exchange) for each in gc.get_objects())
        for number in range(20):
            assert (await ask(proxy, user_agent=f"new {number}")).status == 200
            assert (await ask(proxy, "/?a=b", connection="close")).status == 200
        await proxy.server.app.plan.cache.settled()
        after = sum(isinstance(each, Exchange) for each in gc.get_objects())
    finally:
        gc.enable()
    assert after - before < 3


# ---------------------------------------------------------------- whom one answer serves

WORLD = """\
version: 1
accelerator: on
trusted_proxies: [127.0.0.1/32]
origins: {site: {url: "https://you.github.io/"}}
content: {languages: [en, de]}
cache: {memory: {}, rules: {all: {ttl: 1h}}}
routes:
  - name: eu
    match: {continent: EU}
    filters: FILTERS
    cache: all
  - name: rest
    cache: all
"""
DANISH, AMERICAN = "80.62.0.1", "8.8.8.8"


async def answers(origin: Pages, filters: str) -> tuple[list[Reply], int]:
    """What a German and a French, by turns, and at last a Dane are told, and how many answers were
    remembered ones."""
    policy = WORLD.replace("FILTERS", filters)
    async with running(policy, origins={"site": origin.url}) as proxy:
        replies = []
        for address in (GERMAN, FRENCH) * 5 + (DANISH,):
            replies.append(await ask(proxy, x_forwarded_for=address))
            await proxy.server.app.plan.cache.settled()
        return replies, remembered(proxy)


async def test_an_answer_for_a_continent_serves_all_its_countries(origin: Pages) -> None:
    """The fourth journey at the latest is the last: also for countries that were never seen."""
    filters = '[{response_headers: {set: {x-country: "${geo.country}!", x-a%s: "%(age)d"}}}]'
    replies, again = await answers(origin, filters)
    said = [reply.headers["x-country"] for reply in replies]
    assert said == ["DE!", "FR!"] * 5 + ["DK!"]
    assert {reply.headers["x-a%s"] for reply in replies} == {"%(age)d"}
    assert again >= len(replies) - 4


@pytest.mark.parametrize(
    ("filters", "name", "values"),
    [
        (
            '[{response_headers: {set: {x-is: "${geo.country}"}, append: {x-is: "b"}}}]',
            "x-is",
            ["DE, b", "FR, b", "DK, b"],
        ),
        (
            '[{response_headers: {set: {x-is: "a"}, append: {x-is: "${geo.country}"}}}]',
            "x-is",
            ["a, DE", "a, FR", "a, DK"],
        ),
        (
            '[{response_headers: {set: {vary: "${geo.country}"}}}]',
            "vary",
            ["DE", "FR", "DK"],
        ),
        (
            '[{response_headers: {set: {x-is: "${geo.country}"}}}, {response_headers: {set: '
            '{x-is: "${geo.continent}"}}}]',
            "x-is",
            ["EU", "EU", "EU"],
        ),
        (
            '[{response_headers: {set: {x-is: "${geo.country}"}, add: {x-is: "${geo.country}"}}}]',
            "x-is",
            ["DE", "FR", "DK"],
        ),
        (
            '[{response_headers: {set: {age: "${geo.country}"}}}]',
            "age",
            ["DE", "FR", "DK"],
        ),
        (
            '[{response_headers: {set: {cache-control: "x=${geo.country}"}}}]',
            "cache-control",
            ["private, x=de", "private, x=fr", "private, x=dk"],
        ),
    ],
)  # fmt: skip
async def test_what_becomes_of_a_field_with_facts_is_told_to_each(
    origin: Pages, filters: str, name: str, values: list[str]
) -> None:
    replies, _ = await answers(origin, filters)
    german, french, danish = values
    assert [reply.headers[name] for reply in replies] == [german, french] * 5 + [danish]


# ---------------------------------------------------------------- plugins


class Counting(Plugin):
    """Answers by how often it was asked, and makes no promise."""

    asked = 0

    @hookimpl
    def before_send(self, exchange: Exchange, response: Response) -> None:
        self.asked += 1
        response.headers.set("x-asked", str(self.asked))


class Promising(Counting):
    repeatable = True
    asked_for: list[str] = []

    @hookimpl
    def before_send(self, exchange: Exchange, response: Response) -> None:
        response.headers.set("x-said", exchange.request.headers.get("x-say") or "nothing")


TIER = Fact[str]("late.tier", default="none")
SEAT = Fact[str]("late.seat", default="none")


class Seat(Matcher[str]):
    """Only who has a tier is asked for a seat."""

    def matches(self, exchange: Exchange) -> bool:
        return (
            exchange.facts[TIER] == "gold" and exchange.request.headers.get("x-seat") == self.root
        )


class Late(Plugin):
    """Changes what was asked, and what is known, when the visitor is known already."""

    repeatable = True
    matchers = {"seat": Seat}

    def facts(self) -> Iterable[Fact[str]]:
        return [TIER, SEAT]

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        headers, facts = exchange.request.headers, exchange.facts
        facts.defer(TIER, lambda: headers.get("x-tier") or "none")
        facts.defer(SEAT, lambda: (facts[TIER] == "gold" and headers.get("x-seat")) or "none")

    @hookimpl
    def admit(self, exchange: Exchange) -> None:
        headers = exchange.request.headers
        if edit := headers.get("x-edit"):
            headers.set("x-tier", edit)
        if known := headers.get("x-known"):
            exchange.facts[TIER] = known


class Looking(Plugin):
    """Decides by a field that a filter has filled in before."""

    repeatable = True

    @hookimpl
    def before_send(self, exchange: Exchange, response: Response) -> None:
        exchange.set_field(response, "x-first", Template("${geo.country}"))
        response.headers.set("x-size", str(len(response.headers)))
        is_german = response.headers.get("x-first") == "DE"
        response.headers.set("x-second", "yes" if is_german else "no")


class Observing(Plugin):
    """Wants to know of every request."""

    repeatable = True
    seen: list[str] = []

    @hookimpl
    def finish(self, exchange: Exchange) -> None:
        self.seen.append(exchange.request.path)


EXTRA = POLICY.replace("version: 1", "version: 1\nplugins: [extra]")


async def with_plugin(
    origin: Pages, plugin: type[Plugin], asked: Iterable[Any], *, policy: str = EXTRA
) -> list[Reply]:
    registry = Registry([*all_installed().entries, Installed("extra", lambda: plugin, "extra")])
    async with running(policy, origins={"site": origin.url}, registry=registry) as proxy:
        replies = []
        for fields in asked:
            replies.append(await ask(proxy, **fields))
            await proxy.server.app.plan.cache.settled()
        replies.append(remembered(proxy))  # type: ignore[arg-type]
        return replies


async def test_a_plugin_that_promises_nothing_is_asked_every_time(origin: Pages) -> None:
    *replies, again = await with_plugin(origin, Counting, [{}] * 6)
    assert [reply.headers["x-asked"] for reply in replies] == list("123456")
    assert again == 0


async def test_what_a_plugin_reads_tells_audiences_apart(origin: Pages) -> None:
    said = [{"x_say": word} for word in ("a", "b") * 5]
    *replies, again = await with_plugin(origin, Promising, said)
    assert [reply.headers["x-said"] for reply in replies] == ["a", "b"] * 5
    assert again > 0


LATE = """\
version: 1
accelerator: on
plugins: [extra]
trusted_proxies: [127.0.0.1/32]
origins: {site: {url: "https://you.github.io/"}}
cache: {memory: {}, rules: {all: {ttl: 1h}}}
routes:
  - {name: plain, match: {path: "/index.html"}, cache: all,
     response_headers: {append: {x-is: "${late.seat}"}}}
  - {name: seated, match: {seat: "1"}, response_headers: {set: {x-is: "seated"}}, cache: all}
  - {name: gold, match: {header: {x-tier: gold, x-gate: "1"}}, cache: all,
     response_headers: {set: {x-is: "gold"}}}
  - {name: other, response_headers: {set: {x-is: "other", x-tier: "${late.tier}"}, append:
     {x-is: "${late.seat}"}}, cache: all}
"""


@pytest.mark.parametrize(
    "asked",
    [
        [({}, "other, none"), ({"x_tier": "gold"}, "other, none")],
        [
            ({"x_tier": "gold", "x_seat": "1"}, "seated"),
            ({"x_tier": "gold", "x_seat": "2"}, "other, 2"),
        ],
        [  # the same changes, and what was hidden behind the fact or the clause without them
            ({"x_known": "gold", "x_seat": "2"}, "other, 2"),
            ({"x_known": "gold", "x_seat": "3"}, "other, 3"),
        ],
        [
            ({"x_known": "gold", "x_seat": "2", "path": "/index.html"}, "2"),
            ({"x_known": "gold", "x_seat": "3", "path": "/index.html"}, "3"),
        ],
        [
            ({"x_known": "gold", "x_seat": "1"}, "seated"),
            ({"x_known": "gold"}, "other, none"),
        ],
        [
            ({"x_edit": "gold", "x_gate": "1"}, "gold"),
            ({"x_edit": "gold", "x_gate": "2"}, "other, none"),
        ],
    ],
)  # fmt: skip
async def test_what_hooks_change_on_the_way_counts_as_they_left_it(
    origin: Pages, asked: list[tuple[dict[str, str], str]]
) -> None:
    replies = await with_plugin(origin, Late, [fields for fields, _ in asked * 5], policy=LATE)
    assert [reply.headers["x-is"] for reply in replies[:-1]] == [said for _, said in asked * 5]


async def test_a_policy_with_many_clauses_and_fields_is_remembered_too(origin: Pages) -> None:
    route = """\
  - {name: r%d, match: {header: {x-n: "%d"}}, cache: all,
     response_headers: {set: {x-said-%d: "${geo.country} %d"}}}
"""
    routes = "".join(route % (number, number, number, number) for number in range(40))
    policy = WORLD[: WORLD.index("routes:")] + f"routes:\n{routes}  - {{name: rest, cache: all}}\n"
    async with running(policy, origins={"site": origin.url}) as proxy:
        for number in (*range(40), 0, 17, 39):
            reply = await ask_until_remembered(proxy, x_n=str(number))
            assert reply.headers[f"x-said-{number}"] == f"DE {number}"
            french = await ask(proxy, x_n=str(number), x_forwarded_for=FRENCH)
            assert french.headers[f"x-said-{number}"] == f"FR {number}"
        assert "x-said-1" not in (await ask_until_remembered(proxy, x_n="x")).headers


async def test_a_query_is_remembered_with_what_it_forces(proxy: Proxy) -> None:
    for query, hero in (("hero=bold", "bold"), ("hero=plain", None), ("v=7", "bold"), ("", "bold")):
        reply = await ask_until_remembered(proxy, f"/?{query}", cookie="ep_hero=bold")
        assert (reply.status, reply.headers.get("x-hero")) == (200, hero)
    again = await ask_until_remembered(proxy, "/?hero=bold", cookie="ep_hero=plain")
    assert again.headers["x-hero"] == "bold"
    assert "x-hero" not in (await ask_until_remembered(proxy, cookie="ep_hero=plain")).headers


async def test_clauses_about_the_target_are_no_question_to_visitors(origin: Pages) -> None:
    policy = WORLD.replace("continent: EU", "method: GET, query: {a: {prefix: b}}")
    policy = policy.replace("FILTERS", "[]")
    async with running(policy, origins={"site": origin.url}) as proxy:
        assert (await ask_until_remembered(proxy)).status == 200


async def test_who_looks_at_what_was_filled_in_decides_for_each_alone(origin: Pages) -> None:
    asked = [{"x_forwarded_for": address} for address in (GERMAN, FRENCH) * 5]
    *replies, again = await with_plugin(origin, Looking, asked)
    assert [reply.headers["x-second"] for reply in replies] == ["yes", "no"] * 5
    assert again > 0


async def test_who_observes_hears_of_each_request(origin: Pages) -> None:
    Observing.seen = []
    *_, again = await with_plugin(origin, Observing, [{}] * 5)
    assert Observing.seen == ["/"] * 5
    assert again == 0
