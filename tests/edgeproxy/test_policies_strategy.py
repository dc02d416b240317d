"""The random policies and visits of other tests: they load, and they meet."""

from __future__ import annotations

from hypothesis import given, settings

from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.policy.source import write
from edgeproxy.routing import find
from tests.policies_strategy import CLIENTS, Plain, Visit, policies, visits


@settings(deadline=None)
@given(policies(), visits())
def test_every_policy_loads_and_can_be_visited(policy: Plain, visit: Visit) -> None:
    plan = compile_plan(parse(write(policy)))
    exchange = visit.exchange(plan)
    found = find(plan.routes.candidates(visit.host, visit.path), exchange)
    assert found is None or found.route.name in {route["name"] for route in policy["routes"]}


def test_clients_are_where_they_are_said_to_be() -> None:
    plan = compile_plan(parse("""
version: 1
origins: {pages: {url: "https://you.github.io/"}}
geo: {}
"""))  # fmt: skip
    for address, country in CLIENTS.items():
        assert Visit(client=address).exchange(plan).facts.named("geo.country") == country
