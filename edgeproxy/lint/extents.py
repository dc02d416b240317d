"""The requests that a match takes, as sets that can be compared: hosts, paths, what clauses ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from edgeproxy.claims import Constraint
from edgeproxy.errors import Place
from edgeproxy.lint.paths import PathSet, covers, meeting, path_set
from edgeproxy.policy.policy import Clause, Match, Route
from edgeproxy.policy.source import Node

UNNAMED = "no-such-name"  # a host or a label that no policy names


@dataclass(frozen=True, eq=False)
class Extent:
    """The requests that one pattern of one match takes, for one of its hosts, empty for any.

    `number` is its turn: the first extent that holds decides. `asked` has the constraints that the
    clauses come down to, with the clause that each comes from.
    """

    number: int
    route: Route
    match: Match | None
    host: str
    path: PathSet
    place: Place
    asked: tuple[tuple[Clause, Constraint], ...] = ()

    def __str__(self) -> str:
        return f"route {self.route.core.name!r} ({self.place.file}:{self.place.line})"

    @property
    def example_host(self) -> str:
        if not self.host:
            return f"{UNNAMED}.invalid"
        return f"{UNNAMED}{self.host[1:]}" if self.host.startswith("*.") else self.host

    def of(self, subject: str) -> Sequence[Constraint]:
        """What is asked of one thing."""
        return self._by_subject.get(subject, ())

    @cached_property
    def _by_subject(self) -> Mapping[str, Sequence[Constraint]]:
        found: dict[str, list[Constraint]] = {}
        for _, each in self.asked:
            found.setdefault(each.subject, []).append(each)
        return found

    def unmet(self, other: Extent) -> list[Constraint]:
        """What this asks beyond what follows from `other`, one by one."""
        return [
            each
            for _, each in self.asked
            if not any(each.covers(given) is True for given in other.of(each.subject))
        ]

    def surrounds(self, other: Extent) -> bool | None:
        """Whether host and path of this cover those of `other`; None if it cannot be told."""
        return covers(self.path, other.path) if host_covers(self.host, other.host) else False

    def excludes(self, other: Extent) -> bool:
        """Whether it is proved that no request is in both."""
        return (
            not hosts_meet(self.host, other.host)
            or any(
                each.excludes(given) is True
                for _, each in self.asked
                for given in other.of(each.subject)
            )
            or meeting(self.path, other.path)[0] is False
        )

    def contradiction(self) -> tuple[Clause, Clause] | None:
        """Two clauses that never hold together, if it is proved that there are such."""
        for (one, asked), (other, also_asked) in combinations(self.asked, 2):
            if asked.subject == also_asked.subject and asked.excludes(also_asked) is True:
                return one, other
        return None


def extents(routes: Iterable[Route]) -> list[Extent]:
    """Every extent of a policy, in the order in which they are tried."""
    found: list[Extent] = []
    for route in routes:
        for match, host, path, place in _parts(route):
            asked = tuple(_asked(match)) if match else ()
            found.append(Extent(len(found), route, match, host, path_set(path), place, asked))
    return found


def _parts(route: Route) -> Iterator[tuple[Match | None, str, Any, Place]]:
    if not route.matches:
        yield None, "", None, route.place
    for match in route.matches:
        for index, path in enumerate(match.core.path or (None,)):
            for host in match.core.host or ("",):
                yield match, host, path, _place(match.node, index)


def _place(match: Node, index: int) -> Place:
    """Where one of several paths stands; of a match with one path, or none, it is the match."""
    paths = match.get("path")
    items = paths.items if paths else []
    return items[index].place if items[1:] else match.place


def _asked(match: Match) -> Iterator[tuple[Clause, Constraint]]:
    for clause in match.clauses:
        for constraint in clause.matcher.constraints(clause.plugin.instance):
            yield clause, constraint


def host_covers(wide: str, narrow: str) -> bool:
    """Whether `wide` stands for every host that `narrow` stands for."""
    if wide.startswith("*."):
        return narrow.endswith(wide[1:])
    return wide in ("", narrow)


def hosts_meet(one: str, other: str) -> bool:
    return not one or not other or host_covers(one, other) or host_covers(other, one)


def shadows(extent: Extent, earlier: Iterable[Extent]) -> list[Extent]:
    """Those of `earlier` that together take every request of `extent`; none unless that is proved.

    Either one of them does, or some that differ in one thing that they ask and leave no value of
    it: `scheme: http` and `scheme: https`, or all the languages of the site.
    """
    split: dict[str, list[tuple[Extent, Constraint]]] = {}
    for other in earlier:
        if other.surrounds(extent) is not True:
            continue
        unmet = other.unmet(extent)
        if not unmet:
            return [other]
        if len(unmet) == 1:
            split.setdefault(unmet[0].subject, []).append((other, unmet[0]))
    for subject, parts in split.items():
        if _leave_nothing(extent.of(subject), [asked for _, asked in parts]):
            return [other for other, _ in parts]
    return []


def _leave_nothing(given: Iterable[Constraint], parts: Sequence[Constraint]) -> bool:
    """Whether one of `parts` is met by whatever meets `given`, which may ask nothing."""
    values = frozenset[Any]().union(*(part.values for part in parts))
    every = parts[0].every
    return (every is not None and values >= every) or any(
        each.is_covered_by(values) for each in given
    )
