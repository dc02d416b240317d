"""Finding the route of a request: an index over hosts and literal path segments, then conditions.

Patterns are compiled once. What is left per request is a walk down a trie and a few closures, so
that the cost hangs on how deep a path is, not on how many routes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from edgeproxy.errors import ClientError
from edgeproxy.http import Exchange, normalise_path
from edgeproxy.policy.model import PathMatch
from edgeproxy.trace import Attempt, Outcome

PathTest = Callable[[str], tuple[str, ...] | None]
"""What the wildcards of a pattern stand for in a path, outermost first; None if it differs."""


@dataclass(frozen=True, slots=True)
class Candidate[R]:
    """One match of a route, compiled. `order` is its place in the policy."""

    order: tuple[int, int]
    route: R
    path: PathTest
    clauses: tuple[Callable[[Exchange], bool], ...]
    varies_by: frozenset[str]
    max_body_bytes: int = 0
    seen: tuple[Callable[[Exchange], Any], ...] = ()  # what each clause looks at


@dataclass(frozen=True, slots=True)
class Found[R]:
    """The route that won, and what the wildcards of its path stand for."""

    route: R
    captures: tuple[str, ...]


class _Node[R]:
    """A literal path segment: what begins here, and what lies below."""

    __slots__ = ("below", "here")

    def __init__(self) -> None:
        self.here: list[Candidate[R]] = []
        self.below: dict[str, _Node[R]] = {}

    def insert(self, segments: Iterable[str], candidate: Candidate[R]) -> None:
        node = self
        for segment in segments:
            node = node.below.setdefault(segment, _Node())
        node.here.append(candidate)

    def collect(self, segments: Sequence[str], into: list[Candidate[R]]) -> None:
        node: _Node[R] | None = self
        into += self.here
        for segment in segments:
            node = node.below.get(segment) if node else None
            if node is None:
                return
            into += node.here


class RouteIndex[R]:
    """All routes of a plan, in the order of the policy: first match wins."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Node[R]] = {}  # "" for any, "example.org", "*.example.org"
        self._names_hosts = False

    def add(
        self, hosts: Sequence[str] | None, path: PathMatch | None, candidate: Candidate[R]
    ) -> None:
        for host in hosts or ("",):
            self._names_hosts |= host != ""
            node = self._hosts.setdefault(host.lower(), _Node())
            node.insert(literal_segments(path), candidate)

    def candidates(self, host: str, path: str) -> list[Candidate[R]]:
        """Every match whose host fits and whose literal segments lead to `path`, in order."""
        segments = path.split("/")[1:]
        found: list[Candidate[R]] = []
        for name in host_names(host) if self._names_hosts else ("",):
            node = self._hosts.get(name)
            if node is not None:
                node.collect(segments, found)
        if len(found) > 1:
            found.sort(key=_order)
        return found


class PatchedIndex[R](RouteIndex[R]):
    """`index` with other candidates, from `patches`, in the place of those of some routes."""

    def __init__(
        self, index: RouteIndex[R], routes: frozenset[int], patches: RouteIndex[R]
    ) -> None:
        super().__init__()
        self._index, self._routes, self._patches = index, routes, patches

    def candidates(self, host: str, path: str) -> list[Candidate[R]]:
        kept = self._index.candidates(host, path)
        found = [candidate for candidate in kept if candidate.order[0] not in self._routes]
        found += self._patches.candidates(host, path)
        found.sort(key=_order)
        return found


def find[R](candidates: Iterable[Candidate[R]], exchange: Exchange) -> Found[R] | None:
    """The first candidate that holds whole. Notes on the exchange what the choice varied by."""
    path = exchange.request.path
    for candidate in candidates:
        captures = candidate.path(path)
        if captures is None:
            continue
        if candidate.varies_by:
            exchange.varies_by |= candidate.varies_by
        for clause in candidate.clauses:
            if not exchange.holds(clause):
                break
        else:
            return Found(candidate.route, captures)
    return None


