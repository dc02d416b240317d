"""How loading and deciding grow with a policy: `make policy-size ARGS='--routes 10,1000,10000'`.

Each policy has routes as real ones do: path by path, some by host, some by country or language,
with redirects, headers and a cache rule. Each route is asked for as often as the others. Times are
of the processor, so that what else runs on the machine counts less.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeproxy.decision import Rehearsal, assumed
from edgeproxy.http import Exchange, Headers, Request
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import load

ROUTES_PER_FILE = 2500  # a file may have 1 MiB and 100,000 values
DECISIONS = 4000
FIRST = """\
version: 1
origins: {site: {url: "https://acme.github.io/docs/"}}
cache: {rules: {html: {ttl: 10m}}}
"""
KINDS = (
    "{name: r%d, match: {path: /s%d/p%d/**}, cache: html}",
    "{name: r%d, match: {path: /s%d/p%d}, redirect: {path: /new/**, status: 301}}",
    "{name: r%d, match: {path: /s%d/p%d/**, country: [DE, FR, XX]}}",
    "{name: r%d, match: {host: www.example.org, path: {prefix: /s%d/p%d}}, cache: html, "
    "response_headers: {set: {x-a: b}}}",
    "{name: r%d, match: {path: /s%d/p%d, language: [de, en]}, cache: html}",
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one policy, in seconds."""

    routes: int
    load_s: float
    decide_s: float


def files(routes: int, folder: Path) -> None:
    """A policy of so many routes, the last of which takes what is left."""
    lines = [f"  - {KINDS[n % 5] % (n, n % 100, n)}" for n in range(routes - 1)]
    lines.append("  - {name: rest, cache: html}")
    (folder / "0000.yaml").write_text(FIRST)
    for start in range(0, len(lines), ROUTES_PER_FILE):
        text = "\n".join(["version: 1", "routes:", *lines[start : start + ROUTES_PER_FILE], ""])
        (folder / f"{start // ROUTES_PER_FILE + 1:04}.yaml").write_text(text)


def visits(routes: int) -> Iterator[Request]:
    for count in range(DECISIONS):
        number = count * 7919 % routes  # a prime: all routes in turn, far from each other
        headers = Headers.of(("accept-language", "de"), ("user-agent", "Mozilla/5.0"))
        path = f"/s{number % 100}/p{number}"
        yield Request("GET", "www.example.org", path, headers=headers)


async def decide(plan: Plan, routes: int) -> float:
    """How long a decision takes, all of the journey but the origin and the cache."""
    rehearsal = Rehearsal(plan, assumed())
    exchanges = [Exchange(request) for request in visits(routes)]
    began_s = time.process_time()
    for exchange in exchanges:
        await rehearsal.decide(exchange)
    took_s = (time.process_time() - began_s) / len(exchanges)
    names = {exchange.route for exchange in exchanges}
    assert len(names) == min(routes, DECISIONS), f"{len(names)} routes were taken"
    return took_s


def measure(routes: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="edgeproxy-") as folder:
        files(routes, Path(folder))
        began_s = time.process_time()
        plan = compile_plan(load([folder]))
        load_s = time.process_time() - began_s
    decide_s = min(asyncio.run(decide(plan, routes)) for _ in range(3))
    return Figures(routes, load_s, decide_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--routes", default="10,100,1000,10000", metavar="N,...")
    sizes = [int(text) for text in parser.parse_args().routes.split(",")]
    measure(10)  # so that nothing is imported while it is measured
    print("routes     load    decide")
    for size in sizes:
        found = measure(size)
        print(f"{found.routes:6} {found.load_s:7.3f}s {found.decide_s * 1e6:7.1f}us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
