"""Which routes were tried, in order, and what kept each from matching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

from edgeproxy.errors import Place
from edgeproxy.explain.explanation import Clause, Compared, TriedRoute
from edgeproxy.http import Exchange
from edgeproxy.policy.model import PathMatch
from edgeproxy.policy.policy import Clause as PolicyClause
from edgeproxy.policy.policy import Match, Policy, Route
from edgeproxy.routing import fits_host
from edgeproxy.trace import Attempt, Outcome


def tried_routes(
    policy: Policy, exchange: Exchange, *, all_routes: bool
) -> tuple[tuple[TriedRoute, ...], int]:
    """The routes down to the one that matched, and how many of them are left out.

    Those are left out, unless `all_routes`, whose hosts and paths lead elsewhere; the index of
    routes never comes to them.
    """
    attempts = (exchange.trace and exchange.trace.attempts) or ()
    by_order = {attempt.order: attempt for attempt in attempts}
    end = attempts[-1].order[0] if attempts and attempts[-1].holds else len(policy.routes) - 1
    numbers = range(end + 1) if all_routes else sorted({order[0] for order in by_order})
    if exchange.trace is None or exchange.trace.attempts is None:
        return (), 0
    routes = tuple(_tried(policy.routes[n], n, by_order, exchange) for n in numbers)
    return routes, end + 1 - len(routes)


def _tried(
    route: Route, number: int, attempts: Mapping[tuple[int, int], Attempt], exchange: Exchange
) -> TriedRoute:
    matches: list[Compared] = []
    for order, match, path in _alternatives(route, number):
        attempt = attempts.get(order)
        compared = _compared(match, path, attempt, exchange)
        matches.append(compared)
        if compared.holds:
            break
    matched = any(match.holds for match in matches) if matches else (number, 0) in attempts
    return TriedRoute(route.core.name, told_place(route.place), matched, tuple(matches))


def _alternatives(
    route: Route, number: int
) -> Iterator[tuple[tuple[int, int], Match, PathMatch | None]]:
    """Each match with each of its paths, in the order that `edgeproxy.plan` gives them."""
    turn = count()
    for match in route.matches:
        for path in match.core.path or (None,):
            yield (number, next(turn)), match, path


def _compared(
    match: Match, path: PathMatch | None, attempt: Attempt | None, exchange: Exchange
) -> Compared:
    request, clauses = exchange.request, []
    if match.core.host is not None:
        held = attempt is not None or fits_host(match.core.host, request.host)
        place = told_place(_place(match, "host"))
        clauses.append(Clause("host", held, match.core.host, request.host, place=place))
    if path is not None and all(clause.held for clause in clauses):
        held = attempt is not None and attempt.captures is not None
        wanted = path.model_dump(exclude_none=True)
        place = told_place(_place(match, "path"))
        clauses.append(Clause("path", held, wanted, request.path, place=place))
    if attempt is not None:
        pairs = zip(match.clauses, attempt.outcomes, strict=False)
        clauses += [_clause(clause, outcome) for clause, outcome in pairs]
    holds = attempt is not None and attempt.holds
    return Compared(told_place(match.node.place), holds, tuple(clauses))


def _clause(clause: PolicyClause, outcome: Outcome) -> Clause:
    is_told = outcome.seen is not NotImplemented
    return Clause(
        key=clause.key,
        held=outcome.held,
        wanted=clause.matcher.model_dump(mode="json", exclude_unset=True, by_alias=True),
        seen=outcome.seen if is_told else None,
        is_told=is_told,
        is_of_body=clause.matcher.max_body_bytes > 0,
        plugin=clause.plugin.name,
        place=told_place(clause.place),
        error=outcome.error,
    )


def _place(match: Match, key: str) -> Place:
    node = match.node.get(key)
    return node.place if node is not None else match.node.place


def told_place(place: Place | None) -> str:
    """`FILE:LINE`."""
    return f"{place.file}:{place.line}" if place is not None else ""
