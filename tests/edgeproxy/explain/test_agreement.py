"""What is explained is what happens: random requests, random policies, the real pipeline and cache.

Each example is a policy and some visits; `make agreement` makes 10,000 visits for each test.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.caching.answers import precondition
from edgeproxy.caching.cache import Cache
from edgeproxy.caching.purges import Selection
from edgeproxy.errors import UpstreamError
from edgeproxy.explain import Explanation, explain, tell
from edgeproxy.http import Body, Exchange, Origin, Request, Response
from edgeproxy.pipeline import handle
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.policy.policy import LoadedPlugin
from edgeproxy.policy.source import write
from edgeproxy.routing import find
from tests.edgeproxy.explain.origins import answer, is_gone
from tests.policies_strategy import PREAMBLE, Plain, Visit, policies, visits

VISITS = 10  # of each policy
EXAMPLES = int(os.environ.get("EDGEPROXY_AGREEMENT", "200")) // VISITS


@pytest.fixture(autouse=True, scope="module")
def _in_silence() -> Iterator[None]:
    """Origins that fail are logged, as they should be."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


often = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
several = st.lists(visits(), min_size=VISITS, max_size=VISITS)


@cache
def database() -> Mapping[str, LoadedPlugin]:
    """The plugin that takes longest to make, for every policy."""
    routes = [{"name": "all", "matches": [{"country": "DE"}], "origin": "pages"}]
    plugins = parse(write({**PREAMBLE, "routes": routes})).plugins
    return {plugin.name: plugin for plugin in plugins if plugin.name == "geo"}


NOW_S = 1_800_000_000.0


def plan_of(policy: Plain) -> Plan:
    """A plan with its real cache, in which no time goes by."""
    plan = compile_plan(parse(write(policy), reuse=database()))
    real = plan.cache
    still = Cache(
        real.levels.tiers, max_object_size=real.max_object_size, encodings=real.encodings,
        now=lambda: NOW_S,
    )  # fmt: skip
    return replace(plan, cache=still)


# ------------------------------------------------------------------- an origin in memory


async def fetch(origin: Origin, request: Request) -> Response:
    """An origin in memory. Some of its pages cannot be had."""
    if is_gone(request.path):
        raise UpstreamError(origin.name, "connection_refused", "it is not there")
    response = answer(origin.name, request.path, request.headers.joined("x-edge") or "")
    if request.method == "HEAD":  # only these keep their conditions on the way to an origin
        response.body = Body()
        status = precondition(request.headers, response.status, response.headers, 0.0, time.time())
        if status is not None:
            response.status = status
            response.headers.remove("content-type", "content-length")
    return response


# ------------------------------------------------------------------- what is compared

Seen = dict[str, Any]


def happened(exchange: Exchange, response: Response) -> Seen:
    return {
        "route": exchange.route,
        "origin": exchange.origin.name if exchange.origin else None,
        "variant": exchange.facts.named("split.applied"),
        "key": exchange.cache_key,
        "status": response.status,
        "headers": sorted((name.lower(), value) for name, value in response.headers.items()),
    }


def told(explanation: Explanation) -> Seen:
    matched = [one.name for one in explanation.routes if one.matched]
    return {
        "route": matched[0] if matched else None,
        "origin": explanation.upstream.origin if explanation.upstream else None,
        "variant": {one.name: one.value for one in explanation.facts}.get("split.applied"),
        "key": "\n".join(part.text for part in explanation.caching.key),
        "status": explanation.answer.status,
        "headers": sorted((name.lower(), value) for name, value in explanation.answer.headers),
    }


def without(seen: Seen, *names: str) -> Seen:
    headers = [field for field in seen["headers"] if field[0] not in names]
    body_id = "content-length" if seen["status"] >= 400 else ""  # our pages name the request
    return {**seen, "headers": [field for field in headers if field[0] != body_id]}


async def explained(plan: Plan, visit: Visit) -> Explanation:
    exchange = visit.arriving()
    exchange.at_s = NOW_S
    explanation = await explain(plan, exchange, fetch)
    assert tell(explanation)
    assert Explanation.from_json(explanation.as_json()).as_json() == explanation.as_json()
    return explanation


# ------------------------------------------------------------------- the properties


@often
@given(policies(), several)
def test_the_routes_that_are_told_are_those_that_are_tried(
    policy: Plain, seen: list[Visit]
) -> None:
    plan = plan_of(policy)
    names = [route.core.name for route in plan.policy.routes]
    for visit in seen:
        found = find(plan.routes.candidates(visit.host, visit.path), visit.exchange(plan))
        routes = asyncio.run(explained(plan, visit)).routes
        end = len(names) if found is None else names.index(found.route.name) + 1
        assert [one.name for one in routes] == names[:end]
        assert [one.matched for one in routes] == [name == names[end - 1] and found is not None
                                                   for name in names[:end]]  # fmt: skip
        for match in (match for one in routes for match in one.matches):
            assert (match.failed is None) == match.holds


@often
@given(policies(), several)
def test_what_is_told_of_a_first_request_is_what_comes_of_it(
    policy: Plain, seen: list[Visit]
) -> None:
    async def compare(visit: Visit) -> None:
        exchange = visit.arriving()
        response = await handle(exchange, plan, fetch)
        await plan.cache.settled()
        await plan.cache.forget(exchange.cache_key)  # the next visit is a first one, too
        await plan.cache.purge(Selection(everything=True))
        explanation = told(await explained(plan, visit))
        assert without(explanation, "date") == without(happened(exchange, response), "date")

    plan = plan_of(policy)
    for visit in seen:
        asyncio.run(compare(visit))


@often
@given(policies(), several)
def test_what_is_told_holds_whatever_is_stored(policy: Plain, seen: list[Visit]) -> None:
    async def compare() -> None:
        for visit in [*seen, *seen]:
            exchange = visit.arriving()
            response = await handle(exchange, plan, fetch)
            real, explanation = happened(exchange, response), told(await explained(plan, visit))
            if exchange.cache_verdict == "stale":  # the origin is down, which no policy says
                explanation |= {"status": real["status"], "headers": real["headers"]}
            moving = ("date", "age", "cache-status")
            assert without(explanation, *moving) == without(real, *moving)
        await plan.cache.settled()

    plan = plan_of(policy)
    asyncio.run(compare())
