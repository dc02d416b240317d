"""Explanations of requests while they are served: who gets one, what it is told, what is kept.

A request is explained if it shows a good token in `Edge-Explain`, or by chance, as the policy says.
Nothing of its answer changes but two fields for whoever has shown a token.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from typing import Any

from edgeproxy.caching.answers import Asked
from edgeproxy.caching.judgement import Judgement, judge
from edgeproxy.decision import Decision
from edgeproxy.explain.building import explanation
from edgeproxy.explain.redaction import redacted
from edgeproxy.explain.tokens import is_good
from edgeproxy.http import Exchange, Response
from edgeproxy.plan import Plan
from edgeproxy.policy.model import ExplainConfig
from edgeproxy.trace import Trace

FIELD = "edge-explain"
_FIELD, _LENGTH = FIELD.encode(), len(FIELD)

log = logging.getLogger("edgeproxy")


def begin(exchange: Exchange, config: ExplainConfig) -> None:
    """Have `exchange` traced if it is to be explained. What it showed, nobody else sees."""
    for name, value in exchange.request.headers.fields:  # this costs every request a moment
        if len(name) == _LENGTH and name.lower() == _FIELD:
            _show(exchange, value.decode("latin-1"), config)
            break
    if exchange.trace is None and config.sample and random.random() < config.sample:
        exchange.trace = Trace()


def _show(exchange: Exchange, token: str, config: ExplainConfig) -> None:
    request, key = exchange.request, config.key
    request.headers.remove(FIELD)
    if key is not None and is_good(token, key.value, request.host, exchange.at_s):
        exchange.trace = Trace(is_asked_for=True)


def announce(plan: Plan, exchange: Exchange, response: Response) -> None:
    """Tell a client that has shown a token what was decided, in the head of its own answer."""
    assert exchange.trace is not None
    if not exchange.trace.is_asked_for:
        return
    response.headers.set("edge-policy", plan.version)
    response.headers.set(FIELD, in_short(plan, exchange))
    response.headers.append("vary", FIELD)  # for caches between us and the client


def in_short(plan: Plan, exchange: Exchange) -> str:
    """The decision as a dictionary of RFC 9651; what there is not is left out."""
    assert exchange.trace is not None
    answered = [step.filter or step.plugin for step in exchange.trace.steps if step.answered]
    members = {
        "id": exchange.id,
        "route": exchange.route,
        "variant": exchange.facts.named("split.applied"),
        "answered-by": answered[0] if answered else None,
        "origin": exchange.origin.name if exchange.origin else None,
        "rule": plan.rule_names.get(exchange.route or ""),
    }
    found = [f'{name}="{_plain(value)}"' for name, value in members.items() if value]
    return ", ".join([*found, f"verdict={exchange.cache_verdict}"])


def _plain(value: Any) -> str:
    """`value` as it may stand in a string of RFC 9651, section 3.3.3."""
    text = str(value).encode("ascii", "replace").decode()
    return "".join(c for c in text if " " <= c <= "~" and c not in '"\\')


class Explained:
    """The last explanations, redacted, for the admin listener."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque()

    def keep(self, plan: Plan, exchange: Exchange) -> None:
        """Keep the explanation of an exchange that is over. Never raises."""
        config = plan.explain
        if config is None or exchange.response is None:
            return
        try:
            self._kept.appendleft(_explained(plan, exchange, exchange.response, config))
        except Exception:  # of a plugin that was asked about itself
            log.exception("request %s could not be explained", exchange.id)
        while len(self._kept) > config.keep:
            self._kept.pop()

    def find(self, id: str) -> dict[str, Any] | None:
        """The explanation with this id, as JSON."""
        return next((one for one in self._kept if one["id"] == id), None)

    def summaries(self) -> list[dict[str, Any]]:
        """A line about each, the newest first."""
        return [_summary(one) for one in self._kept]


def _explained(
    plan: Plan, exchange: Exchange, response: Response, config: ExplainConfig
) -> dict[str, Any]:
    trace = exchange.trace
    assert trace is not None
    decision = Decision(
        exchange, response, asked=trace.asked, received=trace.received,
        judgement=_judgement(plan, exchange, trace),
    )  # fmt: skip
    made = explanation(plan, decision, is_assumed=False, all_routes=False)
    return redacted(made, exchange.request, config.redact)


def _judgement(plan: Plan, exchange: Exchange, trace: Trace) -> Judgement | None:
    """What the cache made of the origin's answer, if it was asked for a whole one."""
    received, attempts = trace.received, trace.attempts
    if received is None or not attempts or exchange.request.method != "GET":
        return None
    if received.status == 304 or not exchange.cache_key or trace.asked is None:
        return None
    return judge(
        received,
        attempts[-1].route.rule,
        has_credentials=Asked.by(trace.asked).has_credentials,
        max_object_size=plan.cache.max_object_size,
        requested_at_s=exchange.at_s,
        now_s=plan.cache.now(),
    )


def _summary(one: dict[str, Any]) -> dict[str, Any]:
    arrival, upstream = one["arrival"], one["upstream"]
    return {
        "id": one["id"],
        "at": arrival["at"],
        "policy": one["policy"],
        "method": arrival["method"],
        "url": arrival["url"],
        "status": one["answer"]["status"],
        "route": one["route"],
        "origin": upstream["origin"] if upstream else None,
        "verdict": one["caching"]["verdict"],
    }
