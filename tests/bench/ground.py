"""Where contests take place: the machine's cores, the site, and the origin that serves it."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.bench import mix
from tests.bench.contestants import BIN, DATABASE, write_countries
from tests.bench.load import Load, answers, generator
from tests.bench.processes import free_port, started

AHEAD = 1 << 32  # request numbers that a round may use


@dataclass(slots=True)
class Bench:
    """Where and how contests take place."""

    folder: Path
    site: Path  # what the origin publishes
    origin: str  # HOST:PORT
    published_s: int  # when the origin was, in its ETags
    networks: list[str]
    seconds: float = 3.0
    rounds: int = 5
    connections: int = 32
    cores: list[int] = field(default_factory=list)
    load: Load = field(default_factory=generator)
    starts: Iterator[int] = field(default_factory=lambda: count(0, AHEAD))

    def proxy_cores(self, wanted: int = 1) -> list[int]:
        """The first `wanted` cores; the load and the origin are on the last. None in particular on
        a machine with one core, or one that cannot pin."""
        return self.cores[:wanted] if len(self.cores) > 1 else []


def available_cores() -> list[int]:
    if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
        return []
    return sorted(os.sched_getaffinity(0))


@contextmanager
def pinned_to_the_last_core(cores: Sequence[int]) -> Iterator[None]:
    """This process, and the load generator that it starts."""
    if len(cores) < 2:
        yield
        return
    os.sched_setaffinity(0, cores[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def prepared(options: argparse.Namespace) -> Iterator[Bench]:
    """The site and its origin, on the last core like the load."""
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most_files != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    cores = available_cores()
    with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-") as name:
        folder, port = Path(name), free_port()
        mix.write_site(folder / "site")
        write_countries(folder)
        pages = [str(BIN / "edgeproxy"), "pages", str(folder / "site"), "--quiet"]
        with (
            pinned_to_the_last_core(cores),
            started([*pages, "--listen", f"127.0.0.1:{port}"], port, cores[-1:]),
        ):
            yield Bench(
                folder,
                folder / "site",
                f"127.0.0.1:{port}",
                publication(port),
                mix.homes(mix.countries(DATABASE)),
                seconds=options.seconds,
                rounds=options.rounds,
                connections=options.connections,
                cores=cores,
            )


def publication(port: int) -> int:
    """When the origin says that its site was published."""
    (answer,) = asyncio.run(answers(port, [mix.get("/page.html")]))
    return int(answer.field("etag").strip('"').partition("-")[0], 16)
