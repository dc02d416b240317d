"""The page of metrics, and the dashboard that ships, name what there is."""

from __future__ import annotations

import re

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
