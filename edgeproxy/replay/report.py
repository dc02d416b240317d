"""What a replay has found: as lines for people, as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from edgeproxy.differences import KINDS
from edgeproxy.log_formats import printable
from edgeproxy.replay.comparison import Comparison, Example
from edgeproxy.traffic import Seen

MAX_SHOWN = 400  # characters of each side of an example


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison that is over, and the records that it was made of."""

    comparison: Comparison
    seen: Seen

    def fails(self, kinds: Collection[str]) -> bool:
        """Whether anything of one of `kinds` has changed."""
        return any(self.comparison.counts[kind] for kind in kinds)

    @property
    def versions(self) -> tuple[str, str]:
        """Of the policies, before and after."""
        before = self.comparison.before
        return before.plan.version if before else "", self.comparison.after.plan.version

    def as_json(self) -> dict[str, Any]:
        found, (before, after) = self.comparison, self.versions
        return {
            "before": before or None,
            "after": after,
            "records": self.seen.total,
            "unreadable": self.seen.bad,
            "left_out": found.left_out,
            "requests": found.requests,
            "changed": found.changed,
            "kinds": [self._kind(kind) for kind in KINDS if found.counts[kind]],
            "hit_ratio": {
                name: {"requests": side.hit_ratio.requests, "ratio": round(side.hit_ratio.ratio, 6)}
                for name, side in (("before", found.before), ("after", found.after))
                if side is not None
            },
        }

    def _kind(self, kind: str) -> dict[str, Any]:
        example = self.comparison.examples[kind]
        return {
            "kind": kind,
            "count": self.comparison.counts[kind],
            "example": {
                "method": example.visit.method,
                "url": example.visit.url,
                "before": example.difference.before,
                "after": example.difference.after,
                "why_before": example.why_before,
                "why_after": example.why_after,
            },
        }

    def lines(self) -> Iterator[str]:
        found, (before, after) = self.comparison, self.versions
        against = f"policy {before}" if before else "what was recorded"
        yield f"{_requests(found.requests)}, policy {after} against {against}"
        if self.seen.bad or found.left_out:
            yield f"not replayed: {self.seen.bad} unreadable and {found.left_out} upgrades"
        if not found.changed:
            yield "no request changes"
        elif found.changed == 1:
            yield "1 request changes"
        else:
            yield f"{found.changed} requests change"
        for kind in KINDS:
            if found.counts[kind]:
                yield ""
                yield f"{kind} changes for {_requests(found.counts[kind])}, such as"
                yield from _example(found.examples[kind])
        yield ""
        yield self._hit_ratio()

    def _hit_ratio(self) -> str:
        before, after = self.comparison.before, self.comparison.after.hit_ratio
        then = f"{before.hit_ratio.ratio:.1%} before, " if before else ""
        return (
            f"predicted hit ratio: {then}{after.ratio:.1%} of the {after.requests} requests "
            "that the cache has a part in"
        )


def _requests(number: int) -> str:
    return "1 request" if number == 1 else f"{number} requests"


def _example(example: Example) -> Iterator[str]:
    yield f"  {example.visit.method} {printable(example.visit.url)}"
    one = example.difference
    for label, value, why in (
        ("before", one.before, example.why_before), ("after", one.after, example.why_after)
    ):  # fmt: skip
        yield f"  {label:<6}  {printable(value[:MAX_SHOWN]) or 'none'}"
        if why:
            yield f"          {printable(why)}"
