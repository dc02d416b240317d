"""Every metric that Prometheus may scrape, and a snapshot in the text that it reads.

The library is only asked when somebody scrapes: 0.35 us a counter and 0.8 us a histogram, for each
request, would be a tenth of what a hit costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import CollectorRegistry

from edgeproxy import __version__
from edgeproxy.health import State
from edgeproxy.metrics.counts import BUCKETS_S
from edgeproxy.metrics.snapshot import Snapshot

type Found = Iterable[tuple[tuple[str, ...], float]]
"""Values of labels, and the figure that they have; the same labels may come again, and add up."""

type Durations = Iterable[tuple[tuple[str, ...], Sequence[int], float]]
"""Values of labels, counts by bucket, and seconds in all."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` as it is scraped: a counter's ends in `_total`. `read` finds it in a snapshot."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    says: str
    read: Callable[[Snapshot], Any]

    @property
    def series(self) -> tuple[str, ...]:
        """The names of what is scraped."""
        ends = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.name + end for end in ends)

    def family(self, snapshot: Snapshot) -> Family:
        name = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        family = Family(name, self.says, self.kind)
        found = self.read(snapshot)
        add = self._histogram if self.kind == "histogram" else self._plain
        add(family, found)
        return family

    def _plain(self, family: Family, found: Found) -> None:
        for values, figure in _added(found).items():
            family.add_sample(self.name, dict(zip(self.labels, values, strict=True)), figure)

    def _histogram(self, family: Family, found: Durations) -> None:
        for values, (buckets, seconds) in _added_durations(found).items():
            labels = dict(zip(self.labels, values, strict=True))
            bounds = [*(repr(bound) for bound in BUCKETS_S), "+Inf"]
            for bound, count in zip(bounds, accumulate(buckets), strict=True):
                family.add_sample(f"{self.name}_bucket", {**labels, "le": bound}, count)
            family.add_sample(f"{self.name}_count", labels, sum(buckets))
            family.add_sample(f"{self.name}_sum", labels, seconds)


def _added(found: Found) -> Mapping[tuple[str, ...], float]:
    totals: defaultdict[tuple[str, ...], float] = defaultdict(int)
    for values, figure in found:
        totals[values] += figure
    return totals


def _added_durations(found: Durations) -> Mapping[tuple[str, ...], tuple[Sequence[int], float]]:
    totals: dict[tuple[str, ...], tuple[Sequence[int], float]] = {}
    for values, buckets, seconds in found:
        before, before_s = totals.get(values, ([0] * len(buckets), 0.0))
        added = [one + more for one, more in zip(before, buckets, strict=True)]
        totals[values] = added, before_s + seconds
    return totals


