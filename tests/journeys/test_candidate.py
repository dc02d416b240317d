"""A policy on trial beside the one in force: for some visitors, or for none and only watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from edgeproxy.api import EVERYTHING, Config, Exchange, Request, hookimpl
from edgeproxy.api import Plugin as BasePlugin
from edgeproxy.errors import PolicyError
from edgeproxy.pages import Fault, Pages
from edgeproxy.policy.installed import Installed, Registry, installed
from edgeproxy.policy.load import parse
from edgeproxy.shadow import MAX_WAITING
from edgeproxy.testing import Proxy, Reply, running

POLICY = """\
version: 1
accelerator: on
trusted_proxies: [127.0.0.0/8]
origins: {site: {url: "ORIGIN"}}
cache: {memory: {max_size: 8MiB}, rules: {all: {ttl: 1h}}}
routes:
  - {name: hello, match: {path: /hello}, respond: {body: old}}
  - {name: site, cache: all, response_headers: {set: {x-side: old}}}
"""
CANDIDATE = POLICY.replace("old", "new")
VISITORS = [f"198.51.100.{number}" for number in range(60)]


@asynccontextmanager
async def proxy_for(site: Pages, **how: Any) -> AsyncIterator[Proxy]:
    async with running(POLICY.replace("ORIGIN", site.url), **how) as proxy:
        yield proxy


async def try_out(proxy: Proxy, site: Pages, policy: str, share: float) -> Any:
    app = proxy.server.app
    reuse = {plugin.name: plugin for plugin in app.plugins}
    tried = parse(policy.replace("ORIGIN", site.url), reuse=reuse)
    return await app.try_out(app.compile(tried, beside=True), share)


async def sides(proxy: Proxy, path: str = "/page") -> dict[str, str]:
    """What each visitor was shown."""
    return {
        visitor: (await as_visitor(proxy, visitor, path)).headers["x-side"] for visitor in VISITORS
    }


async def as_visitor(proxy: Proxy, address: str, path: str) -> Reply:
    return await proxy.get(path, headers={"x-forwarded-for": address})


async def test_a_share_of_the_visitors_is_taken_and_stays_taken(make_site: Any) -> None:
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        await try_out(proxy, site, CANDIDATE, 0.2)
        few = await sides(proxy)
        assert 2 <= list(few.values()).count("new") <= 25
        assert await sides(proxy) == few
        assert proxy.server.app.candidate is not None
        proxy.server.app.candidate.share = 0.6
        more = await sides(proxy)
        assert list(more.values()).count("new") > list(few.values()).count("new")
        assert all(more[visitor] == "new" for visitor in few if few[visitor] == "new")
        proxy.server.app.drop_candidate()
        assert set((await sides(proxy)).values()) == {"old"}


async def test_the_log_names_the_policy_that_decided(make_site: Any) -> None:
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        candidate = await try_out(proxy, site, CANDIDATE, 0.5)
        versions = {"old": proxy.server.app.plan.version, "new": candidate.plan.version}
        shown = list((await sides(proxy)).values())
        assert [line["policy"] for line in proxy.log] == [versions[side] for side in shown]
        counts = {side: candidate.answers(version) for side, version in versions.items()}
        assert counts == {side: {"2xx": shown.count(side)} for side in versions}


async def test_no_cache_behind_may_hand_an_answer_to_the_other_side(make_site: Any) -> None:
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        assert "private" not in (await proxy.get("/page")).headers.get("cache-control", "")
        await try_out(proxy, site, CANDIDATE, 0.5)
        for visitor in VISITORS[:10]:
            reply = await as_visitor(proxy, visitor, "/page")
            assert "private" in reply.headers["cache-control"]
        proxy.server.app.drop_candidate()
        await try_out(proxy, site, CANDIDATE, 0)
        assert "private" not in (await proxy.get("/page")).headers.get("cache-control", "")


async def test_both_share_what_is_stored_where_it_would_be_the_same(make_site: Any) -> None:
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        await try_out(proxy, site, CANDIDATE, 0.5)
        assert set((await sides(proxy)).values()) == {"old", "new"}
        assert site.requests["/page"] == 1


@pytest.mark.parametrize(
    "change",
    [
        ("ttl: 1h", "ttl: 2h"),
        ("response_headers: {set:", "request_headers: {set: {x-a: b}}, response_headers: {set:"),
    ],
    ids=["another rule", "another filter on the way in"],
)
async def test_neither_is_served_what_the_other_would_have_stored_otherwise(
    make_site: Any, change: tuple[str, str]
) -> None:
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        await try_out(proxy, site, CANDIDATE.replace(*change), 0.5)
        assert set((await sides(proxy)).values()) == {"old", "new"}
        assert site.requests["/page"] == 2


async def test_a_purge_holds_for_both(make_site: Any) -> None:
    own_tier = CANDIDATE.replace("8MiB", "9MiB")
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        await try_out(proxy, site, own_tier, 0.5)
        await sides(proxy)
        assert site.requests["/page"] == 2
        await proxy.server.app.purge(EVERYTHING)
        await sides(proxy)
        assert site.requests["/page"] == 4


async def test_a_request_ends_on_the_side_where_it_began(make_site: Any) -> None:
    release, arrived = asyncio.Event(), asyncio.Event()

    async def wait(seconds: float) -> None:
        await release.wait()

    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        site.sleep = wait
        site.on_answer = lambda request, answer, fault: arrived.set()
        site.set_fault("/page", Fault(delay_s=1))
        candidate = await try_out(proxy, site, CANDIDATE.replace("name: site", "name: rest"), 1)
        under_way = asyncio.create_task(proxy.get("/page"))
        await arrived.wait()
        proxy.server.app.drop_candidate()
        assert (await proxy.get("/hello")).body == b"old"
        release.set()
        reply = await under_way
        assert (reply.status, reply.headers["x-side"]) == (200, "new")
        line = proxy.log[-1]
        assert (line["route"], line["policy"]) == ("rest", candidate.plan.version)


# ------------------------------------------------------------------- in shadow


async def test_in_shadow_differences_are_counted_and_nothing_is_applied(make_site: Any) -> None:
    moved = CANDIDATE.replace("name: site", "name: rest").replace("{body: new}", "{status: 410}")
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        candidate = await try_out(proxy, site, moved, 0)
        assert (await proxy.get("/page?token=secret")).headers["x-side"] == "old"
        await proxy.get("/page", method="HEAD")
        await proxy.get("/missing")
        assert (await proxy.get("/hello")).body == b"old"
        await proxy.get("/hello", method="POST", data=b"x")
        requests = dict(site.requests)
        await candidate.shadow.settled()
        report = candidate.shadow.report()
        assert (report["compared"], report["different"], report["left_out"]) == (4, 4, 1)
        counts = {one["kind"]: one["count"] for one in report["kinds"]}
        assert counts == {"route": 3, "status": 1, "headers": 3}
        status = next(one for one in report["kinds"] if one["kind"] == "status")
        (example,) = status["examples"]
        assert (example.method, example.before, example.after) == ("GET", "200", "410")
        assert example.url.endswith("/hello")
        assert "secret" not in str(report)
        assert site.requests == requests  # no origin was asked for it
        assert len(proxy.log) == 5


async def test_the_same_policy_in_shadow_differs_in_nothing(make_site: Any) -> None:
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        candidate = await try_out(proxy, site, POLICY, 0)
        for path in ("/page", "/page", "/missing", "/hello", "/page?a=b"):
            await proxy.get(path, headers={"x-forwarded-for": "8.8.8.8"})
        await candidate.shadow.settled()
        assert candidate.shadow.report()["kinds"] == []
        assert candidate.shadow.compared == 5


async def test_in_shadow_the_front_goes_on_answering_and_each_request_is_seen(
    make_site: Any,
) -> None:
    plain: Any = SimpleNamespace(is_plain=True)
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        front = proxy.server.edge.accelerator
        for _ in range(6):
            await proxy.get("/page")
        remembered = front.remembered
        assert remembered
        candidate = await try_out(proxy, site, CANDIDATE, 0)
        assert front.takes(plain)
        for _ in range(6):
            assert "; hit" in (await proxy.get("/page")).cache_status
        await candidate.shadow.settled()
        assert candidate.shadow.compared == 6
        candidate.share = 0.5
        assert not front.takes(plain)
        proxy.server.app.drop_candidate()
        assert front.takes(plain)
        await proxy.get("/page")
        assert front.remembered > remembered


async def test_when_the_shadow_is_behind_answers_come_from_memory_again(make_site: Any) -> None:
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        front = proxy.server.edge.accelerator
        for _ in range(6):
            await proxy.get("/page")
        candidate = await try_out(proxy, site, CANDIDATE, 0)
        await proxy.get("/page")
        remembered = front.remembered
        exchange = Exchange(Request("GET", "127.0.0.1", "/page"))
        for _ in range(MAX_WAITING):
            candidate.shadow.offer(exchange, proxy.server.app.plan)
        for _ in range(40):  # it catches up with a few of them
            await proxy.get("/page")
        given = front.remembered - remembered
        assert given
        assert candidate.shadow.dropped >= given


async def test_what_cannot_be_compared_in_time_is_dropped_and_counted(make_site: Any) -> None:
    async with Pages(make_site(page="page")) as site, proxy_for(site) as proxy:
        candidate = await try_out(proxy, site, CANDIDATE, 0)
        await proxy.get("/page")
        await candidate.shadow.settled()
        exchange = Exchange(Request("GET", "127.0.0.1", "/page"))
        for _ in range(MAX_WAITING + 50):  # in one turn of the loop
            candidate.shadow.offer(exchange, proxy.server.app.plan)
        assert candidate.shadow.dropped == 50
        await candidate.shadow.settled()
        assert candidate.shadow.compared == MAX_WAITING + 1


# ------------------------------------------------------------------- plugins


class Counting(BasePlugin):
    """Notes how it lives."""

    class Config(Config):
        word: str = ""

    lives: list[str] = []
    stopped: asyncio.Event

    @hookimpl
    def startup(self) -> None:
        self.lives.append(f"start {self.config.word}")

    @hookimpl
    def finish(self, exchange: Exchange) -> None:
        self.lives.append(f"finish {self.config.word}")

    @hookimpl
    def shutdown(self) -> None:
        self.lives.append(f"stop {self.config.word}")
        self.stopped.set()


@pytest.fixture
def counting() -> Registry:
    Counting.lives.clear()
    Counting.stopped = asyncio.Event()
    return Registry([*installed().entries, Installed("counting", lambda: Counting, "test-plugins")])


def with_word(policy: str, word: str) -> str:
    return policy.replace(
        "version: 1", f"version: 1\nplugins: [counting]\ncounting: {{word: {word}}}"
    )


async def test_a_plugin_lives_as_long_as_a_plan_needs_it(
    make_site: Any, counting: Registry
) -> None:
    async with Pages(make_site(page="page")) as site:
        policy = with_word(POLICY.replace("ORIGIN", site.url), "a")
        async with running(policy, registry=counting) as proxy:
            app = proxy.server.app

            async def tried(text: str) -> None:
                reuse = {plugin.name: plugin for plugin in app.plugins}
                tried = parse(text, registry=counting, reuse=reuse)
                await app.try_out(app.compile(tried, beside=True), 0.5)

            await tried(policy.replace("old", "new"))
            assert Counting.lives == ["start a"]  # it is the same one
            await tried(policy.replace("word: a", "word: b"))
            assert Counting.lives == ["start a", "start b"]
            with pytest.raises(PolicyError):
                await tried(policy.replace("cache: all", "cache: none"))
            assert app.candidate is not None
            app.drop_candidate()
            await Counting.stopped.wait()
            assert Counting.lives == ["start a", "start b", "stop b"]
        assert Counting.lives[-1] == "stop a"


async def test_a_former_plan_keeps_its_plugins_until_its_last_request_is_over(
    make_site: Any, counting: Registry
) -> None:
    release, arrived = asyncio.Event(), asyncio.Event()

    async def wait(seconds: float) -> None:
        await release.wait()

    async with Pages(make_site(page="page")) as site:
        site.sleep = wait
        site.on_answer = lambda request, answer, fault: arrived.set()
        site.set_fault("/page", Fault(delay_s=1))
        policy = with_word(POLICY.replace("ORIGIN", site.url), "a")
        async with running(policy, registry=counting) as proxy:
            under_way = asyncio.create_task(proxy.get("/page"))
            await arrived.wait()
            await proxy.reload(policy.replace("word: a", "word: b"))
            await proxy.get("/hello")
            assert Counting.lives == ["start a", "start b", "finish b"]
            release.set()
            assert (await under_way).status == 200
            await Counting.stopped.wait()
            assert Counting.lives[3:] == ["finish a", "stop a"]
