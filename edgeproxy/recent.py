"""What the entries of the access log say together, for who looks at a dashboard.

Entries are put aside as they are, which costs a request next to nothing, and looked at when
somebody asks: the last so many since the question before. Nobody can fill this: a client that asks
for new paths again and again pushes out other pages that are as rare, and no others.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Literal, TypedDict

MAX_REPEATED = 1000
MAX_OTHERS = 5000
"""Entries between two questions. So a look at them takes some 10 ms at the most."""

MAX_TAIL = 100
MAX_PAGES = 500
MAX_TOLD = 20  # of them, of each kind
MAX_NAMES = 300  # of countries, or variants
MAX_POLICIES = 4  # the last ones, of which it is known who was assigned
MAX_PATH = 200  # characters of it
HALF_LIFE_S = 600.0
"""A page counts half as much after so long without news."""

TAIL_KEYS = (
    "time", "method", "host", "path", "status", "bytes", "duration_ms", "route", "cache", "origin",
    "country", "variant", "request_id",
)  # fmt: skip


class Page(TypedDict):
    """A path, and how many requests for it there were of late. `mean_ms` is how long they took."""

    host: str
    path: str
    requests: float
    mean_ms: float
    status: int  # of the last one


class Report(TypedDict):
    """`seen` is how many entries this is made of: all, or a sample of them where there are many."""

    seen: int
    countries: dict[str, int]
    variants: dict[str, int]
    slowest: list[Page]
    failing: list[Page]
    missing: list[Page]
    tail: list[dict[str, Any]]


class Recent:
    """`add` entries, or `repeat` those of answers that were given again; `report` of all.

    `assigned` is how many visitors were new to a variant under one version of the policy: weights
    may be others under the next.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._repeated: deque[dict[str, Any]] = deque(maxlen=MAX_REPEATED)
        self._others: deque[dict[str, Any]] = deque(maxlen=MAX_OTHERS)
        self.repeat = self._repeated.append
        self.add = self._others.append
        self._seen = 0
        self._countries: Counter[str] = Counter()
        self._variants: Counter[str] = Counter()
        self._assigned: dict[str, Counter[str]] = {}  # by version
        self._tail: deque[dict[str, Any]] = deque(maxlen=MAX_TAIL)
        self._slow, self._failing, self._missing = Pages(), Pages(), Pages()
        self._at_s = now()

    def report(self) -> Report:
        """All that is known, after a look at what is new."""
        self._look()
        return {
            "seen": self._seen,
            "countries": dict(self._countries.most_common()),
            "variants": dict(self._variants.most_common()),
            "slowest": self._slow.told("mean_ms"),
            "failing": self._failing.told(),
            "missing": self._missing.told(),
            "tail": list(reversed(self._tail)),
        }

    def assigned(self, policy: str) -> Mapping[str, int]:
        """By `EXPERIMENT=VARIANT`, after a look at what is new."""
        self._look()
        return self._assigned.get(policy, Counter())

    def _look(self) -> None:
        others, repeated = _taken(self._others), _taken(self._repeated)
        entries = sorted((*others, *repeated), key=_moment)
        self._seen += len(entries)
        self._tail.extend(_shown(entry) for entry in entries[-MAX_TAIL:])
        _count(self._countries, (entry.get("country") for entry in entries))
        _count(self._variants, (v for entry in entries for v in _variants(entry, "variant")))
        for entry in entries:
            if "assigned" in entry:
                _count(self._under(entry["policy"]), _variants(entry, "assigned"))
        now_s = self._now()
        kept, self._at_s = 0.5 ** ((now_s - self._at_s) / HALF_LIFE_S), now_s
        self._slow.take(kept, others)
        self._failing.take(kept, (entry for entry in others if _has_failed(entry["status"])))
        self._missing.take(kept, (entry for entry in others if entry["status"] == 404))

    def _under(self, policy: str) -> Counter[str]:
        if policy not in self._assigned and len(self._assigned) >= MAX_POLICIES:
            del self._assigned[next(iter(self._assigned))]
        return self._assigned.setdefault(policy, Counter())


