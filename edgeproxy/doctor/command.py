"""`edgeproxy doctor`: the command line, and its report."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeproxy.addresses import BadAddress
from edgeproxy.doctor.checks import CHECKS
from edgeproxy.doctor.verdict import Verdict
from edgeproxy.errors import PolicyError

PLURALS = {"fault": "faults", "warning": "warnings", "ok": "ok"}


def add_command(commands: Any, default_address: str) -> None:
    """`doctor`, to a set of sub-parsers."""
    doctor = commands.add_parser("doctor", help="check the machine, the policy and the origins")
    doctor.set_defaults(command=main, default_address=default_address)
    add = doctor.add_argument
    add("policy", nargs="*", type=Path, help="policy files, or folders of them")
    for option in ("--listen", "--listen-tls"):
        add(option, action="append", default=[], metavar="ADDR", help="as for run")
    add("--origin", action="append", default=[], metavar="[NAME=]URL", help="as for run")
    add("--offline", action="store_true", help="ask no origin")
    add("--json", action="store_true", help="print the verdicts as JSON")


def main(options: argparse.Namespace) -> int:
    """0: nothing is wrong, perhaps with warnings; 1: a fault; 2: wrong use or a faulty policy."""
    try:
        verdicts = asyncio.run(examine(options))
    except BadAddress as error:
        print(f"edgeproxy doctor: {error}", file=sys.stderr)
        return 2
    except PolicyError as error:
        if not options.json:
            raise
        print(json.dumps({"faults": [fault.as_json() for fault in error.faults]}, indent=2))
        return 2
    counts = Counter(verdict.state for verdict in verdicts)
    if options.json:
        report = {"verdicts": [verdict.as_json() for verdict in verdicts], "counts": counts}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(*verdicts, "", summary(counts), sep="\n")
    return 1 if counts["fault"] else 0


async def examine(options: argparse.Namespace) -> list[Verdict]:
    """All verdicts, the worst of each check first. Raises PolicyError and BadAddress."""
    from edgeproxy.doctor.looking import look
    from edgeproxy.engine.listening import listen_addresses
    from edgeproxy.rollout import PolicyFiles

    plain, tls = _opened(options.listen or _default(options)), _opened(options.listen_tls)
    listen = listen_addresses(plain, tls, {})
    policy = None
    if options.policy or options.origin:
        files = PolicyFiles(options.policy, options.origin, bool(options.listen_tls))
        policy = files.compose(files.sources(), {})
    view = await look(policy, listen, is_online=not options.offline)
    return [verdict for check in CHECKS for verdict in check.verdicts(view)]


def _default(options: argparse.Namespace) -> list[str]:
    return [] if options.listen_tls else [options.default_address]


def _opened(addresses: Sequence[str]) -> list[str]:
    """Those that edgeproxy opens by itself."""
    return [text for text in addresses if text.partition(":")[0] != "systemd"]


def summary(counts: Counter[Any]) -> str:
    """`1 fault, 2 warnings, 14 ok`."""
    return ", ".join(
        f"{counts[state]} {state if counts[state] == 1 else plural}"
        for state, plural in PLURALS.items()
        if counts[state]
    )
