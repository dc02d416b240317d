"""Rules about what is reached: routes and matches that nothing is left for, or that never hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edgeproxy.claims import Constraint
from edgeproxy.errors import Place
from edgeproxy.lint.extents import Extent, hosts_meet
from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.paths import covers, meeting
from edgeproxy.lint.view import View
from edgeproxy.policy.policy import Route


@rule("unreachable-route", "error")
def unreachable_route(view: View) -> Found:
    """Earlier routes take every request that a route could take."""
    for route in view.policy.routes:
        found = view.of(route)
        if all(each.number in view.shadows for each in found):
            name = route.core.name
            earlier = [
                e for each in found for e in view.shadows[each.number] if e.route is not route
            ]
            reason = f"route {name!r} is never reached: {takers(earlier)} all that it matches"
            yield route.place, reason, "move it up, or remove it"


@rule("unreachable-match", "error")
def unreachable_match(view: View) -> Found:
    """Earlier matches take all that one match, or one of its paths, could take."""
    for route in view.policy.routes:
        found = view.of(route)
        if all(each.number in view.shadows for each in found):
            continue  # the whole route has been said to be unreachable
        for extents in _by_place(found):
            if all(each.number in view.shadows for each in extents):
                earlier = [e for each in extents for e in view.shadows[each.number]]
                what = _what(extents[0], found)
                reason = f"{what} is never reached: {takers(earlier, route)} all of it"
                yield extents[0].place, reason, "remove it"


def _by_place(extents: Iterable[Extent]) -> Iterable[list[Extent]]:
    """Extents that differ in their host alone."""
    found: dict[Place, list[Extent]] = {}
    for each in extents:
        found.setdefault(each.place, []).append(each)
    return found.values()


def _what(extent: Extent, others: Iterable[Extent]) -> str:
    """What stands at the place of `extent`: a whole match, or one of its paths."""
    paths = {each.path for each in others if each.match is extent.match}
    kind = f"the path {str(extent.path)!r}" if len(paths) > 1 else "this match"
    return f"{kind} of route {extent.route.core.name!r}"


def takers(earlier: Iterable[Extent], route: Route | None = None) -> str:
    """`route 'a' (site.yaml:4) takes`, for each once; of `route` it is another match."""
    names = list(
        dict.fromkeys(
            f"another match ({each.place.file}:{each.place.line})"
            if each.route is route
            else str(each)
            for each in earlier
        )
    )
    if len(names) == 1:
        return f"{names[0]} takes"
    last = names[-1] if len(names) < 5 else f"{len(names) - 3} others"
    return f"{', '.join(names[:3] if len(names) > 4 else names[:-1])} and {last} take"


@rule("impossible-match", "error")
def impossible_match(view: View) -> Found:
    """Two clauses of a match never hold together."""
    told: set[int] = set()
    for each in view.extents:
        if each.match is None or id(each.match) in told:
            continue
        pair = each.contradiction()
        if pair is not None:
            told.add(id(each.match))
            one, other = pair
            reason = f"this match never holds: no request meets both {one.key} and {other.key}"
            yield other.place or each.place, reason, "change one of them, or make two matches"


@rule("unserved-host", "error")
def unserved_host(view: View) -> Found:
    """A route asks for a host that `hosts` does not name."""
    served, told = view.policy.core.hosts, set[tuple[Place, str]]()
    for each in view.extents if served else ():
        node = each.match.node.get("host") if each.match else None
        if not each.host or node is None or (node.place, each.host) in told:
            continue
        told.add((node.place, each.host))
        if not any(hosts_meet(name, each.host) for name in served):
            reason = f"no request for {each.host} gets here: `hosts` does not name it"
            yield node.place, reason, "name it there, or remove it here"


@rule("uncovered-visitors", "warning")
def uncovered_visitors(view: View) -> Found:
    """Some visitors get a page and others 404, as no route is left for them."""
    told: set[tuple[str, str | None, str]] = set()
    for extent in view.extents:
        for clause, asked in extent.asked:
            key = extent.host, extent.path.example, asked.subject
            left = [] if key in told else left_out(view, extent, asked)
            told.add(key)
            if left:
                more = f", or one of {len(left) - 1} others," if left[1:] else ""
                reason = (
                    f"visitors with {asked.subject} {left[0]!r}{more} get 404 where others are "
                    "served, as no route takes them"
                )
                fix = "put a route for everybody else below"
                yield clause.place or extent.place, reason, fix


def left_out(view: View, extent: Extent, asked: Constraint) -> list[str]:
    """The values of what is asked with which no extent takes an example of `extent`: proved."""
    path = extent.path.example
    if type(asked) is not Constraint or asked.every is None or path is None:
        return []
    left = set(asked.every)
    for rival in reversed(view.at(extent.example_host, path)):  # the general ones come last
        excluded = [each.values for each in rival.of(asked.subject)]
        left &= set(asked.every).difference(*excluded[:1]) if excluded else set()
        if not left:
            break
    return sorted(map(str, left), key=lambda value: (value != "XX", value))


# ------------------------------------------------------------------- overlaps

MAX_PAIRS = 2_000  # that are looked at closely: takes half a second


@rule("order-matters", "warning", certain=False)
def order_matters(view: View) -> Found:
    """Patterns of two routes cross: which of them gets what both match, only their order says.

    What is usual is left out: a special case before a general one, different conditions, and a
    redirect first.
    """
    told: set[tuple[str, str]] = set()
    for number, (first, second) in enumerate(_crossing(view)):
        if number == MAX_PAIRS:
            view.open_questions.append(f"whether more than {MAX_PAIRS} pairs of patterns cross")
            return
        names = first.route.core.name, second.route.core.name
        if names in told or _destination(first.route) == _destination(second.route):
            continue
        path = meeting(first.path, second.path)[1]
        if path is not None and _neither_covers(first, second):
            decides = view.at(first.example_host, path)
            if decides and decides[0] is first:
                told.add(names)
                reason = f"{path} is matched by {first} too, which gets it as it comes first"
                fix = "put first the one that is to have it, or allow this with a comment"
                yield second.place, reason, fix


def _crossing(view: View) -> Iterator[tuple[Extent, Extent]]:
    """Pairs under the same conditions, of which one has a wildcard before its end."""
    groups: dict[Any, list[Extent]] = {}
    for extent in view.extents:
        if not extent.path.is_regex:
            key = extent.host, frozenset(asked for _, asked in extent.asked)
            groups.setdefault(key, []).append(extent)
    for group in groups.values():
        opened = [extent for extent in group if _is_open(extent)]
        for first in group:
            for second in group if _is_open(first) else opened:
                is_pair = first.number < second.number and first.route is not second.route
                if is_pair and _may_meet(first, second) and not view.answers(first.route):
                    yield first, second


def _is_open(extent: Extent) -> bool:
    """Whether a wildcard stands before the end of the pattern."""
    return any(len(token) > 1 for token in extent.path.tokens[:-1])


def _may_meet(one: Extent, other: Extent) -> bool:
    """A quick look: whether the literal starts and ends of the patterns fit."""
    a, b = one.path, other.path
    starts = a.start.startswith(b.start) or b.start.startswith(a.start)
    return starts and (a.end.endswith(b.end) or b.end.endswith(a.end))


def _neither_covers(one: Extent, other: Extent) -> bool:
    return covers(one.path, other.path) is False and covers(other.path, one.path) is False


def _destination(route: Route) -> object:
    """What decides where an answer comes from and what it is."""
    core = route.core
    own = [
        (bound.key, bound.filter)
        for bound in route.filters
        if bound.filter.answers or any(bound.filter.outcomes()) or hasattr(bound.hooks, "route")
    ]
    return core.origin, core.backend_refs, own
