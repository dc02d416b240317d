"""What the linter says is proved is never contradicted: not by any of many visits to any policy."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.http import Exchange
from edgeproxy.lint import lint
from edgeproxy.lint.extents import Extent
from edgeproxy.lint.view import View
from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.policy.source import write
from edgeproxy.routing import find
from tests.policies_strategy import Plain, Visit, policies, visits

_several = st.lists(visits(), min_size=1, max_size=12)


@settings(deadline=None)
@given(policies(), _several)
def test_no_route_that_is_called_unreachable_is_ever_chosen(
    policy: Plain, several: list[Visit]
) -> None:
    plan = compile_plan(parse(write(policy)))
    report = lint(plan.policy)
    lines = {each.place.line for each in report.findings if each.code == "unreachable-route"}
    never = {route.core.name for route in plan.policy.routes if route.place.line in lines}
    for visit in several:
        found = find(plan.routes.candidates(visit.host, visit.path), visit.exchange(plan))
        assert found is None or found.route.name not in never


@settings(deadline=None)
@given(policies(), _several)
def test_what_is_said_of_extents_is_so(policy: Plain, several: list[Visit]) -> None:
    plan = compile_plan(parse(write(policy)))
    view = View(plan.policy)
    for visit in several:
        exchange = visit.exchange(plan)
        met = {extent.number for extent in view.extents if holds(extent, exchange)}
        for extent in view.extents:
            if extent.number in met:
                assert extent.contradiction() is None
                earlier = {each.number for each in view.shadows.get(extent.number, ())}
                assert not earlier or earlier & met
                for other in view.extents:
                    if other.number in met:
                        assert not extent.excludes(other)


def holds(extent: Extent, exchange: Exchange) -> bool:
    """Whether a visit is in an extent, as serving would find out."""
    request = exchange.request
    host = extent.host
    is_host = request.host.endswith(host[1:]) if host[:1] == "*" else host in ("", request.host)
    clauses = extent.match.clauses if extent.match else ()
    return (
        is_host
        and extent.path.holds(request.path)
        and all(each.matcher.compile(each.plugin.instance)(exchange) for each in clauses)
    )
