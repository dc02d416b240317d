"""What the admin listener says of what serves: readiness, origins, experiments, plugins, logs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from edgeproxy import __version__
from edgeproxy.testing import Proxy, running

TOKEN = "a-token-that-nobody-guesses"
POLICY = """\
version: 1
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
origins:
  site: {url: "http://127.0.0.1:9/base/", kind: http}
  next: {url: "https://you.github.io/next/"}
experiments:
  hero: {weights: {plain: 1, bold: 3}}
  idle: {weights: {one: 1}}
routes:
  - {name: home, match: {path: /}, origin: site, experiment: hero}
  - {name: site, origin: site, response_headers: {set: {x-a: b}}}
"""


class SlowOrigin:
    """Answers `/base/slow` when it is let."""

    def __init__(self) -> None:
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        if request.path.endswith("/slow"):
            self.asked.set()
            await self.gate.wait()
        if request.path.endswith("/broken"):
            raise web.HTTPServiceUnavailable
        return web.Response(text="here")


@pytest.fixture
async def origin() -> SlowOrigin:
    return SlowOrigin()


@pytest.fixture
async def proxy(origin: SlowOrigin, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)
    app = web.Application()
    app.router.add_get("/{path:.*}", origin.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}/base/".format(*runner.addresses[0][:2])
    async with running(POLICY, origins={"site": url}) as proxy:
        yield proxy
    await runner.cleanup()


async def ask(proxy: Proxy, path: str, **body: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"http://{proxy.server.admin.address}{path}"
    how = {"json": body} if body else {}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request("POST" if body else "GET", url, **how) as answer,
    ):
        return answer.status, await answer.json()


async def test_it_is_ready_until_it_drains(proxy: Proxy, origin: SlowOrigin) -> None:
    """A request is under way when it is told to end: until that is over, it says so."""
    version = proxy.server.app.plan.version
    assert await ask(proxy, "/ready") == (200, {"ready": True, "policy": version})
    under_way = asyncio.create_task(proxy.get("/slow"))
    await origin.asked.wait()
    stopping = asyncio.create_task(proxy.server.stop())
    found = await ask(proxy, "/ready")
    while found[0] == 200:
        found = await ask(proxy, "/ready")
    assert (found[0], found[1]["error"]["code"]) == (503, "draining")
    assert (await ask(proxy, "/health"))[0] == 200
    origin.gate.set()
    assert (await under_way).status == 200
    await stopping
    assert not proxy.server.admin.address


async def test_without_a_policy_it_is_not_ready(proxy: Proxy) -> None:
    await proxy.server.app.close()
    status, said = await ask(proxy, "/ready")
    assert (status, said["error"]["code"]) == (503, "no-policy")


async def test_origins_are_told_with_their_health(proxy: Proxy) -> None:
    _, said = await ask(proxy, "/origins")
    site, other = said["origins"]
    assert (site["name"], site["state"], site["static"]) == ("site", "healthy", False)
    assert site["url"].endswith("/base/")
    assert other == {
        "name": "next", "url": "https://you.github.io/next/", "static": True,
        "state": "healthy", "failures": 0, "cause": "", "for_s": 0.0, "next_probe_in_s": None,
    }  # fmt: skip
    await proxy.get("/broken")
    _, said = await ask(proxy, "/origins")
    assert (said["origins"][0]["state"], said["origins"][0]["cause"]) == (
        "failing", "it answers 503",
    )  # fmt: skip


async def test_experiments_are_told_with_shares_routes_and_requests(proxy: Proxy) -> None:
    for variant, count in (("plain", 1), ("bold", 2)):
        for _ in range(count):
            await proxy.get("/", headers={"Cookie": f"ep_hero={variant}"})
    _, said = await ask(proxy, "/experiments")
    assert said["experiments"] == [
        {
            "name": "hero",
            "variants": [
                {"name": "plain", "share": 0.25, "requests": 1, "assigned": 0},
                {"name": "bold", "share": 0.75, "requests": 2, "assigned": 0},
            ],
            "routes": ["home"],
        },
        {
            "name": "idle",
            "variants": [{"name": "one", "share": 1.0, "requests": 0, "assigned": 0}],
            "routes": [],
        },
    ]


async def test_who_is_new_to_an_experiment_is_assigned_and_counted_so(proxy: Proxy) -> None:
    reply = await proxy.get("/")
    given = reply.headers["Set-Cookie"].partition(";")[0]
    await proxy.get("/", headers={"Cookie": given})
    _, said = await ask(proxy, "/experiments")
    counts = {one["name"]: (one["requests"], one["assigned"]) for one in variants(said)}
    assert counts.pop(given.partition("=")[2]) == (2, 1)
    assert [*counts.values()] == [(0, 0)]


def variants(said: Any) -> list[dict[str, Any]]:
    """Those of the first experiment."""
    found: list[dict[str, Any]] = said["experiments"][0]["variants"]
    return found


async def test_plugins_are_told_with_their_phases(proxy: Proxy) -> None:
    _, said = await ask(proxy, "/plugins")
    plugins = {one["name"]: one for one in said["plugins"]}
    assert {"split", "headers"} <= set(plugins)
    assert plugins["split"]["distribution"] == "edgeproxy"
    assert plugins["split"]["version"] == __version__
    assert {"annotate", "route", "cache_key", "before_send"} <= set(plugins["split"]["phases"])
    assert "experiment" in plugins["split"]["filters"]
    assert "before_send" in plugins["headers"]["phases"]


async def test_the_log_level_is_set_until_the_end(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("edgeproxy")
    before = logger.level
    try:
        assert await ask(proxy, "/log-level", level="ERROR") == (200, {"level": "ERROR"})
        assert await ask(proxy, "/log-level") == (200, {"level": "ERROR"})
        logger.warning("nobody hears this")
        assert (await ask(proxy, "/log-level", level="LOUD"))[0] == 400
        assert await ask(proxy, "/log-level", level="DEBUG") == (200, {"level": "DEBUG"})
        logger.debug("everybody hears that")
    finally:
        logger.setLevel(before)
    assert "nobody hears this" not in caplog.text
    assert "everybody hears that" in caplog.text


async def test_a_policy_is_checked_and_nothing_changes(proxy: Proxy) -> None:
    before = proxy.server.app.plan
    _, said = await ask(proxy, "/policy/check", files=[])
    assert said["policy"] == before.version
    assert "unused-experiment" in [finding["code"] for finding in said["findings"]]
    faulty = {"name": "site.yaml", "text": "version: 1\norigns: {}\nroutes: []\n"}
    _, said = await ask(proxy, "/policy/check", files=[faulty])
    assert said["policy"] is None
    assert said["faults"][0]["code"] == "unknown-key"
    assert (said["faults"][0]["file"], said["faults"][0]["line"]) == ("site.yaml", 2)
    good = {"name": "site.yaml", "text": POLICY}
    test = {
        "name": "site_test.yaml",
        "text": "version: 1\ntests: [{name: home, get: /, expect: {route: site}}]\n",
    }
    _, said = await ask(proxy, "/policy/check", files=[good], tests=[test])
    assert [fault["code"] for fault in said["faults"]] == ["test-failed"]
    assert proxy.server.app.plan is before
