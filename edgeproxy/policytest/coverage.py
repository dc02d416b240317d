"""Which rules of a policy its tests exercise: routes taken, clauses true and false, filters run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgeproxy.decision import Decision
from edgeproxy.errors import Place
from edgeproxy.http import Exchange
from edgeproxy.plan import PHASES, Plan, Route
from edgeproxy.policy.model import PathMatch
from edgeproxy.policy.policy import BoundFilter, Match, Policy
from edgeproxy.policy.policy import Route as PolicyRoute
from edgeproxy.policy.source import Node
from edgeproxy.routing import Candidate, RouteIndex, host_names

KINDS = {"routes": "routes", "clauses": "outcomes of clauses", "filters": "filters"}

type Id = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """Something that tests can bring about, of the route with this number.

    `words` say that they did not.
    """

    id: Id
    kind: str  # one of KINDS
    route: int
    place: Place
    words: str

    def __str__(self) -> str:
        return f"{self.place}: {self.words}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """All points of a policy, and those that the tests did not get to, in the order of files."""

    points: tuple[Point, ...]
    gaps: tuple[Point, ...]

    @property
    def percent(self) -> float:
        total = len(self.points)
        return 100 * (total - len(self.gaps)) / total if total else 100.0

    def told(self) -> list[Point]:
        """The gaps without those that go without saying, as their route is never taken."""
        never = {gap.route for gap in self.gaps if gap.kind == "routes"}
        return [gap for gap in self.gaps if gap.kind == "routes" or gap.route not in never]

    def counts(self) -> dict[str, tuple[int, int]]:
        """How many points of each kind there are, after how many of them were got to."""
        found = {}
        for kind in KINDS:
            total = sum(point.kind == kind for point in self.points)
            found[kind] = (total - sum(gap.kind == kind for gap in self.gaps), total)
        return found

    def __str__(self) -> str:
        counts = self.counts().items()
        parts = [f"{got} of {total} {KINDS[kind]}" for kind, (got, total) in counts if total]
        return f"coverage {int(self.percent)} %: {', '.join(parts)}"


# ------------------------------------------------------------------- what there is


def points(policy: Policy) -> Iterator[Point]:
    """Every point of `policy`."""
    shared: set[Place] = set()
    for number, route in enumerate(policy.routes):
        label = f"route {route.core.name!r}"
        yield Point(("route", number), "routes", number, route.place, f"{label} is never taken")
        for turn, match in enumerate(route.matches):
            yield from _match_points((number, turn), match, label)
        for bound in route.filters:
            if bound.place not in shared and _runs_here(bound):
                shared.add(bound.place)
                words = f"filter `{bound.key}` of {label} never runs"
                yield Point(("filter", bound.place), "filters", number, bound.place, words)


def _match_points(at: Id, match: Match, label: str) -> Iterator[Point]:
    named: dict[str, Sequence[PathMatch | str]] = {
        "host": match.core.host or (), "path": match.core.path or ()
    }  # fmt: skip
    for key, patterns in named.items():
        node = match.node.get(key)
        for index, pattern in enumerate(patterns):
            place = _member(node, index).place if node else match.node.place
            words = f"{key} {spelled(pattern)} of {label} is never met"
            yield Point((key, *at, index), "clauses", at[0], place, words)
    for index, clause in enumerate(match.clauses):
        for outcome in (True, False):
            words = f"clause `{clause.key}` of {label} is never {str(outcome).lower()}"
            place = clause.place or match.node.place
            yield Point(("clause", *at, index, outcome), "clauses", at[0], place, words)


def _member(node: Node, index: int) -> Node:
    """The entry of a list, or the value that stands alone where a list may."""
    return node.items[index] if index < len(node.items) else node


def spelled(pattern: PathMatch | str) -> str:
    """A host or path as the policy writes it."""
    if isinstance(pattern, str):
        return repr(pattern)
    return repr(next(iter(pattern.model_dump(exclude_none=True).values())))


def _runs_here(bound: BoundFilter) -> bool:
    """Whether the filter has a hook that a rehearsal gets to: it does not get to `finish`."""
    return any(hasattr(bound.hooks, phase) for phase in PHASES if phase != "finish")


# ------------------------------------------------------------------- what is got to


@dataclass(slots=True)
class Watch:
    """Notes what the tests of a plan bring about."""

    plan: Plan
    seen: set[Id] = field(default_factory=set)

    def watched(self) -> Plan:
        """The plan, with an index of routes that notes what is tried."""
        return replace(self.plan, routes=_WatchedIndex(self.plan, self.seen))

    def note(self, decisions: Iterable[Decision]) -> None:
        """Which routes were taken and which filters ran; the decisions have traces."""
        numbers = {route.core.name: n for n, route in enumerate(self.plan.policy.routes)}
        for decision in decisions:
            if decision.route is not None:
                self.seen.add(("route", numbers[decision.route]))
            for step in decision.exchange.trace.steps if decision.exchange.trace else ():
                if step.filter:
                    self.seen.add(("filter", step.place))

    def coverage(self) -> Coverage:
        found = tuple(points(self.plan.policy))
        return Coverage(found, tuple(point for point in found if point.id not in self.seen))


class _WatchedIndex(RouteIndex[Route]):
    """The index of a plan, whose candidates note what comes of each test."""

    def __init__(self, plan: Plan, seen: set[Id]) -> None:
        super().__init__()
        self._index, self._seen = plan.routes, seen
        self._policy = plan.policy
        self._made: dict[tuple[int, int], Candidate[Route]] = {}
        self._host = ""

    def candidates(self, host: str, path: str) -> list[Candidate[Route]]:
        self._host = host
        return [self._watched(candidate) for candidate in self._index.candidates(host, path)]

    def _watched(self, candidate: Candidate[Route]) -> Candidate[Route]:
        made = self._made.get(candidate.order)
        if made is None:
            made = self._made[candidate.order] = self._wrapped(candidate)
        return made

    def _wrapped(self, candidate: Candidate[Route]) -> Candidate[Route]:
        number, turn = candidate.order
        route = self._policy.routes[number]
        if not route.matches:
            return candidate
        match, pattern = _match_at(route, turn)
        at = (number, match)
        clauses = tuple(
            self._noting_clause(("clause", *at, index), clause)
            for index, clause in enumerate(candidate.clauses)
        )
        hosts = route.matches[match].core.host or ()
        return replace(
            candidate,
            path=self._noting_path(("path", *at, pattern), at, hosts, candidate.path),
            clauses=clauses,
        )

    def _noting_path(
        self, id: Id, at: Id, hosts: Iterable[str], test: Callable[[str], Any]
    ) -> Callable[[str], Any]:
        def noting(path: str) -> Any:
            captures = test(path)
            if captures is not None:
                self._seen.add(id)
                names = set(host_names(self._host))
                self._seen.update(("host", *at, n) for n, host in enumerate(hosts) if host in names)
            return captures

        return noting

    def _noting_clause(
        self, id: Id, test: Callable[[Exchange], bool]
    ) -> Callable[[Exchange], bool]:
        def noting(exchange: Exchange) -> bool:
            holds = bool(test(exchange))
            self._seen.add((*id, holds))
            return holds

        return noting


def _match_at(route: PolicyRoute, turn: int) -> tuple[int, int]:
    """The match, and the pattern of its path, that the candidate `turn` of `route` stands for."""
    for number, match in enumerate(route.matches):
        patterns = len(match.core.path or (None,))
        if turn < patterns:
            return number, turn
        turn -= patterns
    raise AssertionError("a candidate of no match")
