"""Whether visitors were divided as the weights say: the check for a sample ratio mismatch.

A mismatch means that something besides the weights has a say in who sees what, and then no
comparison of the variants is worth anything, however large the difference looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MIN_VISITORS = 100
MIN_EXPECTED = 5.0  # of each variant; below, chi-squared is no good approximation
TOO_RARE = 0.001
"""Looked at again and again, chance alone passes 0.05 soon; this is what the field uses here."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """What the counts say. `chance` is how often chance alone leads to counts as far off or
    farther; None where there are too few to tell."""

    verdict: Literal["few", "fits", "off"]
    chance: float | None = None


def checked(counts: Sequence[int], shares: Sequence[float]) -> Ratio:
    """`counts` beside the `shares` that they should have. Variants without a share do not count."""
    pairs = [(count, share) for count, share in zip(counts, shares, strict=True) if share > 0]
    total = sum(count for count, _ in pairs)
    least = min((total * share for _, share in pairs), default=0.0)
    if len(pairs) < 2 or total < MIN_VISITORS or least < MIN_EXPECTED:
        return Ratio("few")
    squared = sum((count - total * share) ** 2 / (total * share) for count, share in pairs)
    chance = chi_squared_tail(squared, len(pairs) - 1)
    return Ratio("off" if chance < TOO_RARE else "fits", chance)


def chi_squared_tail(squared: float, freedom: int) -> float:
    """The chance that chi-squared is larger, for whole degrees of freedom.

    Source: NIST Digital Library of Mathematical Functions, 8.4.5, 8.4.6 and 8.8.6.
    """
    half = squared / 2
    tail, at = (math.erfc(math.sqrt(half)), 0.5) if freedom % 2 else (math.exp(-half), 1.0)
    while at < freedom / 2:
        if half > 0:
            tail += math.exp(at * math.log(half) - half - math.lgamma(at + 1))
        at += 1
    return tail
