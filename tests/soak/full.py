"""edgeproxy under all the load that the machine has for it: `make soak-full MINUTES=20`.

Rounds of ten seconds from `tests.bench`: mostly hits of visitors who come again, now and then
visitors nobody has seen, and misses that push others out of a small memory tier. Every answer must
be good, and once it is warm, neither memory nor descriptors may grow.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from tests.bench import mix  # noqa: E402
from tests.bench.contest import warm_up  # noqa: E402
from tests.bench.contestants import EDGEPROXY, configured  # noqa: E402
from tests.bench.ground import Bench, prepared  # noqa: E402
from tests.bench.groups import IN_AMERICA, IN_FRANCE  # noqa: E402
from tests.bench.load import Round  # noqa: E402
from tests.bench.processes import started, tree  # noqa: E402
from tests.soak.soak import Sample, sample_of  # noqa: E402

ROUND_S = 10.0
MEMORY = "32MiB"


def soak(bench: Bench, minutes: float, workers: int) -> tuple[list[Round], list[Sample]]:
    """The rounds, and after each the memory and the descriptors of all processes together."""
    where = bench.networks, bench.published_s
    mixed, unseen, missing = mix.mixed(*where), mix.unseen(*where), mix.missing(*where)
    one = configured(EDGEPROXY, bench.folder, mixed, origin=bench.origin)
    policy = one.folder / EDGEPROXY.files[0]
    text = policy.read_text().replace("max_size: 256MiB", f"max_size: {MEMORY}")
    policy.write_text(f"{text}workers: {workers}\n")
    one.warm_up = mix.every_copy([IN_FRANCE, IN_AMERICA])
    rounds: list[Round] = []
    samples: list[Sample] = []
    with started(one.command, one.port, bench.proxy_cores(workers)) as pid:
        warm_up(one)
        began_s = time.monotonic()
        for stream in itertools.cycle([mixed, mixed, unseen, mixed, mixed, missing]):
            done = bench.load.run(
                one.port, stream, start=next(bench.starts),
                seconds=bench.seconds, connections=bench.connections,
            )  # fmt: skip
            rounds.append(done)
            at_s = time.monotonic() - began_s
            each = [sample_of(process, at_s) for process in tree(pid)]
            memory, files = (sum(s.rss_kib for s in each), sum(s.descriptors for s in each))
            samples.append(Sample(at_s, memory, files))
            print(
                f"{at_s:.0f} s: {done.requests:,} answers, {done.errors} errors, p99 "
                f"{done.p99_ms:.1f} ms, {memory / 1024:.1f} MiB, {files} descriptors",
                flush=True,
            )
            if at_s >= minutes * 60:
                return rounds, samples
    raise AssertionError("a cycle has no end")


def growth(samples: list[Sample]) -> list[str]:
    """What grows between the second quarter and the last; the first is the warm-up."""
    quarter = len(samples) // 4
    if quarter < 6:  # each of them has to see all kinds of rounds
        return []
    parts = samples[quarter : 2 * quarter], samples[-quarter:]
    before, after = (statistics.median(s.rss_kib for s in part) / 1024 for part in parts)
    faults = [f"memory grows from {before:.0f} to {after:.0f} MiB"] if after > 1.1 * before else []
    first, last = (statistics.median(s.descriptors for s in part) for part in parts)
    return faults + ([f"descriptors grow from {first} to {last}"] if last > first + 20 else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.set_defaults(seconds=ROUND_S, rounds=0)
    options = parser.parse_args()
    with prepared(options) as bench:
        rounds, samples = soak(bench, options.minutes, options.workers)
    errors = sum(done.errors for done in rounds)
    print(f"{sum(done.requests for done in rounds):,} answers, {errors} errors")
    faults = growth(samples)
    for fault in faults:
        print(fault)
    print("not good" if errors or faults else "good")
    return 1 if errors or faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
