"""Figures are what happened between two snapshots, whatever was counted before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.metrics.counts import BUCKETS_S
from edgeproxy.metrics.snapshot import OriginState, Refused, Requests, Snapshot
from edgeproxy.metrics.summary import quantile
from edgeproxy.top.figures import Figures, Quantiles, figures

SLOTS = len(BUCKETS_S) + 1
AT = {bound: place for place, bound in enumerate(BUCKETS_S)}


def buckets(**by_bound: int) -> list[int]:
    """Counts by the bounds of their buckets, in milliseconds: `ms25=3`."""
    found = [0] * SLOTS
    for name, count in by_bound.items():
        found[AT[int(name.removeprefix("ms")) / 1000]] = count
    return found


def row(
    route: str, cache: str, count: int, *, tier: str = "", status: str = "2xx", ms: int = 1,
    size: int = 0,
) -> Requests:  # fmt: skip
    return {
        "route": route, "method": "GET", "status": status, "cache": cache, "tier": tier,
        "count": count, "remembered": 0, "bytes": size, "seconds": 0.0,
        "buckets": buckets(**{f"ms{ms}": count}),
    }  # fmt: skip


def origin(name: str, state: str, answers: int, failures: int = 0, ms: int = 50) -> OriginState:
    return {
        "origin": name, "state": state, "statuses": {"2xx": answers},  # type: ignore[typeddict-item]
        "failures": {"connection_refused": failures}, "seconds": 0.0,
        "buckets": buckets(**{f"ms{ms}": answers}),
    }  # fmt: skip


def refused(status: int, reason: str, count: int) -> Refused:
    return {"status": status, "reason": reason, "count": count}


def at(
    at_s: float, *rows: Requests, origins: list[OriginState] | None = None,
    refusals: list[Refused] | None = None, cpu_s: float = 0,
) -> Snapshot:  # fmt: skip
    return {
        "at_s": at_s,
        "policy": {"version": "3f2a90c1d4e7", "routes": 2, "reloads": 0, "failed_reloads": 0,
                   "last_reload_at_s": 0.0, "is_last_reload_good": True},
        "requests": list(rows),
        "origins": origins or [],
        "tiers": [{"name": "memory", "shared": False, "objects": 1, "bytes": 64, "max_bytes": 256,
                   "evicted": 0}],
        "connections_open": 7,
        "connections_accepted": 90,
        "refused": refusals or [],
        "plugin_errors": [],
        "processes": [{"worker": "", "figures": {"process_cpu_seconds_total": cpu_s,
                                                 "process_resident_memory_bytes": 2.0**20}}],
    }  # fmt: skip


def test_rates_are_of_the_time_between() -> None:
    found = figures(
        at(100, row("site", "hit", 1000, tier="memory", size=500), cpu_s=3),
        at(104, row("site", "hit", 1200, tier="memory", size=900), cpu_s=4),
    )
    assert (found.span_s, found.per_s, found.bytes_per_s) == (4, 50, 100)
    assert (found.cpu_share, found.memory_bytes, found.connections) == (0.25, 2**20, 7)
    assert found.tiers == {"memory": 0.25}


def test_nothing_may_have_happened() -> None:
    same = row("site", "hit", 1000)
    found = figures(at(1, same), at(2, same))
    assert (found.per_s, found.hit_share, found.by_source, found.routes) == (0, None, {}, ())
    assert found.took == Quantiles()


def test_after_a_restart_all_that_was_counted_since_is_new() -> None:
    found = figures(
        at(1, row("site", "hit", 1000), origins=[origin("pages", "healthy", 50)],
           refusals=[refused(400, "bad", 9)]),
        at(2, row("site", "hit", 30), origins=[origin("pages", "healthy", 5)],
           refusals=[refused(400, "bad", 2)]),
    )  # fmt: skip
    assert found.per_s == 30
    assert found.origins[0].per_s == 5
    assert found.refusals[0].new == 2


def test_hits_count_among_what_the_cache_was_asked_for() -> None:
    found = figures(
        at(0),
        at(1, row("a", "hit", 80, tier="memory"), row("a", "hit", 5, tier="disk"),
           row("a", "miss", 10), row("a", "stale", 3), row("a", "revalidated", 2),
           row("b", "pass", 100)),
    )  # fmt: skip
    assert found.hit_share == 0.88
    assert found.by_source == {
        "pass": 0.5, "memory": 0.4, "miss": 0.05, "disk": 0.025, "stale": 0.015,
        "revalidated": 0.01,
    }  # fmt: skip
    assert list(found.by_source)[:2] == ["pass", "memory"]
    assert [(route.name, route.hit_share) for route in found.routes] == [("a", 0.88), ("b", None)]


def test_routes_are_shown_by_how_busy_they_are() -> None:
    found = figures(
        at(0, row("quiet", "hit", 500)),
        at(
            2, row("quiet", "hit", 502), row("busy", "hit", 6), row("busy", "pass", 2, status="5xx")
        ),
    )
    assert [(one.name, one.per_s, one.failed_per_s) for one in found.routes] == [
        ("busy", 4, 1),
        ("quiet", 1, 0),
    ]
    assert found.failed_per_s == 1


def test_origins_are_shown_with_the_worst_first() -> None:
    found = figures(
        at(0, origins=[origin("a", "healthy", 10), origin("b", "healthy", 0)]),
        at(2, origins=[origin("a", "healthy", 20), origin("b", "down", 0, failures=4),
                       origin("new", "failing", 2)]),
    )  # fmt: skip
    assert [(one.name, one.state, one.per_s, one.failed_per_s) for one in found.origins] == [
        ("b", "down", 2, 2),
        ("new", "failing", 1, 0),
        ("a", "healthy", 5, 0),
    ]


def test_refusals_are_shown_with_the_newest_first() -> None:
    found = figures(
        at(0, refusals=[refused(400, "two lengths", 7)]),
        at(1, refusals=[refused(400, "two lengths", 7), refused(431, "large head", 1)]),
    )
    assert [(one.status, one.new, one.total) for one in found.refusals] == [
        (431, 1, 1),
        (400, 0, 7),
    ]


def test_quantiles_are_within_their_buckets() -> None:
    found = figures(at(0), at(1, row("a", "hit", 98, ms=1), row("a", "miss", 2, ms=250)))
    assert found.took.p50_s is not None
    assert found.took.p99_s is not None
    assert 0.0005 < found.took.p50_s <= 0.001
    assert 0.1 < found.took.p99_s <= 0.25


@given(st.lists(st.integers(0, 1000), min_size=SLOTS, max_size=SLOTS).filter(any))
def test_quantiles_never_fall_and_stay_in_bounds(counts: list[int]) -> None:
    found = [quantile(counts, share) for share in (0.01, 0.5, 0.9, 0.99, 1)]
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] <= BUCKETS_S[-1]


@pytest.mark.parametrize("place", range(SLOTS))
def test_a_quantile_lies_in_the_bucket_that_has_all(place: int) -> None:
    counts = [0] * SLOTS
    counts[place] = 10
    bounds = (0.0, *BUCKETS_S, BUCKETS_S[-1])
    assert bounds[place] <= quantile(counts, 0.5) <= bounds[place + 1]


def test_figures_are_plain_data() -> None:
    assert isinstance(figures(at(0), at(1)), Figures)
