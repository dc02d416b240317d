"""Figures as people read them."""

from __future__ import annotations

_SIZES = ("B", "KB", "MB", "GB", "TB")
NOTHING = "\N{EN DASH}"  # where there is no figure


def number(value: float) -> str:
    """`1,234`, `12.3`, `0.42`."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(value: float) -> str:
    """`1.2 MB`."""
    for unit in _SIZES[:-1]:
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} {_SIZES[-1]}"


def duration(seconds: float | None) -> str:
    """`0.4 ms`, `12 ms`, `1.3 s`."""
    if seconds is None:
        return NOTHING
    if seconds >= 1:
        return f"{seconds:.1f} s"
    ms = seconds * 1000
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"


def span_of(seconds: float) -> str:
    """`40 s`, `12 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def percent(share: float | None) -> str:
    """`97.3 %`."""
    if share is None:
        return NOTHING
    return f"{share * 100:.0f} %" if share in (0, 1) else f"{share * 100:.1f} %"
