"""Hit ratios of ways to choose what a cache keeps, over traces made here (`make curves`).

Draws docs/images/hit-ratios.svg from what it measures, and prints the tables. The traces come from
a fixed seed: a run gives the same figures everywhere.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import random
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Protocol

from cachetools import LRUCache

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from edgeproxy_disk_cache.admission import Seen  # noqa: E402
from edgeproxy_disk_cache.encoding import name_of  # noqa: E402
from edgeproxy_memory_cache.queues import Queues  # noqa: E402

OBJECTS = 100_000
Trace = list[int]


# ---------------------------------------------------------------- traces


def sizes() -> list[int]:
    """Log-normal: a median of 12 KB, a mean of 25 KB, at most 4 MB."""
    chance = random.Random(1)
    return [min(4_000_000, 600 + int(chance.lognormvariate(9.4, 1.2))) for _ in range(3 * OBJECTS)]


def zipf(exponent: float, length: int, seed: int, objects: int = OBJECTS) -> Trace:
    chance = random.Random(seed)
    weights = itertools.accumulate(rank**-exponent for rank in range(1, objects + 1))
    cumulated = list(weights)
    names = list(range(objects))
    chance.shuffle(names)
    top = cumulated[-1]
    return [names[bisect.bisect(cumulated, chance.random() * top)] for _ in range(length)]


def with_scans(length: int) -> Trace:
    """Zipf 1.0, and after every 100,000 requests somebody reads 40,000 pages in order."""
    trace: Trace = []
    plain = zipf(1.0, length, 5)
    for start in range(0, length, 100_000):
        trace += plain[start : start + 100_000]
        trace += range(40_000)
    return trace


def with_strangers(length: int) -> Trace:
    """Zipf 1.0, and every other request is for something that nobody asks for again."""
    plain = zipf(1.0, length // 2, 6)
    strangers = iter(range(OBJECTS, 3 * OBJECTS))
    return [name for one in plain for name in (one, next(strangers, 0))]


def shifting(length: int) -> Trace:
    """Zipf 1.0 whose favourites change: every 100,000 requests a third of the ranks move on."""
    trace: Trace = []
    for turn, start in enumerate(range(0, length, 100_000)):
        part = zipf(1.0, min(100_000, length - start), 7)
        trace += [(name + turn * 33_331) % OBJECTS if name % 3 == 0 else name for name in part]
    return trace


TRACES: dict[str, Callable[[int], Trace]] = {
    "Zipf 0.8": lambda length: zipf(0.8, length, 2),
    "Zipf 1.0": lambda length: zipf(1.0, length, 3),
    "Zipf 1.2": lambda length: zipf(1.2, length, 4),
    "Zipf 1.0 and scans": with_scans,
    "Zipf 1.0, half asked once": with_strangers,
    "shifting favourites": shifting,
}


# ---------------------------------------------------------------- policies


class Policy(Protocol):
    def access(self, name: int, size: int) -> bool:
        """Whether it was there; if not, it may be now."""
        ...


class Lru:
    def __init__(self, max_bytes: int) -> None:
        self.table: LRUCache[int, int] = LRUCache(max_bytes, getsizeof=lambda size: size)

    def access(self, name: int, size: int) -> bool:
        if self.table.get(name) is not None:
            return True
        if size <= self.table.maxsize:
            self.table[name] = size
        return False


class S3Fifo:
    """What the memory tier uses, itself."""

    def __init__(self, max_bytes: int) -> None:
        self.queues: Queues[int] = Queues(max_bytes)

    def access(self, name: int, size: int) -> bool:
        if self.queues.get(name) is not None:  # type: ignore[arg-type]  # any hashable will do
            return True
        if size <= self.queues.max_bytes:
            self.queues.put(name, size, size)  # type: ignore[arg-type]
        return False


class Sieve:
    """One queue; a hand walks from its old end and spares what was visited."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        # name -> [size, visited, newer, older]; None ends the list
        self.table: dict[int, list[int | None]] = {}
        self.head: int | None = None
        self.tail: int | None = None
        self.hand: int | None = None

    def access(self, name: int, size: int) -> bool:
        node = self.table.get(name)
        if node is not None:
            node[1] = 1
            return True
        if size > self.max_bytes:
            return False
        while self.bytes + size > self.max_bytes:
            self._evict()
        self.table[name] = [size, 0, None, self.head]
        if self.head is not None:
            self.table[self.head][2] = name
        self.head = name
        if self.tail is None:
            self.tail = name
        self.bytes += size
        return False

    def _evict(self) -> None:
        at = self.hand if self.hand is not None else self.tail
        assert at is not None
        while self.table[at][1]:
            self.table[at][1] = 0
            at = self.table[at][2]
            if at is None:
                at = self.tail
            assert at is not None
        size, _, newer, older = self.table.pop(at)
        self.hand = newer
        if newer is not None:
            self.table[newer][3] = older
        else:
            self.head = older
        if older is not None:
            self.table[older][2] = newer
        else:
            self.tail = newer
        assert size is not None
        self.bytes -= size


