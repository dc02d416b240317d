"""Carry the context of a trace to the origin, and begin one where the policy says so."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from typing import Any

from pydantic import Field

from edgeproxy.api import Config, Exchange, Fact, Headers, Request, hookimpl
from edgeproxy.api import Plugin as BasePlugin

from .context import TraceContext, parse, started, state

TRACE_ID = Fact[str | None]("trace.id", log="trace_id")
BEGUN = Fact[TraceContext]("trace.begun")


class Trace(Config):
    """The section `trace`."""

    start: bool = False
    """Begin a trace where a request has none and the origin is asked."""
    sample: float = Field(default=1.0, ge=0, le=1)
    """Of the traces begun here, the share that is marked to be recorded."""


class Plugin(BasePlugin):
    """Only a request to an origin begins a trace: so hits stay the same for everybody, and can be
    remembered."""

    Config = Trace
    section = "trace"
    repeatable = True

    def __init__(self, config: Trace) -> None:
        self.config = config

    def facts(self) -> Iterable[Fact[Any]]:
        return (TRACE_ID,)

    @hookimpl
    def annotate(self, exchange: Exchange) -> None:
        """Only who asks for the id makes an answer depend on it."""
        exchange.facts.defer(TRACE_ID, partial(_id_in, exchange.request.headers))

    @hookimpl
    def before_fetch(self, exchange: Exchange, request: Request) -> None:
        headers = request.headers
        given = parse(headers.get_all("traceparent"))
        carried = state(headers.get_all("tracestate")) if given is not None else ""
        context = given or exchange.facts.get(BEGUN)  # by a try before this one
        if context is None and self.config.start and not _is_traced(exchange):
            context = started(is_sampled=random.random() < self.config.sample)
            exchange.facts[BEGUN], exchange.facts[TRACE_ID] = context, context.trace_id
        headers.remove("traceparent", "tracestate")
        if context is not None:
            headers.set("traceparent", str(context))
        if carried:
            headers.set("tracestate", carried)


def _is_traced(exchange: Exchange) -> bool:
    """Whether another plugin has the request in a trace, and tells the origin by itself."""
    return exchange.facts.known().get(TRACE_ID.name) is not None


def _id_in(headers: Headers) -> str | None:
    context = parse(headers.get_all("traceparent"))
    return None if context is None else context.trace_id
