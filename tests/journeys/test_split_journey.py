"""Visitors of an experiment: shares, steadiness, and variants that never mix."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import Counter
from typing import Any

import pytest

from edgeproxy.http import Exchange, Origin, Request, Response
from edgeproxy.pages import Pages
from edgeproxy.pipeline import handle
from edgeproxy.plan import Plan, compile_plan
from edgeproxy.policy.load import parse
from edgeproxy.testing import Proxy, running

POLICY = """\
version: 1
trusted_proxies: [127.0.0.0/8]
origins:
  old: {url: "https://old.example/"}
  new: {url: "https://new.example/"}
experiments:
  site: {weights: WEIGHTS}
cache:
  memory: {max_size: 8MiB}
  rules: {all: {ttl: 1h}}
routes:
  - name: split
    experiment: {name: site, variants: {new: {origin: new}}}
    origin: old
    cache: all
"""

HALVES = POLICY.replace("WEIGHTS", "{old: 50, new: 50}")
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def address(number: int) -> str:
    return f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}"


def cookie_of(reply: Any) -> str | None:
    found = re.match(r"ep_site=([a-z]+);", reply.headers.get("set-cookie", ""))
    return found[1] if found else None


def assert_share(count: int, total: int, share: float) -> None:
    """Within three standard deviations of a binomial distribution."""
    deviation = math.sqrt(total * share * (1 - share))
    assert abs(count - total * share) <= 3 * deviation, (count, total, share)


async def fetch(origin: Origin, request: Request) -> Response:
    return Response.text(200, origin.name, ("cache-control", "max-age=60"))


async def variant_in_process(plan: Plan, client: str, **fields: str) -> str:
    import ipaddress

    request = Request("GET", "www.example.org", "/")
    for name, value in fields.items():
        request.headers.set(name, value)
    exchange = Exchange(request, ipaddress.ip_address(client))
    response = await handle(exchange, plan, fetch)
    assert response.body.data is not None
    return response.body.data.decode()


@pytest.mark.parametrize(
    ("weights", "share"), [("{old: 50, new: 50}", 0.5), ("{old: 90, new: 10}", 0.1)]
)
async def test_ten_thousand_visitors_land_by_weight_and_return_to_where_they_were(
    weights: str, share: float
) -> None:
    plan = compile_plan(parse(POLICY.replace("WEIGHTS", weights)))
    total = 10_000
    first = [await variant_in_process(plan, address(number)) for number in range(total)]
    assert_share(first.count("new"), total, share)
    for number in range(0, total, 7):
        assert await variant_in_process(plan, address(number)) == first[number]
        # Wherever the visitor is now, the cookie holds them.
        moved = await variant_in_process(plan, "192.0.2.1", cookie=f"ep_site={first[number]}")
        assert moved == first[number]


async def two_sites(make_site: Any) -> tuple[Pages, Pages]:
    names = {"index": "home", "style": "style", "guide": "guide"}
    old = make_site("old", **{name: f"old {text}" for name, text in names.items()})
    new = make_site("new", **{name: f"new {text}" for name, text in names.items()})
    return Pages(old), Pages(new)


def side_of(body: bytes) -> str:
    assert (b"old " in body) != (b"new " in body)
    return "old" if b"old " in body else "new"


async def visit(proxy: Proxy, target: str = "/", **fields: str) -> tuple[str, Any]:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    reply = await proxy.get(target, headers=headers)
    assert reply.status == 200
    return side_of(reply.body), reply


async def test_visitors_over_sockets_keep_their_variant_and_pages_fit_their_assets(
    make_site: Any,
) -> None:
    old, new = await two_sites(make_site)
    async with old, new, running(HALVES, origins={"old": old.url, "new": new.url}) as proxy:
        total = 400
        sides: Counter[str] = Counter()

        async def visitor(number: int) -> None:
            side, reply = await visit(proxy, x_forwarded_for=address(number))
            sides[side] += 1
            cookie = cookie_of(reply)
            assert cookie == side
            # An asset, at the same time without the cookie, and a page later from elsewhere.
            assert (await visit(proxy, "/style.html", x_forwarded_for=address(number)))[0] == side
            later, reply = await visit(
                proxy, "/guide", x_forwarded_for="203.0.113.9", cookie=f"a=b; ep_site={cookie}"
            )
            assert later == side
            assert cookie_of(reply) is None
            assert "private" in reply.headers["cache-control"]
            assert "cookie" in reply.headers["vary"].lower()

        numbers = list(range(total))
        random.Random(7).shuffle(numbers)
        for start in range(0, total, 50):
            await asyncio.gather(*(visitor(number) for number in numbers[start : start + 50]))
        assert_share(sides["new"], total, 0.5)
        # Every page was fetched once for each variant: hits, and none for the other side.
        assert set(old.requests.values()) == {1}
        assert set(new.requests.values()) == {1}


async def test_parallel_first_requests_of_one_visitor_agree(make_site: Any) -> None:
    old, new = await two_sites(make_site)
    async with old, new, running(HALVES, origins={"old": old.url, "new": new.url}) as proxy:
        for client in (address(1), address(2), address(3)):
            seen = await asyncio.gather(*(visit(proxy, x_forwarded_for=client) for _ in range(64)))
            assert len({side for side, _ in seen}) == 1
            assert len({cookie_of(reply) for _, reply in seen}) == 1


async def test_a_variant_can_be_forced_for_checking(make_site: Any) -> None:
    old, new = await two_sites(make_site)
    async with old, new, running(HALVES, origins={"old": old.url, "new": new.url}) as proxy:
        for wanted in ("old", "new"):
            side, reply = await visit(proxy, f"/?site={wanted}", x_forwarded_for=address(5))
            assert side == cookie_of(reply) == wanted
            assert "max-age" not in reply.headers["set-cookie"].lower()
            # It wins over the cookie, and over being a bot.
            other = "old" if wanted == "new" else "new"
            side, _ = await visit(proxy, f"/?x=1&site={wanted}", cookie=f"ep_site={other}")
            assert side == wanted
            side, _ = await visit(proxy, f"/?site={wanted}", user_agent=BOT)
            assert side == wanted
        # The query that chose is not passed on, so that it does not split the cache.
        assert all("site=" not in request.target for request in (*old.log, *new.log))
        unknown, reply = await visit(proxy, "/?site=other", x_forwarded_for=address(5))
        plain, _ = await visit(proxy, x_forwarded_for=address(5))
        assert unknown == plain
        assert "other" not in str(reply.headers)


async def test_bots_see_control(make_site: Any) -> None:
    old, new = await two_sites(make_site)
    policy = HALVES.replace("weights:", "control: new, weights:")
    async with old, new, running(policy, origins={"old": old.url, "new": new.url}) as proxy:
        for number in range(20):
            side, reply = await visit(
                proxy, x_forwarded_for=address(number), user_agent=BOT, cookie="ep_site=old"
            )
            assert side == "new"
            assert "set-cookie" not in reply.headers


@pytest.mark.parametrize(
    "value",
    ["evil", "", "old%20", "OLD", '"old"', "old,new", "../new", "new\xe9", "x" * 3000, "<script>"],
)
async def test_a_tampered_cookie_is_a_fresh_assignment_and_reflected_nowhere(
    make_site: Any, value: str
) -> None:
    old, new = await two_sites(make_site)
    async with old, new, running(HALVES, origins={"old": old.url, "new": new.url}) as proxy:
        fresh, _ = await visit(proxy, x_forwarded_for=address(9))
        side, reply = await visit(proxy, x_forwarded_for=address(9), cookie=f"ep_site={value}")
        assert side == fresh
        assert cookie_of(reply) == fresh
        if len(value) > 3:
            assert value not in str(dict(reply.headers))
            assert value.encode() not in reply.body
            assert value not in str(proxy.log)
        assert all("cookie" not in str(request.headers).lower() for request in (*old.log, *new.log))


async def test_a_variant_can_be_another_path_other_headers_or_a_redirect(make_site: Any) -> None:
    policy = """\
