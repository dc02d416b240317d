"""A policy as the rules see it: what several of them need, worked out once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from edgeproxy.lint.extents import Extent, extents, host_covers, shadows
from edgeproxy.policy.model import PolicyCore
from edgeproxy.policy.policy import BoundFilter, Policy, Route
from edgeproxy.policy.source import Entry
from edgeproxy.routing import Candidate, RouteIndex, literal_segments


class View:
    """The policy, its extents, and which of them are taken by others.

    What a rule could neither prove nor rule out goes to `open_questions`.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.open_questions: list[str] = []
        self._at: dict[tuple[str, str], list[Extent]] = {}

    @cached_property
    def extents(self) -> list[Extent]:
        return extents(self.policy.routes)

    @cached_property
    def _index(self) -> RouteIndex[Extent]:
        index = RouteIndex[Extent]()
        for each in self.extents:
            hosts = (each.host,) if each.host else None
            turn = (each.number, 0)
            candidate = Candidate(turn, each, each.path.test, (), frozenset())
            index.add(hosts, each.path.pattern, candidate)
        return index

    def at(self, host: str, path: str) -> list[Extent]:
        """The extents that hold `path` of `host`, if clauses are met, in their order."""
        key = host, path
        if key not in self._at:
            found = (each.route for each in self._index.candidates(host, path))
            self._at[key] = [extent for extent in found if extent.path.holds(path)]
        return self._at[key]

    def entries(self, *path: str) -> list[tuple[str, Entry]]:
        """The entries of a section, by name, as they stand in the files."""
        node = self.policy.root.get(*path)
        return list(node.block.items()) if node else []

    @cached_property
    def words_of_plugins(self) -> frozenset[str]:
        """Every text in sections and filters of plugins: names that they may know."""
        own = (*PolicyCore.model_fields, "cache")
        sections = [e.node for key, e in self.policy.root.block.items() if key not in own]
        filters = [bound.node for route in self.policy.routes for bound in route.filters]
        texts = (each.value for node in (*sections, *filters) for each in node.scalars())
        return frozenset(text for text in texts if isinstance(text, str))

    @staticmethod
    def answers(route: Route) -> BoundFilter | None:
        """The filter that answers every request of `route` by itself, if there is one."""
        for bound in route.filters:
            hooks = bound.hooks
            if bound.filter.answers and hasattr(hooks, "admit") and not hasattr(hooks, "route"):
                return bound
        return None

    def serves(self, host: str) -> bool:
        """Whether the policy names `host` as one that it is asked for."""
        return any(host_covers(each, host) for each in self._hosts)

    @cached_property
    def _hosts(self) -> frozenset[str]:
        return frozenset(each.host for each in self.extents if each.host)

    def redirects_near(self, path: str) -> list[Extent]:
        """The extents that redirect what begins with the first segment of `path`."""
        return self._redirects.get(path.split("/")[1], [])

    @cached_property
    def _redirects(self) -> dict[str, list[Extent]]:
        """By the first segment of their paths, if that is literal."""
        found: dict[str, list[Extent]] = {}
        for each in self.extents:
            outcomes = (o for bound in each.route.filters for o in bound.filter.outcomes())
            first = next(iter(literal_segments(each.path.pattern)), "")
            if first and any(outcome.redirect is not None for outcome in outcomes):
                found.setdefault(first, []).append(each)
        return found

    @cached_property
    def shadows(self) -> dict[int, list[Extent]]:
        """By number, the earlier extents that leave nothing to an extent: all proved."""
        found: dict[int, list[Extent]] = {}
        for each in self.extents:
            earlier = shadows(each, self._earlier(each))
            if earlier:
                found[each.number] = earlier
        return found

    def _earlier(self, extent: Extent) -> Iterator[Extent]:
        """Those before `extent` that might cover it: they hold its example."""
        host, example = extent.example_host, extent.path.example
        if example is not None:
            found = self.at(host, example)
        else:  # a regular expression: what covers it covers all that begins as its paths do
            start = "".join(token for token in extent.path.tokens if len(token) == 1)
            found = [each.route for each in self._index.candidates(host, start)]
        return (each for each in found if each.number < extent.number)

    def of(self, route: Route) -> list[Extent]:
        return self._by_route.get(route.core.name, [])

    @cached_property
    def _by_route(self) -> dict[str, list[Extent]]:
        found: dict[str, list[Extent]] = {}
        for each in self.extents:
            found.setdefault(each.route.core.name, []).append(each)
        return found

    def undecided(self) -> Iterator[str]:
        """Questions that could be answered neither with yes nor with no."""
        yield from self.open_questions
        for extent in self.extents:
            if extent.number in self.shadows:
                continue
            for other in self._earlier(extent):
                if other.surrounds(extent) is None and not other.unmet(extent):
                    yield f"whether {other} takes all of {str(extent.path)!r} of {extent}"
