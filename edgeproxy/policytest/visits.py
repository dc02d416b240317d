"""A test's requests, made of a plan: exchanges with a known client and known facts."""

from __future__ import annotations

from collections.abc import Iterator

from edgeproxy.caching.levels import vary_names
from edgeproxy.caching.variants import accepted_coding, selection, variant_id
from edgeproxy.decision import Decision, Rehearsal
from edgeproxy.errors import UpstreamError
from edgeproxy.explain.arriving import arriving
from edgeproxy.http import Body, Exchange, Facts, Headers, Origin, Request, Response
from edgeproxy.plan import Plan
from edgeproxy.policytest.cases import Case
from edgeproxy.policytest.language import Answer, Visit
from edgeproxy.policytest.values import fields_of
from edgeproxy.trace import Trace


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
            await self._rehearsal.decide(self._exchange(visit, case.site, peer))
            for visit in case.visits
            for peer in _peers(case, visit)
        ]

    def _exchange(self, visit: Visit, site: str, peer: str) -> Exchange:
        exchange = arriving(
            self.plan,
            f"{site}{visit.url}" if visit.url.startswith("/") else visit.url,
            method=visit.method,
            headers=_fields(visit),
            body=visit.body.encode(),
            peer=peer,
            at_s=visit.at,
        )
        exchange.facts = Facts(visit.facts)
        exchange.trace = Trace() if self._traced else None
        return exchange

    async def _fetch(self, origin: Origin, request: Request) -> Response:
        answer = self._answer
        if answer is None:
            raise UpstreamError(origin.name, "connection_refused", "it is taken to fail")
        return Response(answer.status, answer.fields(), Body(answer.body.encode()))


def _peers(case: Case, visit: Visit) -> Iterator[str]:
    if case.test.visitors:
        yield from map(_visitor_address, range(case.test.visitors))
    else:
        yield visit.sender or "127.0.0.1"


def _visitor_address(number: int) -> str:
    """The address of one of many visitors: from a network that no country has (RFC 2544)."""
    return f"198.18.{number >> 8}.{number & 255}"


def _fields(visit: Visit) -> Headers:
    fields = fields_of(visit.headers)
    if visit.cookies:
        fields.add("cookie", "; ".join(f"{name}={v}" for name, v in visit.cookies.items()))
    return fields


def object_of(decision: Decision) -> str | None:
    """The stored answer that such requests share; None if theirs is not stored."""
    judgement, asked, received = decision.judgement, decision.looked_up, decision.received
    if judgement is None or not judgement.storable or asked is None or received is None:
        return None
    coding = accepted_coding(asked.headers.joined("accept-encoding") or "")
    chosen = selection(asked.headers, coding, vary_names(received.headers))
    return variant_id(decision.exchange.cache_key, chosen)
