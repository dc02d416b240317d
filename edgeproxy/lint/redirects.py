"""Rules about redirects: where visitors are sent, followed through the policy's own routes.

They are followed as a browser would, with paths made up from the patterns, and only as far as it is
certain which route takes the next request: what a visitor has to have sent to be redirected once is
all that is known of the visitor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from edgeproxy.claims import Constraint, Outcome
from edgeproxy.errors import Place
from edgeproxy.http import fill
from edgeproxy.lint.extents import UNNAMED, Extent
from edgeproxy.lint.finding import Found, rule
from edgeproxy.lint.paths import REST, STAR, STARS, meeting, normalise_or_none, path_set
from edgeproxy.lint.view import View
from edgeproxy.policy.model import PathMatch
from edgeproxy.policy.policy import BoundFilter, Route

MAX_HOPS = 20  # after so many browsers give up
_FILLS = (("x", "/x"), ("x", ""), ("", ""), ("x", "/x/y"))  # for wildcards, and for `/**` at an end
_NEIGHBOURS = 50  # other redirects that one is tried against


@dataclass(frozen=True)
class Visit:
    """A request of which only this is known. `cases` are those of splits that the visitor is in."""

    host: str
    path: str
    scheme: str
    asked: frozenset[Constraint] = frozenset()
    cases: frozenset[tuple[str, str]] = frozenset()

    @property
    def name(self) -> tuple[str, str]:
        return self.scheme, self.host

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


@dataclass(frozen=True)
class Hop:
    """A visit that is redirected: by which extent, where that is written, and whereto."""

    visit: Visit
    extent: Extent
    place: Place
    to: Visit


def journeys(view: View, route: Route) -> Iterator[list[Hop]]:
    """How visits that a route redirects go on; each as far as it is known."""
    for extent in view.of(route):
        possible = extent.contradiction() is None
        for bound, outcome in redirecting(route) if possible else ():
            for path in samples(view, extent, outcome):
                hops = list(follow(view, first_visit(extent, outcome, path)))
                if hops and hops[0].place == place_of(bound, outcome):
                    yield hops


def first_visit(extent: Extent, outcome: Outcome, path: str) -> Visit:
    """A visit of `extent`; by the scheme that the redirect leads to, unless one is asked for."""
    cases = frozenset([(outcome.split, outcome.case)] if outcome.split else [])
    scheme = "https" if (outcome.redirect or "").startswith("https:") else "http"
    for each in extent.of("scheme"):
        scheme = str(next(iter(each.values)))
    asked = _by(scheme, frozenset(each for _, each in extent.asked))
    return Visit(extent.example_host, path, scheme, asked, cases)


def redirecting(route: Route) -> Iterator[tuple[BoundFilter, Outcome]]:
    """The redirects of a route, in the order in which they are tried."""
    for bound in route.filters:
        for outcome in bound.filter.outcomes():
            if outcome.redirect is not None:
                yield bound, outcome


def place_of(bound: BoundFilter, outcome: Outcome) -> Place:
    found = bound.node.get(*outcome.at)
    return found.place if found else bound.place


def follow(view: View, visit: Visit) -> Iterator[Hop]:
    """One redirect after the other, until it is not certain that another follows."""
    seen = {visit}
    for _ in range(MAX_HOPS):
        extent = taker(view, visit)
        hop = _hop(view, visit, extent) if extent else None
        if hop is None:
            return
        yield hop
        if hop.to in seen:
            return
        visit = hop.to
        seen.add(visit)


def taker(view: View, visit: Visit) -> Extent | None:
    """The extent that surely takes `visit`; None if none does, or if it is not known."""
    for extent in view.at(visit.host, visit.path):
        unmet = [each for _, each in extent.asked if not _follows(each, visit)]
        if not unmet:
            return extent
        if not any(_is_excluded(each, visit) for each in unmet):
            return None
    return None


def _follows(asked: Constraint, visit: Visit) -> bool:
    return any(
        asked.covers(given) is True for given in visit.asked if given.subject == asked.subject
    )


def _is_excluded(asked: Constraint, visit: Visit) -> bool:
    return any(
        asked.excludes(given) is True for given in visit.asked if given.subject == asked.subject
    )


def _hop(view: View, visit: Visit, extent: Extent) -> Hop | None:
    for bound in extent.route.filters:
        for outcome in bound.filter.outcomes():
            applies = not outcome.split or (outcome.split, outcome.case) in visit.cases
            if outcome.redirect is None or not applies:
                continue
            to = _sent(view, visit, extent, outcome)
            if to is None or not (outcome.split and to.path == visit.path):
                return Hop(visit, extent, place_of(bound, outcome), to) if to else None
        if bound.filter.answers and hasattr(bound.hooks, "admit"):
            return None  # by something else
    return None


def _sent(view: View, visit: Visit, extent: Extent, outcome: Outcome) -> Visit | None:
    """Where a redirect leads; None if that is another site, or no address at all."""
    location = fill(outcome.redirect or "", extent.path.test(visit.path) or ())
    is_path = location.startswith("/")
    parts = urlsplit("" if is_path else location)
    path = normalise_or_none(location if is_path else parts.path or "/")
    if path is None:
        return None
    asked = visit.asked
    if parts.query or not outcome.keeps_query:
        asked = _without(asked, "query ")
    host = (parts.hostname or "").lower()
    if is_path:
        return replace(visit, path=path, asked=asked)
    if not view.serves(host):
        return None
    if host != visit.host:
        asked = _without(asked, "cookie ")
    asked = _by(parts.scheme, asked)
    return replace(visit, host=host, path=path, scheme=parts.scheme, asked=asked)


def _by(scheme: str, asked: frozenset[Constraint]) -> frozenset[Constraint]:
    return _without(asked, "scheme") | {Constraint("scheme", frozenset([scheme]))}


def _without(asked: frozenset[Constraint], start: str) -> frozenset[Constraint]:
    return frozenset(each for each in asked if not each.subject.startswith(start))


# ------------------------------------------------------------------- paths to try


def samples(view: View, extent: Extent, outcome: Outcome) -> list[str]:
    """Paths of `extent`: simple ones, and such that lead to other redirects of the policy."""
    methods = [each.values for each in extent.of("method")]
    if any(not values & {"GET", "HEAD"} for values in methods):
        return []  # what comes after the redirect of a form is another request
    found = [extent.path.filled(*words) for words in _FILLS]
    found += _leading(view, extent, outcome)
    paths = dict.fromkeys(filter(None, map(normalise_or_none, filter(None, found))))
    return [path for path in paths if extent.path.holds(path)]


def _leading(view: View, extent: Extent, outcome: Outcome) -> Iterator[str]:
    """Paths whose redirect leads into the pattern of another redirect."""
    target = normalise_or_none(outcome.redirect or "")
    if target is None or "*" not in target or extent.path.is_regex:
        return
    leads = path_set(PathMatch(glob=target))
    for other in view.redirects_near(target)[:_NEIGHBOURS]:
        path = meeting(leads, other.path)[1]
        captures = leads.test(path) if path else None
        if captures is not None:
            yield _with_captures(extent, captures)


def _with_captures(extent: Extent, captures: Iterable[str]) -> str:
    left = list(captures)
    parts = []
    for token in extent.path.tokens:
        if token in (STAR, STARS, REST):
            word = left.pop(0) if left else ""
            parts.append(f"/{word}" if token == REST else word)
        else:
            parts.append(token)
    return "".join(parts)


# ------------------------------------------------------------------- rules


@rule("redirect-loop", "error")
def redirect_loop(view: View) -> Found:
    """A redirect leads, directly or by way of others, to where it is made again."""
    told: set[frozenset[str]] = set()
    for route in view.policy.routes:
        for hops in filter(is_loop, journeys(view, route)):
            names = frozenset(hop.extent.route.core.name for hop in hops)
            if names not in told:
                told.add(names)
                reason = f"visitors are sent in circles: {story(hops)}"
                yield hops[0].place, reason, "change where it leads, or what its route matches"


def is_loop(hops: list[Hop]) -> bool:
    """Whether the first redirect is made again and again."""
    comes_back = hops[-1].to == hops[0].visit
    again = any(hop.extent is hops[0].extent for hop in hops[1:])
    return comes_back or (len(hops) == MAX_HOPS and again)


@rule("redirect-chain", "warning")
def redirect_chain(view: View) -> Found:
    """A redirect leads to another one, which costs visitors a round trip."""
    for route in view.policy.routes:
        chain = next(filter(is_chain, journeys(view, route)), None)
        if chain is not None:
            second = f"two redirects in a row, the second by {chain[1].extent}"
            fix = "send visitors straight to the last address"
            yield chain[0].place, f"{second}: {story(chain)}", fix


def is_chain(hops: list[Hop]) -> bool:
    """Whether there are several redirects, each by another route, and an end to them.

    The first has to stay on the host: to https or another name comes before all else, and right so.
    """
    ends = hops[-1].to not in {hop.visit for hop in hops}
    differ = len({hop.extent.route.core.name for hop in hops}) == len(hops)
    return len(hops) > 1 and ends and differ and hops[0].visit.name == hops[0].to.name


def story(hops: list[Hop]) -> str:
    """`/a to /b to /a`: the first few addresses."""
    visits = [*(hop.visit for hop in hops), hops[-1].to]
    shown = [visit.path if UNNAMED in visit.host else str(visit) for visit in visits[:4]]
    return " to ".join(shown) + (" and so on" if len(visits) > 4 else "")


@rule("unfilled-wildcard", "warning")
def unfilled_wildcard(view: View) -> Found:
    """A wildcard of a redirect or a rewrite for which the route's path has no counterpart."""
    for route in view.policy.routes:
        for bound in route.filters:
            for outcome in bound.filter.outcomes():
                text = outcome.redirect or outcome.path or ""
                wanted = text.replace("**", "*").count("*")
                for extent in view.of(route):
                    if extent.path.captures < wanted:
                        reason = (
                            f"{text!r} has more wildcards than the path {str(extent.path)!r} of "
                            f"route {route.core.name!r}: one stands for nothing"
                        )
                        fix = "write as many as the path has, or give the route a path with them"
                        yield place_of(bound, outcome), reason, fix
                        break


@rule("query-in-path", "warning")
def query_in_path(view: View) -> Found:
    """A redirect or rewrite to a path with a query: there the `?` is a part of the path."""
    for route in view.policy.routes:
        for bound in route.filters:
            for outcome in bound.filter.outcomes():
                for text in (outcome.redirect, outcome.path):
                    if text is not None and text.startswith("/") and re.search("[?#]", text):
                        shown = text.replace("?", "%3F").replace("#", "%23")
                        reason = f"a path has no query: {text!r} leads to {shown!r}"
                        fix = "write the whole address as url, or take the query out"
                        yield place_of(bound, outcome), reason, fix
