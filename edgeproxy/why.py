"""Why the answer for a URL is stored, or is not: in words, with the rule and its source.

One request is made as the policy has it, up to the origin and back, but past the cache: nothing is
stored, logged or counted, and its body is not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from edgeproxy.caching.answers import Asked
from edgeproxy.caching.cache import Cache
from edgeproxy.caching.freshness import current_age_s
from edgeproxy.caching.purges import public_url
from edgeproxy.caching.variants import accepted_coding
from edgeproxy.decision import Rehearsal
from edgeproxy.explain.building import without_cache
from edgeproxy.http import Exchange, Fetch, Headers, Request
from edgeproxy.plan import Plan


async def why(
    plan: Plan, fetch: Fetch, url: str, headers: Iterable[tuple[str, str]] = ()
) -> dict[str, Any]:
    """What becomes of a GET for `url` with `headers`. ValueError for what cannot be asked."""
    decision = await Rehearsal(plan, fetch, now=plan.cache.now).decide(_exchange(url, headers))
    await decision.response.body.close()
    exchange, received, name = decision.exchange, decision.received, public_url(url)
    report: dict[str, Any] = {
        "url": name,
        "route": exchange.route,
        "origin": exchange.target.origin if exchange.target else None,
        "status": (received or decision.response).status,
        "stored_now": None,
    }
    if decision.looked_up is None:
        code, words = without_cache(plan, decision)
        return {**report, "storable": False, "code": code, "words": words, "source": "the policy"}
    report["rule"] = plan.rule_names.get(exchange.route or "")
    report["key"] = exchange.cache_key.split("\n")
    report["stored_now"] = await _stored(plan.cache, exchange.cache_key, decision.looked_up, name)
    if decision.judgement is None:
        reason = f"the origin gave no usable answer: {exchange.error or decision.response.status}"
        return {**report, "storable": False, "code": "no-answer", "words": reason, "source": ""}
    return {**report, **asdict(decision.judgement)}


def _exchange(url: str, headers: Iterable[tuple[str, str]]) -> Exchange:
    name = public_url(url)
    if name.startswith("/"):
        raise ValueError(f"{url!r} has no host; write for example https://example.org/page")
    host, slash, target = name.partition("/")
    path, mark, query = (slash + target).partition("?")
    fields = Headers()
    for field, value in headers:
        fields.add(field, value)
    return Exchange(Request("GET", host, path, query if mark else None, fields))


async def _stored(cache: Cache, key: str, request: Request, url: str) -> dict[str, Any] | None:
    """What is stored for such a request at the moment."""
    asked = Asked.by(request)
    coding = "identity" if asked.range else accepted_coding(asked.accept_encoding or "")
    found = await cache.levels.load(key, request.headers, coding, url)
    entry = found.entry
    if entry is None:
        return None
    age_s = current_age_s(entry.age_s, entry.stored_at_s, cache.now())
    return {
        "tier": found.tier,
        "status": entry.status,
        "age_s": round(age_s, 1),
        "fresh_for_s": round(entry.fresh_for_s - age_s, 1),
        "tags": list(entry.tags),
    }
