"""What the threat model and the page of reliability promise is held by tests that there are."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, ROOT

_SPAN = re.compile(r"`([^`]+)`")


def promises(page: str) -> list[tuple[int, str]]:
    """Number and last cell of each row of the tables whose last column is `tests`."""
    found, is_ours = [], False
    for number, line in enumerate((DOCS / page).read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("|"):
            is_ours = False
            continue
        cell = line.rstrip("|").rpartition("|")[2].strip()
        if is_ours and not set(cell) <= {"-"}:
            found.append((number, cell))
        is_ours = is_ours or cell == "tests"
    return found


@functools.cache
def collected(file: Path) -> frozenset[str]:
    """The names of the tests that pytest collects from `file`, without those that are skipped."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not any(re.search(r"mark\.skip\b", ast.unparse(one)) for one in node.decorator_list)
    )


@pytest.mark.parametrize("page", ["threat-model.md", "reliability.md"])
def test_every_promise_names_tests_that_there_are(page: str) -> None:
    wrong = []
    rows = promises(page)
    assert len(rows) >= 20
    for number, cell in rows:
        spans = _SPAN.findall(cell)
        if not spans or not spans[0].endswith(".py"):
            wrong.append(f"{page}:{number}: no test file is named")
        known = frozenset[str]()
        for span in spans:
            if span.endswith(".py"):
                file = ROOT / "tests" / span
                known = collected(file) if file.is_file() else frozenset()
                if not known or not file.name.startswith("test_"):
                    wrong.append(f"{page}:{number}: there are no tests in tests/{span}")
            elif span not in known:
                wrong.append(f"{page}:{number}: there is no {span} in the file named before it")
    assert not wrong, "\n".join(wrong)


def test_every_metric_that_tells_of_a_fault_is_there() -> None:
    told = set(re.findall(r"`(edgeproxy_\w+)`", (DOCS / "reliability.md").read_text()))
    known = set(re.findall(r"^\| `(edgeproxy_\w+)`", (DOCS / "metrics.md").read_text(), re.M))
    assert told
    assert told <= known


def test_every_test_of_a_threat_is_named() -> None:
    """A file in tests/threats/ that no row mentions has a claim that nobody reads."""
    named = {
        span
        for page in ("threat-model.md", "reliability.md")
        for _, cell in promises(page)
        for span in _SPAN.findall(cell)
    }
    files = {f"threats/{file.name}" for file in (ROOT / "tests" / "threats").glob("test_*.py")}
    assert not files - named
