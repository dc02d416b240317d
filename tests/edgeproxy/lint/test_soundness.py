"""What the linter says is proved is never contradicted: not by any of many visits to any policy."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.decision import Rehearsal, assumed, known_facts
from edgeproxy.http import Exchange, Facts, Request
from edgeproxy.lint import lint
from edgeproxy.lint.extents import Extent
from edgeproxy.lint.reach import left_out
from edgeproxy.lint.redirects import journeys
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


# ------------------------------------------------------------------- redirects


def without_conditions(policy: Plain) -> Plain:
    """The same policy with nothing but hosts and paths to match, so that visits can be made up."""
    routes = []
    for route in policy["routes"]:
        matches = [
            {key: value for key, value in match.items() if key in ("host", "path")}
            for match in route.get("matches", ())
        ]
        routes.append({**route, "matches": matches})
    return {**policy, "routes": routes}


@settings(deadline=None)
@given(policies().map(without_conditions))
async def test_redirects_lead_where_they_are_followed_to(policy: Plain) -> None:
    plan = compile_plan(parse(write(policy)))
    rehearsal = Rehearsal(plan, assumed())
    view = View(plan.policy)
    for route in plan.policy.routes:
        for hops in journeys(view, route):
            for hop in hops[:3]:
                facts = {f"{split.replace('experiment ', 'split.')}": case
                         for split, case in hop.visit.cases}  # fmt: skip
                visit = hop.visit
                request = Request("GET", visit.host, visit.path, scheme=visit.scheme)
                decision = await rehearsal.decide(Exchange(request, facts=Facts(facts)))
                assert decision.route == hop.extent.route.core.name
                location = decision.response.headers.get("location")
                to = hop.to
                assert location in (to.path, f"{to.scheme}://{to.host}{to.path}")


# ------------------------------------------------------------------- visitors who get 404

PINNED = ("geo.country", "content.device", "content.language")


@settings(deadline=None)
@given(policies())
def test_visitors_who_are_said_to_get_404_get_it(policy: Plain) -> None:
    plan = compile_plan(parse(write(policy)))
    view = View(plan.policy)
    for extent in view.extents:
        if len(extent.asked) != 1 or extent.asked[0][1].subject not in PINNED:
            continue
        ((_, asked),) = extent.asked
        for value in left_out(view, extent, asked)[:5]:
            facts = Facts(known_facts(plan, {asked.subject: value}))
            assert extent.path.example is not None
            request = Request("GET", extent.example_host, extent.path.example)
            found = plan.routes.candidates(request.host, request.path)
            assert find(found, Exchange(request, facts=facts)) is None
