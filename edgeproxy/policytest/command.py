"""`edgeproxy test`: the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from edgeproxy.explain import explanation, tell
from edgeproxy.plan import Plan

from .mutation import Progress, Score
from .report import Report, as_json, as_junit, coverage_lines, score_lines
from .suite import Suite


def add_command(commands: Any) -> None:
    """`test`, to a set of sub-parsers."""
    test = commands.add_parser("test", help="run the tests of policies, exit 1 if one fails")
    test.set_defaults(command=main)
    add = test.add_argument
    add("policy", nargs="+", type=Path, help="policy files, or folders of them")
    add(
        "--tests", action="append", default=[], type=Path, metavar="PATH",
        help="a file of tests or a folder, in place of those beside the policies",
    )  # fmt: skip
    add("-k", "--named", default="", metavar="TEXT", help="only tests so named")
    add("--explain", action="store_true", help="explain the request of each test that fails")
    add("--no-coverage", action="store_true", help="say nothing of coverage")
    add("--mutate", action="store_true", help="also try which slips in the policy no test notices")
    add(
        "--fail-under", type=_percent, metavar="PERCENT",
        help="exit 1 if less is covered, or if fewer mutants are noticed",
    )  # fmt: skip
    add("--junit", type=Path, metavar="FILE", help="write JUnit XML into this file")
    add("--json", action="store_true", help="print the report as JSON")


def _percent(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 100")
    return number


def main(options: argparse.Namespace) -> int:
    """0: all passed; 1: some failed, or too little is covered or noticed; 2: wrong use."""
    suite = Suite.load(options.policy, options.tests, named=options.named)
    if not suite.cases:
        _complain(_missing(options))
        return 2
    report = suite.run()
    score = (
        suite.mutate(report, _progress(sys.stderr)) if options.mutate and report.passed else None
    )
    if options.junit:
        try:
            options.junit.write_bytes(as_junit(report))
        except OSError as error:
            _complain(f"{options.junit}: {error.strerror}")
            return 2
    if options.json:
        print(json.dumps(as_json(report, score), indent=1))
    else:
        print("\n".join(_lines(options, suite.plan, report, score)))
    if options.mutate and score is None:
        _complain("no mutants were tried, as a test fails without them")
    return 0 if report.passed and _is_enough(options, report, score) else 1


def _lines(
    options: argparse.Namespace, plan: Plan, report: Report, score: Score | None
) -> Iterator[str]:
    for failure in report.failures:
        yield str(failure)
        if options.explain and failure.decision is not None:
            told = tell(explanation(plan, failure.decision, is_assumed=True, all_routes=False))
            yield "".join(f"    {line}".rstrip() + "\n" for line in told.splitlines())
    yield report.summary
    if not options.no_coverage:
        yield from coverage_lines(report.coverage)
    if score is not None:
        yield from score_lines(score)


def _is_enough(options: argparse.Namespace, report: Report, score: Score | None) -> bool:
    found = {"coverage": report.coverage.percent}
    if score is not None:
        found["mutation score"] = score.percent
    low = [name for name in found if found[name] < (options.fail_under or 0)]
    for name in low:
        _complain(f"{name} {found[name]:.1f} % is under {options.fail_under:g} %")
    return not low


def _missing(options: argparse.Namespace) -> str:
    if options.named:
        return f"no test has {options.named!r} in its name"
    return "there are no tests; write them into NAME_test.yaml beside NAME.yaml"


def _complain(words: str) -> None:
    print(f"edgeproxy test: {words}", file=sys.stderr)


def _progress(stream: TextIO) -> Progress:
    """A line that is written over and over, on a terminal; nothing elsewhere."""
    if not stream.isatty():
        return lambda *_: None

    def show(done: int, total: int, missed: int) -> None:
        if done == total:
            stream.write("\r\033[K")
        elif done % 10 == 0:
            stream.write(f"\r\033[Kmutants: {done} of {total}, {missed} not noticed")
        stream.flush()

    return show
