"""Mutants: which there are, which of them tests notice, and that none is noticed in vain."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgeproxy.decision import Decision, Rehearsal, assumed
from edgeproxy.http import Exchange
from edgeproxy.plan import Plan, compile_plan, patched
from edgeproxy.policy.load import parse
from edgeproxy.policy.source import write
from edgeproxy.policytest.mutants import Mutant, mutants
from edgeproxy.policytest.mutation import MAX_MUTANTS, Score, score
from edgeproxy.policytest.suite import Suite
from tests.policies_strategy import Plain, Visit, policies, visits

POLICY = """\
version: 1
origins:
  pages: {url: "https://acme.github.io/docs/"}
  next: {url: "https://acme.github.io/next/"}
content: {languages: [en, de]}
experiments:
  hero: {weights: {control: 75, bold: 25}, force: false}
cache:
  rules:
    html: {ttl: 10m, query: [page], stale_if_error: 7d}
    assets: {ttl: 30d, status_ttl: {404: 30s}}
filters:
  - response_headers: {set: {x-a: b}, remove: [x-b, x-c]}
routes:
  - name: moved
    match: {path: [/old/**, /older/**], host: www.example.org}
    redirect: {path: /new/**, status: 301}
  - name: german
    matches:
      - {path: /, country: [DE, AT], device: mobile}
      - {path: /, cookie: {lang: de, beta: {present: true}}}
    rewrite: {prefix: /de}
    origin: pages
  - name: phones
    match: {path: /, header: {x-phone: "1"}}
    origin: next
    cache: false
  - name: weighed
    match: {path: /weighed}
    backend_refs: [{name: pages, weight: 3}, {name: next}]
    cache: assets
  - name: site
    origin: pages
    cache: html
    experiment: {name: hero, variants: {bold: {origin: next, prefix: /b}}}
    error_page: {body: back soon, status: 503}
"""

MUTANTS = """\
15: route 'moved' is taken out
16: `host` of route 'moved' is taken out
16: `path` of route 'moved' is taken out
16: `path` of route 'moved' loses '/old/**'
16: `path` of route 'moved' loses '/older/**'
17: filter `redirect` of route 'moved' is taken out
17: `redirect.path` of route 'moved' is '/new/**~'
17: `redirect.status` of route 'moved' is 302
18: route 'german' is taken out
20: match 1 of route 'german' is taken out
20: `path` of route 'german' is taken out
20: clause `country` of route 'german' is taken out
20: clause `country` of route 'german' is negated
20: `country` of route 'german' loses 'DE'
20: `country` of route 'german' loses 'AT'
20: clause `device` of route 'german' is taken out
20: clause `device` of route 'german' is negated
21: match 2 of route 'german' is taken out
21: `path` of route 'german' is taken out
21: clause `cookie` of route 'german' is taken out
21: clause `cookie` of route 'german' is negated
21: `cookie.lang` of route 'german' is taken out
21: `cookie.beta.present` of route 'german' is false
21: `cookie.beta` of route 'german' is taken out
23: route 'german' goes to origin 'next'
22: filter `rewrite` of route 'german' is taken out
22: `rewrite.prefix` of route 'german' is '/de~'
24: route 'phones' is taken out
25: `path` of route 'phones' is taken out
25: clause `header` of route 'phones' is taken out
25: clause `header` of route 'phones' is negated
26: route 'phones' goes to origin 'pages'
27: route 'phones' may be cached
28: route 'weighed' is taken out
29: `path` of route 'weighed' is taken out
30: route 'weighed' has the weights of its backend_refs turned round
30: route 'weighed' has no origin 'pages' among its backend_refs
30: route 'weighed' has no origin 'next' among its backend_refs
31: route 'weighed' has no cache rule
31: route 'weighed' has the cache rule 'html'
32: route 'site' is taken out
33: route 'site' goes to origin 'next'
34: route 'site' has no cache rule
34: route 'site' has the cache rule 'assets'
35: filter `experiment` of route 'site' is taken out
35: `experiment.name` of route 'site' is empty
35: `experiment.variants.bold.origin` of route 'site' is 'pages'
35: `experiment.variants.bold.prefix` of route 'site' is '/b~'
35: `experiment.variants.bold` of route 'site' is taken out
36: filter `error_page` of route 'site' is taken out
36: `error_page.body` of route 'site' is empty
36: `error_page.status` of route 'site' is 504
13: filter `response_headers` of every route is taken out
13: `response_headers.remove` of every route loses 'x-b'
13: `response_headers.remove` of every route loses 'x-c'
13: `response_headers.set.x-a` of every route is taken out
18: routes 'german' and 'phones' change places
10: `cache.rules.html.ttl` is 1200
10: `cache.rules.html.query` is 'keep'
11: `cache.rules.assets.ttl` is 5184000
11: `cache.rules.assets.status_ttl.404` is taken out
5: `content.languages` loses 'en'
5: `content.languages` loses 'de'
7: `experiments.hero.weights` is turned round
7: `experiments.hero.weights.control` is taken out
7: `experiments.hero.weights.bold` is taken out
7: `experiments.hero.force` is true
"""


def suite(folder: Path, tests: str, policy: str = POLICY) -> Suite:
    (folder / "site.yaml").write_text(policy)
    (folder / "site_test.yaml").write_text(f"version: 1\ntests:\n{tests}")
    return Suite.load([folder / "site.yaml"])


def told(found: Any) -> list[str]:
    """Line and words of each mutant."""
    return [f"{one.place.line}: {one.words}" for one in found]


def test_everything_that_a_policy_says_can_be_a_slip() -> None:
    assert told(mutants(compile_plan(parse(POLICY)))) == MUTANTS.splitlines()


def test_mutants_point_at_what_they_change() -> None:
    texts = {
        one.words: one.place.text[one.place.column - 1 :]
        for one in mutants(compile_plan(parse(POLICY)))
    }
    assert texts["`path` of route 'moved' loses '/older/**'"].startswith("/older/**]")
    assert texts["`country` of route 'german' loses 'AT'"].startswith("AT]")
    assert texts["`redirect.status` of route 'moved' is 302"].startswith("301}")
    assert texts["`response_headers.remove` of every route loses 'x-c'"].startswith("x-c]")
    assert texts["route 'site' has no cache rule"].startswith("html")
    assert texts["`cache.rules.html.ttl` is 1200"].startswith("10m")
    assert texts["`experiments.hero.weights.bold` is taken out"].startswith("25}")


# ------------------------------------------------------------------- which are noticed

SMALL = """\
version: 1
origins:
  pages: {url: "https://acme.github.io/docs/"}
  next: {url: "https://acme.github.io/next/"}
routes:
  - name: moved
    match: {path: /old/**}
    redirect: {path: /new/**, status: 301}
  - name: german
    match: {path: /, country: [DE, AT]}
    redirect: /de/
  - name: phones
    match: {path: /, device: mobile}
    origin: next
  - name: site
    origin: pages
    response_headers: {set: {x-a: b, x-c: d}}
"""

ROUGH = """\
  - {name: a, get: /old/a, expect: {redirect: /new/a}}
  - {name: b, get: /, as: {country: DE}, expect: {route: german}}
  - {name: c, get: /, as: {country: US, device: mobile}, expect: {origin: next}}
  - {name: d, get: /, as: {country: US}, expect: {response_headers: {x-a: b}}}
"""

SURVIVORS = """\
8: `redirect.status` of route 'moved' is 302
9: routes 'german' and 'phones' change places
10: `path` of route 'german' is taken out
10: `country` of route 'german' loses 'AT'
11: filter `redirect` of route 'german' is taken out
11: `redirect.path` of route 'german' is '/de/~'
13: `path` of route 'phones' is taken out
16: route 'site' goes to origin 'next'
17: `response_headers.set.x-c` of route 'site' is taken out
"""


def mutated(folder: Path, tests: str, policy: str = SMALL) -> Score:
    found = suite(folder, tests, policy)
    report = found.run()
    assert report.passed, report
    return found.mutate(report)


def test_what_no_test_notices_survives_and_nothing_else(tmp_path: Path) -> None:
    found = mutated(tmp_path, ROUGH)
    assert told(found.survivors) == SURVIVORS.splitlines()
    assert (found.made, found.left_out) == (24, 0)
    assert str(found) == "mutation score 62 %: 15 of 24 noticed"
    assert str(found.survivors[0]) == (
        f"{tmp_path}/site.yaml:8:39: no test notices that `redirect.status` of route 'moved' is 302"
    )


def test_better_tests_leave_no_survivor(tmp_path: Path) -> None:
    better = """\
  - {name: e, get: /old/a, expect: {status: 301}}
  - {name: f, get: /, as: {country: AT, device: mobile}, expect: {redirect: /de/}}
  - {name: g, get: /a, as: {country: DE}, expect: {route: site, origin: pages}}
  - {name: h, get: /a, as: {device: mobile}, expect: {route: site}}
  - {name: i, get: /a, expect: {response_headers: {x-c: d}}}
"""
    found = mutated(tmp_path, ROUGH + better)
    assert told(found.survivors) == []
    assert found.percent == 100


def test_what_no_policy_can_say_does_not_count(tmp_path: Path) -> None:
    tests = "  - {name: a, get: /, expect: {route: split}}\n"
    policy = """\
version: 1
origins: {pages: {url: "https://acme.github.io/docs/"}}
experiments: {hero: {weights: {control: 50, bold: 50}}}
routes:
  - {name: split, experiment: {name: hero, variants: {bold: {prefix: /b}, control: {prefix: /c}}}}
"""
    found = mutated(tmp_path, tests, policy)
    words = [one.words for one in found.survivors]
    assert "`experiments.hero.weights` is turned round" in words
    assert "`experiments.hero.weights.bold` is taken out" not in words  # the route needs it
    assert "`experiment.name` of route 'split' is empty" not in words


def test_there_is_an_end_to_mutants() -> None:
    plan = compile_plan(parse(SMALL))
    found = [Mutant(one.place, one.words, 0, 9, one.make) for one in mutants(plan)]
    many = found * (3 * MAX_MUTANTS // len(found))
    result = asyncio.run(score(plan, many, (), lambda *_: None))
    assert result.made <= MAX_MUTANTS
    assert result.left_out == len(many) - result.made
    assert "more were not tried" in str(result)


def test_there_is_an_end_to_visitors(tmp_path: Path) -> None:
    tests = "  - {name: a, get: /, visitors: 600, expect: {shares: {origin: {pages: 100}}}}\n"
    found = suite(tmp_path, tests, SMALL)
    all_mutants = tuple(mutants(found.plan))
    results = found.run().results
    few = asyncio.run(score(found.plan, all_mutants, results, lambda *_: None, max_decisions=1000))
    assert few.made + few.left_out == len(all_mutants)
    assert 0 < few.left_out < len(all_mutants)


def test_progress_is_told(tmp_path: Path) -> None:
    found = suite(tmp_path, ROUGH, SMALL)
    told: list[tuple[int, int, int]] = []
    found.mutate(found.run(), lambda *numbers: told.append(numbers))
    assert told[0] == (0, 24, 0)
    assert told[-1] == (24, 24, 9)


# ------------------------------------------------------------------- a mutant is what it says


@settings(deadline=None, max_examples=40)
@given(policies(), st.lists(visits(), min_size=1, max_size=4), st.data())
def test_patching_a_plan_is_compiling_the_other_policy(
    policy: Plain, several: list[Visit], data: st.DataObject
) -> None:
    plan = compile_plan(parse(write(policy)))
    number = data.draw(st.integers(0, len(policy["routes"]) - 1))
    other = data.draw(st.sampled_from((None, *range(len(policy["routes"])))))
    routes = list(policy["routes"])
    taken = None if other is None else plan.policy.routes[other]
    routes[number : number + 1] = [] if other is None else [{**routes[other], "name": "other"}]
    if taken is not None:
        taken = replace(taken, core=taken.core.model_copy(update={"name": "other"}))
    assume(routes)
    whole = compile_plan(parse(write({**policy, "routes": routes})))
    some = patched(plan, plan.policy, {number: taken})
    for visit in several:
        assert asyncio.run(decided(some, visit)) == asyncio.run(decided(whole, visit))


async def decided(plan: Plan, visit: Visit) -> tuple[Any, ...]:
    decision = await decide(plan, visit)
    fields = [field for field in decision.response.headers.items() if field[0] != "date"]
    rule = plan.rule_names.get(decision.route or "")
    status, key = decision.response.status, decision.exchange.cache_key
    return decision.route, rule, decision.origin, status, key, fields


async def decide(plan: Plan, visit: Visit) -> Decision:
    exchange = visit.exchange(plan)
    return await Rehearsal(plan, assumed()).decide(Exchange(exchange.request, exchange.client))


@settings(deadline=None, max_examples=40)
@given(policies(), st.lists(visits(), min_size=1, max_size=4))
def test_a_mutant_that_changes_nothing_is_never_noticed(
    policy: Plain, several: list[Visit]
) -> None:
    """The tests are what was decided before: the strictest there can be."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "site.yaml")
        file.write_text(write(policy))
        plan = compile_plan(parse(write(policy)))
        tests = [recorded(plan, visit, number) for number, visit in enumerate(several)]
        file.with_name("site_test.yaml").write_text(write({"version": 1, "tests": tests}))
        found = Suite.load([file])
        report = found.run()
        assert report.passed, report
        routes = found.plan.policy.routes
        same = [
            Mutant(r.place, "nothing", 0, len(routes), unchanged(found.plan, n))
            for n, r in enumerate(routes)
        ]
        result = asyncio.run(score(found.plan, same, report.results, lambda *_: None))
        assert len(result.survivors) == result.made == len(routes)


def unchanged(plan: Plan, number: int) -> partial[Plan]:
    return partial(patched, plan, plan.policy, {number: plan.policy.routes[number]})


def recorded(plan: Plan, visit: Visit, number: int) -> Plain:
    """A test that `visit` is decided as `plan` decides it."""
    decision = asyncio.run(decide(plan, visit))
    query = f"?{visit.query}" if visit.query else ""
    location = decision.response.headers.get("location")
    edge = decision.response.headers.get("x-edge")
    return {
        "name": str(number),
        "request": f"{visit.method} {visit.scheme}://{visit.host}{visit.path}{query}",
        "headers": dict(visit.fields),
        "from": visit.client,
        "expect": {
            "route": decision.route or False,
            "origin": decision.origin or False,
            "status": decision.response.status,
            "redirect": location if location and decision.response.status < 400 else False,
            "response_headers": {"x-edge": edge if edge is not None else False},
        },
    }
