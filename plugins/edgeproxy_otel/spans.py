"""What spans say, in the words of OpenTelemetry's semantic conventions for HTTP.

No query, cookie, field or address of a visitor is in them.
"""

from __future__ import annotations

from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from edgeproxy.api import Exchange, Headers, Request

_CONTEXT = TraceContextTextMapPropagator()
_FIELDS = ("traceparent", "tracestate")

MAX_REASON = 200  # characters
KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class _Fields(Getter[Headers]):
    """How the library reads a request."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        return carrier.get_all(key) or None

    def keys(self, carrier: Headers) -> list[str]:
        return list(_FIELDS)


def method_of(exchange: Exchange) -> str:
    method = exchange.request.method
    return method if method in KNOWN_METHODS else "_OTHER"


def begun(tracer: Tracer, exchange: Exchange) -> Span:
    """The span of a request, below the one that the client names."""
    request = exchange.request
    return tracer.start_span(
        method_of(exchange),
        context=_CONTEXT.extract(request.headers, getter=_Fields()),
        kind=SpanKind.SERVER,
        start_time=int(exchange.at_s * 1e9),
        attributes={
            "http.request.method": method_of(exchange),
            "url.scheme": request.scheme,
            "url.path": request.path,
            "server.address": request.host,
        },
    )


def ended(span: Span, exchange: Exchange) -> None:
    """The request has its answer, or its client has left."""
    if not span.is_recording():
        return
    route = exchange.route or "none"
    span.update_name(f"{method_of(exchange)} {route}")
    span.set_attributes(
        {
            "edgeproxy.route": route,
            "edgeproxy.cache": exchange.cache_verdict,
            "edgeproxy.policy": exchange.policy,
            "edgeproxy.request_id": exchange.id,
            "http.response.body.size": exchange.bytes_sent,
        }
    )
    if exchange.response is None:
        failed(span, exchange.error)
    else:
        answered(span, exchange.response.status, failing=500, reason=exchange.error)
    span.end()


def fetched(tracer: Tracer, server: Span, exchange: Exchange, request: Request) -> Span:
    """The span of a request to an origin, below that of the request it is made for."""
    return tracer.start_span(
        f"{request.method} {exchange.origin.name if exchange.origin else 'origin'}",
        context=set_span_in_context(server),
        kind=SpanKind.CLIENT,
        attributes={
            "http.request.method": request.method,
            "server.address": request.authority,
            "url.path": request.path,
        },
    )


def injected(span: Span, headers: Headers) -> None:
    """Name `span` as the parent of what the origin does. What the client has named is left out if
    it is not valid."""
    fields: dict[str, str] = {}
    _CONTEXT.inject(fields, context=set_span_in_context(span))
    headers.remove(*_FIELDS)
    for name, value in fields.items():
        headers.set(name, value)


def answered(span: Span, status: int, *, failing: int = 400, reason: str = "") -> None:
    """Note a status. One from `failing` on is an error, which differs by the side that sees it."""
    span.set_attribute("http.response.status_code", status)
    if status >= failing:
        failed(span, reason)


def failed(span: Span, reason: str) -> None:
    span.set_status(Status(StatusCode.ERROR, reason[:MAX_REASON] or None))
