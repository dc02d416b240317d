"""Which rules of a policy its tests exercise: routes taken, clauses true and false, filters run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeproxy.errors import Place
from edgeproxy.http import Exchange
from edgeproxy.plan import PHASES
from edgeproxy.policy.model import PathMatch
from edgeproxy.policy.policy import BoundFilter, Match, Policy
from edgeproxy.policy.policy import Route as PolicyRoute
from edgeproxy.policy.source import Node
from edgeproxy.routing import fits_host
from edgeproxy.trace import Attempt, Trace

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

    policy: Policy
    seen: set[Id] = field(default_factory=set)
    _numbers: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._numbers = {route.core.name: n for n, route in enumerate(self.policy.routes)}

    def note(self, exchange: Exchange) -> None:
        """Which route was taken, what was tried before and which filters ran: as its trace says."""
        if exchange.route is not None:
            self.seen.add(("route", self._numbers[exchange.route]))
        trace = exchange.trace or Trace()
        self.seen.update(("filter", step.place) for step in trace.steps if step.filter)
        for attempt in trace.attempts or ():
            self.seen.update(_tried(self.policy, attempt, exchange.request.host))

    def coverage(self) -> Coverage:
        found = tuple(points(self.policy))
        return Coverage(found, tuple(point for point in found if point.id not in self.seen))


def _tried(policy: Policy, attempt: Attempt, host: str) -> Iterator[Id]:
    """What one match that was tried gets to. Behind a clause that is false, none is asked."""
    number, turn = attempt.order
    route = policy.routes[number]
    if not route.matches or attempt.captures is None:
        return
    match, pattern = _match_at(route, turn)
    yield ("path", number, match, pattern)
    for index, name in enumerate(route.matches[match].core.host or ()):
        if fits_host((name,), host):
            yield ("host", number, match, index)
    for index, outcome in enumerate(attempt.outcomes):
        yield ("clause", number, match, index, outcome.held)
        if not outcome.held:
            break


def _match_at(route: PolicyRoute, turn: int) -> tuple[int, int]:
    """The match, and the pattern of its path, that the candidate `turn` of `route` stands for."""
    for number, match in enumerate(route.matches):
        patterns = len(match.core.path or (None,))
        if turn < patterns:
            return number, turn
        turn -= patterns
    raise AssertionError("a candidate of no match")
