"""How counts are summed up, so that whoever shows them shows the same: the hit ratio, quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeproxy.metrics.counts import BUCKETS_S

HITS = frozenset(("hit", "stale", "collapsed"))
"""What no origin is asked for, or none of its own."""


def hit_share(by_result: Mapping[str, int]) -> float | None:
    """Of the requests that the cache was asked for, by what it said. None: there was none."""
    total = sum(count for result, count in by_result.items() if result != "pass")
    return sum(by_result.get(result, 0) for result in HITS) / total if total else None


def quantile(buckets: Sequence[int], share: float) -> float:
    """The time within which `share` of what is in `buckets` was done, as Prometheus reckons it:
    evenly spread within a bucket. What is in the last has taken at least the largest bound."""
    wanted = share * sum(buckets)
    below = 0.0
    for count, bound_s in zip(buckets, BUCKETS_S, strict=False):
        if count and wanted <= count:
            return below + (bound_s - below) * wanted / count
        wanted -= count
        below = bound_s
    return below
