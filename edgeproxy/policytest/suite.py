"""A policy with the tests beside it, and what comes of running them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.installed import Registry
from edgeproxy.policy.load import load
from edgeproxy.policytest.cases import Case, find_files, read_cases
from edgeproxy.policytest.verdicts import Failure, failures
from edgeproxy.policytest.visits import Trial


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one case: nothing, if it passed."""

    case: Case
    failures: tuple[Failure, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all tests of a policy. `version` is the policy's."""

    version: str
    results: tuple[Result, ...]
    seconds: float

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(failure for result in self.results for failure in result.failures)

    @property
    def passed(self) -> bool:
        """Whether no test failed; so it is where there are none."""
        return not self.failures

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.failures, self.summary)))

    @property
    def summary(self) -> str:
        failed = sum(bool(result.failures) for result in self.results)
        total = f"{len(self.results)} {'test' if len(self.results) == 1 else 'tests'}"
        said = f"{failed} of {total} failed" if failed else f"{total} passed"
        return f"{said} in {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class Suite:
    """A policy, compiled, and its cases."""

    plan: Plan
    cases: tuple[Case, ...]

    @classmethod
    def load(
        cls,
        policies: Sequence[Path],
        tests: Sequence[Path] = (),
        *,
        named: str = "",
        registry: Registry | None = None,
    ) -> Suite:
        """The cases whose name has `named` in it. PolicyError for faults in policy or tests.

        The plugins are made but not started: a test opens nothing.
        """
        plan = compile_plan(load(policies, registry))
        cases = read_cases(find_files(policies, tests), plan)
        return cls(plan, tuple(case for case in cases if named.lower() in case.name.lower()))

    def run(self) -> Report:
        """Run every case. Not for a thread with a running event loop."""
        start_s = time.perf_counter()
        with hushed(), asyncio.Runner() as runner:
            results = tuple(runner.run(_results(Trial(self.plan), self.cases)))
        return Report(self.plan.version, results, time.perf_counter() - start_s)


async def _results(trial: Trial, cases: Sequence[Case]) -> list[Result]:
    found = []
    for case in cases:
        start_s = time.perf_counter()
        missed = tuple(failures(case, await trial.decisions(case), trial.plan))
        found.append(Result(case, missed, time.perf_counter() - start_s))
    return found


@contextmanager
def hushed() -> Iterator[None]:
    """Nothing that this thread logs gets out: an origin that is taken to fail is no news."""
    mine = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != mine

    log = logging.getLogger("edgeproxy")
    log.addFilter(others)
    try:
        yield
    finally:
        log.removeFilter(others)
