"""What a test expects, held against what came of its requests."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeproxy.decision import Decision
from edgeproxy.errors import Place
from edgeproxy.fronting import public_path
from edgeproxy.http import Headers
from edgeproxy.plan import Plan
from edgeproxy.policytest.cases import Case
from edgeproxy.policytest.language import CacheExpectation, Condition, Expectations
from edgeproxy.policytest.visits import object_of

MAX_SHOWN = 160  # characters of one value
DEVIATIONS = 4  # standard ones that chance may be off: 1 in 16,000 for a fair split


@dataclass(frozen=True, slots=True)
class Miss:
    """An expectation that one request did not meet. `keys` lead to it in the test."""

    keys: tuple[str, ...]
    expected: str
    came: str

    @property
    def what(self) -> str:
        return ".".join(self.keys)


@dataclass(frozen=True, slots=True)
class Failure:
    """A miss of a test, for the report.

    `place` is where the test says what it expects, `decided` where the policy has the route taken.
    """

    test: str
    place: Place
    miss: Miss
    request: str = ""  # which of several
    route: str | None = None
    decided: Place | None = None
    error: str = ""
    decision: Decision | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.place}: {self.test}: {self.said}"

    @property
    def said(self) -> str:
        of = f" of {self.request}" if self.request else ""
        by = f"; route {self.route!r}, {self.decided}" if self.route else ""
        why = f"; {self.error}" if self.error else ""
        miss = self.miss
        return f"{miss.what}{of} is {miss.came}, expected {miss.expected}{by}{why}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one case. `routes` are those that its requests took, None for no route."""

    case: Case
    failures: tuple[Failure, ...]
    routes: frozenset[str | None]
    seconds: float


def failures(case: Case, decisions: Sequence[Decision], plan: Plan) -> Iterator[Failure]:
    """Every expectation of `case` that is not met, once: by the first request that misses it."""
    test, expect = case.test, case.test.expect
    if expect is not None:
        seen: set[tuple[str, ...]] = set()
        for number, decision in enumerate(decisions, 1):
            for miss in misses(expect, decision, plan):
                if miss.keys not in seen:
                    seen.add(miss.keys)
                    which = _which(case, decision, number, len(decisions))
                    yield _failure(case, miss, decision, plan, which)
        for miss in _missed_shares(expect, decisions):
            yield Failure(case.name, case.place("expect", *miss.keys), miss)
    if test.same_object_for and (came := _apart(decisions)):
        miss = Miss(("stored object",), "one for all requests", came)
        yield Failure(case.name, case.place("same_object_for"), miss)
    if test.never_same_object_for and (came := _together(decisions)):
        miss = Miss(("stored object",), "one of its own for each request", came)
        yield Failure(case.name, case.place("never_same_object_for"), miss)


def _failure(case: Case, miss: Miss, decision: Decision, plan: Plan, request: str) -> Failure:
    route = decision.route
    return Failure(
        case.name,
        case.place("expect", *miss.keys),
        miss,
        request,
        route,
        next((one.place for one in plan.policy.routes if one.core.name == route), None),
        decision.exchange.error if decision.response.status >= 500 else "",
        decision,
    )


def _which(case: Case, decision: Decision, number: int, of: int) -> str:
    if case.test.visitors:
        return f"visitor {decision.exchange.client}"
    return f"request {number}" if of > 1 else ""


# ------------------------------------------------------------------- one request


def misses(expect: Expectations, decision: Decision, plan: Plan) -> Iterator[Miss]:
    """What of `expect` is not so."""
    for key in ("route", "origin"):
        yield from _named((key,), getattr(expect, key), getattr(decision, key))
    yield from _meets(("target",), expect.target, _target(decision))
    for name, condition in expect.request_headers.items():
        yield from _field(("request_headers", name), condition, decision.asked)
    yield from _equal(("status",), expect.status, decision.response.status)
    yield from _meets(("redirect",), expect.redirect, _location(decision))
    for name, condition in expect.response_headers.items():
        yield from _field(("response_headers", name), condition, decision.response)
    yield from _meets(("body",), expect.body, _body(decision))
    if expect.cache is not None:
        yield from _cache(expect.cache, decision, plan)
    for name, value in expect.facts.items():
        yield from _equal(("facts", name), value, _fact(name, decision))


def _equal(keys: tuple[str, ...], expected: Any, came: Any) -> Iterator[Miss]:
    if expected is not None and came != expected:
        yield Miss(keys, _shown(expected), _shown(came))


def _named(keys: tuple[str, ...], expected: Any, came: str | None) -> Iterator[Miss]:
    """`expected` is None if nothing is, and False if there is to be no name."""
    if expected is not None and (came or False) != expected:
        yield Miss(keys, _shown(expected or None), _shown(came))


