"""Shares, the order of reasons, and what a variant may change."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy_split.buckets import variant_of
from edgeproxy_split.plugin import ExperimentFilter, Experiments, Plugin

BOT = "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"

POLICY = """
experiments:
  hero: {weights: {plain: 1, bold: 1}MORE}
cache: {rules: {any: {ttl: 1h}}}
routes:
  - {name: all, origin: a, cache: any, experiment: {name: hero, variants: {bold: CHANGE}}}
"""


def policy(change: str = "{path: /bold}", more: str = "") -> str:
    return POLICY.replace("CHANGE", change).replace("MORE", more)


# ---------------------------------------------------------------- buckets


@pytest.mark.parametrize(
    "weights", [{"a": 50.0, "b": 50.0}, {"a": 90.0, "b": 10.0}, {"a": 1.0, "b": 2.0, "c": 3.0}]
)
def test_shares_are_as_weighed(weights: dict[str, float]) -> None:
    total, whole = 10_000, sum(weights.values())
    counts = Counter(variant_of(f"visitor {n}", "salt", weights) for n in range(total))
    for variant, weight in weights.items():
        share = weight / whole
        deviation = math.sqrt(total * share * (1 - share))
        assert abs(counts[variant] - total * share) < 3 * deviation


@given(
    st.text(), st.text(min_size=1), st.dictionaries(st.text(min_size=1), st.floats(0, 1e6)),
)  # fmt: skip
def test_a_visitor_gets_a_variant_with_a_weight_and_always_the_same(
    attribute: str, salt: str, weights: dict[str, float]
) -> None:
    if not sum(weights.values()):
        return
    found = variant_of(attribute, salt, weights)
    assert weights[found] > 0
    assert variant_of(attribute, salt, dict(weights)) == found


def test_the_assignment_never_changes_between_versions() -> None:
    """Visitors without the cookie would change their variant with an update."""
    weights = {"a": 1.0, "b": 1.0}
    assert "".join(variant_of(f"192.0.2.{n}", "hero", weights) for n in range(24)) == EXPECTED


EXPECTED = "babaaaaabaaaaababaababab"


def test_salts_make_experiments_independent() -> None:
    weights = {"a": 1.0, "b": 1.0}
    both = Counter(
        (variant_of(str(n), "one", weights), variant_of(str(n), "two", weights))
        for n in range(10_000)
    )
    assert all(abs(count - 2500) < 3 * math.sqrt(10_000 * 0.25 * 0.75) for count in both.values())
    same = {variant_of(str(n), "x", weights) == variant_of(str(n), "x", weights) for n in range(99)}
    assert same == {True}


def test_raising_a_weight_moves_nobody_the_other_way() -> None:
    before, after = {"old": 90.0, "new": 10.0}, {"old": 70.0, "new": 30.0}
    for n in range(2000):
        if variant_of(str(n), "s", before) == "new":
            assert variant_of(str(n), "s", after) == "new"


# ---------------------------------------------------------------- reasons


async def variants(go: Any, **fields: str) -> set[str]:
    """The variants that 40 clients get."""
    trips = [await go(client=f"192.0.2.{number}", **fields) for number in range(40)]
    return {trip.exchange.facts.named("split.hero") for trip in trips}


async def test_forced_before_bot_before_cookie_before_hash(journeys: Any) -> None:
    go = journeys(policy(more=", control: plain"))
    assert await variants(go) == {"plain", "bold"}
    assert await variants(go, cookie="ep_hero=bold") == {"bold"}
    assert await variants(go, cookie="ep_hero=bold", user_agent=BOT) == {"plain"}
    trip = await go("/?hero=bold", cookie="ep_hero=plain", user_agent=BOT)
    assert trip.exchange.facts.named("split.hero") == "bold"


async def test_the_cookie_is_set_once_and_lasts_as_the_policy_says(journeys: Any) -> None:
    go = journeys(policy(more=", cookie: seen, cookie_ttl: 2d"))
    trip = await go()
    variant = trip.exchange.facts.named("split.hero")
    assert trip.header("set-cookie") == (
        f"seen={variant}; Path=/; Max-Age=172800; SameSite=Lax; HttpOnly"
    )
    assert (await go(cookie=f"seen={variant}")).header("set-cookie") is None
    assert (await go(user_agent=BOT)).header("set-cookie") is None
    forced = await go("/?hero=bold")
    assert forced.header("set-cookie") == "seen=bold; Path=/; SameSite=Lax; HttpOnly"


async def test_force_can_be_turned_off(journeys: Any) -> None:
    go = journeys(policy(more=", force: false"))
    for n in range(10):
        plain = await go(client=f"192.0.2.{n}")
        forced = await go("/?hero=bold", client=f"192.0.2.{n}")
        fact = "split.hero"
        assert forced.exchange.facts.named(fact) == plain.exchange.facts.named(fact)


async def test_visitors_may_be_told_apart_by_a_header_or_a_cookie(journeys: Any) -> None:
    by_header = journeys(policy(more=', by: "header:X-Account"'))
    by_cookie = journeys(policy(more=', by: "cookie:account"'))
    assert len(await variants(by_header, x_account="42")) == 1
    assert len(await variants(by_cookie, cookie="account=42")) == 1
    assert len(await variants(by_header)) == 2  # by address where it is absent
    seen = {
        (await by_header(x_account=str(n))).exchange.facts.named("split.hero") for n in range(40)
    }
    assert seen == {"plain", "bold"}


@pytest.mark.parametrize("value", ["", "bald", "BOLD", "bold ", "bold%20", "plain,bold"])
async def test_a_value_that_names_no_variant_counts_as_none(journeys: Any, value: str) -> None:
    go = journeys(policy())
    for n in range(8):
        fresh = (await go(client=f"192.0.2.{n}")).exchange.facts.named("split.hero")
        trip = await go(client=f"192.0.2.{n}", cookie=f"ep_hero={value}; x=y")
        if value.strip() != "bold":
            assert trip.exchange.facts.named("split.hero") == fresh
            assert f"ep_hero={fresh};" in (trip.header("set-cookie") or "")


# ---------------------------------------------------------------- what a variant changes

BOLD, PLAIN = {"cookie": "ep_hero=bold"}, {"cookie": "ep_hero=plain"}


async def test_a_variant_may_have_another_path_origin_prefix_or_fields(journeys: Any) -> None:
    trip = await journeys(policy("{path: /bold}"))("/x?a=b", **BOLD)
    assert [request.target for request in trip.asked] == ["/base/bold?a=b"]
    trip = await journeys(policy("{prefix: /bold/}"))("/x", **BOLD)
    assert [request.target for request in trip.asked] == ["/base/bold/x"]
    trip = await journeys(policy("{origin: b}"))("/x", **BOLD)
    assert [request.authority for request in trip.asked] == ["b.example"]
    change = '{request_headers: {x-v: "${split.hero}"}, response_headers: {x-w: "w"}}'
    trip = await journeys(policy(change))("/x", **BOLD)
    assert trip.asked[0].headers.get("x-v") == "bold"
    assert trip.header("x-w") == "w"
    trip = await journeys(policy(change))("/x", **PLAIN)
    assert "x-v" not in trip.asked[0].headers
    assert trip.header("x-w") is None


async def test_a_variant_may_be_a_redirect_that_ends_where_it_leads(journeys: Any) -> None:
    go = journeys(policy("{redirect: /bold/}"))
    trip = await go("/x?a=b", **BOLD)
    assert (trip.response.status, trip.header("location")) == (302, "/bold/?a=b")
    assert (await go("/bold/", **BOLD)).response.status == 200
    assert (await go("/x", **PLAIN)).response.status == 200


async def test_variants_have_entries_of_their_own_also_where_nothing_differs(journeys: Any) -> None:
    go = journeys(policy("{}"))
    assert (await go("/x", **PLAIN)).exchange.cache_verdict == "miss"
    assert (await go("/x", **BOLD)).exchange.cache_verdict == "miss"
    assert (await go("/x", **PLAIN)).exchange.cache_verdict == "hit"
    trip = await go("/x", **BOLD)
    assert trip.exchange.cache_verdict == "hit"
    assert "private" in (trip.header("cache-control") or "")
    assert "cookie" in (trip.header("vary") or "")


async def test_facts_that_a_variant_sends_to_the_origin_keep_answers_apart(journeys: Any) -> None:
    go = journeys(policy('{request_headers: {x-device: "${content.device}"}}'))
    phone = {"user_agent": "Mozilla/5.0 (iPhone) Mobile"}
    assert (await go("/x", **BOLD)).exchange.cache_verdict == "miss"
    assert (await go("/x", **BOLD, **phone)).exchange.cache_verdict == "miss"
    assert (await go("/x", **BOLD, **phone)).exchange.cache_verdict == "hit"
    assert (await go("/x", **PLAIN)).exchange.cache_verdict == "miss"
    assert (await go("/x", **PLAIN, **phone)).exchange.cache_verdict == "hit"  # sends no such field


def test_what_is_odd_about_experiments_is_remarked() -> None:
    weights = {"hero": {"weights": {"a": 1, "b": 0}}, "nav": {"weights": {"a": 1, "b": 1}}}
    plugin = Plugin(Experiments.model_validate(weights))
    remarks = list(plugin.review([ExperimentFilter(name="nav"), ExperimentFilter(name="nav")]))
    assert [(remark.code, remark.at) for remark in remarks] == [
        ("unused-experiment", ("hero",)),
        ("variant-without-weight", ("hero", "weights", "b")),
    ]
    assert {remark.code for remark in remarks} == set(Plugin.remarks)


async def test_the_forcing_query_is_taken_out_of_what_is_asked(journeys: Any) -> None:
    trip = await journeys(policy("{}"))("/x?a=1&hero=bold&b=2")
    assert [request.target for request in trip.asked] == ["/base/x?a=1&b=2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiments: {hero: {weights: {a: 0, b: 0}}}", "the weights add to 0"),
        ("experiments: {hero: {weights: {a: -1, b: 2}}}", "too small"),
        ("experiments: {hero: {weights: {a: 1}, control: b}}", "'b' is not among the variants"),
        ("experiments: {hero: {weights: {'a b': 1}}}", "a b"),
        ("experiments: {hero: {weights: {a: 1}, by: ip}}", "by"),
        ("experiments: {hero: {weights: {a: 1}, cookie: 'a;b'}}", "cookie"),
    ],
)
def test_an_experiment_that_cannot_work_is_a_fault(fault: Any, text: str, message: str) -> None:
    assert message in fault(f"{text}\nroutes:\n  - {{name: all, origin: a, experiment: hero}}\n")


def test_names_that_do_not_exist_are_faults(fault: Any) -> None:
    good = "experiments: {hero: {weights: {plain: 1, bold: 1}}}\nroutes:\n"
    assert "no experiment 'hera'" in fault(good + "  - {name: x, origin: a, experiment: hera}\n")
    block = "{name: hero, variants: {bald: {path: /x}}}"
    assert "no variant 'bald'" in fault(good + f"  - {{name: x, origin: a, experiment: {block}}}\n")
    block = "{name: hero, variants: {bold: {origin: c}}}"
    assert "'c'" in fault(good + f"  - {{name: x, origin: a, experiment: {block}}}\n")
