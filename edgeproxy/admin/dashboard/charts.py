"""Curves as SVG: no script draws them, and they take their colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 600, 150
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line; `name` is also the class that gives it its colour. None is a gap."""

    name: str
    values: Sequence[float | None]
    is_filled: bool = False


def nice_top(value: float) -> float:
    """The end of a scale that has room for `value`: 1, 2, 2.5 or 5, times a power of ten."""
    if value <= 0:
        return 1.0
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if step * power >= value * 0.999)


def chart(curves: Sequence[Curve], says: str) -> Markup:
    """`curves` over one another, on a scale that ends at `top_of` them. `says` is what it shows,
    for who does not see it."""
    top = top_of(curves)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(says)}">'
    ]
    for share in (0, 0.5, 1):
        y = _y(share)
        parts.append(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y:g}" y2="{y:g}"/>')
    for curve in curves:
        parts += _drawn(curve, top)
    parts.append("</svg>")
    return Markup("".join(parts))


def top_of(curves: Sequence[Curve]) -> float:
    return nice_top(max((v for c in curves for v in c.values if v is not None), default=0.0))


def _y(share: float) -> float:
    return round(HEIGHT - 2 - share * (HEIGHT - 4), 1)


def _drawn(curve: Curve, top: float) -> list[str]:
    step = WIDTH / max(len(curve.values) - 1, 1)
    runs: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(curve.values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((round(number * step, 1), _y(value / top)))
    drawn: list[str] = []
    for run in filter(None, runs):
        points = " ".join(f"{x:g},{y:g}" for x, y in run)
        if curve.is_filled:
            drawn.append(
                f'<polygon class="area {curve.name}" '
                f'points="{run[0][0]:g},{HEIGHT} {points} {run[-1][0]:g},{HEIGHT}"/>'
            )
        drawn.append(f'<polyline class="line {curve.name}" points="{points}"/>')
    return drawn
