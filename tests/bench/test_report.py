"""What is made of measurements: medians, ratios to the first row, a table, a drawing."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.contestants import Contestant
from tests.bench.drawing import ceiling, drawn
from tests.bench.load import Round
from tests.bench.mix import Stream
from tests.bench.report import Report, row_of


def contestant(costs_us: list[float], rounds: list[Round]) -> Contestant:
    one = Contestant("edgeproxy", [], 1, Path(), Stream([b""]))
    one.costs_us, one.rounds, one.memory_bytes = costs_us, rounds, 50_000_000
    return one


def test_a_row_has_the_medians_of_the_rounds_and_all_errors() -> None:
    rounds = [Round(100, 2, 1, 9, 1), Round(300, 2, 3, 7), Round(200, 2, 2, 8, 2)]
    row = row_of(contestant([20.0, 24.0, 22.0], rounds))
    assert (row["req/s"], row["p50 ms"], row["p99 ms"]) == (100, 2, 8)
    assert (row["CPU us"], row["MB"], row["errors"]) == (22, 50, 3)
    assert row["± %"] == pytest.approx(100 * 2 / 22)


@pytest.fixture
def report() -> Report:
    rows = {
        "nginx": {"req/s": 50_000.0, "CPU us": 20.0, "errors": 0},
        "edgeproxy": {"req/s": 40_000.0, "CPU us": 25.0, "errors": 3, "objects": 40_000.0},
    }
    return Report("mixed", "hits", rows, ["not installed: haproxy"], ("req/s", "CPU us"))


def test_ratios_are_to_the_first_row(report: Report) -> None:
    assert report.ratio("nginx", "CPU us") == 1
    assert report.ratio("edgeproxy", "CPU us") == 1.25
    assert report.ratio("edgeproxy", "req/s") == 0.8
    assert report.ratio("edgeproxy", "objects") != report.ratio("edgeproxy", "objects")  # NaN


def test_a_table_has_a_line_a_row_and_the_notes(report: Report) -> None:
    title, heads, nginx, edgeproxy, note = report.lines()
    assert title == "mixed: hits"
    assert heads.split() == ["req/s", "ratio", "CPU", "us", "ratio", "errors", "objects"]
    assert nginx.split() == ["nginx", "50,000", "1.00", "20.0", "1.00", "0", "-"]
    assert edgeproxy.split() == ["edgeproxy", "40,000", "0.80", "25.0", "1.25", "3", "40,000"]
    assert note.strip() == "not installed: haproxy"
    assert len({len(line) for line in (heads, nginx, edgeproxy)}) == 1


def test_a_group_without_contestants_says_why() -> None:
    report = Report("workers", "none", notes=["left out: workers: 2: unknown key 'workers'"])
    assert list(report.lines()) == [
        "workers: none",
        "  left out: workers: 2: unknown key 'workers'",
    ]


def test_the_figures_are_json_as_well(report: Report) -> None:
    found = json.loads(json.dumps(report.as_json()))
    assert found["rows"]["edgeproxy"]["errors"] == 3
    assert found["ratios"]["edgeproxy"]["CPU us"] == 1.25


def test_curves_are_drawn_from_left_to_right_and_below_the_top() -> None:
    text = drawn({"routes": {10: 20.0, 100: 21.5, 1000: 40.0}, "objects": {1: 7.0}})
    points = [
        (float(dot.get("cx", "")), float(dot.get("cy", "")))
        for dot in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}circle")
    ]
    assert points[:3] == [(0, 85.0), (125, pytest.approx(78.6, abs=0.1)), (250, 0)]
    assert len(points) == 4


@pytest.mark.parametrize(
    ("value", "top"), [(0.7, 0.8), (1, 1), (17, 20), (39.9, 40), (60, 60), (81, 100), (501, 600)]
)
def test_an_axis_ends_at_a_round_number(value: float, top: float) -> None:
    assert ceiling(value) == pytest.approx(top)