class TwoQueues:
    """2Q: a quarter FIFO for what is new, ghosts for half, LRU for what came back."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.new_limit = max_bytes, max_bytes // 4
        self.new: OrderedDict[int, int] = OrderedDict()
        self.kept: OrderedDict[int, int] = OrderedDict()
        self.ghosts: OrderedDict[int, int] = OrderedDict()
        self.new_bytes = self.kept_bytes = self.ghost_bytes = 0

    def access(self, name: int, size: int) -> bool:
        if name in self.kept:
            self.kept.move_to_end(name)
            return True
        if name in self.new:
            return True
        if size > self.max_bytes:
            return False
        if name in self.ghosts:
            self.ghost_bytes -= self.ghosts.pop(name)
            self.kept[name] = size
            self.kept_bytes += size
        else:
            self.new[name] = size
            self.new_bytes += size
        while self.new_bytes + self.kept_bytes > self.max_bytes:
            if self.new_bytes > self.new_limit or not self.kept:
                gone, freed = self.new.popitem(last=False)
                self.new_bytes -= freed
                self.ghosts[gone] = freed
                self.ghost_bytes += freed
                while self.ghost_bytes > self.max_bytes // 2:
                    self.ghost_bytes -= self.ghosts.popitem(last=False)[1]
            else:
                self.kept_bytes -= self.kept.popitem(last=False)[1]
        return False


class TinyLfu:
    """W-TinyLFU: LRU window of 1 %, segmented LRU, and whoever was asked for more often stays.

    Counts exactly where a sketch estimates, so it is a little better here than in practice.
    """

    def __init__(self, max_bytes: int) -> None:
        self.window_limit = max_bytes // 100
        self.main_limit = max_bytes - self.window_limit
        self.protected_limit = self.main_limit * 8 // 10
        self.window: OrderedDict[int, int] = OrderedDict()
        self.probation: OrderedDict[int, int] = OrderedDict()
        self.protected: OrderedDict[int, int] = OrderedDict()
        self.window_bytes = self.probation_bytes = self.protected_bytes = 0
        self.counts: dict[int, int] = {}
        self.counted = 0
        self.sample = max(1000, 10 * max_bytes // 25_000)

    def _count(self, name: int) -> None:
        self.counts[name] = min(15, self.counts.get(name, 0) + 1)
        self.counted += 1
        if self.counted >= self.sample:
            self.counts = {key: count // 2 for key, count in self.counts.items() if count > 1}
            self.counted //= 2

    def access(self, name: int, size: int) -> bool:
        self._count(name)
        if name in self.window:
            self.window.move_to_end(name)
            return True
        if name in self.protected:
            self.protected.move_to_end(name)
            return True
        if name in self.probation:
            self.probation_bytes -= size
            del self.probation[name]
            self.protected[name] = size
            self.protected_bytes += size
            while self.protected_bytes > self.protected_limit:
                old, freed = self.protected.popitem(last=False)
                self.protected_bytes -= freed
                self.probation[old] = freed
                self.probation_bytes += freed
            return True
        self.window[name] = size
        self.window_bytes += size
        while self.window_bytes > self.window_limit:
            old, freed = self.window.popitem(last=False)
            self.window_bytes -= freed
            self._admit(old, freed)
        return False

    def _admit(self, name: int, size: int) -> None:
        if size > self.main_limit:
            return
        needed = size - (self.main_limit - self.probation_bytes - self.protected_bytes)
        victims, freed, rivals = [], 0, 0
        for queue in (self.probation, self.protected):
            for old, old_size in queue.items():
                if freed >= needed:
                    break
                victims.append((queue, old, old_size))
                freed += old_size
                rivals = max(rivals, self.counts.get(old, 0))
        if victims and self.counts.get(name, 0) <= rivals:
            return
        for queue, old, old_size in victims:
            del queue[old]
            if queue is self.probation:
                self.probation_bytes -= old_size
            else:
                self.protected_bytes -= old_size
        self.probation[name] = size
        self.probation_bytes += size


POLICIES: dict[str, Callable[[int], Policy]] = {
    "LRU": Lru,
    "2Q": TwoQueues,
    "SIEVE": Sieve,
    "S3-FIFO": S3Fifo,
    "W-TinyLFU": TinyLfu,
}
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


# ---------------------------------------------------------------- measuring


def ratios(make: Callable[[int], Policy], trace: Trace, share: float) -> tuple[float, float]:
    """Hit ratio and byte hit ratio of a cache of `share` of all bytes, the first third apart."""
    size_of = sizes()
    cache = make(int(sum(size_of[:OBJECTS]) * share))
    warm = len(trace) // 3
    hits = hit_bytes = total_bytes = 0
    for number, name in enumerate(trace):
        size = size_of[name]
        found = cache.access(name, size)
        if number >= warm:
            total_bytes += size
            if found:
                hits += 1
                hit_bytes += size
    return hits / (len(trace) - warm), hit_bytes / total_bytes


Figures = dict[str, dict[str, list[tuple[float, float]]]]  # trace -> policy -> one per share


def measure_trace(name: str, length: int) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    trace = TRACES[name](length)
    return name, {
        policy: [ratios(make, trace, share) for share in SHARES]
        for policy, make in POLICIES.items()
    }


def measure(length: int) -> Figures:
    started_s = time.monotonic()
    figures: Figures = {}
    with ProcessPoolExecutor() as pool:
        jobs = [pool.submit(measure_trace, name, length) for name in TRACES]
        for job in jobs:
            name, found = job.result()
            figures[name] = found
            took_s = time.monotonic() - started_s
            print(f"{len(figures)}/{len(TRACES)} {name} ({took_s:.0f} s)", file=sys.stderr)
    return figures


def table(figures: Figures, which: int) -> Iterator[str]:
    yield "| trace | " + " | ".join(POLICIES) + " |"
    yield "| --- |" + " --- |" * len(POLICIES)
    for trace, found in figures.items():
        cells = []
        for share in (0.01, 0.1):
            at = SHARES.index(share)
            best = max(found[policy][at][which] for policy in POLICIES)
            for policy in POLICIES:
                value = found[policy][at][which]
                text = f"{100 * value:.1f}"
                cells.append(f"**{text}**" if value == best else text)
        half = len(POLICIES)
        pairs = [f"{cells[i]} / {cells[half + i]}" for i in range(half)]
        yield f"| {trace} | " + " | ".join(pairs) + " |"


# ---------------------------------------------------------------- memory above disk


class TwoTiers:
    """Memory above a disk that is LRU, as the tiers are; `admit` as the policy has it."""

    def __init__(self, memory_bytes: int, disk_bytes: int, admit: str) -> None:
        self.memory: Queues[int] = Queues(memory_bytes, self.evicted)
        self.disk_bytes, self.picky = disk_bytes, admit != "always"
        self.is_offered = admit == "second_hit"
        self.disk: OrderedDict[int, int] = OrderedDict()
        self.used = self.written = 0
        self.seen = Seen()

    def evicted(self, name: str, size: int, was_used: bool) -> None:
        if was_used and self.is_offered and int(name) not in self.disk:
            self.write(int(name), size)

    def write(self, name: int, size: int) -> None:
        self.disk[name] = size
        self.used += size
        self.written += size
        if self.used > self.disk_bytes:
            while self.used > self.disk_bytes * 0.95:
                self.used -= self.disk.popitem(last=False)[1]

    def access(self, name: int, size: int) -> bool:
        if self.memory.get(str(name)) is not None:
            return True
        found = name in self.disk
        if found:
            self.disk.move_to_end(name)
        else:
            known = self.picky and self.seen.add(name_of(str(name)))
            if not self.picky or known or self.used + size <= 0.8 * self.disk_bytes:
                self.write(name, size)
        self.memory.put(str(name), size, size)
        return found


def admission(name: str, length: int) -> tuple[str, list[tuple[str, float, float, float]]]:
    """For each way to admit: hit ratio, byte hit ratio, and bytes written per byte asked for."""
    size_of, trace = sizes(), TRACES[name](length)
    total = sum(size_of[:OBJECTS])
    rows = []
    for admit in ("always", "seen twice only", "second_hit"):
        tiers = TwoTiers(total // 100, total // 10, admit)
        hits = hit_bytes = asked = 0
        for number, one in enumerate(trace):
            if number == length // 3:
                tiers.written = hits = hit_bytes = asked = 0
                rest = len(trace) - number
            found = tiers.access(one, size_of[one])
            asked += size_of[one]
            if found:
                hits += 1
                hit_bytes += size_of[one]
        rows.append((admit, hits / rest, hit_bytes / asked, tiers.written / asked))
    return name, rows


def print_admission(length: int) -> None:
    print("\nmemory of 1 % above a disk of 10 % of all bytes, in %\n")
    print("| trace | admit | hit ratio | byte hit ratio | written of what was asked for |")
    print("| --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor() as pool:
        for name, rows in pool.map(admission, TRACES, itertools.repeat(length)):
            for admit, hit, byte_hit, written in rows:
                cells = f"{100 * hit:.1f} | {100 * byte_hit:.1f} | {100 * written:.1f}"
                print(f"| {name} | {admit} | {cells} |")


# ---------------------------------------------------------------- drawing

COLOURS = {
    "LRU": "#8a8a8a",
    "2Q": "#c77800",
    "SIEVE": "#7a5bd0",
    "S3-FIFO": "#0b7a4b",
    "W-TinyLFU": "#1763b6",
}
WIDE, HIGH, LEFT, TOP, GAP_X, GAP_Y = 250, 170, 46, 58, 62, 66


def drawn(figures: Figures) -> str:
    """One small chart a trace, hit ratio over the size of the cache."""
    import math

    across = 3
    down = -(-len(figures) // across)
    width = LEFT + across * (WIDE + GAP_X)
    height = TOP + down * (HIGH + GAP_Y)
    low, high = math.log(SHARES[0]), math.log(SHARES[-1])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#555">',
        "<title>Hit ratio over the size of the cache, for five ways to choose what stays</title>",
    ]
    for number, (policy, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 130
        parts.append(
            f'<path d="M{x} 20h26" stroke="{colour}" stroke-width="3"/>'
            f'<text x="{x + 32}" y="24">{policy}</text>'
        )
    for number, (trace, found) in enumerate(figures.items()):
        x0 = LEFT + number % across * (WIDE + GAP_X)
        y0 = TOP + number // across * (HIGH + GAP_Y)
        parts.append(f'<g transform="translate({x0} {y0})">')
        parts.append(f'<text y="-8" font-weight="600">{trace}</text>')
        for percent in (0, 25, 50, 75, 100):
            y = HIGH - HIGH * percent / 100
            parts.append(f'<path d="M0 {y:.1f}h{WIDE}" stroke="#8884" fill="none"/>')
            parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{percent}</text>')
        for share in SHARES[::2]:
            x = WIDE * (math.log(share) - low) / (high - low)
            label = f"{100 * share:g} %"
            parts.append(f'<text x="{x:.1f}" y="{HIGH + 18}" text-anchor="middle">{label}</text>')
        for policy, values in found.items():
            points = " ".join(
                f"{WIDE * (math.log(share) - low) / (high - low):.1f},{HIGH - HIGH * hit:.1f}"
                for share, (hit, _) in zip(SHARES, values, strict=True)
            )
            strong = 2.6 if policy == "S3-FIFO" else 1.6
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{COLOURS[policy]}" '
                f'stroke-width="{strong}"/>'
            )
        parts.append("</g>")
    parts.append(
        f'<text x="{LEFT}" y="{height - 8}">Requests answered from the cache, in %, over its size '
        "in % of all bytes on the site.</text></svg>"
    )
    return "\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400_000, help="length of a trace")
    parser.add_argument("--svg", type=Path, default=ROOT / "docs" / "images" / "hit-ratios.svg")
    options = parser.parse_args()
    print_admission(options.requests)
    figures = measure(options.requests)
    for which, title in enumerate(("hit ratio", "byte hit ratio")):
        print(f"\n{title} in %, with 1 % / 10 % of all bytes\n")
        print("\n".join(table(figures, which)))
    options.svg.write_text(drawn(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
