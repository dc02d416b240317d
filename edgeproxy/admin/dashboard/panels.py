"""What the panels of the dashboard show, made of the answers of operations."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode

from edgeproxy.admin.asked import Nothing
from edgeproxy.admin.dashboard.charts import Curve, chart, top_of
from edgeproxy.admin.dashboard.history import History, Sample, Span
from edgeproxy.admin.dashboard.words import NOTHING, duration, number, percent, size, span_of
from edgeproxy.admin.routes import BY_OPERATION, Ask
from edgeproxy.metrics.snapshot import OriginState, Requests, Snapshot
from edgeproxy.metrics.summary import HITS, hit_share, quantile

ASKED = (
    "figures", "traffic", "origins", "experiments", "policy_status", "requests", "version",
)  # fmt: skip
RESULTS = ("hit", "stale", "revalidated", "collapsed", "miss", "pass")
MAX_ROWS = 10  # of a table
MAX_TAIL = 25

type Panels = dict[str, Any]


async def panels(ask: Ask, history: History) -> Panels:
    """All panels as of now. Raises Refusal."""
    found = await asyncio.gather(*(ask(BY_OPERATION[name], Nothing()) for name in ASKED))
    answers = dict(zip(ASKED, cast(Iterable[Mapping[str, Any]], found), strict=True))
    figures, traffic = cast(Snapshot, answers["figures"]), answers["traffic"]
    now = Sample.of(figures)
    return {
        "version": answers["version"],
        "tiles": _tiles(history.lately(now), figures),
        "curves": _curves([*history.spans(now)]),
        "results": _results(now.by_result),
        "tiers": _tiers(figures),
        "origins": _origins(figures, answers["origins"]["origins"]),
        "routes": _routes(figures["requests"]),
        "countries": _shares(traffic["countries"], MAX_ROWS + 2),
        "experiments": _experiments(answers["experiments"]["experiments"]),
        "pages": {kind: traffic[kind][:MAX_ROWS] for kind in ("slowest", "failing", "missing")},
        "tail": _tail(traffic["tail"][:MAX_TAIL], answers["requests"]["requests"]),
        "traffic": traffic,
        "policy": {**figures["policy"], **answers["policy_status"]},
    }


def _tiles(lately: Span, figures: Snapshot) -> list[tuple[str, str, str]]:
    """Name, figure and what it is of."""
    middle, most = lately.quantile_s(0.5), lately.quantile_s(0.99)
    return [
        ("Requests", number(lately.requests_per_s), "a second"),
        ("Sent", size(lately.bytes_per_s), "a second"),
        ("Hit ratio", percent(lately.hit_share), "no origin was asked"),
        ("Latency", duration(most), f"for 99 %; half {duration(middle)}"),
        ("Failed", percent(lately.failed_share), "of all requests"),
        ("Connections", number(figures["connections_open"]), "open now"),
    ]


def _curves(spans: Sequence[Span]) -> list[dict[str, Any]]:
    requests = [
        Curve("requests", [span.requests_per_s for span in spans], is_filled=True),
        Curve("hits", [span.hits_per_s for span in spans], is_filled=True),
    ]
    latency = [
        Curve("most", [span.quantile_s(0.99) for span in spans]),
        Curve("half", [span.quantile_s(0.5) for span in spans]),
    ]
    ago = span_of(spans[-1].last.at_s - spans[0].first.at_s) if spans else NOTHING
    return [
        _drawn("Requests a second", requests, number, ago, ("all", "hits")),
        _drawn("Latency", latency, duration, ago, ("99 %", "half")),
    ]


def _drawn(
    title: str, curves: Sequence[Curve], told: Any, ago: str, names: Sequence[str]
) -> dict[str, Any]:
    last = [next((v for v in reversed(c.values) if v is not None), 0.0) for c in curves]
    words = ", ".join(f"{name} {told(v)}" for name, v in zip(names, last, strict=True))
    return {
        "title": title,
        "svg": chart(curves, f"{title} over the last {ago}; now: {words}"),
        "top": told(top_of(curves)),
        "ago": ago,
        "legend": [(curve.name, name) for curve, name in zip(curves, names, strict=True)],
    }


def _results(by_result: Counter[str]) -> list[dict[str, Any]]:
    total = sum(by_result.values())
    left, found = 0.0, []
    for name in RESULTS:
        share = by_result[name] / total if total else 0.0
        found.append({"name": name, "count": by_result[name], "share": share, "left": left})
        left += share
    return found


def _tiers(figures: Snapshot) -> list[dict[str, Any]]:
    by_result: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for row in figures["requests"]:
        by_result[row["cache"]] += row["count"]
        if row["cache"] in HITS:
            hits[row["tier"]] += row["count"]
    total = sum(count for result, count in by_result.items() if result != "pass")
    rows = [
        {
            **tier,
            "hits": hits[tier["name"]],
            "share": hits[tier["name"]] / total if total else 0.0,
            "fill": tier["bytes"] / tier["max_bytes"] if tier["max_bytes"] else 0.0,
        }
        for tier in figures["tiers"]
    ]
    return [*rows, {"name": "all", "hits": hits.total(), "share": hit_share(by_result)}]


def _origins(figures: Snapshot, known: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    asked = {origin["origin"]: origin for origin in figures["origins"]}
    found = []
    for origin in known:
        counts = asked.get(origin["name"])
        statuses = counts["statuses"] if counts else {}
        failures = counts["failures"] if counts else {}
        found.append(
            {
                **origin,
                "answers": sum(statuses.values()),
                "failed": sum(failures.values()) + statuses.get("5xx", 0),
                "half_s": _took_s(counts, 0.5),
                "most_s": _took_s(counts, 0.99),
            }
        )
    return found


def _took_s(origin: OriginState | None, share: float) -> float | None:
    return quantile(origin["buckets"], share) if origin and any(origin["buckets"]) else None


def _routes(rows: Iterable[Requests]) -> list[dict[str, Any]]:
    by_route: Counter[str] = Counter()
    for row in rows:
        by_route[row["route"]] += row["count"]
    return _shares(by_route, MAX_ROWS + 2)


def _shares(counts: Mapping[str, int], most: int) -> list[dict[str, Any]]:
    """The largest first; what is beyond `most` of them as one."""
    total = sum(counts.values())
    ordered = Counter(counts).most_common()
    rest = sum(count for _, count in ordered[most:])
    shown = [*ordered[:most], *([("others", rest)] if rest else [])]
    return [{"name": name, "count": n, "share": n / total if total else 0.0} for name, n in shown]


def _experiments(known: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for experiment in known:
        total = sum(one["requests"] for one in experiment["variants"])
        variants = [
            {**one, "seen": one["requests"] / total if total else None}
            for one in experiment["variants"]
        ]
        found.append({**experiment, "variants": variants})
    return found


def _tail(
    entries: Iterable[Mapping[str, Any]], explained: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    ids = {one["id"] for one in explained}
    return [
        {
            **entry,
            "clock": entry["time"][11:19],
            "took": duration(entry["duration_ms"] / 1000),
            "is_explained": entry["request_id"] in ids,
            "asked": urlencode(_asked(entry)),
        }
        for entry in entries
    ]


def _asked(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to explain if no explanation of the request itself is kept: one like it."""
    facts = [("fact", f"country={entry['country']}")] if entry.get("country") else []
    variants = filter(None, entry.get("variant", "").split(","))
    facts += [("fact", f"variant:{variant}") for variant in variants]
    return [("id", entry["request_id"]), ("url", f"http://{entry['host']}{entry['path']}"), *facts]
