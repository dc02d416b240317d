"""The counts of a moment as plain data, which JSON can carry: of one process, or of several.

Durations are in seconds, sizes in bytes, moments in seconds since 1970. `buckets` count what took
up to the bound at the same place of `BUCKETS_S`, the last one the rest; they are not cumulative.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

from prometheus_client.process_collector import ProcessCollector

from edgeproxy.caching.contents import stats
from edgeproxy.health import Health, State
from edgeproxy.metrics.counts import Counts, Reloads
from edgeproxy.plan import Plan


class Requests(TypedDict):
    """Requests of one route, method, class of status, cache result and tier."""

    route: str  # `none` if no route matched
    method: str  # `other` if it is no common one
    status: str  # `2xx`; `none` if there was no answer
    cache: str  # hit, miss, stale, revalidated, collapsed, pass
    tier: str  # that had the stored answer; empty if none
    count: int
    remembered: int  # of these: given again as they were; in the first bucket, with 0 s
    bytes: int  # of bodies
    seconds: float  # in all
    buckets: list[int]


class OriginState(TypedDict):
    """One origin of the policy: what came of asking it, and how it is now."""

    origin: str
    state: State  # healthy, failing, down: the worst that a worker has seen
    statuses: dict[str, int]  # answers by class of status
    failures: dict[str, int]  # by error of RFC 9209
    seconds: float  # to the heads of its answers
    buckets: list[int]


class TierState(TypedDict):
    """One tier of the cache, fastest first."""

    name: str
    shared: bool  # whether all workers have the same
    objects: int
    bytes: int
    max_bytes: int
    evicted: int


class Refused(TypedDict):
    status: int
    reason: str
    count: int


class PluginErrors(TypedDict):
    plugin: str
    hook: str
    count: int


class Process(TypedDict):
    """One process; figures that its system does not tell are missing."""

    worker: str  # its number, `supervisor`, or empty if there is just one
    figures: dict[str, float]  # by their names in Prometheus: process_cpu_seconds_total, ...


class PolicyState(TypedDict):
    version: str
    routes: int
    reloads: int
    failed_reloads: int
    last_reload_at_s: float  # that succeeded; 0 before the first
    is_last_reload_good: bool


class Snapshot(TypedDict):
    at_s: float
    policy: PolicyState
    requests: list[Requests]
    origins: list[OriginState]
    tiers: list[TierState]
    connections_open: int
    connections_accepted: int
    refused: list[Refused]
    plugin_errors: list[PluginErrors]
    processes: list[Process]


def snapshot(counts: Counts, plan: Plan, health: Health) -> Snapshot:
    """What `counts` says now, under the plan in force."""
    return {
        "at_s": time.time(),
        "policy": {
            "version": plan.version,
            "routes": len(plan.policy.routes),
            "reloads": 0,
            "failed_reloads": 0,
            "last_reload_at_s": 0.0,
            "is_last_reload_good": True,
        },
        "requests": _requests(counts),
        "origins": _origins(counts, plan, health),
        "tiers": [
            {
                "name": tier["name"],
                "shared": tier["shared"],
                "objects": tier.get("objects", 0),
                "bytes": tier.get("bytes", 0),
                "max_bytes": tier.get("max_bytes", 0),
                "evicted": tier.get("evicted", 0),
            }
            for tier in stats(plan.cache)["tiers"]
        ],
        "connections_open": counts.connections_open,
        "connections_accepted": counts.connections_accepted,
        "refused": [
            {"status": status, "reason": reason, "count": count}
            for (status, reason), count in sorted(counts.refused.items())
        ],
        "plugin_errors": [
            {"plugin": plugin, "hook": hook, "count": count}
            for (plugin, hook), count in sorted(counts.plugin_errors.items())
        ],
        "processes": [process()],
    }


def process(worker: str = "") -> Process:
    """This process."""
    found = ProcessCollector(registry=None).collect()
    return {
        "worker": worker,
        "figures": {one.name: one.value for metric in found for one in metric.samples},
    }


def with_reloads(found: Snapshot, reloads: Reloads) -> Snapshot:
    """`found`, with what came of changes of the policy, which happen in one process for all."""
    policy: PolicyState = {
        **found["policy"],
        "reloads": reloads.succeeded,
        "failed_reloads": reloads.failed,
        "last_reload_at_s": reloads.last_success_at_s,
        "is_last_reload_good": reloads.is_last_good,
    }
    return {**found, "policy": policy}


def merged(found: Sequence[Snapshot]) -> Snapshot:
    """Snapshots of several workers as one: sums, the worst state of each origin, and of a tier that
    all of them share what is in it only once."""

    def rows(part: str, *by: str, once: Callable[[Row], Iterable[str]] = lambda _: ()) -> Any:
        every = [row for one in found for row in cast(Mapping[str, Any], one)[part]]
        return _summed(every, by, once)

    return {
        "at_s": max(one["at_s"] for one in found),
        "policy": found[0]["policy"],
        "requests": rows("requests", "route", "method", "status", "cache", "tier"),
        "origins": rows("origins", "origin"),
        "tiers": rows("tiers", "name", once=lambda tier: _ONCE if tier["shared"] else ()),
        "connections_open": sum(one["connections_open"] for one in found),
        "connections_accepted": sum(one["connections_accepted"] for one in found),
        "refused": rows("refused", "status", "reason"),
        "plugin_errors": rows("plugin_errors", "plugin", "hook"),
        "processes": [process for one in found for process in one["processes"]],
    }


def of_the_past(found: Snapshot) -> Snapshot:
    """What still counts of a process that is no more: what it has done, not how it was."""
    return {
        **found,
        "origins": [{**origin, "state": "healthy"} for origin in found["origins"]],
        "tiers": [{**tier, "objects": 0, "bytes": 0, "max_bytes": 0} for tier in found["tiers"]],
        "connections_open": 0,
        "processes": [],
    }


type Row = Mapping[str, Any]

_ONCE = ("objects", "bytes", "max_bytes")  # of a tier that is shared
_BADNESS: dict[State, int] = {"healthy": 0, "failing": 1, "down": 2}


def _summed(
    every: Iterable[Row], by: Sequence[str], once: Callable[[Row], Iterable[str]]
) -> list[dict[str, Any]]:
    """One row for all that are the same in `by`: the largest of what counts `once`, sums of the
    rest."""
    totals: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in every:
        key = tuple([row[name] for name in by])
        total = totals.get(key)
        if total is None:
            totals[key] = dict(row)
            continue
        for name in row.keys() - set(by):
            larger = name in once(row)
            total[name] = max(total[name], row[name]) if larger else _sum(total[name], row[name])
    return list(totals.values())


def _sum(one: Any, other: Any) -> Any:
    match one:
        case list():
            return [left + right for left, right in zip(one, other, strict=True)]
        case dict():
            return dict(Counter(one) + Counter(other))
        case str():  # the state of an origin
            return max(one, other, key=_BADNESS.__getitem__)
        case bool():
            return one
        case _:
            return one + other


def _requests(counts: Counts) -> list[Requests]:
    return [
        {
            "route": kind.route,
            "method": kind.method,
            "status": kind.status,
            "cache": kind.cache,
            "tier": kind.tier,
            "count": tally.remembered + sum(tally.durations.buckets),
            "remembered": tally.remembered,
            "bytes": tally.bytes,
            "seconds": tally.durations.seconds,
            "buckets": [
                tally.remembered + tally.durations.buckets[0],
                *tally.durations.buckets[1:],
            ],
        }
        for kind, tally in sorted(counts.requests.items())
    ]


def _origins(counts: Counts, plan: Plan, health: Health) -> list[OriginState]:
    found: list[OriginState] = []
    for name, origin in plan.origins.items():
        tally = counts.origin(name)
        found.append(
            {
                "origin": name,
                "state": health.state(origin.authority),
                "statuses": dict(tally.statuses),
                "failures": dict(tally.failures),
                "seconds": tally.durations.seconds,
                "buckets": tally.durations.buckets.copy(),
            }
        )
    return found