version: 1
trusted_proxies: [127.0.0.0/8]
origins: {pages: {url: "https://pages.example/"}}
experiments:
  hero: {weights: {plain: 1, bold: 1}}
routes:
  - name: home
    match: {path: /}
    experiment: {name: hero, variants: {bold: {path: /bold, response_headers: {x-hero: bold}}}}
  - name: moved
    match: {path: /from/**}
    experiment: {name: hero, variants: {bold: {redirect: /to/**}}}
  - name: site
"""
    root = make_site(index="plain home", bold="bold home", **{"from/page": "from", "to/page": "to"})
    async with Pages(root) as pages, running(policy, origins={"pages": pages.url}) as proxy:
        bold, plain = {"cookie": "ep_hero=bold"}, {"cookie": "ep_hero=plain"}
        reply = await proxy.get("/", headers=bold)
        assert b"bold home" in reply.body
        assert reply.headers["x-hero"] == "bold"
        reply = await proxy.get("/", headers=plain)
        assert b"plain home" in reply.body
        assert "x-hero" not in reply.headers
        reply = await proxy.get("/from/page?x=1", headers=bold)
        assert (reply.status, reply.headers["location"]) == (302, "/to/page?x=1")
        assert "private" in reply.headers["cache-control"]
        reply = await proxy.get("/from/page", headers=plain)
        assert reply.status == 200
        assert proxy.log[-1]["variant"] == "hero=plain"


@pytest.mark.parametrize("times", [1, 5])  # the last of five is remembered
async def test_the_log_says_who_was_assigned_with_this_request(make_site: Any, times: int) -> None:
    root = make_site(index="home")
    async with Pages(root) as pages, running(HALVES, origins={"old": pages.url}) as proxy:
        for fields in ({}, {"cookie": "ep_site=old"}, {"user-agent": BOT}):
            headers = {"x-forwarded-for": address(0), **fields}
            for _ in range(times):
                await proxy.get("/", headers=headers)
            entry = proxy.log[-1]
            assert entry["variant"] == "site=old"
            assert entry.get("assigned") == (None if fields else "site=old")
