"""How counts are kept within bounds, and how those of several processes become one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.health import Health
from edgeproxy.http import Exchange, Request, Response
from edgeproxy.metrics.counts import BUCKETS_S, MAX_REASONS, MAX_TALLIES, OTHER, Counts
from edgeproxy.metrics.exposition import METRICS
from edgeproxy.metrics.snapshot import Snapshot, merged, of_the_past, snapshot
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import parse

POLICY = """\
version: 1
origins: {site: {url: "https://you.github.io/"}}
cache: {memory: {}}
routes: [{name: site}]
"""


def plan() -> Plan:
    return compile_plan(parse(POLICY))


def answered(method: str = "GET", status: int = 200, **changes: Any) -> Exchange:
    made = Exchange(Request(method, "www.example.org", "/"))
    made.response = Response(status)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def figure(found: Snapshot, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    metric = next(one for one in METRICS if one.name == name)
    return {tuple(sample.labels.items()): sample.value for sample in metric.family(found).samples}


def test_methods_and_statuses_are_of_closed_sets() -> None:
    counts = Counts()
    for method, status in (("GET", 204), ("BREW", 418), ("GET", 599)):
        counts.finished(answered(method, status))
    unanswered = answered()
    unanswered.response = None
    counts.finished(unanswered)
    kinds = {(kind.method, kind.status) for kind in counts.requests}
    assert kinds == {("GET", "2xx"), ("other", "4xx"), ("GET", "5xx"), ("GET", "none")}


def test_routes_without_end_become_one() -> None:
    counts = Counts()
    for number in range(MAX_TALLIES + 500):
        counts.finished(answered(route=f"route-{number}"))
    assert len(counts.requests) == MAX_TALLIES + 1
    others = [tally for kind, tally in counts.requests.items() if kind.route == OTHER]
    assert [sum(tally.durations.buckets) for tally in others] == [500]


def test_reasons_without_end_become_one() -> None:
    counts = Counts()
    for number in range(MAX_REASONS + 10):
        counts.refuse(400, f"reason {number}")
    counts.refuse(400, "reason 3")
    assert len(counts.refused) == MAX_REASONS + 1
    assert counts.refused[400, OTHER] == 10
    assert counts.refused[400, "reason 3"] == 2


@given(st.lists(st.floats(0, 100), max_size=50))
def test_every_duration_is_in_the_bucket_below_its_bound(durations: list[float]) -> None:
    tally = Counts().origin("site")
    for took_s in durations:
        tally.answered(200, took_s)
    for place, bound in enumerate(BUCKETS_S):
        under = sum(tally.durations.buckets[: place + 1])
        assert under == sum(took_s <= bound for took_s in durations)


def of_worker(state: str, *statuses: int) -> Snapshot:
    counts = Counts()
    for status in statuses:
        counts.finished(answered(status=status, route="site", bytes_sent=10))
        counts.origin("site").answered(status, 0.02)
    counts.connections_open = 3
    counts.refuse(400, "why")
    found = snapshot(counts, plan(), Health(lambda: 0.0))
    found["origins"][0]["state"] = state  # type: ignore[typeddict-item]
    return found


def test_workers_add_up_and_the_worst_state_counts() -> None:
    total = merged([of_worker("healthy", 200, 404), of_worker("down", 200), of_worker("failing")])
    assert figure(total, "edgeproxy_requests_total") == {
        tuple({"route": "site", "method": "GET", "status": status, "cache": "pass"}.items()): count
        for status, count in (("2xx", 2), ("4xx", 1))
    }
    states = figure(total, "edgeproxy_origin_state")
    assert states[("origin", "site"), ("state", "down")] == 1
    assert sum(states.values()) == 1
    assert total["connections_open"] == 9
    assert [one["count"] for one in total["refused"]] == [3]
    assert total["origins"][0]["statuses"] == {"2xx": 2, "4xx": 1}
    assert sum(total["origins"][0]["buckets"]) == 3


def test_a_tier_that_all_share_is_there_once() -> None:
    one, other = of_worker("healthy"), of_worker("healthy")
    for found in (one, other):
        tier = found["tiers"][0]
        tier["shared"], tier["objects"], tier["evicted"] = True, 7, 2
    assert [merged([one, other])["tiers"][0][key] for key in ("objects", "evicted")] == [7, 4]
    one["tiers"][0]["shared"] = other["tiers"][0]["shared"] = False
    assert merged([one, other])["tiers"][0]["objects"] == 14


def test_of_what_is_gone_only_its_deeds_count() -> None:
    past = of_the_past(of_worker("down", 200))
    total = merged([of_worker("healthy"), past])
    assert sum(figure(total, "edgeproxy_requests_total").values()) == 1
    assert total["connections_open"] == 3
    assert total["origins"][0]["state"] == "healthy"
    assert len(total["processes"]) == 1
