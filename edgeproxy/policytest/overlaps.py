"""Pairs of routes whose order matters, as far as a look at their matches can tell.

A guess, on the side of saying too little: it decides which mutants are worth a try, not what holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeproxy.policy.model import PathMatch
from edgeproxy.policy.policy import Match, Route
from edgeproxy.routing import compile_path, fits_host

WINDOW = 20  # routes that are looked at behind each: with thousands, all pairs would be too many


def swaps(routes: Sequence[Route]) -> Iterator[tuple[int, int]]:
    """Each route with the next one that some request matches as well, in the order of the policy.

    Not where the later one takes all that the first does: without the first it is the same. Nor
    where both do the same.
    """
    for first, route in enumerate(routes):
        for second in range(first + 1, min(first + 1 + WINDOW, len(routes))):
            other = routes[second]
            if _meet(route, other):
                if not _takes_all(other, route) and not _alike(route, other):
                    yield first, second
                break


def _meet(route: Route, other: Route) -> bool:
    pairs = ((one, two) for one in route.matches for two in other.matches)
    return not (route.matches and other.matches) or any(_both(one, two) for one, two in pairs)


def _both(one: Match, two: Match) -> bool:
    """Whether a request may meet both. Two clauses of one key are taken to exclude each other."""
    hosts = [(a, b) for a in one.core.host or () for b in two.core.host or ()]
    paths = [(a, b) for a in one.core.path or () for b in two.core.path or ()]
    if hosts and not any(_hosts_meet(a, b) for a, b in hosts):
        return False
    if paths and not any(_paths_meet(a, b) for a, b in paths):
        return False
    asked = {clause.key: clause.matcher for clause in one.clauses}
    return all(asked.get(clause.key, clause.matcher) == clause.matcher for clause in two.clauses)


def _takes_all(route: Route, other: Route) -> bool:
    """Whether every match of `other` is as narrow as one of `route`."""
    if not route.matches or not other.matches:
        return not route.matches
    return all(any(_covers(wide, narrow) for wide in route.matches) for narrow in other.matches)


def _covers(wide: Match, narrow: Match) -> bool:
    clauses = {clause.key: clause.matcher for clause in narrow.clauses}
    if any(clauses.get(clause.key) != clause.matcher for clause in wide.clauses):
        return False
    if wide.core.host is not None and wide.core.host != narrow.core.host:
        return False
    paths = wide.core.path
    return paths is None or all(
        any(pattern == path or _holds(pattern, path) for pattern in paths)
        for path in narrow.core.path or ()
    )


def _alike(route: Route, other: Route) -> bool:
    same = [one.filter for one in route.filters] == [one.filter for one in other.filters]
    core = {"name": "", "matches": ()}
    return same and route.core.model_copy(update=core) == other.core.model_copy(update=core)


# ------------------------------------------------------------------- hosts and paths


def _hosts_meet(one: str, two: str) -> bool:
    names = (one.replace("*", "a", 1), two.replace("*", "a", 1))
    return fits_host((one,), names[1]) or fits_host((two,), names[0])


def _paths_meet(one: PathMatch, two: PathMatch) -> bool:
    return one == two or _holds(one, two) or _holds(two, one)


def _holds(pattern: PathMatch, other: PathMatch) -> bool:
    """Whether `pattern` takes a path that `other` does, as far as an example can tell."""
    example = other.exact or other.prefix or other.glob
    if example is None:
        return False  # of a regular expression there is no example
    return compile_path(pattern)(example.replace("**", "a/b").replace("*", "a")) is not None
