"""A test's requests, made of a plan: exchanges with a known client and known facts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from edgeproxy.caching.levels import vary_names
from edgeproxy.caching.variants import accepted_coding, selection, variant_id
from edgeproxy.decision import Decision, Rehearsal
from edgeproxy.errors import ClientError, UpstreamError
from edgeproxy.http import (
    Address,
    Body,
    Exchange,
    Facts,
    Headers,
    Origin,
    Request,
    Response,
    normalise_path,
)
from edgeproxy.pipeline import error_response
from edgeproxy.plan import Plan
from edgeproxy.policytest.cases import Case
from edgeproxy.policytest.language import Answer, Visit, visitor_address
from edgeproxy.trace import Trace

DEFAULT_PORTS = {"http": 80, "https": 443}


class Trial:
    """A plan under test. Decides one request after the other; `traced` notes every step."""

    def __init__(self, plan: Plan, *, traced: bool = False) -> None:
        self.plan = plan
        self._traced = traced
        self._answer: Answer | None = None  # None: the origin fails
        self._rehearsal = Rehearsal(plan, self._fetch)

    async def decisions(self, case: Case) -> list[Decision]:
        """What the plan makes of each request of `case`, or of each visitor's."""
        answer = case.test.origin
        self._answer = None if answer == "fails" else answer
        return [
            await self._decide(visit, case.site, client)
            for visit in case.visits
            for client in _clients(case, visit)
        ]

    async def _decide(self, visit: Visit, site: str, client: Address) -> Decision:
        exchange = Exchange(_request(visit, site), client, Facts(visit.facts))
        exchange.trace = Trace() if self._traced else None
        request = exchange.request
        try:
            request.path = normalise_path(request.path, encoded_slashes=self.plan.encoded_slashes)
        except ClientError as error:  # the listeners answer such a request themselves
            return Decision(exchange, error_response(exchange, error.status, error.reason))
        return await self._rehearsal.decide(exchange)

    async def _fetch(self, origin: Origin, request: Request) -> Response:
        answer = self._answer
        if answer is None:
            raise UpstreamError(origin.name, "connection_refused", "it is taken to fail")
        return Response(answer.status, answer.fields(), Body(answer.body.encode()))


def _clients(case: Case, visit: Visit) -> Iterator[Address]:
    if case.test.visitors:
        yield from map(visitor_address, range(case.test.visitors))
    else:
        yield visit.sender or ipaddress.IPv4Address("127.0.0.1")


def _request(visit: Visit, site: str) -> Request:
    """The request as the engines make it, its path still as it was written."""
    url = f"{site}{visit.url}" if visit.url.startswith("/") else visit.url
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    is_usual = port is None or port == DEFAULT_PORTS[parts.scheme]
    headers = Headers.of(*((name, v) for name, values in visit.headers.items() for v in values))
    if visit.cookies:
        headers.add("cookie", "; ".join(f"{name}={v}" for name, v in visit.cookies.items()))
    return Request(
        method=visit.method,
        authority=host if is_usual else f"{host}:{port}",
        path=parts.path or "/",
        query=parts.query or None,
        headers=headers,
        body=Body(visit.body.encode()),
        scheme=parts.scheme,
    )


def object_of(decision: Decision) -> str | None:
    """The stored answer that such requests share; None if theirs is not stored."""
    judgement, asked, received = decision.judgement, decision.looked_up, decision.received
    if judgement is None or not judgement.storable or asked is None or received is None:
        return None
    coding = accepted_coding(asked.headers.joined("accept-encoding") or "")
    chosen = selection(asked.headers, coding, vary_names(received.headers))
    return variant_id(decision.exchange.cache_key, chosen)
