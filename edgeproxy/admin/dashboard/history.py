"""The figures of the last while: what there was since the start, moment by moment, and so rates."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from edgeproxy.metrics.counts import BUCKETS_S
from edgeproxy.metrics.snapshot import Snapshot
from edgeproxy.metrics.summary import HITS, hit_share, quantile

EVERY_S = 5.0
KEPT = 180  # samples: a quarter of an hour
LATELY_S = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What had been counted at a moment."""

    at_s: float
    requests: int = 0
    bytes: int = 0
    failed: int = 0  # 5xx
    by_result: Counter[str] = field(default_factory=Counter)  # hit, miss, ...
    buckets: tuple[int, ...] = (0,) * (len(BUCKETS_S) + 1)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Sample:
        rows = snapshot["requests"]
        by_result: Counter[str] = Counter()
        for row in rows:
            by_result[row["cache"]] += row["count"]
        return cls(
            at_s=snapshot["at_s"],
            requests=sum(row["count"] for row in rows),
            bytes=sum(row["bytes"] for row in rows),
            failed=sum(row["count"] for row in rows if row["status"] == "5xx"),
            by_result=by_result,
            buckets=tuple(map(sum, zip(*(row["buckets"] for row in rows), strict=True)))
            or cls(0.0).buckets,
        )


@dataclass(frozen=True, slots=True)
class Span:
    """What happened between two samples. Rates are by the second."""

    first: Sample
    last: Sample

    @property
    def took_s(self) -> float:
        return max(self.last.at_s - self.first.at_s, 0.001)

    @property
    def requests(self) -> int:
        return self.last.requests - self.first.requests

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.took_s

    @property
    def bytes_per_s(self) -> float:
        return (self.last.bytes - self.first.bytes) / self.took_s

    @property
    def failed_share(self) -> float | None:
        failed = self.last.failed - self.first.failed
        return failed / self.requests if self.requests else None

    @property
    def failed_per_s(self) -> float:
        return (self.last.failed - self.first.failed) / self.took_s

    @property
    def by_result(self) -> Counter[str]:
        return self.last.by_result - self.first.by_result

    @property
    def hits_per_s(self) -> float:
        return sum(self.by_result[result] for result in HITS) / self.took_s

    @property
    def hit_share(self) -> float | None:
        return hit_share(self.by_result)

    def quantile_s(self, share: float) -> float | None:
        """The time within which that share of the requests was answered; None without any."""
        pairs = zip(self.last.buckets, self.first.buckets, strict=True)
        buckets = [last - first for last, first in pairs]
        return quantile(buckets, share) if any(buckets) else None


class History:
    """The last samples. `note` one now and then; `lately` is about the last minute."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)

    def note(self, snapshot: Snapshot) -> None:
        self._samples.append(Sample.of(snapshot))

    def lately(self, now: Sample) -> Span:
        """From about a minute ago, or from the first sample there is, until `now`."""
        first = next(
            (one for one in self._samples if one.at_s >= now.at_s - LATELY_S - EVERY_S / 2), now
        )
        return Span(first, now)

    def spans(self, now: Sample) -> Iterator[Span]:
        """From sample to sample, up to `now`."""
        for first, last in pairwise((*self._samples, now)):
            if last.at_s > first.at_s:
                yield Span(first, last)
