"""Spans and figures as a collector receives them: by OTLP, over a real socket."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from edgeproxy.testing import Proxy, running
from tests.journeys.conftest import RawOrigin

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ANSWER = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nhi"
SERVER, CLIENT = 2, 3  # kinds of spans
POLICY = """\
version: 1
otel: {endpoint: "ENDPOINT", headers: {x-token: "${env:OTLP_TOKEN}"}, sample: SAMPLE}
origins: {site: {url: "http://site.example/", kind: http}, gone: {url: "http://127.0.0.1:9/"}}
cache: {memory: {}}
routes:
  - {name: gone, match: {path: /gone}, origin: gone}
  - {name: site, origin: site}
"""


@dataclass
class Collector:
    """An OTLP receiver. What it has got, span by span and point by point."""

    url: str = ""
    payloads: list[bytes] = field(default_factory=list)
    fields: list[dict[str, str]] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)
    metrics: dict[str, list[Any]] = field(default_factory=dict)
    resources: list[dict[str, Any]] = field(default_factory=list)

    async def traces(self, request: web.Request) -> web.Response:
        for resource in ExportTraceServiceRequest.FromString(
            await self._read(request)
        ).resource_spans:
            self.resources.append(attributes(resource.resource))
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    async def figures(self, request: web.Request) -> web.Response:
        found = ExportMetricsServiceRequest.FromString(await self._read(request))
        for resource in found.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.metrics[metric.name] = list(metric.histogram.data_points)
        return web.Response(content_type="application/x-protobuf")

    async def _read(self, request: web.Request) -> bytes:
        assert request.content_type == "application/x-protobuf"
        self.fields.append(dict(request.headers))
        data = await request.read()  # aiohttp has undone the gzip
        self.payloads.append(data)
        return data

    def of_kind(self, kind: int) -> list[Any]:
        return [span for span in self.spans if span.kind == kind]


def attributes(of: Any) -> dict[str, Any]:
    def value(one: Any) -> Any:
        return getattr(one, one.WhichOneof("value"))

    return {pair.key: value(pair.value) for pair in of.attributes}


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTLP_TOKEN", "a token of the collector")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.traces)
    app.router.add_post("/v1/metrics", found.figures)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    found.url = f"http://{host}:{port}/"
    yield found
    await runner.cleanup()


@asynccontextmanager
async def served(
    collector: Collector, sample: str = "1.0", *answers: bytes, policy: str = POLICY
) -> AsyncIterator[tuple[Proxy, RawOrigin]]:
    """A proxy that has sent everything when the block is over."""
    policy = policy.replace("ENDPOINT", collector.url).replace("SAMPLE", sample)
    async with (
        RawOrigin(*answers or (ANSWER,)) as origin,
        running(policy, origins={"site": origin.url}) as proxy,
    ):
        yield proxy, origin


async def test_a_miss_is_a_span_with_that_of_its_fetch_below(collector: Collector) -> None:
    async with served(collector) as (proxy, origin):
        await proxy.get("/page?token=canary", headers={"cookie": "session=canary"})
        told = origin.fields()["traceparent"]
        logged = proxy.log[-1]
    (server,), (client,) = collector.of_kind(SERVER), collector.of_kind(CLIENT)
    assert (server.name, client.name) == ("GET site", "GET site")
    assert client.parent_span_id == server.span_id
    assert not server.parent_span_id
    assert told == f"00-{client.trace_id.hex()}-{client.span_id.hex()}-{told[-2:]}"
    assert client.trace_id.hex() == server.trace_id.hex() == logged["trace_id"]
    said = attributes(server)
    assert said["http.request.method"] == "GET"
    assert said["http.response.status_code"] == 200
    assert said["url.path"] == "/page"
    assert (said["edgeproxy.route"], said["edgeproxy.cache"]) == ("site", "miss")
    assert said["edgeproxy.request_id"] == logged["request_id"]
    assert server.start_time_unix_nano < client.start_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    assert not [data for data in collector.payloads if b"canary" in data]
    assert collector.resources[0]["service.name"] == "edgeproxy"
    assert all(fields["x-token"] == "a token of the collector" for fields in collector.fields)


async def test_a_span_hangs_on_that_of_the_client(collector: Collector) -> None:
    async with served(collector, "0.0") as (proxy, origin):
        parent = f"00-{TRACE}-{PARENT}-01"
        await proxy.get("/", headers={"traceparent": parent, "tracestate": "a=1"})
        assert origin.fields()["tracestate"] == "a=1"
        await proxy.get("/other", headers={"traceparent": parent[:-1] + "0"})
        assert origin.fields()["traceparent"].endswith("-00")
        await proxy.get("/third", headers={"traceparent": "nonsense", "tracestate": "a=1"})
        assert "tracestate" not in origin.fields()
        assert proxy.log[-3]["trace_id"] == TRACE
    (server,) = collector.of_kind(SERVER)  # the client of the others did not want them recorded
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)


async def test_hits_are_spans_as_well_and_all_count(collector: Collector) -> None:
    async with served(collector) as (proxy, origin):
        for _ in range(4):
            await proxy.get("/")
            await proxy.server.app.plan.cache.settled()
        assert len(origin.heads) == 1
    found = [attributes(span)["edgeproxy.cache"] for span in collector.of_kind(SERVER)]
    assert sorted(found) == ["hit", "hit", "hit", "miss"]
    points = collector.metrics["http.server.request.duration"]
    assert {attributes(one)["edgeproxy.cache"]: one.count for one in points} == {
        "hit": 3,
        "miss": 1,
    }
    sizes = collector.metrics["http.server.response.body.size"]
    assert sum(one.sum for one in sizes) == 8


async def test_failures_are_marked(collector: Collector) -> None:
    async with served(collector) as (proxy, _):
        await proxy.get("/gone")
    (server,), (client,) = collector.of_kind(SERVER), collector.of_kind(CLIENT)
    assert server.status.code == client.status.code == 2
    assert "connection_refused" in server.status.message
    assert attributes(server)["http.response.status_code"] == 502


@pytest.mark.parametrize("second", [ANSWER, b"nonsense\r\n\r\n"], ids=["answers", "fails"])
async def test_a_fetch_that_no_client_waits_for_is_a_span_too(
    collector: Collector, second: bytes
) -> None:
    first = ANSWER.replace(b"max-age=60", b'max-age=0, stale-while-revalidate=60\r\netag: "1"')
    async with served(collector, "1.0", first, second) as (proxy, origin):
        for _ in range(2):
            await proxy.get("/")
            await proxy.server.app.plan.cache.settled()
        assert len(origin.heads) >= 2
    found = [attributes(span)["edgeproxy.cache"] for span in collector.of_kind(SERVER)]
    assert found == ["miss", "stale"]
    waited_for, *others = collector.of_kind(CLIENT)
    assert waited_for.status.code == 0
    assert others
    for other in others:
        assert other.parent_span_id == collector.of_kind(SERVER)[1].span_id
        if second is ANSWER:
            assert other.status.code == 0
            assert attributes(other)["http.response.status_code"] == 200
        else:
            assert other.status.code == 2
            assert other.status.message


@pytest.mark.parametrize("start", ["true", "false"])
@pytest.mark.parametrize("parent", ["", f"00-{TRACE}-{PARENT}-01"], ids=["alone", "with a parent"])
async def test_beside_the_plugin_trace_there_is_one_id(
    collector: Collector, start: str, parent: str
) -> None:
    policy = f"{POLICY}trace: {{start: {start}}}\n"
    async with served(collector, policy=policy) as (proxy, origin):
        await proxy.get("/", headers={"traceparent": parent} if parent else {})
        told, logged = origin.fields()["traceparent"], proxy.log[-1]["trace_id"]
    (server,), (client,) = collector.of_kind(SERVER), collector.of_kind(CLIENT)
    assert logged == server.trace_id.hex() == told.split("-")[1]
    assert told.split("-")[2] == client.span_id.hex()
    assert not parent or logged == TRACE


async def test_a_collector_that_is_not_there_harms_nobody() -> None:
    nobody = Collector("http://127.0.0.1:9")
    async with served(nobody) as (proxy, _):
        assert (await proxy.get("/")).status == 200


async def test_a_reload_without_the_section_ends_it(collector: Collector) -> None:
    async with served(collector) as (proxy, origin):
        await proxy.get("/")
        file = proxy.policy_file
        assert file is not None
        lines = [line for line in file.read_text().splitlines() if not line.startswith("otel")]
        await proxy.reload("\n".join(lines))
        await proxy.get("/again")
        assert "traceparent" not in origin.fields()
    assert len(collector.of_kind(SERVER)) == 1


def test_who_does_not_use_it_does_not_load_it() -> None:
    program = (
        "import sys; from edgeproxy.policy.load import parse; "
        "parse('version: 1\\norigins: {site: {url: \"http://127.0.0.1:9/\"}}\\n'); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
