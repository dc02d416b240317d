"""How good the tests of a policy are: how many of its mutants they notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeproxy.plan import Plan
from edgeproxy.policytest.cases import Case
from edgeproxy.policytest.mutants import Mutant
from edgeproxy.policytest.verdicts import Result, failures
from edgeproxy.policytest.visits import Trial

MAX_MUTANTS = 2000
MAX_DECISIONS = 500_000  # for all of them: about two minutes, reached by tests of many visitors

type Progress = Callable[[int, int, int], None]
"""Is told how many mutants are done, of how many, and how many of them nobody noticed."""


@dataclass(frozen=True, slots=True)
class Score:
    """`survivors` are the mutants that no test noticed, in the order of the files.

    `made` were tried; `left_out` were too many.
    """

    made: int
    survivors: tuple[Mutant, ...]
    left_out: int = 0

    @property
    def percent(self) -> float:
        return 100 * (self.made - len(self.survivors)) / self.made if self.made else 100.0

    def __str__(self) -> str:
        noticed = self.made - len(self.survivors)
        left = f"; {self.left_out} more were not tried" if self.left_out else ""
        return f"mutation score {int(self.percent)} %: {noticed} of {self.made} noticed{left}"


async def score(
    plan: Plan,
    found: Sequence[Mutant],
    results: Sequence[Result],
    progress: Progress,
    *,
    max_decisions: int = MAX_DECISIONS,
) -> Score:
    """Run the tests, all of which pass, on each mutant of `plan`, until one of them fails.

    Only tests whose requests took a route that the mutant can change are run.
    """
    chosen = found[:: -(-len(found) // MAX_MUTANTS)] if found else []
    tests = _Tests(plan, results)
    answers: list[tuple[Mutant, bool | None]] = []
    missed = 0
    for mutant in chosen:
        if tests.decisions > max_decisions:
            break
        progress(len(answers), len(chosen), missed)
        answers.append((mutant, await tests.notice(mutant)))
        missed += answers[-1][1] is False
    progress(len(chosen), len(chosen), missed)
    survivors = [mutant for mutant, noticed in answers if noticed is False]
    made = sum(noticed is not None for _, noticed in answers)
    files = plan.policy.files
    survivors.sort(key=lambda one: (files.index(one.place.file), one.place.line, one.place.column))
    return Score(made, tuple(survivors), len(found) - len(answers))


class _Tests:
    """The tests of a plan, with the numbers of the routes that each took."""

    def __init__(self, plan: Plan, results: Sequence[Result]) -> None:
        routes = plan.policy.routes
        numbers: dict[str | None, int] = {route.core.name: n for n, route in enumerate(routes)}
        numbers[None] = len(routes)
        self._tests = [
            (result.case, frozenset(numbers[name] for name in result.routes)) for result in results
        ]
        self.decisions = 0  # made so far

    async def notice(self, mutant: Mutant) -> bool | None:
        """Whether a test fails on `mutant`; None if no policy is like it."""
        try:
            plan = mutant.make()
        except Exception:  # whatever a plugin raises for settings that cannot be
            return None
        trial = Trial(plan)
        for case in self._in_turn(mutant):
            decisions = await trial.decisions(case)
            self.decisions += len(decisions)
            if next(failures(case, decisions, plan), None) is not None:
                return True
        return False

    def _in_turn(self, mutant: Mutant) -> list[Case]:
        """The tests that can notice, the likely and the quick ones first."""
        able = [
            (mutant.first not in taken, case.test.visitors or 0, number)
            for number, (case, taken) in enumerate(self._tests)
            if any(mutant.first <= route <= mutant.last for route in taken)
        ]
        return [self._tests[number][0] for _, _, number in sorted(able)]
