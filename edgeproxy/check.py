"""`edgeproxy check`: what is wrong with policies, and what about them is hardly meant."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeproxy.errors import PolicyError
from edgeproxy.lint import Report, lint
from edgeproxy.policy.policy import Policy


def add_command(commands: Any) -> None:
    """`check`, to a set of sub-parsers."""
    check = commands.add_parser("check", help="report every fault of policies, exit 2 if any")
    check.set_defaults(command=main)
    add = check.add_argument
    add("policy", nargs="+", type=Path, help="policy files, or folders of them")
    add("--expand", action="store_true", help="print the long form as well")
    add(
        "--online",
        action="store_true",
        help="also ask each origin once: redirect loops, a wrong base path, certificates",
    )
    add("--strict", action="store_true", help="exit 2 for warnings too")
    add("--json", action="store_true", help="print everything as JSON")


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy that loads, how many tests it has, what rules find, and what origins answer."""

    policy: Policy
    tests: int
    report: Report
    troubles: Sequence[str]

    def status(self, strict: bool) -> int:
        findings = self.report.findings if strict else self.report.errors
        return 2 if findings or self.troubles else 0

    def as_json(self) -> dict[str, Any]:
        policy = self.policy
        return {
            "policy": policy.version,
            "routes": len(policy.routes),
            "tests": self.tests,
            "plugins": [plugin.name for plugin in policy.plugins],
            "faults": [],
            "findings": [finding.as_json() for finding in self.report.findings],
            "undecided": list(self.report.undecided),
            "online": list(self.troubles),
        }

    def __str__(self) -> str:
        routes = f"{len(self.policy.routes)} routes"
        tests = f", {self.tests} tests" if self.tests else ""
        names = ", ".join(plugin.name for plugin in self.policy.plugins)
        verdict = "loads, but has errors" if self.report.errors else "is good"
        return f"policy {self.policy.version} {verdict}: {routes}{tests}; plugins: {names}"


def check(paths: Sequence[Path], *, online: bool = False) -> Checked:
    """All that can be said about the policy in `paths`. PolicyError if it does not load."""
    from edgeproxy.plan import compile_plan
    from edgeproxy.policy.load import load
    from edgeproxy.policytest.cases import find_files, read_cases

    policy = load(paths)
    plan = compile_plan(policy)
    tests = len(read_cases(find_files(paths), plan))
    troubles: list[str] = []
    if online:
        from edgeproxy.engine.probe import probe

        probes = asyncio.run(probe(plan.origins.values()))
        troubles = [f"origin {one.origin.name!r}: {one.trouble}" for one in probes if one.trouble]
    return Checked(policy, tests, lint(policy), troubles)


def main(options: argparse.Namespace) -> int:
    """0: good, perhaps with warnings; 2: faults, errors, or an origin that does not answer well."""
    try:
        checked = check(options.policy, online=options.online)
    except PolicyError as error:
        if not options.json:
            raise
        _print_json({"faults": [fault.as_json() for fault in error.faults]})
        return 2
    if options.json:
        _print_json(checked.as_json())
    else:
        _tell(checked, options.expand)
    return checked.status(options.strict)


def _tell(checked: Checked, expand: bool) -> None:
    """The result goes to standard output, what was found to standard error."""
    from edgeproxy.policy.source import write

    print(write(checked.policy.expanded), end="") if expand else print(checked, flush=True)
    lines = [*map(str, checked.report.findings), *checked.troubles]
    if checked.report.findings:
        lines.append(str(checked.report))
    if lines:
        print("\n".join(lines), file=sys.stderr)


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, indent=2, ensure_ascii=False))
