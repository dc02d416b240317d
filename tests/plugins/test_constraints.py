"""What matchers say about themselves is so: never contradicted by what they do with visits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.api import Below, Constraint, Exchange, Request
from edgeproxy.decision import known_facts
from edgeproxy.http import Facts
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.policy.policy import Clause
from edgeproxy.policy.source import write
from edgeproxy_content.implication import clash, follows
from edgeproxy_content.text import Condition, text_test
from tests.policies_strategy import PREAMBLE, Visit, clauses, conditions, visits

type Clauses = list[Clause]


def loaded(*matches: Any, **sections: Any) -> Plan:
    route = {"name": "all", "matches": list(matches), "origin": "pages"}
    return compile_plan(parse(write({**PREAMBLE, **sections, "routes": [route]})))


def said(clause: Clause) -> list[Constraint]:
    return list(clause.matcher.constraints(clause.plugin.instance))


def all_clauses(plan: Plan) -> Clauses:
    return [clause for match in plan.policy.routes[0].matches for clause in match.clauses]


def pairs(found: Clauses) -> Iterator[tuple[Clause, Constraint, Clause, Constraint]]:
    """Clauses that ask about one thing only, two and two that ask about the same."""
    single = [(clause, *said(clause)) for clause in found if len(said(clause)) == 1]
    for (one, asked), (other, also_asked) in product(single, single):
        if asked.subject == also_asked.subject:
            yield one, asked, other, also_asked


def holds(clause: Clause, exchange: Exchange) -> bool:
    return clause.matcher.compile(clause.plugin.instance)(exchange)


@settings(deadline=None)
@given(st.lists(clauses(), min_size=1, max_size=6), st.lists(visits(), max_size=8))
def test_visits_never_contradict_what_is_said(matches: list[Any], several: list[Visit]) -> None:
    plan = loaded(*filter(None, matches))
    exchanges = [visit.exchange(plan) for visit in several]
    for one, asked, other, also_asked in pairs(all_clauses(plan)):
        for exchange in exchanges:
            both = (holds(one, exchange), holds(other, exchange))
            assert not (asked.covers(also_asked) is True and both == (False, True))
            assert not (asked.excludes(also_asked) is True and both == (True, True))


PLACES = [
    {"country": ["DE", "FR"]}, {"country": "DE"}, {"country": ["XX", "US"]}, {"country": "MX"},
    {"country_group": "eu"}, {"country_group": ["schengen", "eea"]}, {"country": ["CH", "GB"]},
    {"continent": "EU"}, {"continent": ["NA", "XX"]}, {"continent": "XX"}, {"country": "XX"},
]  # fmt: skip


def test_of_places_all_is_known() -> None:
    plan = loaded(*PLACES)
    every = all_clauses(plan)
    met = {
        id(clause): frozenset(
            country
            for country in said(clause)[0].every or ()
            if holds(clause, of(plan, country=country))
        )
        for clause in every
    }
    for one, asked, other, also_asked in pairs(every):
        assert asked.covers(also_asked) is (met[id(other)] <= met[id(one)])
        assert asked.excludes(also_asked) is met[id(one)].isdisjoint(met[id(other)])


def of(plan: Plan, **told: str) -> Exchange:
    facts = Facts(known_facts(plan, told))
    return Exchange(Request("GET", "example.org", "/"), facts=facts)


def test_another_database_may_see_a_country_elsewhere() -> None:
    """Its records name continents too, so that nothing follows from one for the other."""
    plan = loaded({"country": "DE", "continent": "EU"})
    country, continent = all_clauses(plan)
    continent.plugin.instance.knows_countries_only = False  # type: ignore[attr-defined]
    assert {asked.subject for asked in (*said(country), *said(continent))} == {
        "geo.country", "geo.continent"
    }  # fmt: skip


# ------------------------------------------------------------------- values with others below


@pytest.mark.parametrize(
    ("one", "other", "covers", "excludes"),
    [
        (["GB"], ["GB-ENG"], True, False),
        (["GB-ENG"], ["GB"], False, False),
        (["GB-ENG", "GB-SCT"], ["GB-ENG"], True, False),
        (["GB-ENG"], ["GB-E"], False, True),
        (["FR", "GB"], ["GB-ENG", "FR-IDF"], True, False),
    ],
)
def test_a_value_stands_for_all_below(
    one: list[str], other: list[str], covers: bool, excludes: bool
) -> None:
    mine, theirs = Below("x", frozenset(one)), Below("x", frozenset(other))
    assert (mine.covers(theirs), mine.excludes(theirs)) == (covers, excludes)


# ------------------------------------------------------------------- texts

_conditions = conditions().map(
    lambda plain: Condition[str].model_validate(
        plain if isinstance(plain, dict) else {"exact": plain}
    )
)
_texts = st.one_of(st.none(), st.text("profeE", max_size=6))


@settings(deadline=None)
@given(_conditions, _conditions, st.lists(_texts, max_size=20))
def test_texts_never_contradict_what_follows(
    one: Condition[str], other: Condition[str], texts: list[str | None]
) -> None:
    first, second = text_test(one), text_test(other)
    for text in (*texts, None, "", "pro", "PRO"):
        if follows(one, other) is True:
            assert first(text) or not second(text)
        if False not in (one.present, other.present) and clash(one, other) is True:
            assert not (first(text) and second(text))


@pytest.mark.parametrize(
    ("wanted", "given", "expected"),
    [
        ({"present": True}, {"exact": ["a"]}, True),
        ({"present": True}, {"present": False}, False),
        ({"present": False}, {"contains": "a"}, False),
        ({"exact": ["a", "b"]}, {"exact": "b"}, True),
        ({"exact": "a"}, {"exact": ["a", "b"]}, False),
        ({"exact": "a"}, {"exact": "ü b"}, None),
        ({"exact": "A", "ignore_case": True}, {"exact": "a"}, True),
        ({"exact": "a"}, {"exact": "a", "ignore_case": True}, None),
        ({"prefix": "a"}, {"prefix": ["ab", "ac"]}, True),
        ({"prefix": "ab"}, {"prefix": "a"}, None),
        ({"prefix": "A", "ignore_case": True}, {"prefix": "ab"}, True),
        ({"contains": "b"}, {"suffix": "abc"}, True),
        ({"contains": "b"}, {"exact": "abc", "ignore_case": True}, None),
        ({"suffix": "B", "ignore_case": True}, {"exact": "AB", "ignore_case": True}, True),
        ({"regex": "a+"}, {"exact": ["a", "aa"]}, True),
        ({"regex": "a+"}, {"exact": "b"}, False),
        ({"regex": "a+"}, {"regex": "a+"}, True),
        ({"regex": "a+"}, {"regex": "a"}, None),
        ({"regex": ".*"}, {"present": True}, True),
        ({"regex": "a.*"}, {"prefix": "a"}, None),
    ],
)
def test_what_follows_from_a_condition(
    wanted: dict[str, Any], given: dict[str, Any], expected: bool | None
) -> None:
    assert follows(Condition[str](**wanted), Condition[str](**given)) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"exact": "a"}, {"exact": "b"}, True),
        ({"exact": "a"}, {"exact": ["a", "b"]}, False),
        ({"exact": "a"}, {"exact": "A", "ignore_case": True}, False),
        ({"exact": "a", "ignore_case": True}, {"exact": "B", "ignore_case": True}, True),
        ({"exact": "abc", "ignore_case": True}, {"prefix": "x"}, True),
        ({"exact": "a"}, {"regex": "b+"}, True),
        ({"regex": "a+"}, {"regex": "b+"}, None),
        ({"regex": "a+"}, {"prefix": "b"}, None),
        ({"prefix": "a"}, {"prefix": "b"}, True),
        ({"prefix": "a"}, {"prefix": "ab"}, None),
        ({"suffix": "a"}, {"suffix": "b"}, True),
        ({"prefix": "a"}, {"suffix": "b"}, None),
        ({"contains": "a"}, {"contains": "b"}, None),
        ({"present": True}, {"exact": "a"}, False),
    ],
)
def test_conditions_that_clash(
    one: dict[str, Any], other: dict[str, Any], expected: bool | None
) -> None:
    assert clash(Condition[str](**one), Condition[str](**other)) is expected
    assert clash(Condition[str](**other), Condition[str](**one)) is expected
