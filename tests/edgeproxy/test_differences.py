"""Two decisions on one request: what differs, by kind, and nothing that does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from edgeproxy.decision import Decision, Rehearsal, assumed
from edgeproxy.differences import Difference, differences
from edgeproxy.http import Exchange, Request
from edgeproxy.plan import compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.policy.source import write
from tests.policies_strategy import Plain, Visit, policies, visits

POLICY = """\
version: 1
origins: {site: {url: "https://you.github.io/docs/"}, next: {url: "https://next.example/"}}
experiments: {hero: {weights: {control: 1, bold: 0}}}
cache: {rules: {html: {ttl: 10m}}}
routes:
  - {name: moved, match: {path: /old/**}, redirect: {path: /new/**, status: 301}}
  - {name: site, origin: site, experiment: hero, cache: html, response_headers: {set: {x-a: one}}}
"""


async def decided(policy: str, path: str, *, beside: str | None = None) -> Decision:
    base = compile_plan(parse(beside)) if beside is not None else None
    plan = compile_plan(parse(policy), beside=base)
    exchange = Exchange(Request("GET", "www.example.org", path))
    return await Rehearsal(plan, assumed(), now=lambda: 0.0).decide(exchange)


@pytest.mark.parametrize(
    ("change", "path", "kinds"),
    [
        (("name: moved", "name: gone"), "/old/a", ["route"]),
        (("name: site", "name: rest"), "/", ["route", "cache_key"]),
        (("origin: site", "origin: next"), "/", ["origin", "cache_key"]),
        (("you.github", "us.github"), "/", ["origin", "cache_key"]),
        (("control: 1, bold: 0", "control: 0, bold: 1"), "/", ["variant", "headers", "cache_key"]),
        (("status: 301", "status: 308"), "/old/a", ["status"]),
        (("/new/**", "/newer/**"), "/old/a", ["headers"]),
        (("x-a: one", "x-a: two"), "/", ["headers"]),
        (("ttl: 10m", "ttl: 20m"), "/", ["verdict"]),
        (("cache: html", "cache: false"), "/", ["cache_key", "verdict"]),
        (("path: /old/**", "path: /older/**"), "/old/a",
         ["route", "origin", "variant", "status", "headers", "cache_key", "verdict"]),
    ],
)  # fmt: skip
async def test_a_change_shows_in_its_kinds(
    change: tuple[str, str], path: str, kinds: list[str]
) -> None:
    changed = POLICY.replace(*change)
    before = await decided(POLICY, path)
    found = differences(before, await decided(changed, path, beside=POLICY))
    assert [one.kind for one in found] == kinds


async def test_an_example_shows_only_what_differs() -> None:
    changed = POLICY.replace("x-a: one", "x-a: two, x-b: three")
    assert differences(await decided(POLICY, "/"), await decided(changed, "/")) == [
        Difference("headers", "x-a: one", "x-a: two; x-b: three")
    ]


@settings(deadline=None, max_examples=50)
@given(policies(), visits())
async def test_a_policy_does_not_differ_from_itself(policy: Plain, visit: Visit) -> None:
    text = write(policy)
    decisions = []
    for _ in range(2):
        plan = compile_plan(parse(text))
        rehearsal = Rehearsal(plan, assumed(), now=lambda: 0.0)
        decisions.append(await rehearsal.decide(visit.exchange(plan)))
    assert differences(*decisions) == []
