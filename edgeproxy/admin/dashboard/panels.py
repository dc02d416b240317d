"""What the panels of the dashboard show, made of the answers of operations."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode

from edgeproxy.admin.asked import Nothing
from edgeproxy.admin.dashboard.charts import Curve, chart, levels
from edgeproxy.admin.dashboard.history import EVERY_S, History, Sample, Span
from edgeproxy.admin.dashboard.notices import notices
from edgeproxy.admin.dashboard.ratios import checked
from edgeproxy.admin.dashboard.words import duration, number, percent, rate, size, span_of
from edgeproxy.admin.dashboard.world import SHADES, drawn, elsewhere
from edgeproxy.admin.routes import BY_OPERATION, Ask
from edgeproxy.metrics.snapshot import OriginState, Requests, Snapshot
from edgeproxy.metrics.summary import HITS, hit_share, quantile

ASKED = (
    "figures", "traffic", "origins", "experiments", "policy_status", "policy_history", "requests",
    "version",
)  # fmt: skip
RESULTS = ("hit", "stale", "revalidated", "collapsed", "miss", "pass")
MAX_ROWS = 10  # of a table
MAX_TAIL = 25
MAX_VERSIONS = 6

type Panels = dict[str, Any]


async def panels(ask: Ask, history: History) -> Panels:
    """All panels as of now. Raises Refusal."""
    found = await asyncio.gather(*(ask(BY_OPERATION[name], Nothing()) for name in ASKED))
    answers = dict(zip(ASKED, cast(Iterable[Mapping[str, Any]], found), strict=True))
    figures, traffic = cast(Snapshot, answers["figures"]), answers["traffic"]
    now = Sample.of(figures)
    lately = history.lately(now)
    origins = _origins(figures, answers["origins"]["origins"])
    policy = {**figures["policy"], **answers["policy_status"]}
    return {
        "version": answers["version"],
        "notices": notices(lately, figures, origins, policy),
        "tiles": _tiles(lately, figures),
        "curves": _curves([*history.spans(now)]),
        "results": _results(now.by_result),
        "tiers": _tiers(figures),
        "origins": origins,
        "routes": _routes(figures["requests"]),
        "countries": _shares(traffic["countries"], MAX_ROWS + 2),
        "world": {
            "map": drawn(traffic["countries"]),
            "elsewhere": elsewhere(traffic["countries"]),
            "shades": [words for _, words in SHADES],
        },
        "experiments": _experiments(answers["experiments"]["experiments"]),
        "pages": {kind: traffic[kind][:MAX_ROWS] for kind in ("slowest", "failing", "missing")},
        "tail": _tail(traffic["tail"][:MAX_TAIL], answers["requests"]["requests"]),
        "traffic": traffic,
        "policy": policy,
        "trial": _trial(policy["candidate"]),
        "plugin_errors": figures["plugin_errors"],
        "versions": answers["policy_history"]["versions"][:MAX_VERSIONS],
    }


def _tiles(lately: Span, figures: Snapshot) -> list[tuple[str, str, str]]:
    """Name, figure and what it is of."""
    middle, most = lately.quantile_s(0.5), lately.quantile_s(0.99)
    took = span_of(lately.took_s)
    return [
        ("Requests", rate(lately.requests_per_s), f"{number(lately.requests)} in {took}"),
        ("Sent", f"{size(lately.bytes_per_s)}/s", "of bodies"),
        ("Hit ratio", percent(lately.hit_share), "no origin was asked"),
        ("Latency", duration(most), f"99 % within; half {duration(middle)}"),
        ("Failed", percent(lately.failed_share), "answered with 5xx"),
        ("Connections", number(figures["connections_open"]), "open now"),
    ]


def _curves(spans: Sequence[Span]) -> list[dict[str, Any]]:
    requests = [
        Curve("requests", [span.requests_per_s for span in spans], is_filled=True),
        Curve("hits", [span.hits_per_s for span in spans], is_filled=True),
        Curve("failed", [span.failed_per_s for span in spans], is_filled=True),
    ]
    latency = [
        Curve("most", [span.quantile_s(0.99) for span in spans]),
        Curve("half", [span.quantile_s(0.5) for span in spans]),
    ]
    span_s = spans[-1].last.at_s - spans[0].first.at_s if spans else 0.0
    return [
        _drawn("Requests", requests, rate, span_s, ("all", "hits", "failed")),
        _drawn("Latency", latency, duration, span_s, ("99 % within", "half within")),
    ]


def _drawn(
    title: str,
    curves: Sequence[Curve],
    told: Callable[[float | None], str],
    span_s: float,
    names: Sequence[str],
) -> dict[str, Any]:
    """A chart, and its legend with the figures at its right end."""
    last = [told(curve.values[-1] if curve.values else None) for curve in curves]
    words = ", ".join(f"{name} {figure}" for name, figure in zip(names, last, strict=True))
    ago = span_of(span_s)
    return {
        "title": title,
        "ago": ago,
        "levels": levels(curves, told),
        "svg": chart(curves, f"{title} over the last {ago}; now: {words}", span_s)
        if span_s >= EVERY_S
        else None,
        "legend": [
            (curve.name, name, figure)
            for curve, name, figure in zip(curves, names, last, strict=True)
        ],
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
            "share": hits[tier["name"]] / total if total else None,
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
        total = sum(one["assigned"] for one in experiment["variants"])
        variants = [
            {**one, "seen": one["assigned"] / total if total else None}
            for one in experiment["variants"]
        ]
        ratio = checked([one["assigned"] for one in variants], [one["share"] for one in variants])
        found.append({**experiment, "variants": variants, "assigned": total, "ratio": ratio})
    return found


def _trial(candidate: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the policy on trial did, beside what the one in force did meanwhile."""
    if candidate is None:
        return None
    both = candidate["answers_in_force"], candidate["answers"]
    totals = [sum(answers.values()) for answers in both]
    classes = [
        {
            "name": name,
            "sides": [
                (answers.get(name, 0), answers.get(name, 0) / total if total else None)
                for answers, total in zip(both, totals, strict=True)
            ],
        }
        for name in sorted({*both[0], *both[1]})
    ]
    return {**candidate, "classes": classes}


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
