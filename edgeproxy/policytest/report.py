"""What came of the tests of a policy: as lines, as JSON, as JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from edgeproxy.policytest.coverage import Coverage
from edgeproxy.policytest.mutation import Score
from edgeproxy.policytest.verdicts import Failure, Result

SHOWN = 20  # gaps, or mutants that nobody noticed

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all tests of a policy. `version` is the policy's."""

    version: str
    results: tuple[Result, ...]
    coverage: Coverage
    seconds: float

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(failure for result in self.results for failure in result.failures)

    @property
    def failed(self) -> int:
        """How many tests did."""
        return sum(bool(result.failures) for result in self.results)

    @property
    def passed(self) -> bool:
        """Whether no test failed; so it is where there are none."""
        return not self.failed

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.failures, self.summary)))

    @property
    def summary(self) -> str:
        total = f"{len(self.results)} {'test' if len(self.results) == 1 else 'tests'}"
        said = f"{self.failed} of {total} failed" if self.failed else f"{total} passed"
        return f"{said} in {self.seconds:.2f} s"


def coverage_lines(coverage: Coverage) -> Iterator[str]:
    """The share that is covered, and what is not."""
    yield str(coverage)
    yield from _cut(coverage.told())


def score_lines(score: Score) -> Iterator[str]:
    """The share of mutants that were noticed, and those that were not."""
    yield str(score)
    yield from _cut(score.survivors)


def _cut(lines: Sequence[object]) -> Iterator[str]:
    yield from map(str, lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"... and {len(lines) - SHOWN} more; --json lists all"


# ------------------------------------------------------------------- for machines


def as_json(report: Report, score: Score | None = None) -> dict[str, Any]:
    """The report as plain data."""
    coverage = report.coverage
    found: dict[str, Any] = {
        "policy": report.version,
        "passed": len(report.results) - report.failed,
        "failed": report.failed,
        "seconds": round(report.seconds, 3),
        "tests": [_test(result) for result in report.results],
        "coverage": {
            "percent": round(coverage.percent, 2),
            "counts": {kind: list(counts) for kind, counts in coverage.counts().items()},
            "gaps": [{"place": str(gap.place), "words": gap.words} for gap in coverage.gaps],
        },
    }
    if score is not None:
        found["mutation"] = {
            "percent": round(score.percent, 2),
            "mutants": score.made,
            "left_out": score.left_out,
            "survivors": [{"place": str(m.place), "words": m.words} for m in score.survivors],
        }
    return found


def _test(result: Result) -> dict[str, Any]:
    return {
        "name": result.case.name,
        "place": str(result.case.place()),
        "passed": not result.failures,
        "seconds": round(result.seconds, 4),
        "failures": [_failure(failure) for failure in result.failures],
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "place": str(failure.place),
        "what": failure.miss.what,
        "expected": failure.miss.expected,
        "came": failure.miss.came,
        "request": failure.request,
        "route": failure.route,
        "decided": str(failure.decided) if failure.decided else None,
        "error": failure.error,
    }


def as_junit(report: Report) -> bytes:
    """The report as JUnit XML, which CI servers read: a suite for each file of tests."""
    root = ElementTree.Element("testsuites", {"name": "edgeproxy test", **_totals(report.results)})
    for file, results in groupby(report.results, lambda result: result.case.place().file):
        found = tuple(results)
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": file, **_totals(found), "errors": "0", "skipped": "0"}
        )
        for result in found:
            suite.append(_testcase(result, file))
    ElementTree.indent(root)
    whole: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return whole + b"\n"


def _totals(results: tuple[Result, ...]) -> dict[str, str]:
    seconds = sum(result.seconds for result in results)
    failed = sum(bool(result.failures) for result in results)
    return {"tests": str(len(results)), "failures": str(failed), "time": f"{seconds:.4f}"}


def _testcase(result: Result, file: str) -> ElementTree.Element:
    place = result.case.place()
    case = ElementTree.Element(
        "testcase",
        {
            "name": _xml(result.case.name),
            "classname": _xml(file),
            "file": _xml(file),
            "line": str(place.line),
            "time": f"{result.seconds:.4f}",
        },
    )
    if result.failures:
        message = _xml(result.failures[0].said)
        failure = ElementTree.SubElement(case, "failure", {"message": message, "type": "failure"})
        failure.text = _xml("\n".join(map(str, result.failures)))
    return case


def _xml(text: str) -> str:
    """`text` without what XML cannot hold (XML 1.0, section 2.2)."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
