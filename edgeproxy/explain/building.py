"""From a decision, with the trace of its journey, to its explanation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from edgeproxy.decision import Decision, Rehearsal, assumed
from edgeproxy.explain.explanation import (
    Answer,
    Arrival,
    Caching,
    Effect,
    Explanation,
    Field,
    KeyPart,
    KnownFact,
    Upstream,
)
from edgeproxy.explain.routes import told_place, tried_routes
from edgeproxy.fronting import origin_path
from edgeproxy.http import Exchange, Fetch, Headers, Target
from edgeproxy.plan import Plan
from edgeproxy.trace import Step, Trace

_REASON = ".reason"  # a fact `x.reason` says how the fact `x` came about


async def explain(
    plan: Plan, exchange: Exchange, fetch: Fetch | None = None, *, is_assumed: bool = True
) -> Explanation:
    """What `plan` makes of `exchange`, and why; nothing is stored, logged or counted.

    `fetch` answers for the origins: without it they are taken to answer 200 with a page.
    """
    exchange.trace = Trace()
    rehearsal = Rehearsal(plan, fetch or assumed(), now=lambda: exchange.at_s)
    decision = await rehearsal.decide(exchange)
    await decision.response.body.close()
    return explanation(plan, decision, is_assumed=is_assumed)


def explanation(
    plan: Plan, decision: Decision, *, is_assumed: bool, all_routes: bool = True
) -> Explanation:
    """The explanation of a decision whose exchange was traced.

    Without `all_routes` those are only counted that are for other hosts and paths.
    """
    exchange = decision.exchange
    assert exchange.trace is not None
    is_served = plan.serves(exchange.request.host)
    tried = tried_routes(plan.policy, exchange, all_routes=all_routes)
    routes, elsewhere = tried if is_served else ((), 0)
    steps = [step for step in exchange.trace.steps if step.phase not in ("annotate", "finish")]
    return Explanation(
        id=exchange.id,
        policy=plan.version,
        arrival=_arrival(exchange),
        facts=tuple(_facts(plan, exchange)),
        routes=routes,
        elsewhere=elsewhere,
        route=exchange.route,
        effects=tuple(_effect(step) for step in steps),
        answered_by=_answered_by(steps),
        upstream=_upstream(plan, decision),
        caching=_caching(plan, decision, steps),
        answer=Answer(
            decision.response.status, _fields(decision.response.headers),
            tuple(sorted(exchange.varies_by)),
        ),
        is_assumed=is_assumed and decision.asked is not None,
        error=exchange.error,
    )  # fmt: skip


def _fields(headers: Headers) -> tuple[Field, ...]:
    return tuple(headers.items())


def _arrival(exchange: Exchange) -> Arrival:
    request = exchange.request
    return Arrival(
        method=request.method,
        url=_url(request.scheme, request.authority, request.path, request.query),
        client=str(exchange.client),
        at=datetime.fromtimestamp(exchange.at_s, UTC).isoformat(timespec="seconds"),
        headers=_fields(request.headers),
    )


def _url(scheme: str, authority: str, path: str, query: str | None) -> str:
    return f"{scheme}://{authority}{path}" + (f"?{query}" if query is not None else "")


def _facts(plan: Plan, exchange: Exchange) -> Iterator[KnownFact]:
    """Every fact of the plan, worked out now if it was not before."""
    assert exchange.trace is not None
    setters = {name: step.plugin for step in exchange.trace.steps for name in step.facts}
    declared = {
        fact.name: (plugin.name, fact.default)
        for plugin in plan.plugins
        for fact in plugin.instance.facts()
    }
    for name in [*declared, *sorted(exchange.facts.names() - declared.keys())]:
        base = name.removesuffix(_REASON)
        if base != name and base in declared:
            continue
        plugin, default = declared.get(name, ("", None))
        reason = _value(exchange, name + _REASON, "") if name + _REASON in declared else ""
        is_given = exchange.facts.is_pinned(name)
        yield KnownFact(
            name=name,
            value=_value(exchange, name, default),
            plugin=setters.get(name, plugin),
            is_given=is_given,
            reason="" if is_given else str(reason),
        )


def _value(exchange: Exchange, name: str, default: Any) -> Any:
    try:
        return exchange.facts.named(name, default)
    except Exception as error:  # of a plugin, about a fact that nobody had asked for
        return f"{type(error).__name__}: {error}"


def _effect(step: Step) -> Effect:
    return Effect(
        phase=step.phase,
        plugin=step.plugin,
        filter=step.filter,
        place=told_place(step.place),
        removed=step.removed,
        added=step.added,
        cookies=step.cookies,
        target=_target(step.target) if step.target is not None else "",
        key=step.key,
        answered=step.answered,
        error=step.error,
    )


def _target(target: Target) -> str:
    query = f"?{target.query}" if target.query is not None else ""
    return f"{target.origin} {target.path}{query}"


def _answered_by(steps: list[Step]) -> str:
    """The filter or plugin that answered in the place of an origin."""
    for step in steps:
        if step.answered:
            return _named(step)
    return ""


def _named(step: Step) -> str:
    if not step.filter:
        return f"plugin {step.plugin}"
    return f"filter {step.filter}" + (f", {told_place(step.place)}" if step.place else "")


def _upstream(plan: Plan, decision: Decision) -> Upstream | None:
    exchange, asked = decision.exchange, decision.asked
    origin, target = exchange.origin, exchange.target
    if origin is None or target is None:
        return None
    url = _url(origin.scheme, origin.authority, origin_path(target.path, origin), target.query)
    node = plan.policy.root.get("origins", origin.name)
    return Upstream(
        origin=origin.name,
        place=told_place(node.place if node else None),
        chosen_by=_chosen_by(exchange, target),
        method=asked.method if asked else exchange.request.method,
        url=_url(asked.scheme, asked.authority, asked.path, asked.query) if asked else url,
        headers=_fields(asked.headers) if asked else (),
        was_asked=asked is not None,
    )


def _chosen_by(exchange: Exchange, target: Target) -> str:
    trace = exchange.trace
    assert trace is not None
    route = trace.attempts[-1].route if trace.attempts else None
    chosen = [step for step in trace.steps if step.target and step.target.origin == target.origin]
    if route is None or (chosen and target.origin != route.target(exchange).origin):
        return _named(chosen[-1]) if chosen else ""
    if len(route.backends) > 1:
        weights = dict(route.backends)
        return (
            f"weight {weights[target.origin]} of {sum(weights.values())}, by the client's address"
        )
    return f"route {route.name}"


# ------------------------------------------------------------ the cache


def _caching(plan: Plan, decision: Decision, steps: list[Step]) -> Caching:
    exchange = decision.exchange
    if not exchange.cache_key:
        code, words = without_cache(plan, decision)
        return Caching(code, words, status=exchange.cache_status)
    rule = plan.rule_names.get(exchange.route or "", "")
    node = plan.policy.root.get("cache", "rules", rule) if rule else None
    judgement, verdict = decision.judgement, exchange.cache_verdict
    return Caching(
        code=judgement.code if judgement else verdict,
        words=judgement.words if judgement else _VERDICTS.get(verdict, _NO_ANSWER),
        source=judgement.source if judgement else "",
        storable=judgement is not None and judgement.storable,
        fresh_for_s=judgement.fresh_for_s if judgement else 0.0,
        rule=rule,
        place=told_place(node.place if node else None),
        key=tuple(_key_parts(exchange.cache_key, steps)),
        verdict=verdict,
        status=exchange.cache_status,
    )


_NO_ANSWER = "the origin gave no usable answer"
_VERDICTS = {
    "hit": "a stored copy is fresh",
    "stale": "a stored copy stands in, though it is not fresh",
    "revalidated": "the origin says that the stored copy is still good",
    "collapsed": "another request had just asked for it",
}


def without_cache(plan: Plan, decision: Decision) -> tuple[str, str]:
    """Why the cache had no part in it: a code that never changes, and words."""
    exchange = decision.exchange
    if exchange.error:
        return "failed", f"the request failed: {exchange.error}"
    if exchange.cache_status and exchange.request.method in ("GET", "HEAD"):
        return "cache-false", f"route {exchange.route!r} says `cache: false`"
    if exchange.cache_status:
        return "method", f"answers to {exchange.request.method} are not kept"
    if not plan.serves(exchange.request.host):
        return "unknown-host", f"`hosts` does not name {exchange.request.host}"
    if exchange.route is None and decision.response.status == 404:
        return "no-route", "no route of the policy matches"
    return "own-answer", "edgeproxy answers by itself, so there is nothing to store"


_OF_THE_CORE = {
    "public": "the public name, which this origin is told",
    "route": "its filters change what is fetched or stored",
    "policy": "another policy is in force beside this one, and would store another answer",
}


def _key_parts(key: str, steps: list[Step]) -> Iterator[KeyPart]:
    of_hooks = {f"{name}={value!r}": _named(step) for step in steps for name, value in step.key}
    first, *lines = key.split("\n")
    yield KeyPart(first, "the origin and what it is asked")
    for line in lines:
        yield KeyPart(line, of_hooks.get(line) or _OF_THE_CORE.get(line.partition("=")[0], ""))


__all__ = ["explain", "explanation", "without_cache"]
