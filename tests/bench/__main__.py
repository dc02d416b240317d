"""Benchmarks: what a request costs, side by side with other proxies in one run (`make bench`).

Each contestant has a core of its own; the load and the origin are on another. Rounds go A B A B,
so that a machine whose speed drifts favours nobody; medians count, and ratios to the first in the
table. CPU time comes from the system, so that the load generator's own ceiling hides nothing.
docs/performance.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from functools import partial
from pathlib import Path

from tests.bench import groups
from tests.bench.contestants import EDGEPROXY, PEERS, versions
from tests.bench.ground import Bench, prepared
from tests.bench.report import Report

GROUPS = {
    "mixed": groups.mixed,
    "unseen": groups.unseen,
    "miss": groups.missing,
    "pass": groups.passing,
    "cache": groups.cached,
    "connections": groups.connections,
    "workers": groups.workers,
    "memory": groups.memory,
}
ON_DEMAND = {"memory"}  # takes minutes


def chosen(options: argparse.Namespace) -> dict[str, groups.Group]:
    """The groups to run, with what the options say about them."""
    names = options.group or [name for name in GROUPS if name not in ON_DEMAND]
    if options.workers and not options.group:
        names = ["workers"]
    known: dict[str, groups.Group] = {
        **GROUPS,
        "workers": partial(groups.workers, counts=options.workers or (1, 2)),
        "memory": partial(groups.memory, number=options.objects),
    }
    return {name: known[name] for name in names}


def circumstances(bench: Bench) -> dict[str, object]:
    return {
        "cores": len(bench.cores) or 1,
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": bench.load.name,
        "rounds": bench.rounds,
        "seconds": bench.seconds,
        "connections": bench.connections,
        "busy": round(os.getloadavg()[0], 2),
        "versions": ", ".join(versions([*PEERS, EDGEPROXY])),
    }


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="make bench", description=__doc__)
    made.add_argument("group", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    made.add_argument("--seconds", type=float, default=3.0, help="length of a round")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--connections", type=int, default=32, help="that are busy")
    made.add_argument("--workers", type=numbers, metavar="1,2", help="numbers of workers")
    made.add_argument("--objects", type=int, default=groups.OBJECTS, help="in the group `memory`")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    return made


def main() -> int:
    options = parser().parse_args()
    unknown = [name for name in options.group if name not in GROUPS]
    if unknown:
        parser().error(f"there is no group {unknown[0]!r}; there are: {', '.join(GROUPS)}")
    reports: list[Report] = []
    with prepared(options) as bench:
        about = circumstances(bench)
        print("\n".join(f"{key}: {value}" for key, value in about.items()))
        if len(bench.cores) < 2:
            print("everything shares one core: only CPU time a request means anything")
        for run in chosen(options).values():
            reports.append(run(bench))
            print("\n" + "\n".join(reports[-1].lines()), flush=True)
    if options.json is not None:
        found = {**about, "groups": [report.as_json() for report in reports]}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
