"""Coverage tells exactly what the tests of a policy got to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.http import Exchange
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.policy.source import write
from edgeproxy.policytest.coverage import Coverage, Watch, points
from edgeproxy.policytest.suite import Suite
from edgeproxy.routing import attempts, compile_path, find
from edgeproxy.trace import Trace
from tests.policies_strategy import Plain, Visit, policies, visits

POLICY = """\
version: 1
origins: {pages: {url: "https://acme.github.io/docs/"}}
filters:
  - response_headers: {set: {x-a: b}}
routes:
  - name: about
    match: {path: [/about/, /about.html], host: [www.example.org, "*.example.com"]}
    redirect: /company/
  - name: german
    matches:
      - {path: /, country: [DE, AT], device: mobile}
      - {path: /, language: de}
    rewrite: {prefix: /de}
  - name: gone
    match: {path: /press/**, method: GET}
    respond: {status: 410}
  - name: site
    error_page: {body: back soon}
"""


def coverage(folder: Path, *tests: str) -> Coverage:
    (folder / "site.yaml").write_text(POLICY)
    lines = "".join(f"  - {{name: {n}, {test}}}\n" for n, test in enumerate(map(str, tests)))
    (folder / "site_test.yaml").write_text(
        f"version: 1\ntests:\n{lines}".replace("name: ", "name: t")
    )
    return Suite.load([folder / "site.yaml"]).run().coverage


def test_what_no_test_gets_to_is_told_with_its_place(tmp_path: Path) -> None:
    found = coverage(
        tmp_path,
        "get: /about/, expect: {status: 302}",
        "get: /, as: {country: AT, device: desktop}, expect: {status: 200}",
        "get: /, as: {country: FR, language: de}, expect: {route: german}",
    )
    assert [str(gap).replace(f"{tmp_path}/", "") for gap in found.gaps] == [
        "site.yaml:7:67: host '*.example.com' of route 'about' is never met",
        "site.yaml:7:29: path '/about.html' of route 'about' is never met",
        "site.yaml:11:46: clause `device` of route 'german' is never true",
        "site.yaml:14:11: route 'gone' is never taken",
        "site.yaml:15:19: path '/press/**' of route 'gone' is never met",
        "site.yaml:15:38: clause `method` of route 'gone' is never true",
        "site.yaml:15:38: clause `method` of route 'gone' is never false",
        "site.yaml:16:14: filter `respond` of route 'gone' never runs",
        "site.yaml:18:17: filter `error_page` of route 'site' never runs",
    ]
    assert found.counts() == {"routes": (3, 4), "clauses": (9, 15), "filters": (3, 5)}
    assert str(found) == (
        "coverage 62 %: 3 of 4 routes, 9 of 15 outcomes of clauses, 3 of 5 filters"
    )
    told = [gap.words for gap in found.told()]
    assert [words for words in told if "'gone'" in words] == ["route 'gone' is never taken"]


def test_all_that_a_policy_says_can_be_covered(tmp_path: Path) -> None:
    found = coverage(
        tmp_path,
        "get: [/about/, 'https://a.example.com/about.html'], expect: {route: about}",
        "get: /, as: {country: DE, device: mobile}, expect: {route: german}",
        "get: /, as: {country: DE, device: desktop}, expect: {status: 200}",
        "get: /, as: {country: FR, language: de}, expect: {route: german}",
        "get: /press/2018/, expect: {status: 410}",
        "request: POST /press/2018/, expect: {status: 405}",
        "get: /, origin: fails, expect: {body: back soon}",
    )
    assert found.gaps == ()
    assert found.percent == 100


# ------------------------------------------------------------------- against a slow and plain way


def got_to(plan: Plan, exchange: Exchange) -> Iterator[tuple[Any, ...]]:
    """What a request gets to, by trying everything in the order of the policy."""
    request = exchange.request
    for n, route in enumerate(plan.policy.routes):
        if not route.matches:
            yield ("route", n)
            return
        for m, match in enumerate(route.matches):
            hosts = match.core.host or ()
            covering = [i for i, host in enumerate(hosts) if covers(host, request.host)]
            for p, pattern in enumerate(match.core.path or (None,)):
                if (hosts and not covering) or compile_path(pattern)(request.path) is None:
                    continue
                yield ("path", n, m, p)
                yield from (("host", n, m, i) for i in covering)
                for c, clause in enumerate(match.clauses):
                    holds = clause.matcher.compile(clause.plugin.instance)(exchange)
                    yield ("clause", n, m, c, holds)
                    if not holds:
                        break
                else:
                    yield ("route", n)
                    return


def covers(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else pattern == host


@settings(deadline=None, max_examples=60)
@given(policies(), st.lists(visits(), max_size=5))
def test_routes_and_clauses_are_those_that_are_tried(policy: Plain, several: list[Visit]) -> None:
    plan = compile_plan(parse(write(policy)))
    watch = Watch(plan.policy)
    expected: set[tuple[Any, ...]] = set()
    for visit in several:
        expected.update(got_to(plan, visit.exchange(plan)))
        watch.note(routed(plan, visit.exchange(plan)))
    assert watch.seen == expected
    missed = {gap.id for gap in watch.coverage().gaps if gap.kind != "filters"}
    assert missed == {p.id for p in points(plan.policy) if p.kind != "filters"} - expected


def routed(plan: Plan, exchange: Exchange) -> Exchange:
    """The exchange when its route is known, with a trace."""
    candidates = plan.routes.candidates(exchange.request.host, exchange.request.path)
    exchange.trace = Trace(attempts=attempts(candidates, exchange))
    found = find(candidates, exchange)
    exchange.route = found.route.name if found else None
    return exchange
