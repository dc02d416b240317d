"""What there is to know before a policy goes live: `edgeproxy plan`.

It is checked, the tests beside it are run, and recorded requests are replayed if there are any.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeproxy.lint import lint
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import load
from edgeproxy.policytest.suite import Suite
from edgeproxy.replay import Report, replay
from edgeproxy.replay.command import Flows, add_arguments
from edgeproxy.traffic import Unreadable


def add_command(commands: Any, flows: Flows) -> None:
    """`plan`, to a set of sub-parsers."""
    parser = commands.add_parser("plan", help="check, test and replay a policy before it goes live")
    parser.set_defaults(command=main, flows=flows)
    parser.add_argument("policy", nargs="+", type=Path, help="policy files, or folders of them")
    parser.add_argument(
        "--traffic", action="append", default=[], metavar="FILE",
        help="a recording, a HAR file or an access log to replay",
    )  # fmt: skip
    add_arguments(parser)


def main(options: argparse.Namespace) -> int:
    """0: it may go live; 1: a test fails, or something changes that may not; 2: it has faults."""
    suite = Suite.load(options.policy)
    before = compile_plan(load(options.against)) if options.against else None
    found = lint(suite.plan.policy)
    print("\n".join(_checked(suite.plan, before)))
    for finding in found.findings:
        print(f"        {finding}")
    if found.errors:
        print("plan    it is not ready")
        return 2
    tests = suite.run() if suite.cases else None
    print(f"tests   {tests if tests else 'there are none beside it'}")
    try:
        report = _replayed(suite.plan, before, options)
    except Unreadable as error:
        print(f"edgeproxy plan: {error}", file=sys.stderr)
        return 2
    if report is None:
        print("replay  nothing was recorded; see edgeproxy record")
    else:
        first, *rest = report.lines()
        print("\n".join([f"replay  {first}", *(f"        {line}".rstrip() for line in rest)]))
    may_go = (tests is None or tests.passed) and not (report and report.fails(options.fail_on))
    print("plan    it may go live" if may_go else "plan    it is not ready")
    return 0 if may_go else 1


def _checked(plan: Plan, before: Plan | None) -> Iterator[str]:
    yield f"check   policy {plan.version} is good: {len(plan.policy.routes)} routes"
    if before is not None and before.version == plan.version:
        yield "        it says the same as the one it is compared with"


def _replayed(plan: Plan, before: Plan | None, options: argparse.Namespace) -> Report | None:
    traffic = options.traffic
    if not traffic:
        return None
    report = replay(traffic, options.flows(), plan, before, host=options.host)
    if not report.comparison.requests:
        raise Unreadable(f"none of {report.seen.total} records can be replayed")
    return report
