"""An explanation says what was decided, and what would have decided otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeproxy.api import Exchange, Matcher, Plugin
from edgeproxy.decision import assumed
from edgeproxy.explain import Explanation, arriving, explain, tell
from edgeproxy.explain.explanation import TriedRoute
from edgeproxy.http import Headers
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.installed import Installed, Registry, installed
from edgeproxy.policy.load import parse

POLICY = """\
version: 1
origins:
  pages: {url: "https://you.github.io/docs/"}
  next: {url: "https://next.example/"}
  api: {url: "http://api.example/", kind: http}
experiments: {hero: {weights: {control: 1, bold: 1}}}
cache: {rules: {html: {ttl: 10m, query: drop}}}
filters:
  - response_headers: {set: {x-frame-options: DENY}}
routes:
  - {name: moved, match: {path: /old/**}, redirect: /new/**}
  - {name: shop, match: {host: shop.example.org}, origin: next}
  - name: europe
    matches: [{country: [DE, FR, NL], path: /eu/**}, {path: /eu/**, cookie: {region: eu}}]
    origin: next
  - {name: beta, match: {header: {x-plan: {prefix: pro}}, query: {beta: "1"}}, origin: next}
  - {name: api, match: {path: /api/**}, origin: api, cache: false}
  - {name: split, match: {path: /split}, backend_refs: [{name: pages, weight: 95}, {name: next}]}
  - name: site
    match: {path: /**}
    origin: pages
    experiment: {name: hero, variants: {bold: {origin: next}}}
    request_headers: {set: {x-country: "${geo.country}"}}
    cache: html
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan(parse(POLICY, "site.yaml"))


async def of(plan: Plan, target: str = "/", **how: Any) -> Explanation:
    url = target if "://" in target else f"https://www.example.org{target}"
    return await explain(plan, arriving(plan, url, **how))


def tried(explanation: Explanation, name: str) -> TriedRoute:
    return next(route for route in explanation.routes if route.name == name)


# ------------------------------------------------------------------- routes


async def test_routes_are_those_down_to_the_one_that_matched(plan: Plan) -> None:
    names = [route.name for route in (await of(plan, "/eu/a", facts={"country": "DE"})).routes]
    assert names == ["moved", "shop", "europe"]


async def test_the_first_clause_that_failed_is_named_with_both_values(plan: Plan) -> None:
    explanation = await of(plan, "/eu/a", facts={"country": "US"})
    first, second = tried(explanation, "europe").matches
    assert first.failed is not None
    assert (first.failed.key, first.failed.seen) == ("country", "US")
    assert first.failed.wanted == ["DE", "FR", "NL"]
    assert first.failed.place == "site.yaml:14"
    assert second.failed is not None
    assert (second.failed.key, second.failed.seen) == ("cookie", {"region": None})
    text = tell(explanation)
    assert "country is US; wanted DE, FR, NL" in text
    assert "would match if country were DE, FR or NL" in text
    assert "would match if cookie region were eu" in text


async def test_a_host_that_differs_is_said(plan: Plan) -> None:
    failed = tried(await of(plan), "shop").matches[0].failed
    assert failed is not None
    assert (failed.key, failed.seen) == ("host", "www.example.org")
    assert list(failed.wanted) == ["shop.example.org"]


async def test_what_lacks_two_clauses_is_not_near(plan: Plan) -> None:
    assert not tried(await of(plan), "beta").matches[0].is_near
    with_one = await of(plan, "/?beta=1", headers=Headers.of(("x-plan", "free")))
    assert tried(with_one, "beta").matches[0].is_near
    assert "would match if header x-plan were {prefix: pro}" in tell(with_one)


async def test_a_path_that_differs_is_never_near(plan: Plan) -> None:
    assert not any(match.is_near for match in tried(await of(plan), "moved").matches)


async def test_without_any_route_it_says_so() -> None:
    plan = compile_plan(parse("version: 1\norigins: {a: {url: http://a.example}}\n"
                              "routes: [{name: one, match: {path: /one}}]"))  # fmt: skip
    explanation = await of(plan, "/two")
    assert (explanation.route, explanation.answer.status) == (None, 404)
    assert explanation.caching.code == "no-route"
    assert "no route matches" in tell(explanation)


async def test_a_name_that_is_not_served_is_said_to_be_so() -> None:
    plan = compile_plan(parse("version: 1\norigins: {a: {url: http://a.example}}\n"
                              "hosts: [else.example]\nroutes: [{name: all}]"))  # fmt: skip
    explanation = await of(plan, "/two")
    assert (explanation.route, explanation.routes, explanation.answer.status) == (None, (), 421)
    assert explanation.caching.code == "unknown-host"
    assert "`hosts` does not name www.example.org" in tell(explanation)


class Moon(Matcher[str]):
    def matches(self, exchange: Exchange) -> bool:
        return self.root == "full"


class Broken(Matcher[bool]):
    def matches(self, exchange: Exchange) -> bool:
        raise KeyError("tides")


class Sky(Plugin):
    matchers = {"moon": Moon, "tide": Broken}


def with_sky(routes: str) -> Plan:
    entry = Installed("sky", lambda: Sky, "a-sky")
    registry = Registry([*installed().entries, entry])
    text = f"version: 1\nplugins: [sky]\norigins: {{a: {{url: http://a.example}}}}\n{routes}"
    return compile_plan(parse(text, registry=registry))


async def test_a_matcher_that_does_not_tell_is_explained_by_its_key_and_value() -> None:
    plan = with_sky("routes: [{name: night, match: {moon: new}}, {name: day}]")
    explanation = await of(plan)
    assert "moon does not hold; wanted new" in tell(explanation)
    assert "would match if moon held" in tell(explanation)


async def test_a_matcher_that_fails_is_told_as_the_journey_meets_it() -> None:
    plan = with_sky("routes: [{name: shore, match: {tide: true}}, {name: day}]")
    explanation = await of(plan)
    assert explanation.answer.status == 500
    assert "tide failed: KeyError: 'tides'" in tell(explanation)


async def test_of_many_routes_those_elsewhere_are_counted() -> None:
    routes = "".join(f"  - {{name: r{n}, match: {{path: /r{n}}}}}\n" for n in range(50))
    near = '  - {name: near, match: {path: /x, query: {a: "1"}}}\n  - {name: last}\n'
    text = f"version: 1\norigins: {{a: {{url: http://a.example}}}}\nroutes:\n{routes}{near}"
    told = tell(await of(compile_plan(parse(text)), "/x"))
    assert "and 50 before, for other hosts or paths" in told
    assert "r49" not in told
    assert "would match if query a were 1" in told


# ------------------------------------------------------------------- what follows


async def test_facts_have_a_source(plan: Plan) -> None:
    explanation = await of(plan, "/", facts={"country": "DE"})
    facts = {fact.name: fact for fact in explanation.facts}
    assert facts["geo.country"].is_given
    assert facts["geo.continent"].is_given  # it follows
    assert (facts["content.device"].value, facts["content.device"].plugin) == ("desktop", "content")
    assert facts["split.hero"].reason == "SPLIT"
    assert "split.hero.reason" not in facts


@pytest.mark.parametrize(
    ("target", "headers", "reason"),
    [
        ("/?hero=bold", Headers(), "FORCED"),
        ("/", Headers.of(("cookie", "ep_hero=bold")), "CACHED"),
        ("/", Headers.of(("user-agent", "Googlebot/2.1")), "TARGETING_MATCH"),
    ],
)
async def test_a_variant_has_its_reason(
    plan: Plan, target: str, headers: Headers, reason: str
) -> None:
    explanation = await of(plan, target, headers=headers)
    assert next(f.reason for f in explanation.facts if f.name == "split.hero") == reason
    assert f"plugin split, {reason}: " in tell(explanation)


async def test_what_answers_instead_of_an_origin_is_named(plan: Plan) -> None:
    explanation = await of(plan, "/old/a")
    assert explanation.answered_by == "filter redirect, site.yaml:11"
    assert explanation.upstream is None
    assert explanation.caching.code == "own-answer"
    assert not explanation.is_assumed


async def test_who_chose_the_origin_is_said(plan: Plan) -> None:
    chosen = {}
    for variant in ("control", "bold"):
        upstream = (await of(plan, "/a", facts={"split.hero": variant})).upstream
        assert upstream is not None
        chosen[upstream.origin, upstream.url] = upstream.chosen_by
    assert chosen == {
        ("pages", "https://you.github.io/docs/a"): "route site",
        ("next", "https://next.example/a"): "filter experiment, site.yaml:22",
    }
    weighed = (await of(plan, "/split", peer="198.51.100.7")).upstream
    assert weighed is not None
    assert weighed.chosen_by in (
        "weight 95 of 96, by the client's address", "weight 1 of 96, by the client's address",
    )  # fmt: skip


async def test_each_part_of_the_key_has_its_source(plan: Plan) -> None:
    explanation = await of(plan, "/a?utm=x", facts={"country": "DE", "split.hero": "bold"})
    caching = explanation.caching
    assert {part.text: part.source for part in caching.key} == {
        "next https://next.example/a": "the origin and what it is asked",
        "route=site": "its filters change what is fetched or stored",
        "split.hero='bold'": "filter experiment, site.yaml:22",
        "geo.country='DE'": "filter request_headers, site.yaml:23",
    }
    assert (caching.rule, caching.place) == ("html", "site.yaml:7")
    assert (caching.code, caching.fresh_for_s) == ("storable", 600)


async def test_an_origin_without_cache_says_why(plan: Plan) -> None:
    assert (await of(plan, "/api/a")).caching.code == "cache-false"
    assert (await of(plan, "/api/a", method="POST")).caching.code == "method"


async def test_filters_of_every_route_are_among_the_effects(plan: Plan) -> None:
    effect = next(e for e in (await of(plan)).effects if e.place == "site.yaml:9")
    assert (effect.phase, effect.added) == ("before_send", (("x-frame-options", "DENY"),))


async def test_a_filter_that_changes_nothing_says_so() -> None:
    plan = compile_plan(parse("version: 1\norigins: {a: {url: http://a.example}}\n"
                              "routes: [{name: app, spa_fallback: /index.html}]"))  # fmt: skip
    assert "changes nothing" in tell(await of(plan, "/app.js"))
    assert "asks a /index.html" in tell(await of(plan, "/app"))


async def test_what_the_origin_answers_can_be_assumed(plan: Plan) -> None:
    exchange = arriving(plan, "https://www.example.org/a", facts={"split.hero": "control"})
    explanation = await explain(plan, exchange, assumed(200, ("set-cookie", "a=b")))
    assert explanation.caching.code == "set-cookie"
    assert explanation.is_assumed


async def test_the_url_is_read_as_the_front_reads_it(plan: Plan) -> None:
    explanation = await of(plan, "https://WWW.Example.org:443/a/../eu//./%7Ex?")
    assert explanation.arrival.url == "https://www.example.org/eu/~x"
    for wrong in ("www.example.org/", "https://www.example.org/%2e%2e/%2e%2e/", "ftp://a/"):
        with pytest.raises(ValueError, match=r"is not a URL|400"):
            arriving(plan, wrong)


async def test_json_and_back_is_the_same(plan: Plan) -> None:
    for target in ("/", "/old/a", "/api/x", "/eu/"):
        data = (await of(plan, target)).as_json()
        again = Explanation.from_json(json.loads(json.dumps(data)))
        assert again.as_json() == data
        assert tell(again) == tell(await of(plan, target)) or target


async def test_nothing_in_a_request_steers_the_terminal(plan: Plan) -> None:
    fields = Headers.of(("x-plan", "\x9b31mred"))  # CSI, which a field may hold (RFC 9110, 5.5)
    assert "x-plan is ?31mred" in tell(await of(plan, "/?beta=1", headers=fields))