def scraped(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The text for who accepts such types, and its type: OpenMetrics for those who ask for it."""
    encoder, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(snapshot))
    return encoder(registry), content_type


class _Snapshot:
    """What the library takes for a collector."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            yield metric.family(self._snapshot)


def _rows(part: str, *labels: str, figure: str = "count") -> Callable[[Snapshot], Found]:
    """One figure of each row of a part of the snapshot, under some of its labels."""

    def read(snapshot: Snapshot) -> Found:
        rows: Iterable[Mapping[str, Any]] = snapshot[part]  # type: ignore[literal-required]
        return ((tuple([str(row[label]) for label in labels]), row[figure]) for row in rows)

    return read


def _durations(part: str, *labels: str) -> Callable[[Snapshot], Durations]:
    def read(snapshot: Snapshot) -> Durations:
        rows: Iterable[Mapping[str, Any]] = snapshot[part]  # type: ignore[literal-required]
        return (
            (tuple([row[label] for label in labels]), row["buckets"], row["seconds"])
            for row in rows
        )

    return read


def _one(figure: Callable[[Snapshot], float]) -> Callable[[Snapshot], Found]:
    return lambda snapshot: [((), figure(snapshot))]


def _of_origins(part: Literal["statuses", "failures"]) -> Callable[[Snapshot], Found]:
    def read(snapshot: Snapshot) -> Found:
        for origin in snapshot["origins"]:
            for name, count in origin[part].items():
                yield (origin["origin"], name), count

    return read


def _states(snapshot: Snapshot) -> Found:
    for origin in snapshot["origins"]:
        for state in get_args(State):
            yield (origin["origin"], state), origin["state"] == state


def _hits(snapshot: Snapshot) -> Found:
    for row in snapshot["requests"]:
        if row["tier"]:
            yield (row["tier"], row["cache"]), row["count"]


def _reloads(snapshot: Snapshot) -> Found:
    policy = snapshot["policy"]
    return [(("success",), policy["reloads"]), (("failure",), policy["failed_reloads"])]


def _of_processes(figure: str) -> Callable[[Snapshot], Found]:
    def read(snapshot: Snapshot) -> Found:
        for process in snapshot["processes"]:
            if figure in process["figures"]:
                yield (process["worker"],), process["figures"][figure]

    return read


def _process(name: str, kind: Literal["counter", "gauge"], says: str) -> Metric:
    return Metric(name, kind, ("worker",), says, _of_processes(name))


METRICS = (
    Metric(
        "edgeproxy_requests_total", "counter", ("route", "method", "status", "cache"),
        "Requests that were answered.",
        _rows("requests", "route", "method", "status", "cache"),
    ),
    Metric(
        "edgeproxy_request_duration_seconds", "histogram", ("route", "cache"),
        "From the request to the end of its answer; remembered answers count as 0.",
        _durations("requests", "route", "cache"),
    ),
    Metric(
        "edgeproxy_response_bytes_total", "counter", ("route", "cache"),
        "Bytes of the bodies that were sent.",
        _rows("requests", "route", "cache", figure="bytes"),
    ),
    Metric(
        "edgeproxy_remembered_total", "counter", ("route",),
        "Answers that were given again as they were, which costs least.",
        _rows("requests", "route", figure="remembered"),
    ),
    Metric(
        "edgeproxy_refused_total", "counter", ("status", "reason"),
        "Requests and connections that were refused before any policy saw them.",
        _rows("refused", "status", "reason"),
    ),
    Metric(
        "edgeproxy_connections_open", "gauge", (),
        "Connections of clients that are open now, and streams of HTTP/2 and HTTP/3.",
        _one(lambda snapshot: snapshot["connections_open"]),
    ),
    Metric(
        "edgeproxy_connections_accepted_total", "counter", (),
        "Connections of clients that were let in.",
        _one(lambda snapshot: snapshot["connections_accepted"]),
    ),
    Metric(
        "edgeproxy_cache_hits_total", "counter", ("tier", "cache"),
        "Answers made of a stored one, by the tier that had it.",
        _hits,
    ),
    Metric(
        "edgeproxy_cache_objects", "gauge", ("tier",),
        "Stored answers.",
        _rows("tiers", "name", figure="objects"),
    ),
    Metric(
        "edgeproxy_cache_bytes", "gauge", ("tier",),
        "Bytes in use.",
        _rows("tiers", "name", figure="bytes"),
    ),
    Metric(
        "edgeproxy_cache_max_bytes", "gauge", ("tier",),
        "Bytes that may be in use.",
        _rows("tiers", "name", figure="max_bytes"),
    ),
    Metric(
        "edgeproxy_cache_evicted_total", "counter", ("tier",),
        "Stored answers that went to make room.",
        _rows("tiers", "name", figure="evicted"),
    ),
    Metric(
        "edgeproxy_origin_responses_total", "counter", ("origin", "status"),
        "Answers of origins.",
        _of_origins("statuses"),
    ),
    Metric(
        "edgeproxy_origin_failures_total", "counter", ("origin", "error"),
        "Answers that did not come, or not to their end; errors are those of RFC 9209.",
        _of_origins("failures"),
    ),
    Metric(
        "edgeproxy_origin_response_duration_seconds", "histogram", ("origin",),
        "From asking an origin to the head of its answer.",
        _durations("origins", "origin"),
    ),
    Metric(
        "edgeproxy_origin_state", "gauge", ("origin", "state"),
        "1 for the state that an origin is in: healthy, failing or down.",
        _states,
    ),
    Metric(
        "edgeproxy_plugin_errors_total", "counter", ("plugin", "hook"),
        "Failures of plugins.",
        _rows("plugin_errors", "plugin", "hook"),
    ),
    Metric(
        "edgeproxy_policy_info", "gauge", ("version",),
        "1 for the policy in force.",
        lambda snapshot: [((snapshot["policy"]["version"],), 1)],
    ),
    Metric(
        "edgeproxy_policy_routes", "gauge", (),
        "Routes of the policy in force.",
        _one(lambda snapshot: snapshot["policy"]["routes"]),
    ),
    Metric(
        "edgeproxy_policy_reloads_total", "counter", ("result",),
        "Changes of the policy: reloads, rollbacks and promotions.",
        _reloads,
    ),
    Metric(
        "edgeproxy_policy_last_reload_successful", "gauge", (),
        "0 if the last change was refused, and the policy from before is in force.",
        _one(lambda snapshot: snapshot["policy"]["is_last_reload_good"]),
    ),
    Metric(
        "edgeproxy_policy_last_reload_success_timestamp_seconds", "gauge", (),
        "When a change last came into force; 0 if none has since the start.",
        _one(lambda snapshot: snapshot["policy"]["last_reload_at_s"]),
    ),
    Metric(
        "edgeproxy_build_info", "gauge", ("version",),
        "1 for the version of edgeproxy.",
        lambda snapshot: [((__version__,), 1)],
    ),
    _process(
        "process_cpu_seconds_total", "counter", "Time on processors, of the program and the kernel."
    ),
    _process("process_resident_memory_bytes", "gauge", "Memory in use."),
    _process("process_virtual_memory_bytes", "gauge", "Addresses in use."),
    _process("process_start_time_seconds", "gauge", "When the process began."),
    _process("process_open_fds", "gauge", "File descriptors that are open."),
    _process("process_max_fds", "gauge", "File descriptors that may be open."),
)  # fmt: skip
