"""The numbers of one process, as they are added to.

Everything that a client or an origin chooses is put into a closed set first, so that nobody can
make series without end.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from typing import NamedTuple

from edgeproxy.http import Exchange

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of durations; what takes longer is in one more bucket. A hit is in the first two, a
page from its origin in the middle, and the last are those of deadlines."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER = "other"
"""A method outside `METHODS`; or the route of what is counted once there are MAX_TALLIES."""

NONE = "none"
"""The route of a request that none matched, the status of one that got no answer."""

MAX_TALLIES = 4096
MAX_REASONS = 256  # for refusals, of which there are some forty
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


class Kind(NamedTuple):
    """What requests are counted by."""

    route: str
    method: str
    status: str  # the class: 2xx
    cache: str  # hit, miss, stale, revalidated, collapsed, pass
    tier: str  # that had the stored answer; empty if none


class Durations:
    """How many took how long. `buckets` are those of BUCKETS_S and one for the rest."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def add(self, took_s: float) -> None:
        self.buckets[bisect_left(BUCKETS_S, took_s)] += 1
        self.seconds += took_s


class RequestTally:
    """The requests of one kind. The accelerator adds to `remembered` and `bytes` itself."""

    __slots__ = ("bytes", "durations", "remembered")

    def __init__(self) -> None:
        self.remembered = 0  # given again as bytes, in some microseconds that nobody measures
        self.bytes = 0  # of bodies
        self.durations = Durations()  # of the others


class OriginTally:
    """What came of asking one origin."""

    __slots__ = ("durations", "failures", "statuses")

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()  # by class
        self.failures: Counter[str] = Counter()  # by the error of RFC 9209
        self.durations = Durations()  # to the head of the answer

    def answered(self, status: int, took_s: float) -> None:
        self.statuses[status_class(status)] += 1
        self.durations.add(took_s)


class Reloads:
    """What came of changes of the policy."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed = 0
        self.last_success_at_s = 0.0
        self.is_last_good = True

    def note(self, *, is_good: bool) -> None:
        self.is_last_good = is_good
        if is_good:
            self.succeeded += 1
            self.last_success_at_s = time.time()
        else:
            self.failed += 1


class Counts:
    """All that one process counts, but for reloads."""

    def __init__(self) -> None:
        self.requests: dict[Kind, RequestTally] = {}
        self.origins: dict[str, OriginTally] = {}  # by name
        self.connections_open = 0
        self.connections_accepted = 0
        self.refused: Counter[tuple[int, str]] = Counter()  # by status and reason, which is ours
        self.plugin_errors: Counter[tuple[str, str]] = Counter()  # by plugin and hook

    def tally(self, exchange: Exchange) -> RequestTally:
        """Where requests such as `exchange` are counted, once it has its answer."""
        method, response = exchange.request.method, exchange.response
        kind = Kind(
            exchange.route or NONE,
            method if method in METHODS else OTHER,
            status_class(response.status) if response is not None else NONE,
            exchange.cache_verdict,
            exchange.cache_tier,
        )
        found = self.requests.get(kind)
        if found is None:
            if len(self.requests) >= MAX_TALLIES:
                kind = kind._replace(route=OTHER)
            found = self.requests.setdefault(kind, RequestTally())
        return found

    def finished(self, exchange: Exchange) -> None:
        """Count a request that has been answered, or whose client has left."""
        tally = self.tally(exchange)
        tally.bytes += exchange.bytes_sent
        tally.durations.add(time.monotonic() - exchange.started_s)

    def refuse(self, status: int, reason: str) -> None:
        """Count a refusal. `reason` is one of ours; should it ever hold more, it is bounded."""
        if len(self.refused) >= MAX_REASONS and (status, reason) not in self.refused:
            reason = OTHER
        self.refused[status, reason] += 1

    def origin(self, name: str) -> OriginTally:
        """Where what comes of asking this origin of the policy is counted."""
        return self.origins.get(name) or self.origins.setdefault(name, OriginTally())

    @property
    def remembered(self) -> int:
        """How many answers were given again as they were."""
        return sum(tally.remembered for tally in self.requests.values())


def status_class(status: int) -> str:
    return _CLASSES[status // 100 - 1] if 100 <= status <= 599 else NONE
