"""What Prometheus scrapes is what has happened, whichever way an answer took."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from signal import SIGKILL
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from edgeproxy.api import Exchange, Plugin, hookimpl
from edgeproxy.pages import Pages
from edgeproxy.policy.installed import Installed, Registry, installed
from edgeproxy.testing import Proxy, running
from tests.journeys.conftest import Child, small_site
from tests.journeys.crew import POLICY as CREW_POLICY
from tests.journeys.crew import write

TOKEN = "a token for this test alone"
POLICY = """\
version: 1
accelerator: on
admin: {listen: "127.0.0.1:0", token: "${env:EDGEPROXY_TOKEN}"}
origins: {site: {url: "https://you.github.io/"}, gone: {url: "http://127.0.0.1:9/"}}
cache: {memory: {}, disk: {path: DISK, max_size: 64MiB}, rules: {all: {ttl: 1h}}}
routes:
  - {name: gone, match: {path: /gone}, origin: gone}
  - {name: hello, match: {path: /hello}, respond: {body: hello}}
  - {name: site, origin: site, cache: all}
"""


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_TOKEN", TOKEN)


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Pages]:
    async with Pages(small_site(tmp_path / "site", index="home")) as pages:
        yield pages


@pytest.fixture
def policy(tmp_path: Path) -> str:
    return POLICY.replace("DISK", str(tmp_path / "disk"))


@pytest.fixture
async def proxy(policy: str, origin: Pages) -> AsyncIterator[Proxy]:
    async with running(policy, origins={"site": origin.url}) as proxy:
        yield proxy


class Scrape:
    """The samples of one scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        families = list(text_string_to_metric_families(text))
        self.samples: list[Sample] = [one for family in families for one in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of what has these labels, and perhaps others."""
        return sum(one.value for one in self.samples if one.name == name and self._has(one, labels))

    def labels(self, name: str) -> list[dict[str, str]]:
        return [one.labels for one in self.samples if one.name == name]

    @staticmethod
    def _has(sample: Sample, labels: Mapping[str, str]) -> bool:
        return all(sample.labels.get(name) == value for name, value in labels.items())


async def ask(proxy: Proxy, path: str, **fields: str) -> tuple[str, str]:
    """The text of an answer of the admin listener, and its type."""
    url = f"http://{proxy.server.admin.address}{path}"
    headers = {"Authorization": f"Bearer {TOKEN}", **fields}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers) as answer,
    ):
        assert answer.status == 200
        return await answer.text(), answer.headers["Content-Type"]


async def scrape(proxy: Proxy) -> Scrape:
    text, content_type = await ask(proxy, "/metrics")
    assert content_type.startswith("text/plain; version=0.0.4")
    return Scrape(text)


async def ask_until_remembered(proxy: Proxy) -> int:
    """Ask for `/` until the answer is given again as it was: how often that took."""
    for number in range(1, 8):
        before = proxy.server.app.counts.remembered
        await proxy.get("/")
        await proxy.server.app.plan.cache.settled()
        if proxy.server.app.counts.remembered > before:
            return number
    raise AssertionError("never remembered")


async def test_every_answer_counts_once_whichever_way_it_took(proxy: Proxy) -> None:
    asked = await ask_until_remembered(proxy)
    for _ in range(3):
        await proxy.get("/")
    length = len((await proxy.get("/")).body)
    await proxy.get("/hello", method="HEAD")
    found = await scrape(proxy)
    site = {"route": "site", "method": "GET", "status": "2xx"}
    assert found("edgeproxy_requests_total", cache="miss", **site) == 1
    assert found("edgeproxy_requests_total", cache="hit", **site) == asked + 3
    assert found("edgeproxy_remembered_total", route="site") == 5
    assert found("edgeproxy_requests_total", route="hello", method="HEAD", cache="pass") == 1
    assert found("edgeproxy_response_bytes_total", route="site") == length * (asked + 4)
    assert found("edgeproxy_cache_hits_total", tier="memory", cache="hit") == asked + 3
    assert found("edgeproxy_cache_bytes", tier="memory") > length


async def test_durations_are_those_of_all_requests(proxy: Proxy) -> None:
    asked = await ask_until_remembered(proxy)
    found = await scrape(proxy)
    name = "edgeproxy_request_duration_seconds"
    assert found(f"{name}_count", route="site") == asked
    assert found(f"{name}_bucket", route="site", le="+Inf") == asked
    by_bound = [found(f"{name}_bucket", cache="hit", le=one["le"])
                for one in found.labels(f"{name}_bucket") if one["cache"] == "hit"]  # fmt: skip
    assert by_bound == sorted(by_bound)
    assert found(f"{name}_bucket", cache="hit", le="0.0005") >= 1, "remembered ones are the fastest"
    assert found(f"{name}_sum", route="site", cache="miss") > 0


async def test_a_hit_on_disk_names_its_tier(policy: str, origin: Pages) -> None:
    async with running(policy, origins={"site": origin.url}) as proxy:
        await proxy.get("/")
        await proxy.server.app.plan.cache.settled()
    async with running(policy, origins={"site": origin.url}) as proxy:
        await proxy.get("/")
        found = await scrape(proxy)
    assert found("edgeproxy_cache_hits_total", tier="disk", cache="hit") == 1
    assert found("edgeproxy_origin_responses_total", origin="site") == 0


async def test_origins_tell_how_they_are(proxy: Proxy) -> None:
    await proxy.get("/")
    await proxy.get("/no-such-page")
    await proxy.get("/gone")
    found = await scrape(proxy)
    assert found("edgeproxy_origin_responses_total", origin="site", status="2xx") == 1
    assert found("edgeproxy_origin_responses_total", origin="site", status="4xx") == 1
    assert found("edgeproxy_origin_response_duration_seconds_count", origin="site") == 2
    failures = found.labels("edgeproxy_origin_failures_total")
    assert failures == [{"origin": "gone", "error": "connection_refused"}]
    assert found("edgeproxy_requests_total", route="gone", status="5xx") == 1
    assert found("edgeproxy_origin_state", origin="gone", state="down") == 1
    assert found("edgeproxy_origin_state", origin="site", state="healthy") == 1
    assert found("edgeproxy_origin_state") == 2


async def test_a_body_that_breaks_off_is_a_failure(policy: str, raw_origin: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    async with raw_origin(head) as origin, running(policy, origins={"site": origin.url}) as proxy:
        assert (await proxy.get("/")).status == 502
        found = await scrape(proxy)
    assert found("edgeproxy_origin_failures_total", error="http_response_incomplete") == 1


async def test_refusals_and_connections(proxy: Proxy) -> None:
    before = await scrape(proxy)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
    await reader.readuntil(b"hello")
    found = await scrape(proxy)
    name = "edgeproxy_connections_open"
    assert found(name) - before(name) == 1
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
    await reader.read()
    writer.close()
    await writer.wait_closed()
    found = await scrape(proxy)
    assert found("edgeproxy_refused_total", status="400") == 1
    accepted = "edgeproxy_connections_accepted_total"
    assert found(accepted) - before(accepted) == 1
    assert found(name) == before(name)


async def test_what_clients_write_makes_no_series(proxy: Proxy) -> None:
    await proxy.get("/hello")
    before = await scrape(proxy)
    for number in range(20):
        await proxy.get(f"/hello?x={number}", headers={"x-canary": f"c{number}"})
        await proxy.get(f"/canary-{number}", method="GET")
        await proxy.get("/hello", method="PROPFIND")
    found = await scrape(proxy)
    assert "canary" not in found.text
    assert "PROPFIND" not in found.text
    assert len(found.samples) < len(before.samples) + 60


async def test_changes_of_the_policy_count(proxy: Proxy, policy: str) -> None:
    first = await scrape(proxy)
    assert first("edgeproxy_policy_info", version=proxy.server.version) == 1
    assert first("edgeproxy_policy_last_reload_successful") == 1
    await proxy.reload(policy.replace("body: hello", "body: hi"))
    await proxy.reload("version: 1\nnonsense: 1\n")
    found = await scrape(proxy)
    assert found("edgeproxy_policy_reloads_total", result="success") == 1
    assert found("edgeproxy_policy_reloads_total", result="failure") == 1
    assert found("edgeproxy_policy_last_reload_successful") == 0
    assert found("edgeproxy_policy_last_reload_success_timestamp_seconds") > 1e9
    assert found("edgeproxy_policy_routes") == 3
    assert found.labels("edgeproxy_policy_info") == [{"version": proxy.server.version}]
    assert proxy.server.version != first.labels("edgeproxy_policy_info")[0]["version"]


class Clumsy(Plugin):
    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        raise ValueError("as ever")


async def test_failures_of_plugins_count(policy: str, origin: Pages) -> None:
    text = policy + "plugins: [clumsy]\n"
    registry = Registry([*installed().entries, Installed("clumsy", lambda: Clumsy, "clumsy")])
    async with running(text, origins={"site": origin.url}, registry=registry) as proxy:
        await proxy.get("/hello")
        await proxy.get("/hello")
        found = await scrape(proxy)
    assert found("edgeproxy_plugin_errors_total", plugin="clumsy", hook="annotate") == 2


async def test_the_same_as_plain_data_and_as_openmetrics(proxy: Proxy) -> None:
    await proxy.get("/hello")
    text, content_type = await ask(proxy, "/metrics", Accept="application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    names = {family.name for family in openmetrics.text_string_to_metric_families(text)}
    assert {"edgeproxy_requests", "edgeproxy_request_duration_seconds"} <= names
    plain, content_type = await ask(proxy, "/metrics.json")
    assert content_type.startswith("application/json")
    assert '"route": "hello"' in plain


async def test_the_process_is_told_about(proxy: Proxy) -> None:
    found = await scrape(proxy)
    assert found("process_resident_memory_bytes") > 1e6
    assert found("process_open_fds") > 3
    assert found("process_cpu_seconds_total") > 0


# ------------------------------------------------------------------------ workers


async def crew_scrape(folder: Path) -> Scrape:
    connector = aiohttp.UnixConnector(str(folder / "admin.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://admin/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as answer,
    ):
        assert answer.status == 200
        return Scrape(await answer.text())


async def get(proxy: Child, path: str) -> int:
    """A request on a connection of its own: which worker gets it, the kernel says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
    status = int((await reader.read()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


@pytest.fixture
async def crew() -> AsyncIterator[tuple[Child, Path]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = write(folder, text=CREW_POLICY)
        proxy = await Child.run(policy, EDGEPROXY_TOKEN=TOKEN)
        yield proxy, folder
        await proxy.end()


async def test_counts_of_all_workers_are_one(crew: tuple[Child, Path]) -> None:
    proxy, folder = crew
    for _ in range(32):
        assert await get(proxy, "/hello") == 200
    found = await crew_scrape(folder)
    assert found("edgeproxy_requests_total", route="hello") == 32
    assert found("edgeproxy_connections_accepted_total") == 32
    workers = {one["worker"] for one in found.labels("process_open_fds")}
    assert workers == {"supervisor", "1", "2"}
    assert len(found.labels("edgeproxy_policy_info")) == 1


async def test_counts_do_not_shrink_when_a_worker_dies(crew: tuple[Child, Path]) -> None:
    proxy, folder = crew
    for _ in range(32):
        await get(proxy, "/hello")
    assert (await crew_scrape(folder))("edgeproxy_requests_total") == 32
    victim = proxy.workers()[0]
    os.kill(victim, SIGKILL)
    await proxy.said(lambda line: "was killed by SIGKILL" in line)
    async with asyncio.timeout(40):
        while len((found := await crew_scrape(folder)).labels("process_open_fds")) < 3:
            assert found("edgeproxy_requests_total") == 32  # with one worker
    for _ in range(5):
        assert await get(proxy, "/hello") == 200
    found = await crew_scrape(folder)
    assert found("edgeproxy_requests_total") == 37
    assert found("edgeproxy_connections_open") <= 5
