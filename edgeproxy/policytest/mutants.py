"""Policies that differ from one by one slip each, so that its tests can be asked to notice.

A mutant is made of the compiled plan, not of its text: only the routes that it changes are
compiled again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from pydantic import BaseModel

from edgeproxy.errors import Place
from edgeproxy.http import Exchange
from edgeproxy.plan import Plan, compile_plan, patched
from edgeproxy.plugin import Matcher
from edgeproxy.policy.policy import BoundFilter, Clause, LoadedPlugin, Match, Policy, Route
from edgeproxy.policy.source import Node
from edgeproxy.policytest.coverage import spelled
from edgeproxy.policytest.overlaps import swaps
from edgeproxy.policytest.slips import OUT, Slip, Slips, turned

# What of a cache rule shows in one answer: the rest is about copies that are there already.
_SEEN_OF_RULES = frozenset(("ttl", "status_ttl", "browser_ttl", "query", "share_cookies"))


@dataclass(frozen=True, slots=True)
class Mutant:
    """A plan with one slip. `make` raises if no policy can have it.

    Only requests that take a route from number `first` to `last` can notice; one that no route
    matches counts as taking one behind the last.
    """

    place: Place
    words: str
    first: int
    last: int
    make: Callable[[], Plan]

    def __str__(self) -> str:
        return f"{self.place}: no test notices that {self.words}"


def mutants(plan: Plan) -> Iterator[Mutant]:
    """All mutants of a plan, always in the same order."""
    routes = plan.policy.routes
    places = Counter(bound.place for route in routes for bound in route.filters)
    shared = frozenset(place for place in places if places[place] > 1)
    for number in range(len(routes)):
        yield from _Mutations(plan, number, shared).all()
    yield from _of_shared_filters(plan, shared)
    for first, second in swaps(routes):
        yield _swap(plan, first, second)
    yield from _of_rules(plan)
    yield from _of_sections(plan)


# ------------------------------------------------------------------- one route


@dataclass(frozen=True, slots=True)
class _Mutations:
    """The mutants of the route with this number, `shared` filters aside."""

    plan: Plan
    number: int
    shared: frozenset[Place]

    @property
    def route(self) -> Route:
        return self.plan.policy.routes[self.number]

    @property
    def label(self) -> str:
        return f"route {self.route.core.name!r}"

    def all(self) -> Iterator[Mutant]:
        yield self._made(self.route.place, f"{self.label} {OUT}", lambda: None)
        yield from self._matches()
        yield from self._targets()
        for index, bound in enumerate(self.route.filters):
            if bound.place not in self.shared:
                yield from self._filter(index, bound)

    def _made(
        self, place: Place, words: str, change: Callable[[], Route | None], *, moves: bool = False
    ) -> Mutant:
        """`moves` tells that requests may take the route which did not."""
        last = len(self.plan.policy.routes) if moves else self.number
        return Mutant(
            place, words, self.number, last,
            lambda: patched(self.plan, self.plan.policy, {self.number: change()}),
        )  # fmt: skip

    # -------------------------------------------------------------- matches

    def _matches(self) -> Iterator[Mutant]:
        for turn, match in enumerate(self.route.matches):
            if len(self.route.matches) > 1:
                words = f"match {turn + 1} of {self.label} {OUT}"
                yield self._changed_match(match.node.place, words, turn, lambda: ())
            for key in ("host", "path"):
                yield from self._patterns(turn, match, key)
            for index, clause in enumerate(match.clauses):
                yield from self._clause(turn, match, index, clause)

    def _changed_match(
        self, place: Place, words: str, turn: int, change: Callable[[], tuple[Match, ...]]
    ) -> Mutant:
        def changed() -> Route:
            matches = self.route.matches
            return replace(self.route, matches=(*matches[:turn], *change(), *matches[turn + 1 :]))

        return self._made(place, words, changed, moves=True)

    def _patterns(self, turn: int, match: Match, key: str) -> Iterator[Mutant]:
        patterns: Sequence[Any] = getattr(match.core, key) or ()
        node = match.node.get(key) or match.node
        label = f"`{key}` of {self.label}"

        def made(place: Place, words: str, left: tuple[Any, ...] | None) -> Mutant:
            core = match.core.model_copy(update={key: left})
            return self._changed_match(place, words, turn, lambda: (replace(match, core=core),))

        if patterns:
            yield made(node.place, f"{label} {OUT}", None)
        for n, pattern in enumerate(patterns) if len(patterns) > 1 else ():
            left = (*patterns[:n], *patterns[n + 1 :])
            yield made(_below(node, (n,)), f"{label} loses {spelled(pattern)}", left)

    def _clause(self, turn: int, match: Match, index: int, clause: Clause) -> Iterator[Mutant]:
        place = clause.place or match.node.place
        label = f"clause `{clause.key}` of {self.label}"
        before, after = match.clauses[:index], match.clauses[index + 1 :]

        def made(place: Place, words: str, *clauses: Clause) -> Mutant:
            changed = replace(match, clauses=(*before, *clauses, *after))
            return self._changed_match(place, words, turn, lambda: (changed,))

        yield made(place, f"{label} {OUT}")
        negated = cast(Matcher[Any], _Negated(clause.matcher))
        yield made(place, f"{label} is negated", replace(clause, matcher=negated))
        node = _match_node(self.route, turn).get(clause.key)
        for slip in Slips(keep_texts=True).of(clause.matcher):
            where = _below(node, slip.keys) if node else place
            words = f"{_spelled(clause.key, slip)} of {self.label} {slip.words}"
            yield made(where, words, replace(clause, matcher=slip.value))

    # -------------------------------------------------------------- targets and caching

    def _targets(self) -> Iterator[Mutant]:
        core, node = self.route.core, self.route.node
        if any(bound.filter.answers for bound in self.route.filters):
            return
        origins = list(self.plan.origins)
        if core.origin and len(origins) > 1:
            other = origins[(origins.index(core.origin) + 1) % len(origins)]
            yield self._core(node, "origin", f"goes to origin {other!r}", origin=other)
        if len(core.backend_refs) > 1:
            weights = turned({n: ref.weight for n, ref in enumerate(core.backend_refs)})
            refs = tuple(
                ref.model_copy(update={"weight": weights[n]})
                for n, ref in enumerate(core.backend_refs)
            )
            words = "has the weights of its backend_refs turned round"
            yield self._core(node, "backend_refs", words, backend_refs=refs)
        for n, ref in enumerate(core.backend_refs):
            left = (*core.backend_refs[:n], *core.backend_refs[n + 1 :])
            if sum(each.weight for each in left) and ref.weight:
                words = f"has no origin {ref.name!r} among its backend_refs"
                yield self._core(node, "backend_refs", words, backend_refs=left)
        rules = list(self.plan.policy.cache.rules)
        if isinstance(core.cache, str):
            yield self._core(node, "cache", "has no cache rule", cache=None)
            if len(rules) > 1:
                rule = rules[(rules.index(core.cache) + 1) % len(rules)]
                yield self._core(node, "cache", f"has the cache rule {rule!r}", cache=rule)
        elif core.cache is False:
            yield self._core(node, "cache", "may be cached", cache=None)

    def _core(self, node: Node, key: str, words: str, **update: Any) -> Mutant:
        core = self.route.core.model_copy(update=update)
        place = (node.get(key) or node.get("name") or node).place
        return self._made(place, f"{self.label} {words}", lambda: replace(self.route, core=core))

    # -------------------------------------------------------------- filters

    def _filter(self, index: int, bound: BoundFilter) -> Iterator[Mutant]:
        for change in _filter_changes(bound, self.plan.policy):
            words = f"{change.subject} of {self.label} {change.words}"
            made = partial(_with_filter, self.route, index, change.make)
            yield self._made(change.place, words, made)


@dataclass(frozen=True, slots=True)
class _FilterChange:
    """What may become of a filter: nothing, or one with a slip."""

    place: Place
    subject: str
    words: str
    make: Callable[[], tuple[BoundFilter, ...]]


def _filter_changes(bound: BoundFilter, policy: Policy) -> Iterator[_FilterChange]:
    yield _FilterChange(bound.place, f"filter `{bound.key}`", OUT, tuple)
    for slip in Slips(tuple(policy.core.origins)).of(bound.filter):
        place, subject = _below(bound.node, slip.keys), _spelled(bound.key, slip)
        yield _FilterChange(place, subject, slip.words, partial(_rebound, bound, slip, policy))


def _rebound(bound: BoundFilter, slip: Slip, policy: Policy) -> tuple[BoundFilter, ...]:
    hooks = slip.value.bind(bound.plugin.instance, policy)
    return (replace(bound, filter=slip.value, hooks=hooks),)


def _with_filter(route: Route, index: int, change: Callable[[], tuple[BoundFilter, ...]]) -> Route:
    filters = route.filters
    return replace(route, filters=(*filters[:index], *change(), *filters[index + 1 :]))


class _Negated:
    """A matcher that holds where `matcher` does not."""

    def __init__(self, matcher: Matcher[Any]) -> None:
        self._matcher = matcher
        self.varies_by, self.max_body_bytes = matcher.varies_by, matcher.max_body_bytes
        self.seen = matcher.seen

    def compile(self, plugin: Any) -> Callable[[Exchange], bool]:
        test = self._matcher.compile(plugin)
        return lambda exchange: not test(exchange)


def _spelled(key: str, slip: Slip) -> str:
    """What of `key` a slip is in, such as `redirect.status`."""
    return f"`{'.'.join((key, *(each for each in slip.keys if isinstance(each, str))))}`"


def _below(node: Node, keys: Sequence[str | int]) -> Place:
    """Where `keys` lead to below `node`, as far as they do."""
    for key in keys:
        members = dict(enumerate(node.items))
        found = members.get(key) if isinstance(key, int) else node.get(key)
        if found is None:
            break
        node = found
    return node.place


def _match_node(route: Route, turn: int) -> Node:
    """The whole block of a match, of which `Match.node` is the part of the core."""
    single, several = route.node.get("match"), route.node.get("matches")
    return [*([single] if single else []), *(several.items if several else [])][turn]


# ------------------------------------------------------------------- several routes


def _of_shared_filters(plan: Plan, shared: frozenset[Place]) -> Iterator[Mutant]:
    """What may become of a filter that every route has."""
    routes = plan.policy.routes
    done: set[Place] = set()
    for bound in (bound for route in routes for bound in route.filters if bound.place in shared):
        if bound.place in done:
            continue
        done.add(bound.place)
        for change in _filter_changes(bound, plan.policy):
            words = f"{change.subject} of every route {change.words}"
            make = partial(_with_shared, plan, bound.place, change.make)
            yield Mutant(change.place, words, 0, len(routes), make)


def _with_shared(plan: Plan, place: Place, change: Callable[[], tuple[BoundFilter, ...]]) -> Plan:
    made: dict[int, Route | None] = {}
    for number, route in enumerate(plan.policy.routes):
        for index, bound in enumerate(route.filters):
            if bound.place == place:
                made[number] = _with_filter(route, index, change)
    return patched(plan, plan.policy, made)


def _swap(plan: Plan, first: int, second: int) -> Mutant:
    routes = plan.policy.routes
    one, two = routes[first], routes[second]
    words = f"routes {one.core.name!r} and {two.core.name!r} change places"
    changed: Mapping[int, Route | None] = {first: two, second: one}
    return Mutant(one.place, words, first, second, lambda: patched(plan, plan.policy, changed))


def _of_rules(plan: Plan) -> Iterator[Mutant]:
    policy, rules = plan.policy, plan.policy.cache.rules
    for name, rule in rules.items():
        users = {n: route for n, route in enumerate(policy.routes) if route.core.cache == name}
        node = policy.root.get("cache", "rules", name)
        if not users or node is None:
            continue
        for slip in Slips().of(rule):
            if slip.keys[0] in _SEEN_OF_RULES:
                changed = policy.cache.model_copy(update={"rules": {**rules, name: slip.value}})
                make = partial(patched, plan, replace(policy, cache=changed), users)
                words = f"{_spelled('cache.rules.' + name, slip)} {slip.words}"
                yield Mutant(_below(node, slip.keys), words, min(users), max(users), make)


# ------------------------------------------------------------------- sections of plugins


def _of_sections(plan: Plan) -> Iterator[Mutant]:
    """What may become of the settings of plugins that have a say in routes."""
    policy = plan.policy
    for plugin in policy.plugins:
        cls = type(plugin.instance)
        section = (cls.section or plugin.name).split(".")
        node, config = policy.root.get(*section), plugin.instance.config
        if node is None or not isinstance(config, BaseModel) or not (cls.matchers or cls.filters):
            continue
        for slip in Slips(keep_texts=True).of(config):
            words = f"{_spelled('.'.join(section), slip)} {slip.words}"
            make = partial(_with_section, plan, plugin, slip.value)
            yield Mutant(_below(node, slip.keys), words, 0, len(policy.routes), make)


def _with_section(plan: Plan, plugin: LoadedPlugin, config: BaseModel) -> Plan:
    """The plan of the same policy with another `config` of one plugin, which is made anew."""
    policy = plan.policy
    made = replace(plugin, instance=type(plugin.instance)(config))
    plugins = tuple(made if each is plugin else each for each in policy.plugins)
    routes = tuple(_with_plugin(route, made, policy) for route in policy.routes)
    return compile_plan(replace(policy, plugins=plugins, routes=routes))


def _with_plugin(route: Route, plugin: LoadedPlugin, policy: Policy) -> Route:
    def filter_of(bound: BoundFilter) -> BoundFilter:
        if bound.plugin.name != plugin.name:
            return bound
        hooks = bound.filter.bind(plugin.instance, policy)
        return replace(bound, hooks=hooks, plugin=plugin)

    def clause_of(clause: Clause) -> Clause:
        return replace(clause, plugin=plugin) if clause.plugin.name == plugin.name else clause

    matches = tuple(
        replace(match, clauses=tuple(map(clause_of, match.clauses))) for match in route.matches
    )
    return replace(route, matches=matches, filters=tuple(map(filter_of, route.filters)))
