"""`edgeproxy replay`: the command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgeproxy.differences import KINDS
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import load
from edgeproxy.policy.origins import with_origins
from edgeproxy.policytest.suite import hushed
from edgeproxy.replay.comparison import Comparison
from edgeproxy.replay.report import Report
from edgeproxy.traffic import FlowReader, Seen, Unreadable, read

Flows = Callable[[], FlowReader]
"""Gives the reader of flow files, which takes a second to import."""


def add_command(commands: Any, flows: Flows) -> None:
    """`replay`, to a set of sub-parsers."""
    parser = commands.add_parser(
        "replay", help="decide recorded requests again, and say what changes"
    )
    parser.set_defaults(command=main, flows=flows)
    parser.add_argument(
        "traffic", nargs="+", help="recordings, HAR files or access logs; - is standard input"
    )
    parser.add_argument(
        "--policy", action="append", type=Path, required=True, metavar="PATH",
        help="the policy that decides: a file, or a folder of them",
    )  # fmt: skip
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `replay` and `plan` have in common."""
    parser.add_argument(
        "--against", action="append", type=Path, metavar="PATH",
        help="the policy to compare with, in place of what was recorded",
    )  # fmt: skip
    parser.add_argument(
        "--origin", action="append", default=[], metavar="NAME=URL",
        help="where an origin was when the requests were recorded, as for run; it is not asked",
    )  # fmt: skip
    parser.add_argument("--host", default="", help="the host of records that name none")
    parser.add_argument(
        "--fail-on", type=_kinds, default=(), metavar="KIND,...",
        help=f"exit 1 if one of these changes: {', '.join(KINDS)}; or any",
    )  # fmt: skip


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(part.strip().replace("-", "_") for part in text.split(","))
    if kinds == ("any",):
        return KINDS
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(KINDS)}, any")
    return kinds


def main(options: argparse.Namespace) -> int:
    """0: replayed; 1: something changed that may not; 2: nothing to replay, or wrong use."""
    after, before = plans(options)
    try:
        report = replay(options.traffic, options.flows(), after, before, host=options.host)
    except Unreadable as error:
        print(f"edgeproxy replay: {error}", file=sys.stderr)
        return 2
    if not report.comparison.requests:
        print(
            f"edgeproxy replay: none of {report.seen.total} records can be replayed",
            file=sys.stderr,
        )
        return 2
    print(json.dumps(report.as_json(), indent=2) if options.json else "\n".join(report.lines()))
    return 1 if report.fails(options.fail_on) else 0


def plans(options: argparse.Namespace) -> tuple[Plan, Plan | None]:
    """The policy that decides, and the one to compare with. An origin of `--origin` has to be in
    one of them."""
    after = load(options.policy)
    before = load(options.against) if options.against else None
    if before is None:
        return compile_plan(with_origins(after, options.origin)), None
    return (
        compile_plan(with_origins(after, options.origin, before.origin_names)),
        compile_plan(with_origins(before, options.origin, after.origin_names)),
    )


def replay(
    traffic: Iterable[str | Path],
    flows: FlowReader,
    after: Plan,
    before: Plan | None = None,
    *,
    host: str = "",
) -> Report:
    """What `after` makes of recorded requests, against `before` or against the record.

    Unreadable for what cannot be read. Not for a thread with a running event loop.
    """
    seen, comparison = Seen(), Comparison.of(after, before)

    async def all_of_it() -> None:
        for number, visit in enumerate(read(traffic, flows, seen, host=host)):
            await comparison.add(visit)
            if number % 1024 == 0:
                _progress(seen)

    with hushed(), asyncio.Runner() as runner:
        runner.run(all_of_it())
    _progress(None)
    return Report(comparison, seen)


def _progress(seen: Seen | None) -> None:
    """A bar on a terminal, wiped away at the end."""
    if not sys.stderr.isatty():
        return
    text = ""
    if seen is not None:
        done = round(seen.share * 30)
        text = f"{'#' * done}{'.' * (30 - done)} {seen.total} records"
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
