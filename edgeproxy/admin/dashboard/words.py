"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "\N{EN DASH}"  # where there is no figure


def number(value: float) -> str:
    """`1,234`, `12.3`, `0.42`."""
    if 0 < value < 0.01:
        return "< 0.01"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rate(value: float | None) -> str:
    """`12.3/s`."""
    return NOTHING if value is None else f"{number(value)}/s"


def stored(value: float) -> str:
    """`1.2 MiB`: of memory and disk, in the units that policies give them in."""
    return _in_units(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def size(value: float) -> str:
    """`1.2 MB`: of what is sent."""
    return _in_units(value, 1000, ("B", "KB", "MB", "GB", "TB"))


def _in_units(value: float, factor: int, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if value < factor:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= factor
    return f"{value:.1f} {units[-1]}"


def duration(seconds: float | None) -> str:
    """`0.4 ms`, `12 ms`, `1.3 s`."""
    if seconds is None:
        return NOTHING
    if seconds >= 1:
        return f"{seconds:.1f} s"
    ms = seconds * 1000
    return f"{ms:.0f} ms" if ms >= 10 or not ms else f"{ms:.1f} ms"


def span_of(seconds: float) -> str:
    """`40 s`, `12 min`."""
    is_short = seconds < 100 and seconds != 60
    return f"{seconds:.0f} s" if is_short else f"{seconds / 60:.0f} min"


def percent(share: float | None) -> str:
    """`97.3 %`. What is not nothing does not look so, nor what is not all."""
    if share is None:
        return NOTHING
    if 0 < share < 0.001 or 0.999 < share < 1:
        return "< 0.1 %" if share < 0.5 else "> 99.9 %"
    return f"{share * 100:.0f} %" if share in (0, 1) else f"{share * 100:.1f} %"