def _meets(keys: tuple[str, ...], condition: Condition | None, came: str | None) -> Iterator[Miss]:
    if condition is not None and not condition.holds(came):
        yield Miss(keys, str(condition), _shown(came))


def _field(keys: tuple[str, ...], condition: Condition, message: Any) -> Iterator[Miss]:
    """One of the field's lines has to meet the condition, or all of them as one list."""
    if message is None:
        yield Miss(keys, str(condition), "unknown, as no origin is asked")
        return
    headers: Headers = message.headers
    joined = headers.joined(keys[-1])
    if not any(condition.holds(text) for text in (joined, *headers.get_all(keys[-1]))):
        yield Miss(keys, str(condition), _shown(joined))


def _cache(expect: CacheExpectation, decision: Decision, plan: Plan) -> Iterator[Miss]:
    rule = plan.rule_names.get(decision.route or "") if decision.looked_up else None
    yield from _named(("cache", "rule"), expect.rule, rule)
    judgement = decision.judgement
    storable = judgement is not None and judgement.storable
    words = judgement.words if judgement else "the cache has no part in it"
    if expect.storable is not None and storable != expect.storable:
        said = "true" if expect.storable else "false"
        yield Miss(("cache", "storable"), said, f"{str(storable).lower()} ({words})")
    if expect.ttl is not None:
        ttl_s = judgement.fresh_for_s if judgement and storable else None
        if ttl_s is None or abs(ttl_s - expect.ttl) >= 1:
            came = f"none ({words})" if ttl_s is None else f"{ttl_s:g} s"
            yield Miss(("cache", "ttl"), f"{expect.ttl:g} s", came)
    reason = judgement.code if judgement and not storable else None
    yield from _equal(("cache", "reason"), expect.reason, reason)


def _target(decision: Decision) -> str | None:
    """Path and query as the origin is asked for them, below its base path."""
    asked, origin = decision.asked, decision.exchange.origin
    if asked is None or origin is None:
        return None
    path = public_path(asked.path, origin)
    return path if asked.query is None else f"{path}?{asked.query}"


def _location(decision: Decision) -> str | None:
    response = decision.response
    return response.headers.get("location") if 300 <= response.status < 400 else None


def _body(decision: Decision) -> str:
    return (decision.response.body.data or b"").decode("utf-8", "replace")


def _fact(name: str, decision: Decision) -> Any:
    return decision.exchange.facts.named(name)


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


# ------------------------------------------------------------------- many visitors


def _missed_shares(expect: Expectations, decisions: Sequence[Decision]) -> Iterator[Miss]:
    total = len(decisions)
    for what, shares in expect.shares.items():
        had = Counter(str(_had(what, decision)) for decision in decisions)
        for value, share in shares.items():
            came = 100 * had[value] / total
            chance = math.sqrt(share * (100 - share) / total) * DEVIATIONS
            within = chance if expect.within is None else expect.within
            if abs(came - share) > within + 1e-9:
                said = f"{share:g} % within {within:.1f}"
                yield Miss(("shares", what, value), said, f"{came:.1f} % of {total} visitors")


def _had(what: str, decision: Decision) -> Any:
    if what in ("route", "origin"):
        return getattr(decision, what)
    return _fact(what, decision)


# ------------------------------------------------------------------- stored objects


def _apart(decisions: Sequence[Decision]) -> str:
    """Why not all of `decisions` share one stored answer; empty if they do."""
    for number, decision in enumerate(decisions, 1):
        if object_of(decision) is None:
            judgement = decision.judgement
            words = judgement.words if judgement else "the cache has no part in it"
            return f"none for request {number} ({words})"
    first, *others = (object_of(decision) or "" for decision in decisions)
    for number, other in enumerate(others, 2):
        if other != first:
            return f"another for request {number} than for request 1 ({_difference(first, other)})"
    return ""


def _together(decisions: Sequence[Decision]) -> str:
    """Which two of `decisions` share a stored answer; empty if none do."""
    objects = [object_of(decision) for decision in decisions]
    for (one, first), (two, second) in itertools.combinations(enumerate(objects, 1), 2):
        if first is not None and first == second:
            return f"the same for requests {one} and {two} ({_shown(_lines(first)[0])})"
    return ""


def _difference(one: str, other: str) -> str:
    """What only one of two objects has in its key."""
    lines = [line for line in _lines(other) if line not in _lines(one)]
    lines = lines or [f"without {line}" for line in _lines(one) if line not in _lines(other)]
    return _shown(", ".join(lines))


def _lines(key: str) -> list[str]:
    return key.replace("\0", "\n").split("\n")
