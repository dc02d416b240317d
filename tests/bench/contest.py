"""Rounds of contestants that do the same work, A B A B, each on a core of its own."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tests.bench.contestants import Contestant
from tests.bench.ground import Bench
from tests.bench.load import answers, opened, send_all
from tests.bench.processes import NotStarted, cpu_s, memory_bytes, started

SETTLING_S = 10.0  # within which what has been answered is stored, on disk too


def compete(
    bench: Bench,
    contestants: Sequence[Contestant],
    prove: Callable[[Contestant], None] = lambda one: None,
    *,
    settling: int = 1,
) -> dict[str, str]:
    """Start, warm up and measure; why each that takes no part does not.

    `prove` sees each before it is measured, and ends it all if its answers are not right. Then
    there are `settling` rounds that do not count.
    """
    absent: dict[str, str] = {}
    with ExitStack() as running:
        for one in contestants:
            try:
                cores = bench.proxy_cores(one.cores)
                one.pid = running.enter_context(started(one.command, one.port, cores))
            except NotStarted as error:
                absent[one.name] = str(error)
                continue
            warm_up(one)
            prove(one)
            for connection in opened(one.port, one.warm_up, one.idle):
                running.enter_context(connection)
        present = [one for one in contestants if one.pid]
        for number in range(-settling, bench.rounds):
            for one in present:
                show(f"round {number + 1} of {bench.rounds}, {one.name}")
                measure(bench, one, is_counted=number >= 0)
        for one in present:
            one.memory_bytes = memory_bytes(one.pid)
    show("")
    return absent


def show(text: str) -> None:
    """Where we are, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:78.78}\r", end="", file=sys.stderr, flush=True)


def warm_up(one: Contestant) -> None:
    """Send what fills caches; SystemExit unless the answers are then what is to be measured."""
    if not one.warm_up:
        return
    send_all(one.port, one.warm_up)
    deadline_s = time.monotonic() + SETTLING_S
    while one.proof not in (head := asyncio.run(answers(one.port, one.warm_up[-1:]))[0].head):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{one.name}: expected {one.proof!r} in\n{head}")
        time.sleep(0.1)


def measure(bench: Bench, one: Contestant, *, is_counted: bool) -> None:
    """One round."""
    before = cpu_s(one.pid)
    done = bench.load.run(
        one.port,
        one.stream,
        start=next(bench.starts),
        seconds=bench.seconds,
        connections=one.connections or bench.connections,
    )
    used = [now_s - before.get(pid, 0.0) for pid, now_s in cpu_s(one.pid).items()]
    if is_counted:
        one.rounds.append(done)
        one.costs_us.append(sum(used) / max(1, done.requests) * 1e6 if used else float("nan"))


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")
