"""Curves of cost against size, as an SVG in the style of the documentation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

COLOUR = "#0b7a4b"
WIDE, HIGH, LEFT, TOP, GAP = 250, 170, 46, 40, 62


def drawn(curves: Mapping[str, Mapping[int, float]]) -> str:
    """One small chart a curve, side by side: microseconds over size, by powers of ten."""
    width = LEFT + len(curves) * (WIDE + GAP)
    height = TOP + HIGH + 62
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#555">',
        f"<title>CPU time of a hit against the number of {', '.join(curves)}</title>",
    ]
    for number, (name, curve) in enumerate(curves.items()):
        parts.append(f'<g transform="translate({LEFT + number * (WIDE + GAP)} {TOP})">')
        parts.extend(_chart(name, curve))
        parts.append("</g>")
    parts.append(
        f'<text x="{LEFT}" y="{height - 8}">CPU microseconds of a hit, over the number of '
        "each.</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _chart(name: str, curve: Mapping[int, float]) -> Iterator[str]:
    yield f'<text y="-12" font-weight="600">{name}</text>'
    top = ceiling(max(curve.values()))
    for quarter in range(5):
        y = HIGH - HIGH * quarter / 4
        yield f'<path d="M0 {y:.1f}h{WIDE}" stroke="#8884" fill="none"/>'
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{top * quarter / 4:g}</text>'
    low, high = math.log(min(curve)), math.log(max(max(curve), min(curve) * 10))
    points = [
        (WIDE * (math.log(size) - low) / (high - low), HIGH - HIGH * cost / top)
        for size, cost in curve.items()
    ]
    for size, (x, _) in zip(curve, points, strict=True):
        yield f'<text x="{x:.1f}" y="{HIGH + 18}" text-anchor="middle">{size:,}</text>'
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{line}" fill="none" stroke="{COLOUR}" stroke-width="2.6"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOUR}"/>'


def ceiling(value: float) -> float:
    """The next of 1, 2, 4, 6, 8 times a power of ten, so that its quarters are round."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value)
