"""One frame: figures as tables of `rich`."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeproxy.top.figures import Figures, Quantiles
from edgeproxy.values import as_size

ROWS = 10
STYLES = {"down": "bold red", "failing": "yellow", "healthy": "green"}


def frame(found: Figures, where: str, trouble: str = "") -> RenderableType:
    """What is shown of `found`. `where` says whose figures these are, `trouble` why no newer."""
    parts: list[RenderableType] = [_head(found, where, trouble), "", _totals(found), ""]
    parts += [_routes(found), "", _origins(found)]
    if found.refusals:
        parts += ["", _refusals(found)]
    return Group(*parts)


def _head(found: Figures, where: str, trouble: str) -> Text:
    at = time.strftime("%H:%M:%S", time.localtime(found.at_s))
    line = Text(f"edgeproxy {where}  policy {found.policy}  {at}", style="bold", no_wrap=True)
    if not found.is_last_reload_good:
        line.append("  the last reload was refused", style="bold red")
    if trouble:
        line.append(f"  {trouble}", style="bold red")
    return line


def _totals(found: Figures) -> Table:
    grid = Table.grid(padding=(0, 3))
    for _ in range(4):
        grid.add_column(no_wrap=True)
    per_worker = f" in {found.workers} workers" if found.workers > 1 else ""
    rows = (
        ("requests", f"{rate(found.per_s)}/s", "hits", share(found.hit_share)),
        ("sent", f"{as_size(found.bytes_per_s)}/s", "answers", _sources(found)),
        ("5xx", f"{rate(found.failed_per_s)}/s", "p50, p99", _took(found.took)),
        ("clients", f"{found.connections} connected", "process",
         f"{found.cpu_share:.0%} of a core, {as_size(found.memory_bytes)}{per_worker}"),
    )  # fmt: skip
    for name, value, other_name, other in rows:
        grid.add_row(Text(name, "dim"), Text(value), Text(other_name, "dim"), Text(other))
    if found.tiers:
        full = ", ".join(f"{name} {part:.0%} full" for name, part in found.tiers.items())
        grid.add_row("", "", Text("tiers", "dim"), Text(full))
    return grid


def _sources(found: Figures) -> str:
    return ", ".join(f"{name} {part:.1%}" for name, part in found.by_source.items()) or "none"


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column(title, no_wrap=True, min_width=16)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _routes(found: Figures) -> Table:
    table = _table("ROUTE", "requests/s", "hits", "5xx/s", "p50", "p99")
    for route in found.routes[:ROWS]:
        failed = Text(rate(route.failed_per_s), "red" if route.failed_per_s else "")
        table.add_row(Text(route.name), rate(route.per_s), share(route.hit_share), failed,
                      *_pair(route.took))  # fmt: skip
    if len(found.routes) > ROWS:
        table.add_row(Text(f"and {len(found.routes) - ROWS} more", "dim"))
    return table


def _origins(found: Figures) -> Table:
    table = _table("ORIGIN", "state", "asked/s", "failed/s", "p50", "p99")
    for origin in found.origins[:ROWS]:
        table.add_row(Text(origin.name), Text(origin.state, STYLES[origin.state]),
                      rate(origin.per_s), rate(origin.failed_per_s),
                      *_pair(origin.took))  # fmt: skip
    return table


def _refusals(found: Figures) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("REFUSED", "now", "in all"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("why")
    for one in found.refusals[:ROWS]:
        table.add_row(str(one.status), str(one.new), str(one.total), Text(one.reason))
    return table


def _pair(took: Quantiles) -> tuple[str, str]:
    return span(took.p50_s), span(took.p99_s)


def _took(took: Quantiles) -> str:
    return ", ".join(_pair(took))


def rate(per_s: float) -> str:
    return f"{per_s:.0f}" if per_s >= 10 or per_s == 0 else f"{per_s:.1f}"


def share(part: float | None) -> str:
    return "-" if part is None else f"{part:.1%}"


def span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.0005:
        return "<0.5 ms"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2g} s"
