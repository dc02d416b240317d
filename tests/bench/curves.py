"""What a hit costs against the size of things: routes, stored objects, connections.

`make bench-curves` draws docs/images/cost-curves.svg from what it measures, and prints the tables.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tests.bench.contest import compete
from tests.bench.contestants import EDGEPROXY_SIZE, ROOT, Contestant, configured
from tests.bench.drawing import drawn
from tests.bench.ground import Bench, prepared
from tests.bench.groups import numbered
from tests.bench.mix import Stream, get
from tests.bench.processes import free_port, started
from tests.bench.report import Report, row_of

ROUTES = (10, 100, 1_000, 10_000)
OBJECTS = (1_000, 10_000, 100_000, 1_000_000)
CONNECTIONS = (1, 10, 100, 1_000, 10_000)
ASKED = 100  # of the routes: as many objects are stored, however many routes there are
PAGE_BYTES = 500
ANY = "  - {name: any, cache: all}"


def routes(bench: Bench, origin: str, size: int) -> Contestant:
    """Hits on pages whose routes are spread over the whole policy."""
    asked = [get(f"/r{index}/{index}") for index in range(0, size, max(1, size // ASKED))]
    text = "\n".join(
        f"  - {{name: r{index}, match: {{path: /r{index}/**}}, cache: all}}"
        for index in range(size)
    )
    return _sized(bench, origin, f"{size:,} routes", asked, text)


def objects(bench: Bench, origin: str, size: int) -> Contestant:
    """Hits on pages drawn from all that are in memory."""
    chance = random.Random(19)
    asked = [get(f"/{chance.randrange(size)}") for _ in range(8192)]
    one = _sized(bench, origin, f"{size:,} objects", asked, ANY)
    policy = str(one.folder / EDGEPROXY_SIZE.files[0])
    one.command = [sys.executable, "-m", "tests.bench.filled", policy, str(one.port), str(size)]
    one.warm_up = asked[:100]
    return one


def connections(bench: Bench, origin: str, size: int) -> Contestant:
    """Hits while so many connections are open. At most as many are busy as elsewhere: if all
    were, most of what is seen would be how they queue."""
    one = _sized(bench, origin, f"{size:,} open", [get("/1")], ANY)
    one.connections = min(size, bench.connections)
    one.idle = size - one.connections
    return one


def _sized(bench: Bench, origin: str, name: str, asked: Sequence[bytes], routes: str) -> Contestant:
    stream = Stream(asked)
    one = configured(EDGEPROXY_SIZE, bench.folder, stream, name=name, origin=origin, ROUTES=routes)
    one.warm_up, one.proof = [*asked, asked[-1]], "detail=memory"
    return one


CURVES = {
    "routes": (routes, ROUTES),
    "objects": (objects, OBJECTS),
    "connections": (connections, CONNECTIONS),
}


def most_connections() -> int:
    """As many as this machine lets one process have, with files to spare."""
    most_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS[-1] if most_files == resource.RLIM_INFINITY else most_files // 2


def measured(bench: Bench, origin: str, name: str, limit: int) -> tuple[Report, dict[int, float]]:
    """A curve as a table, and CPU microseconds a hit by size."""
    make, sizes = CURVES[name]
    if name == "connections":
        limit = min(limit, most_connections())
    by_size = {size: make(bench, origin, size) for size in sizes if size <= limit}
    report = Report(name, f"cost of a hit against the number of {name}")
    if len(by_size) < len(sizes):
        report.notes.append(f"sizes above {limit:,} are left out")
    for absent, reason in compete(bench, list(by_size.values())).items():
        raise SystemExit(f"{absent}: {reason}")
    report.rows = {one.name: row_of(one) for one in by_size.values()}
    curve = {size: report.rows[one.name]["CPU us"] for size, one in by_size.items()}
    steps = ", ".join(f"{after - before:+.1f}" for before, after in pairwise(curve.values()))
    report.notes.append(f"CPU us from size to size: {steps}; logarithmic growth has equal steps")
    return report, curve


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-curves", description=__doc__)
    parser.add_argument("curve", nargs="*", metavar="CURVE", help=", ".join(CURVES))
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32, help="that are busy")
    parser.add_argument("--limit", type=int, default=1_000_000, help="leave out sizes above")
    parser.add_argument("--svg", type=Path, default=ROOT / "docs" / "images" / "cost-curves.svg")
    options = parser.parse_args()
    unknown = [name for name in options.curve if name not in CURVES]
    if unknown:
        parser.error(f"there is no curve {unknown[0]!r}; there are: {', '.join(CURVES)}")
    port, curves = free_port(), {}
    with (
        prepared(options) as bench,
        started(numbered(port, PAGE_BYTES), port, bench.cores[-1:]),
    ):
        for name in options.curve or CURVES:
            report, curves[name] = measured(bench, f"127.0.0.1:{port}", name, options.limit)
            print("\n".join(report.lines()) + "\n", flush=True)
    options.svg.write_text(drawn(curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
