"""`edgeproxy test`: the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

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


def main(options: argparse.Namespace) -> int:
    """0: all passed; 1: some failed; 2: there are none."""
    suite = Suite.load(options.policy, options.tests, named=options.named)
    if not suite.cases:
        print(f"edgeproxy test: {_missing(options)}", file=sys.stderr)
        return 2
    report = suite.run()
    print(report)
    return 0 if report.passed else 1


def _missing(options: argparse.Namespace) -> str:
    if options.named:
        return f"no test has {options.named!r} in its name"
    return "there are no tests; write them into NAME_test.yaml beside NAME.yaml"
