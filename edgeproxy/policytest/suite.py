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
from edgeproxy.policytest.coverage import Watch
from edgeproxy.policytest.mutants import mutants
from edgeproxy.policytest.mutation import Progress, Score, score
from edgeproxy.policytest.report import Report
from edgeproxy.policytest.verdicts import Result, failures
from edgeproxy.policytest.visits import Trial


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
            return runner.run(self._report(start_s))

    def mutate(self, report: Report, progress: Progress = lambda *_: None) -> Score:
        """How many slips in the policy the tests would notice. By `report` all of them pass."""
        with hushed(), asyncio.Runner() as runner:
            found = tuple(mutants(self.plan))
            return runner.run(score(self.plan, found, report.results, progress))

    async def _report(self, start_s: float) -> Report:
        watch = Watch(self.plan.policy)
        trial = Trial(self.plan, traced=True)
        results = tuple([await _result(trial, watch, case) for case in self.cases])
        coverage = watch.coverage()
        return Report(self.plan.version, results, coverage, time.perf_counter() - start_s)


async def _result(trial: Trial, watch: Watch, case: Case) -> Result:
    start_s = time.perf_counter()
    decisions = await trial.decisions(case)
    for decision in decisions:
        watch.note(decision.exchange)
    missed = tuple(failures(case, decisions, trial.plan))
    routes = frozenset(decision.route for decision in decisions)
    return Result(case, missed, routes, time.perf_counter() - start_s)


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
