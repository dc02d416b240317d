"""`edgeproxy test`: the command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .report import as_json, as_junit, coverage_lines
from .suite import Suite


def add_command(commands: Any) -> None:
    """`test`, to a set of sub-parsers."""
    test = commands.add_parser("test", help="run the tests of policies, exit 1 if one fails")
    test.set_defaults(command=main)
    test.add_argument("policy", nargs="+", type=Path, help="policy files, or folders of them")
    test.add_argument(
        "--tests", action="append", default=[], type=Path, metavar="PATH",
        help="a file of tests or a folder, in place of those beside the policies",
    )  # fmt: skip
    test.add_argument("-k", "--named", default="", metavar="TEXT", help="only tests so named")
    test.add_argument("--no-coverage", action="store_true", help="say nothing of coverage")
    test.add_argument(
        "--fail-under", type=_percent, metavar="PERCENT", help="exit 1 if less is covered"
    )
    test.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML into this file")
    test.add_argument("--json", action="store_true", help="print the report as JSON")


def _percent(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 100")
    return number


def main(options: argparse.Namespace) -> int:
    """0: all passed; 1: some failed, or too little is covered; 2: there are none."""
    suite = Suite.load(options.policy, options.tests, named=options.named)
    if not suite.cases:
        print(f"edgeproxy test: {_missing(options)}", file=sys.stderr)
        return 2
    report = suite.run()
    if options.junit:
        try:
            options.junit.write_bytes(as_junit(report))
        except OSError as error:
            print(f"edgeproxy test: {options.junit}: {error.strerror}", file=sys.stderr)
            return 2
    if options.json:
        print(json.dumps(as_json(report), indent=1))
    else:
        print(report)
        if not options.no_coverage:
            print("\n".join(coverage_lines(report.coverage)))
    return 0 if report.passed and _is_enough(report.coverage.percent, options.fail_under) else 1


def _is_enough(percent: float, wanted: float | None) -> bool:
    if wanted is None or percent >= wanted:
        return True
    print(f"edgeproxy test: coverage {percent:.1f} % is under {wanted:g} %", file=sys.stderr)
    return False


def _missing(options: argparse.Namespace) -> str:
    if options.named:
        return f"no test has {options.named!r} in its name"
    return "there are no tests; write them into NAME_test.yaml beside NAME.yaml"
