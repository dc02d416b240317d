"""Rehearsals: the journey without network and cache, and facts taken as given."""

from __future__ import annotations

import pytest

from edgeproxy.decision import Decision, Rehearsal, assumed, known_facts
from edgeproxy.http import Exchange, Facts, Headers, Request
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.trace import Trace

POLICY = """\
version: 1
origins: {site: {url: "https://you.github.io/docs/"}, next: {url: "https://next.example/"}}
experiments: {hero: {weights: {control: 1, bold: 1}}}
cache: {rules: {html: {ttl: 10m, browser_ttl: 1m}}}
routes:
  - {name: moved, match: {path: /old/**}, redirect: /new/**}
  - {name: europe, match: {continent: EU, path: /eu/**}, origin: next}
  - {name: phones, match: {device: mobile}, origin: next}
  - name: site
    origin: site
    experiment: {name: hero, variants: {bold: {prefix: /bold}}}
    response_headers: {set: {x-country: "${geo.country}"}, remove: content-type}
    cache: html
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan(parse(POLICY))


async def decide(plan: Plan, path: str = "/", method: str = "GET", **told: str) -> Decision:
    facts = Facts(known_facts(plan, {name.replace("__", "."): told[name] for name in told}))
    exchange = Exchange(Request(method, "www.example.org", path, headers=Headers()), facts=facts)
    exchange.trace = Trace()
    return await Rehearsal(plan, assumed()).decide(exchange)


async def test_what_edgeproxy_answers_by_itself_asks_no_origin(plan: Plan) -> None:
    decision = await decide(plan, "/old/a")
    assert (decision.route, decision.response.status, decision.origin) == ("moved", 302, None)
    assert decision.asked is decision.judgement is None


async def test_what_comes_from_an_origin_is_judged(plan: Plan) -> None:
    decision = await decide(plan, "/a", split__hero="bold", country="DE")
    assert (decision.route, decision.origin) == ("site", "site")
    assert decision.asked is not None
    assert decision.asked.target == "/docs/bold/a"
    assert decision.judgement is not None
    assert (decision.judgement.code, decision.judgement.fresh_for_s) == ("storable", 600)
    assert "split.hero='bold'" in decision.exchange.cache_key
    headers = decision.response.headers
    assert (headers.get("x-country"), headers.get("cache-control")) == ("DE", "private, max-age=60")


async def test_a_country_implies_its_continent_and_a_bot_its_device(plan: Plan) -> None:
    assert (await decide(plan, "/eu/", country="DE")).route == "europe"
    assert (await decide(plan, "/eu/", country="US")).route == "site"
    assert known_facts(plan, {"bot": ""}) == {"content.bot": True, "content.device": "bot"}
    assert (await decide(plan, "/", device="mobile")).route == "phones"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"contry": "DE"}, "no fact is called 'contry'; did you mean 'country'?"),
        ({"bot": "maybe"}, "bot is true or false, not 'maybe'"),
        ({"asn": "x"}, "asn is a number, not 'x'"),
    ],
)
def test_facts_that_cannot_be_taken_say_why(plan: Plan, told: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("?", r"\?")):
        known_facts(plan, told)


async def test_the_trace_tells_what_each_hook_did(plan: Plan) -> None:
    decision = await decide(plan, "/a", split__hero="bold", country="DE")
    assert decision.exchange.trace is not None
    steps = {
        (step.phase, step.filter or step.plugin): step for step in decision.exchange.trace.steps
    }
    assert "content.device" in steps["annotate", "content"].facts
    chosen = steps["route", "experiment"].target
    assert chosen is not None
    assert chosen.path == "/bold/a"
    assert steps["cache_key", "experiment"].key == (("split.hero", "bold"),)
    edited = steps["before_send", "response_headers"]
    assert edited.removed == (("content-type", "text/html; charset=utf-8"),)
    assert edited.added == (("x-country", "DE"),)
    assert edited.place is not None
    assert edited.place.line == 12
    assert steps["before_send", "experiment"].cookies[0].startswith("ep_hero=bold")


async def test_a_rehearsal_without_a_trace_decides_the_same(plan: Plan) -> None:
    exchange = Exchange(Request("HEAD", "www.example.org", "/a"))
    decision = await Rehearsal(plan, assumed()).decide(exchange)
    traced = await decide(plan, "/a", method="HEAD")
    assert decision.response.headers.get("vary") == traced.response.headers.get("vary")
    assert decision.route == traced.route == "site"
