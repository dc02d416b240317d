"""Curves as SVG: no script draws them, and they take their colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgeproxy.admin.dashboard.words import span_of

WIDTH, HEIGHT = 600, 120  # of what is drawn, in units of its own: it is stretched to the page
ABOVE_PX, HEIGHT_PX, BELOW_PX = 8, 128, 20
_STEPS = (1, 2, 4, 6, 10)  # of which the half is as easily said
_TICKS_S = (10, 30, 60, 120, 180, 300)
MAX_TICKS = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """One line; `name` is also the class that gives it its colour. None is a gap."""

    name: str
    values: Sequence[float | None]
    is_filled: bool = False


def nice_top(value: float) -> float:
    """The end of a scale that has room for `value`: 1, 2, 4 or 6, times a power of ten."""
    if value <= 0:
        return 1.0
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if step * power >= value * 0.999)


def chart(curves: Sequence[Curve], says: str, span_s: float) -> Markup:
    """`curves` of the last `span_s`, over one another, above marks that say how long ago it was;
    beside it belong `levels`. `says` is what it shows, for who does not see it."""
    top = top_of(curves)
    parts = [
        f'<svg class="chart" height="{ABOVE_PX + HEIGHT_PX + BELOW_PX}" role="img" '
        f'aria-label="{escape(says)}">',
        *_grid(span_s),
        f'<svg y="{ABOVE_PX}" width="100%" height="{HEIGHT_PX}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'preserveAspectRatio="none">',
    ]
    for curve in curves:
        parts += _drawn(curve, top)
    parts.append("</svg></svg>")
    return Markup("".join(parts))


def levels(curves: Sequence[Curve], told: Callable[[float], str]) -> list[str]:
    """What the lines across their chart stand for, from the top."""
    top = top_of(curves)
    return [told(top), told(top / 2), told(0.0)]


def top_of(curves: Sequence[Curve]) -> float:
    return nice_top(max((v for c in curves for v in c.values if v is not None), default=0.0))


def _grid(span_s: float) -> Iterator[str]:
    for share in (0, 0.5, 1):
        y = _level_px(share)
        yield f'<line class="grid" x1="0" x2="100%" y1="{y:g}" y2="{y:g}"/>'
    bottom = ABOVE_PX + HEIGHT_PX
    yield f'<text class="now" x="100%" y="{bottom + BELOW_PX - 4}">now</text>'
    for ago_s in ticks_s(span_s):
        x = f"{100 - 100 * ago_s / span_s:.2f}%"
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>'
        yield f'<text class="ago" x="{x}" y="{bottom + BELOW_PX - 4}">{span_of(ago_s)} ago</text>'


def ticks_s(span_s: float) -> list[float]:
    """How long ago the marks below a chart of the last `span_s` are: round, and not too many. There
    is none at the very edge, where half of its words would be cut off."""
    step_s = next((one for one in _TICKS_S if span_s / one <= MAX_TICKS), _TICKS_S[-1])
    count = int(0.95 * span_s / step_s)
    return [float(step_s * number) for number in range(1, count + 1)]


def _level_px(share: float) -> float:
    return ABOVE_PX + HEIGHT_PX * _y(share) / HEIGHT


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
                f'points="{run[0][0]:g},{_y(0)} {points} {run[-1][0]:g},{_y(0)}"/>'
            )
        drawn.append(f'<polyline class="line {curve.name}" points="{points}"/>')
    return drawn
