"""What there is to know before a policy goes live: `edgeproxy plan`.

It is checked, the tests beside it are run, and recorded requests are replayed if there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproxy.lint import Report as Found
from edgeproxy.lint import lint
from edgeproxy.plan import Plan
from edgeproxy.policytest.report import Report as Tests
from edgeproxy.policytest.report import as_json
from edgeproxy.policytest.suite import Suite
from edgeproxy.replay import Report, replay
from edgeproxy.replay.command import Flows, add_arguments, plans
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
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


@dataclass(frozen=True, slots=True)
class Review:
    """A policy that loads, what rules find in it, and how its tests and a replay went, if any."""

    plan: Plan
    before: Plan | None
    found: Found
    tests: Tests | None = None
    replay: Report | None = None
    fail_on: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """0: it may go live; 1: a test fails, or something changes that may not; 2: its errors."""
        if self.found.errors:
            return 2
        is_bad = self.tests is not None and not self.tests.passed
        return int(is_bad or (self.replay is not None and self.replay.fails(self.fail_on)))

    def lines(self) -> Iterator[str]:
        verdict = "loads, but has errors" if self.found.errors else "is good"
        routes = len(self.plan.policy.routes)
        yield f"check   policy {self.plan.version} {verdict}: {routes} routes"
        if self.before is not None and self.before.version == self.plan.version:
            yield "        it says the same as the one it is compared with"
        for finding in self.found.findings:
            yield f"        {finding}"
        if not self.found.errors:
            yield f"tests   {self.tests or 'there are none beside it'}"
            yield from self._replayed()
        yield "plan    it is not ready" if self.status else "plan    it may go live"

    def _replayed(self) -> Iterator[str]:
        if self.replay is None:
            yield "replay  nothing was recorded; see edgeproxy record"
            return
        first, *rest = self.replay.lines()
        yield f"replay  {first}"
        for line in rest:
            yield f"        {line}".rstrip()

    def as_json(self) -> dict[str, Any]:
        return {
            "policy": self.plan.version,
            "routes": len(self.plan.policy.routes),
            "may_go_live": not self.status,
            "findings": [finding.as_json() for finding in self.found.findings],
            "tests": None if self.tests is None else as_json(self.tests),
            "replay": None if self.replay is None else self.replay.as_json(),
        }


def main(options: argparse.Namespace) -> int:
    """What `Review.status` says; 2 also if the policy, or what was recorded, cannot be read."""
    try:
        review = _reviewed(options)
    except Unreadable as error:
        print(f"edgeproxy plan: {error}", file=sys.stderr)
        return 2
    print(json.dumps(review.as_json(), indent=2) if options.json else "\n".join(review.lines()))
    return review.status


def _reviewed(options: argparse.Namespace) -> Review:
    suite = Suite.load(options.policy)
    after, before = plans(options)
    found = lint(suite.plan.policy)
    if found.errors:
        return Review(suite.plan, before, found)
    tests = suite.run() if suite.cases else None
    replayed = _replayed(after, before, options) if options.traffic else None
    return Review(suite.plan, before, found, tests, replayed, options.fail_on)


def _replayed(plan: Plan, before: Plan | None, options: argparse.Namespace) -> Report:
    report = replay(options.traffic, options.flows(), plan, before, host=options.host)
    if not report.comparison.requests:
        raise Unreadable(f"none of {report.seen.total} records can be replayed")
    return report
