"""What happened between two snapshots of the counts. Pure functions over plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeproxy.metrics.summary import hit_share, quantile

if TYPE_CHECKING:
    from edgeproxy.metrics.snapshot import OriginState, Requests, Snapshot


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The times within which half of the answers came, and 99 of 100. None: there was none."""

    p50_s: float | None = None
    p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class RouteFigures:
    name: str
    per_s: float
    hit_share: float | None  # of the requests that could be hits
    failed_per_s: float  # answered with 5xx
    took: Quantiles


@dataclass(frozen=True, slots=True)
class OriginFigures:
    name: str
    state: str
    per_s: float
    failed_per_s: float  # no answer, or none to its end
    took: Quantiles


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    reason: str
    new: int
    total: int


@dataclass(frozen=True, slots=True)
class Figures:
    """All that one frame shows. Rates are over `span_s`."""

    at_s: float
    span_s: float
    policy: str
    is_last_reload_good: bool
    per_s: float
    bytes_per_s: float
    failed_per_s: float
    connections: int
    hit_share: float | None
    by_source: dict[str, float]  # shares of all requests: `memory`, `disk`, `miss`, `pass`, ...
    took: Quantiles
    routes: tuple[RouteFigures, ...]
    origins: tuple[OriginFigures, ...]
    refusals: tuple[Refusal, ...]  # the newest first
    memory_bytes: float
    cpu_share: float  # of one core
    workers: int
    tiers: dict[str, float] = field(default_factory=dict)  # how full each is, 0..1


def figures(before: Snapshot, now: Snapshot) -> Figures:
    """From `before` to `now`. After a restart in between, all that was counted since."""
    span_s = max(now["at_s"] - before["at_s"], 0.001)
    rows = _since(before["requests"], now["requests"])
    total = sum(row["count"] for row in rows)
    figures_of = [each["figures"] for each in now["processes"]]
    cpu_s = _cpu_s(now) - _cpu_s(before)
    return Figures(
        at_s=now["at_s"],
        span_s=span_s,
        policy=now["policy"]["version"],
        is_last_reload_good=now["policy"]["is_last_reload_good"],
        per_s=total / span_s,
        bytes_per_s=sum(row["bytes"] for row in rows) / span_s,
        failed_per_s=_failed(rows) / span_s,
        connections=now["connections_open"],
        hit_share=_hit_share(rows),
        by_source=_by_source(rows),
        took=_quantiles(row["buckets"] for row in rows),
        routes=_routes(rows, span_s),
        origins=_origins(before["origins"], now["origins"], span_s),
        refusals=_refusals(before, now),
        memory_bytes=sum(each.get("process_resident_memory_bytes", 0) for each in figures_of),
        cpu_share=max(cpu_s, 0.0) / span_s,
        workers=sum(each["worker"] != "supervisor" for each in now["processes"]),
        tiers={
            tier["name"]: tier["bytes"] / tier["max_bytes"]
            for tier in now["tiers"]
            if tier["max_bytes"]
        },
    )


def _cpu_s(snapshot: Snapshot) -> float:
    found = snapshot["processes"]
    return sum(each["figures"].get("process_cpu_seconds_total", 0) for each in found)


# ------------------------------------------------------------------- requests


def _since(before: Sequence[Requests], now: Sequence[Requests]) -> list[Requests]:
    """The rows of `now` without what `before` had counted, those that have grown."""
    old = {_kind(row): row for row in before}
    grown: list[Requests] = []
    for row in now:
        was = old.get(_kind(row))
        if was is None or was["count"] > row["count"]:  # new, or counted from 0 again
            grown.append(row)
        elif row["count"] > was["count"]:
            grown.append(_minus(row, was))
    return grown


def _kind(row: Requests) -> tuple[str, ...]:
    return row["route"], row["method"], row["status"], row["cache"], row["tier"]


def _minus(row: Requests, was: Requests) -> Requests:
    return {
        **row,
        "count": row["count"] - was["count"],
        "remembered": row["remembered"] - was["remembered"],
        "bytes": row["bytes"] - was["bytes"],
        "seconds": row["seconds"] - was["seconds"],
        "buckets": _less(row["buckets"], was["buckets"]),
    }


def _less(now: Sequence[int], was: Sequence[int]) -> list[int]:
    return [one - other for one, other in zip(now, was, strict=True)]


def _failed(rows: Iterable[Requests]) -> int:
    return sum(row["count"] for row in rows if row["status"] == "5xx")


def _hit_share(rows: Iterable[Requests]) -> float | None:
    by_result: Counter[str] = Counter()
    for row in rows:
        by_result[row["cache"]] += row["count"]
    return hit_share(by_result)


def _by_source(rows: Sequence[Requests]) -> dict[str, float]:
    """Where answers came from: a tier, or what the cache said of them, the most frequent first."""
    counts: Counter[str] = Counter()
    for row in rows:
        from_tier = row["cache"] == "hit" and row["tier"]
        counts[row["tier"] if from_tier else row["cache"]] += row["count"]
    return {name: count / counts.total() for name, count in counts.most_common()}


def _routes(rows: Sequence[Requests], span_s: float) -> tuple[RouteFigures, ...]:
    """The busiest first."""
    by_name: dict[str, list[Requests]] = {}
    for row in rows:
        by_name.setdefault(row["route"], []).append(row)
    found = [
        RouteFigures(
            name,
            sum(row["count"] for row in own) / span_s,
            _hit_share(own),
            _failed(own) / span_s,
            _quantiles(row["buckets"] for row in own),
        )
        for name, own in by_name.items()
    ]
    return tuple(sorted(found, key=lambda route: (-route.per_s, route.name)))


# ------------------------------------------------------------------- origins and refusals


def _origins(
    before: Sequence[OriginState], now: Sequence[OriginState], span_s: float
) -> tuple[OriginFigures, ...]:
    """Every origin of the policy, the worst first."""
    old = {origin["origin"]: origin for origin in before}
    found = [_origin(old.get(each["origin"]), each, span_s) for each in now]
    order = ("down", "failing", "healthy")
    return tuple(sorted(found, key=lambda origin: (order.index(origin.state), origin.name)))


def _origin(was: OriginState | None, now: OriginState, span_s: float) -> OriginFigures:
    answers, failures = sum(now["statuses"].values()), sum(now["failures"].values())
    buckets: Sequence[int] = now["buckets"]
    if was is not None and sum(was["statuses"].values()) <= answers:
        answers -= sum(was["statuses"].values())
        failures -= sum(was["failures"].values())
        buckets = _less(buckets, was["buckets"])
    return OriginFigures(
        now["origin"],
        now["state"],
        (answers + failures) / span_s,
        failures / span_s,
        _quantiles([buckets]),
    )


def _refusals(before: Snapshot, now: Snapshot) -> tuple[Refusal, ...]:
    old = {(row["status"], row["reason"]): row["count"] for row in before["refused"]}
    found = []
    for row in now["refused"]:
        was = old.get((row["status"], row["reason"]), 0)
        new = row["count"] - was if row["count"] >= was else row["count"]
        found.append(Refusal(row["status"], row["reason"], new, row["count"]))
    return tuple(sorted(found, key=lambda one: (-one.new, -one.total, one.status, one.reason)))


# ------------------------------------------------------------------- durations


def _quantiles(every: Iterable[Sequence[int]]) -> Quantiles:
    buckets = [sum(column) for column in zip(*every, strict=True)]
    if not sum(buckets):
        return Quantiles()
    return Quantiles(quantile(buckets, 0.5), quantile(buckets, 0.99))
