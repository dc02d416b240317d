"""Send spans and durations of requests to an OpenTelemetry collector, by OTLP over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from edgeproxy.api import (
    Config,
    Duration,
    Exchange,
    Fact,
    FieldName,
    Name,
    Request,
    Response,
    Secret,
    UpstreamError,
    hookimpl,
)
from edgeproxy.api import Plugin as BasePlugin

if TYPE_CHECKING:
    from .telemetry import Telemetry

TRACE_ID = Fact[str]("trace.id", log="trace_id")  # that of the plugin `trace`, if both are there


def _plain_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("begins with http:// or https://, such as http://127.0.0.1:4318")
    return url.rstrip("/")


class Otel(Config):
    """The section `otel`."""

    endpoint: Annotated[str, AfterValidator(_plain_url)] = "http://127.0.0.1:4318"
    """The collector; `/v1/traces` and `/v1/metrics` are added."""
    headers: dict[FieldName, Secret] = {}
    """Fields that go along, such as a token."""
    service: Name = "edgeproxy"
    """`service.name` of what is sent."""
    sample: float = Field(default=0.1, ge=0, le=1)
    """Of the traces that begin here, the share that is recorded; others follow their parent."""
    interval: Duration = "60s"  # type: ignore[assignment]
    """Between two times that metrics are sent."""


class Plugin(BasePlugin):
    """Every request is a span, and every fetch one below it. In rehearsals, without a start, it
    does nothing."""

    Config = Otel
    section = "otel"
    extra = "otel"

    def __init__(self, config: Otel) -> None:
        from .telemetry import Telemetry  # takes 0.2 s, and is an extra: only where it is used

        self.config = config
        self._class = Telemetry
        self._telemetry: Telemetry | None = None

    def facts(self) -> Iterable[Fact[Any]]:
        return (TRACE_ID,)

    @hookimpl
    async def startup(self) -> None:
        config = self.config
        self._telemetry = self._class(
            config.endpoint,
            {name: secret.value for name, secret in config.headers.items()},
            service=config.service,
            sample=config.sample,
            interval_s=config.interval,
        )

    @hookimpl
    async def shutdown(self) -> None:
        telemetry, self._telemetry = self._telemetry, None
        if telemetry is not None:
            await telemetry.close()

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        if self._telemetry is not None:
            exchange.facts[TRACE_ID] = self._telemetry.begin(exchange)

    @hookimpl
    def before_fetch(self, exchange: Exchange, request: Request) -> None:
        if self._telemetry is not None:
            self._telemetry.begin_fetch(exchange, request)

    @hookimpl
    def after_fetch(self, exchange: Exchange, response: Response) -> None:
        if self._telemetry is not None:
            self._telemetry.end_fetch(exchange, response.status)

    @hookimpl
    def fetch_failed(self, exchange: Exchange, error: UpstreamError) -> None:
        if self._telemetry is not None:
            self._telemetry.fail_fetch(exchange, str(error))

    @hookimpl
    def finish(self, exchange: Exchange) -> None:
        if self._telemetry is not None:
            self._telemetry.end(exchange)