class Pages:
    """The pages that took most time in all, of which `MAX_PAGES` are kept."""

    def __init__(self) -> None:
        # By host and path: requests, milliseconds, and the last status.
        self._pages: dict[tuple[str, str], tuple[float, float, int]] = {}

    def take(self, kept: float, entries: Iterable[Mapping[str, Any]]) -> None:
        """Count what there was before for `kept` of it, and then `entries`."""
        pages = {key: (n * kept, ms * kept, status) for key, (n, ms, status) in self._pages.items()}
        for entry in entries:
            key = entry["host"], entry["path"][:MAX_PATH]
            count, took_ms, _ = pages.get(key, (0.0, 0.0, 0))
            pages[key] = count + 1, took_ms + entry["duration_ms"], entry["status"]
        if len(pages) > MAX_PAGES:
            pages = dict(heapq.nlargest(MAX_PAGES, pages.items(), key=lambda one: one[1][:2]))
        self._pages = pages

    def told(self, by: Literal["requests", "mean_ms"] = "requests") -> list[Page]:
        found: list[Page] = [
            {"host": host, "path": path, "requests": round(count, 2),
             "mean_ms": round(took_ms / count, 2), "status": status}
            for (host, path), (count, took_ms, status) in self._pages.items()
            if count >= 0.1
        ]  # fmt: skip
        return _largest(found, by)


def _largest[P: Mapping[str, Any]](pages: Iterable[P], by: str) -> list[P]:
    """Those to be told of, always in the same order."""
    return heapq.nsmallest(
        MAX_TOLD, pages, key=lambda page: (-page[by], page["host"], page["path"])
    )


def merged(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What several processes say, as one."""
    every = list(reports)

    def names(part: str) -> dict[str, int]:
        total: Counter[str] = Counter()
        for report in every:
            total.update(report[part])
        return dict(total.most_common(MAX_NAMES))

    def pages(part: str, by: str) -> list[dict[str, Any]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for page in (page for report in every for page in report[part]):
            other = found.get((page["host"], page["path"]))
            found[page["host"], page["path"]] = page if other is None else _together(page, other)
        return _largest(found.values(), by)

    ranked = [(e["time"], -rank, e) for report in every for rank, e in enumerate(report["tail"])]
    ranked.sort(key=itemgetter(0, 1))  # within a second, the last ones of each in turn
    tail = [entry for *_, entry in ranked]
    return {
        "seen": sum(report["seen"] for report in every),
        "countries": names("countries"),
        "variants": names("variants"),
        "slowest": pages("slowest", "mean_ms"),
        "failing": pages("failing", "requests"),
        "missing": pages("missing", "requests"),
        "tail": tail[: -MAX_TAIL - 1 : -1],
    }


def _together(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    count = one["requests"] + other["requests"]
    took_ms = one["requests"] * one["mean_ms"] + other["requests"] * other["mean_ms"]
    return {**one, "requests": round(count, 2), "mean_ms": round(took_ms / count, 2)}


def _taken(entries: deque[dict[str, Any]]) -> list[dict[str, Any]]:
    found = list(entries)
    entries.clear()
    return found


def _moment(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry["time"], entry["request_id"]


def _shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: entry[key] for key in TAIL_KEYS if key in entry}
    return {**shown, "path": shown["path"][:MAX_PATH]}


def _variants(entry: Mapping[str, Any], key: str) -> list[str]:
    found: str = entry.get(key, "")
    return found.split(",") if found else []


def _has_failed(status: int) -> bool:
    """With 0 the client has left before there was an answer."""
    return status >= 500


def _count(counter: Counter[str], names: Iterable[str | None]) -> None:
    for name in names:
        if name is not None and (name in counter or len(counter) < MAX_NAMES):
            counter[name] += 1