def attempts(candidates: Iterable[Candidate[Any]], exchange: Exchange) -> list[Attempt]:
    """What `find` does, told: each candidate up to the first that holds, with all its clauses."""
    found: list[Attempt] = []
    for candidate in candidates:
        captures = candidate.path(exchange.request.path)
        pairs = zip(candidate.clauses, candidate.seen, strict=True) if captures is not None else ()
        outcomes = tuple(_outcome(clause, seen, exchange) for clause, seen in pairs)
        found.append(Attempt(candidate.order, candidate.route, captures, outcomes))
        if found[-1].holds:
            break
    return found


def _outcome(
    clause: Callable[[Exchange], bool], seen: Callable[[Exchange], Any], exchange: Exchange
) -> Outcome:
    try:
        return Outcome(bool(clause(exchange)), seen(exchange))
    except Exception as error:  # a plugin's; the journey itself will meet it
        return Outcome(False, error=f"{type(error).__name__}: {error}")


def fits_host(patterns: Iterable[str], host: str) -> bool:
    """Whether one of `patterns` is `host`, or covers it."""
    return not {pattern.lower() for pattern in patterns}.isdisjoint(host_names(host))


def _order(candidate: Candidate[object]) -> tuple[int, int]:
    return candidate.order


def host_names(host: str) -> Iterable[str]:
    yield ""
    yield host
    labels = host.split(".")
    for index in range(1, len(labels)):
        yield "*." + ".".join(labels[index:])


def literal_segments(path: PathMatch | None) -> tuple[str, ...]:
    """The whole segments at the start of a pattern that hold no wildcard."""
    if path is None or path.regex is not None:
        return ()
    if path.prefix is not None:
        return tuple(canonical_pattern(path.prefix).rstrip("/").split("/")[1:])
    pattern = path.exact if path.exact is not None else path.glob
    assert pattern is not None
    segments = canonical_pattern(pattern).split("/")[1:]
    if path.exact is not None:
        return tuple(segments)
    for index, segment in enumerate(segments):
        if "*" in segment:
            return tuple(segments[:index])
    return tuple(segments)


def compile_path(path: PathMatch | None) -> PathTest:
    """A pattern as a function of a canonical path.

    A prefix ends at a slash or at the end of the path. In a glob `*` stands for anything within
    one segment and `**` for anything at all; a `/**` at the end covers what is before it too.
    A regular expression (RE2) must match the whole path; its groups are the captures.
    """
    if path is None:
        return lambda _: ()
    if path.exact is not None:
        exact = canonical_pattern(path.exact)
        return lambda candidate: () if candidate == exact else None
    if path.prefix is not None:
        return _below(canonical_pattern(path.prefix).rstrip("/"))
    if path.regex is not None:
        return _regex(path.regex)
    assert path.glob is not None
    glob = canonical_pattern(path.glob)
    if "*" not in glob:
        return lambda candidate: () if candidate == glob else None
    if glob.endswith("/**") and "*" not in glob[:-3]:
        return _below(glob[:-3])
    return _regex(_glob_to_regex(glob))


def _below(root: str) -> PathTest:
    inside = root + "/"
    length = len(root)

    def test(path: str) -> tuple[str, ...] | None:
        if path.startswith(inside) or path == root:
            return (path[length:].lstrip("/"),)
        return None

    return test


def _regex(pattern: str) -> PathTest:
    options = re2.Options()
    options.log_errors = False
    compiled = re2.compile(pattern, options)

    def test(path: str) -> tuple[str, ...] | None:
        match = compiled.fullmatch(path)
        return None if match is None else tuple(group or "" for group in match.groups())

    return test


def _glob_to_regex(glob: str) -> str:
    tail = glob.endswith("/**")
    parts: list[str] = []
    rest = glob[:-3] if tail else glob
    while rest:
        if rest.startswith("**"):
            parts.append("(.*)")
            rest = rest[2:]
        elif rest.startswith("*"):
            parts.append("([^/]*)")
            rest = rest[1:]
        else:
            parts.append(re2.escape(rest[0]))
            rest = rest[1:]
    return "".join(parts) + ("(?:/(.*))?" if tail else "")


def canonical_pattern(pattern: str) -> str:
    """A pattern spelled as `normalise_path` spells paths: `/über/**` meets `/%C3%BCber/`."""
    try:
        return normalise_path(pattern, encoded_slashes=True)
    except ClientError as error:
        raise ValueError(f"{pattern!r} can never match: {error.reason}") from None
