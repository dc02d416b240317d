"""What a policy decides about a request, found out by a rehearsal of the journey.

`pipeline.handle` itself runs, the one that serves clients, with a stand-in for the cache that holds
nothing and keeps nothing, and with whatever is given for the origin. So what is found out here is
what the running proxy does, because it is the same code; and nothing is stored, logged or counted.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeproxy.caching.answers import Asked
from edgeproxy.caching.cache import Cache
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.errand import Answer, Errand, Forward
from edgeproxy.caching.fields import format_date, storable_fields
from edgeproxy.caching.freshness import initial_age_s
from edgeproxy.caching.judgement import Judgement, judge
from edgeproxy.caching.reuse import response_of
from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.http import Body, Exchange, Fact, Fetch, Headers, Origin, Request, Response
from edgeproxy.pipeline import handle
from edgeproxy.plan import Plan
from edgeproxy.values import did_you_mean


@dataclass(slots=True)
class Decision:
    """One exchange, decided.

    `exchange` has the route, the facts, the target and the cache key; `response` is what the client
    would get. `looked_up` is what the cache was asked for, None if it has no part in it; `asked`
    what the origin would be sent, None if edgeproxy answers by itself; `received` its answer as it
    would be stored, and `judgement` what the cache makes of that.
    """

    exchange: Exchange
    response: Response
    looked_up: Request | None = None
    asked: Request | None = None
    received: Response | None = None
    judgement: Judgement | None = None

    @property
    def route(self) -> str | None:
        return self.exchange.route

    @property
    def origin(self) -> str | None:
        """The origin that the answer comes from, or would."""
        return self.exchange.target.origin if self.exchange.target and self.asked else None


class Rehearsal:
    """A plan to be asked what it would do. `fetch` answers in the place of the origins.

    Several exchanges may be decided at the same time.
    """

    def __init__(self, plan: Plan, fetch: Fetch, *, now: Callable[[], float] = time.time) -> None:
        self.plan = plan
        self._fetch = fetch
        self._stage = _Stage(plan.cache, now)

    async def decide(self, exchange: Exchange) -> Decision:
        """What the plan makes of `exchange`. Suspends only where a hook or `fetch` does."""
        stage = copy.copy(self._stage)
        decision = stage.decision = Decision(exchange, _NO_RESPONSE)

        async def fetch(origin: Origin, request: Request) -> Response:
            decision.asked = request
            return await self._fetch(origin, request)

        decision.response = await handle(exchange, replace(self.plan, cache=stage), fetch)
        return decision


_NO_RESPONSE = Response(500)


class _Stage(Cache):
    """Stands in for the cache of a plan: holds nothing, asks the origin, and tells what it saw."""

    decision: Decision

    def __init__(self, cache: Cache, now: Callable[[], float]) -> None:
        super().__init__(
            (), max_object_size=cache.max_object_size, encodings=cache.encodings, now=now
        )
        self._real = cache

    async def read_through(
        self, request: Request, key: str, rule: CacheRule | None, forward: Forward, **_: Any
    ) -> Answer:
        asked, requested_at_s = Asked.by(request), self.now()
        coding = "identity" if asked.range is not None else asked.accept_encoding or "identity"
        errand = Errand(request, key, rule, forward, asked, coding, request.authority, "")
        is_alone = asked.is_head or asked.has_credentials
        self.decision.looked_up = request
        response = await forward(
            errand.own_request() if is_alone else errand.upstream_request(None)
        )
        received = self.decision.received = response.copy()
        judgement = self.decision.judgement = judge(
            received,
            rule,
            has_credentials=asked.has_credentials,
            max_object_size=self.max_object_size,
            requested_at_s=requested_at_s,
            now_s=self.now(),
        )
        self.hide_tags(response.headers)
        fwd = "bypass; detail=authorization" if asked.has_credentials else "uri-miss"
        status = f"edgeproxy; fwd={fwd}; fwd-status={response.status}"
        if judgement.storable and not asked.is_head:
            if asked.range is not None:  # it is cut from the whole
                await response.body.peek(self.max_object_size)
            response = self._kept(errand, response, judgement, requested_at_s)
            status += f"; stored; ttl={int(judgement.fresh_for_s)}"
        elif not asked.is_head:
            status += f"; detail={judgement.code.replace('-', '_')}"
        answer = Answer(response, "pass" if asked.has_credentials else "miss", status)
        return self._real.shown(answer, key)

    def _kept(
        self, errand: Errand, response: Response, judgement: Judgement, requested_at_s: float
    ) -> Response:
        """What this client gets of `response`, once it has been stored whole."""
        now_s, headers, data = self.now(), storable_fields(response.headers), response.body.data
        if "date" not in headers:
            headers.add("Date", format_date(now_s))
        if data is not None and response.status not in (204, 205):
            headers.set("Content-Length", str(len(data)))
        entry = StoredResponse(
            key=errand.key,
            status=response.status,
            headers=headers,
            body=data or b"",
            stored_at_s=now_s,
            requested_at_s=requested_at_s,
            fresh_for_s=judgement.fresh_for_s,
            age_s=initial_age_s(response.headers, requested_at_s, now_s),
        )
        told = response_of(errand, entry, now_s, is_reused=False)
        return told if data is not None else replace(told, body=response.body)

    def hide_tags(self, headers: Headers) -> None:
        self._real.hide_tags(headers)

    async def watched(
        self, forward: Forward, request: Request, origin: str | None = None
    ) -> Response:
        return await forward(request)

    async def heed_change(self, urls: Any, groups: Any = ()) -> None:
        """Nothing is stored, so nothing can have changed."""


def assumed(status: int = 200, *fields: tuple[str, str]) -> Fetch:
    """A stand-in for origins that are not asked: always the same short answer."""

    async def fetch(origin: Origin, request: Request) -> Response:
        headers = Headers.of(*(fields or (("content-type", "text/html; charset=utf-8"),)))
        return Response(status, headers, Body(b""))

    return fetch


def known_facts(plan: Plan, told: Mapping[str, str]) -> dict[str, Any]:
    """The facts that `told` names, for `Facts(pinned)`: `{"country": "DE"}` and all it implies.

    ValueError for a name that no plugin of the plan sets, or a value of another kind.
    """
    found: dict[str, Any] = {}
    for word, text in told.items():
        fact = fact_called(plan, word)
        found[fact.name] = fact_value(fact, text)
    for plugin in plan.plugins:
        for name, value in tuple(found.items()):
            for implied, of in plugin.instance.implied(name, value).items():
                found.setdefault(implied, of)
    return found


def fact_called(plan: Plan, word: str) -> Fact[Any]:
    """The fact whose whole name is `word`, or whose last part is if no other ends so.

    `variant:hero` may be said for `hero`. ValueError if no plugin of the plan sets such a fact.
    """
    word = word.removeprefix("variant:")
    facts = {fact.name: fact for plugin in plan.plugins for fact in plugin.instance.facts()}
    names = [name for name in facts if word in (name, name.partition(".")[2])]
    if len(names) != 1:
        hint = did_you_mean(word, [*facts, *(name.partition(".")[2] for name in facts)])
        listed = ", ".join(sorted(facts)) or "none, as no plugin is in use"
        raise ValueError(f"no fact is called {word!r}{hint or f'; facts: {listed}'}")
    return facts[names[0]]


_FLAGS = {"": True, "true": True, "yes": True, "false": False, "no": False}


def fact_value(fact: Fact[Any], text: str) -> Any:
    """`text` as a value of the kind that `fact` has. ValueError if it is none."""
    word = fact.name.partition(".")[2] or fact.name
    if isinstance(fact.default, bool):
        if text.lower() not in _FLAGS:
            raise ValueError(f"{word} is true or false, not {text!r}")
        return _FLAGS[text.lower()]
    if isinstance(fact.default, int):
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{word} is a number, not {text!r}")
        return int(text)
    return text
