"""Pairs of routes whose order matters to a policy, and whose change of places is worth a try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, product

from edgeproxy.lint.extents import Extent, extents
from edgeproxy.policy.policy import Route

WINDOW = 20  # routes that are looked at behind each: with thousands, all pairs would be too many


def swaps(routes: Sequence[Route]) -> Iterator[tuple[int, int]]:
    """Each route with the next one that may get the same request, in the order of the policy.

    Not where the later one is known to take all that the first does: without the first it is the
    same. Nor where both do the same.
    """
    taken = [
        tuple(found) for _, found in groupby(extents(routes), lambda each: each.route.core.name)
    ]
    for first, route in enumerate(routes):
        for second in range(first + 1, min(first + 1 + WINDOW, len(routes))):
            if any(_meet(one, two) for one, two in product(taken[first], taken[second])):
                if not _takes_all(taken[second], taken[first]) and not _alike(
                    routes[second], route
                ):
                    yield first, second
                break


def _meet(one: Extent, two: Extent) -> bool:
    """Whether it is not proved that no request is in both."""
    starts = sorted((one.path.start, two.path.start))
    return starts[1].startswith(starts[0]) and not one.excludes(two)


def _takes_all(wide: Sequence[Extent], narrow: Sequence[Extent]) -> bool:
    """Whether each of `narrow` is proved to be in one of `wide`."""
    return all(
        any(one.surrounds(two) is True and not one.unmet(two) for one in wide) for two in narrow
    )


def _alike(route: Route, other: Route) -> bool:
    core = {"name": "", "matches": ()}
    same = route.core.model_copy(update=core) == other.core.model_copy(update=core)
    return same and [one.filter for one in route.filters] == [one.filter for one in other.filters]
