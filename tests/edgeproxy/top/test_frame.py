"""A frame shows figures in plain words, and what others have written as text and no more."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from edgeproxy.top.figures import Figures, OriginFigures, Quantiles, Refusal, RouteFigures
from edgeproxy.top.frame import ROWS, frame, rate, share, span

FIGURES = Figures(
    at_s=0,
    span_s=2,
    policy="3f2a90c1d4e7",
    is_last_reload_good=True,
    per_s=1840.4,
    bytes_per_s=3 * 2**20,
    failed_per_s=0.5,
    connections=212,
    hit_share=0.968,
    by_source={"memory": 0.94, "miss": 0.06},
    took=Quantiles(0.0001, 0.0412),
    routes=(RouteFigures("site", 1790, 0.972, 0.5, Quantiles(0.0001, 0.038)),),
    origins=(OriginFigures("pages", "down", 38, 2, Quantiles(0.031, 1.5)),),
    refusals=(Refusal(431, "[red]large[/red]", 2, 19),),
    memory_bytes=402 * 2**20,
    cpu_share=0.38,
    workers=2,
    tiers={"memory": 0.71},
)


def shown(figures: Figures, trouble: str = "") -> list[list[str]]:
    """The words of each line, as a terminal without colours has them."""
    out = io.StringIO()
    Console(file=out, width=120, highlight=False).print(frame(figures, "unix:/run/a", trouble))
    return [line.split() for line in out.getvalue().splitlines()]


def test_all_of_it_is_there() -> None:
    lines = [" ".join(words) for words in shown(FIGURES)]
    assert lines[0].startswith("edgeproxy unix:/run/a policy 3f2a90c1d4e7 ")
    for line in (
        "requests 1840/s hits 96.8%",
        "sent 3MiB/s answers memory 94.0%, miss 6.0%",
        "5xx 0.5/s p50, p99 <0.5 ms, 41.2 ms",
        "clients 212 connected process 38% of a core, 402MiB in 2 workers",
        "tiers memory 71% full",
        "site 1790 97.2% 0.5 <0.5 ms 38 ms",
        "pages down 38 2.0 31 ms 1.5 s",
        "431 2 19 [red]large[/red]",
    ):
        assert line in lines, "\n".join(lines)


def test_trouble_and_a_refused_reload_are_told_at_the_top() -> None:
    first = " ".join(shown(replace(FIGURES, is_last_reload_good=False), "nobody answers")[0])
    assert first.endswith("the last reload was refused nobody answers")


def test_of_many_routes_the_busiest_are_shown() -> None:
    many = tuple(replace(FIGURES.routes[0], name=f"route-{number}") for number in range(ROWS + 5))
    lines = shown(replace(FIGURES, routes=many, refusals=()))
    assert sum(words[:1] != [] and words[0].startswith("route-") for words in lines) == ROWS
    assert ["and", "5", "more"] in lines
    assert not any("REFUSED" in words for words in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "<0.5 ms"), (0.0012, "1.2 ms"), (0.5, "500 ms"), (2.25, "2.2 s")],
)
def test_times(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_rates_and_shares() -> None:
    assert [rate(number) for number in (0, 0.25, 9.94, 10.4)] == ["0", "0.2", "9.9", "10"]
    assert [share(part) for part in (None, 0, 0.968, 1)] == ["-", "0.0%", "96.8%", "100.0%"]
