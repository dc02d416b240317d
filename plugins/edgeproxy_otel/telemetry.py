"""The spans and figures of requests, gathered and sent by OpenTelemetry's library, in its threads.

Nothing waits for the collector. What cannot be sent is dropped when the queue is full.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span

from edgeproxy.api import Exchange, Fact, Request

from .spans import answered, begun, ended, failed, fetched, injected, method_of

SEND_TIMEOUT_S = 5
MAX_QUEUED_SPANS = 2048
SEND_SPANS_EVERY_S = 5.0
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BOUNDS_BYTES = (0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)


SERVER = Fact[Span]("otel.server")
FETCH = Fact[Span]("otel.fetch")


class Telemetry:
    """What one process tells a collector. `begin` and `end` are told of each request."""

    def __init__(
        self,
        endpoint: str,
        headers: Mapping[str, str],
        *,
        service: str,
        sample: float,
        interval_s: float,
    ) -> None:
        def exporter[T](kind: Callable[..., T], what: str) -> T:
            return kind(
                f"{endpoint}/v1/{what}",
                headers=dict(headers),
                timeout=SEND_TIMEOUT_S,
                compression=Compression.Gzip,
            )

        resource = Resource.create({"service.name": service})
        self._traces = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=resource,
            shutdown_on_exit=False,
        )
        self._traces.add_span_processor(
            BatchSpanProcessor(
                exporter(OTLPSpanExporter, "traces"),
                max_queue_size=MAX_QUEUED_SPANS,
                schedule_delay_millis=SEND_SPANS_EVERY_S * 1000,
            )
        )
        reader = PeriodicExportingMetricReader(
            exporter(OTLPMetricExporter, "metrics"),
            export_interval_millis=interval_s * 1000,
        )
        self._metrics = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._tracer = self._traces.get_tracer("edgeproxy")
        meter = self._metrics.get_meter("edgeproxy")
        self._durations = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "From the request to the end of its answer.",
            explicit_bucket_boundaries_advisory=BOUNDS_S,
        )
        self._sizes = meter.create_histogram(
            "http.server.response.body.size",
            "By",
            "Bodies that were sent.",
            explicit_bucket_boundaries_advisory=BOUNDS_BYTES,
        )

    def begin(self, exchange: Exchange) -> str:
        """A request has come: the id of its trace."""
        span = exchange.facts[SERVER] = begun(self._tracer, exchange)
        return format(span.get_span_context().trace_id, "032x")

    def begin_fetch(self, exchange: Exchange, request: Request) -> None:
        """An origin is asked for it, and told which span that is."""
        server = exchange.facts.get(SERVER)
        if server is None:
            return
        self.fail_fetch(exchange, "another try")
        span = exchange.facts[FETCH] = fetched(self._tracer, server, exchange, request)
        injected(span, request.headers)

    def end_fetch(self, exchange: Exchange, status: int) -> None:
        span = exchange.facts.get(FETCH)
        if span is not None and span.is_recording():
            answered(span, status)
            span.end()

    def fail_fetch(self, exchange: Exchange, reason: str) -> None:
        span = exchange.facts.get(FETCH)
        if span is not None and span.is_recording():
            failed(span, reason)
            span.end()

    def end(self, exchange: Exchange) -> None:
        """It has its answer, or its client has left."""
        server = exchange.facts.get(SERVER)
        if server is None:
            return
        if exchange.cache_verdict != "stale":  # else it goes on, though no client waits for it
            self.fail_fetch(exchange, exchange.error)
        ended(server, exchange)
        self._count(exchange, time.monotonic() - exchange.started_s)

    def _count(self, exchange: Exchange, took_s: float) -> None:
        """Its attributes are of closed sets, as in docs/metrics.md."""
        attributes: dict[str, str | int] = {
            "http.request.method": method_of(exchange),
            "url.scheme": exchange.request.scheme,
            "edgeproxy.route": exchange.route or "none",
            "edgeproxy.cache": exchange.cache_verdict,
        }
        if exchange.response is not None:
            attributes["http.response.status_code"] = exchange.response.status
        self._durations.record(took_s, attributes)
        self._sizes.record(exchange.bytes_sent, attributes)

    async def close(self) -> None:
        """Send what is left, for as long as one timeout allows; each waits, so in threads."""
        await asyncio.gather(
            asyncio.to_thread(self._traces.shutdown),
            asyncio.to_thread(self._metrics.shutdown, SEND_TIMEOUT_S * 1000),
        )
