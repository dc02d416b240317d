"""The page of metrics, and the dashboard that ships, name what there is."""

from __future__ import annotations

import json
import re

import pytest

from edgeproxy.metrics.exposition import METRICS
from tests.docs.blocks import DOCS, table

SERIES = {name for metric in METRICS for name in metric.series}


def named(text: str) -> set[str]:
    """What in `text` looks like the name of a metric."""
    return set(re.findall(r"\b(?:edgeproxy|process)_[a-z_]+\b", text))


def test_the_table_is_that_of_the_code() -> None:
    rows = [
        [f"`{one.name}`", one.kind, ", ".join(f"`{name}`" for name in one.labels), one.says]
        for one in METRICS
    ]
    assert table("metrics.md", "## What there is") == rows


def test_every_label_is_told_about() -> None:
    labels = {label for metric in METRICS for label in metric.labels}
    _, _, below = (DOCS / "metrics.md").read_text().partition("| label | its values |")
    told = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+) \|", below, re.M))))
    assert labels - told <= {"state", "result", "version"}  # the metric's own words say it


def test_names_keep_to_the_convention() -> None:
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert re.fullmatch(r"(edgeproxy|process)_[a-z_]+", metric.name)
        assert metric.says.endswith(".")
    assert len(SERIES) == sum(len(metric.series) for metric in METRICS)


def test_what_the_page_asks_for_exists() -> None:
    text = (DOCS / "metrics.md").read_text()
    assert named(text) - {metric.name for metric in METRICS} <= SERIES


# ------------------------------------------------------------------------ the dashboard

DASHBOARD = json.loads((DOCS / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that Prometheus adds, and that of buckets."""


def queries() -> list[str]:
    """All that the dashboard asks Prometheus for."""
    targets = [target["expr"] for panel in PANELS for target in panel["targets"]]
    variables = [
        one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one
    ]
    annotations = [one["expr"] for one in DASHBOARD["annotations"]["list"]]
    return targets + variables + annotations


@pytest.mark.parametrize("query", queries())
def test_the_dashboard_asks_for_what_exists(query: str) -> None:
    found = named(query)
    assert found, "it names a metric"
    assert found <= SERIES
    known = {label for one in METRICS if found & set(one.series) for label in one.labels}
    selected = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", query))
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query)
    asked = selected | {name.strip() for names in grouped for name in names.split(",")}
    assert asked <= known | OF_PROMETHEUS
    assert query.count("(") == query.count(")")
    counters = {one.name for one in METRICS if one.kind != "gauge"}
    for counter in counters & {name.removesuffix("_bucket") for name in found}:
        assert re.search(rf"(?:rate|label_values)\({counter}", query), f"{counter} only grows"


def test_the_dashboard_shows_every_metric_that_moves() -> None:
    shown = {name.removesuffix("_bucket") for query in queries() for name in named(query)}
    left_out = {one.name for one in METRICS} - shown
    assert left_out == {
        "edgeproxy_policy_info", "edgeproxy_policy_routes", "edgeproxy_policy_reloads_total",
        "process_virtual_memory_bytes", "process_start_time_seconds", "process_open_fds",
        "process_max_fds",
    }  # fmt: skip


def test_panels_stand_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                 for y in range(at["y"], at["y"] + at["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_dashboard_is_of_no_particular_grafana() -> None:
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
