"""Why the answer for a URL is stored, or is not: in words, with the rule and its source.

One request is made as the policy has it, up to the origin and back, but past the cache: nothing is
stored, logged or counted, and its body is not read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from edgeproxy.caching.answers import Asked
from edgeproxy.caching.cache import Answer, Cache, Forward
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.freshness import (
    Unstorable,
    current_age_s,
    initial_age_s,
)
from edgeproxy.caching.purges import public_url
from edgeproxy.caching.rules import policy_ttl_s, ruled_lifetime_s, unstorable
from edgeproxy.caching.variants import accepted_coding
from edgeproxy.http import Body, Exchange, Fetch, Headers, Request, Response
from edgeproxy.pipeline import handle
from edgeproxy.plan import Plan

_WORDS: dict[Unstorable, tuple[str, str]] = {
    Unstorable.METHOD: ("only answers to GET are kept", "RFC 9111, section 3"),
    Unstorable.STATUS: (
        "an answer with this status is part of something else, or not final",
        "RFC 9111, section 3",
    ),
    Unstorable.NO_STORE: (
        "the origin says `Cache-Control: no-store`; a `ttl` of the policy does not change that",
        "RFC 9111, section 5.2.2.5",
    ),
    Unstorable.MUST_UNDERSTAND: (
        "the origin says `must-understand`, and this cache does not know the status",
        "RFC 9111, section 5.2.2.3",
    ),
    Unstorable.PRIVATE: (
        "the origin says `Cache-Control: private`: the answer is for one visitor",
        "RFC 9111, section 5.2.2.7",
    ),
    Unstorable.SET_COOKIE: (
        "the answer sets a cookie, which must not reach other visitors; remove the cookie in "
        "before the answer is stored if it is not needed",
        "RFC 9111, section 7.3",
    ),
    Unstorable.AUTHORIZATION: (
        "the request had credentials, and the origin does not allow sharing the answer with "
        "`public`, `s-maxage` or `must-revalidate`",
        "RFC 9111, section 3.5",
    ),
    Unstorable.VARY: (
        "`Vary` holds `*`, or more fields than can be told apart",
        "RFC 9111, section 4.1",
    ),
    Unstorable.NOTHING_TO_GO_BY: (
        "the origin gives no lifetime, and an answer with this status needs one; give it one "
        "with `status_ttl` in the rule",
        "RFC 9111, sections 3 and 4.2.2",
    ),
}


class Probe(Cache):
    """Stands in for the cache of a plan, and remembers what it was asked."""

    def __init__(self, cache: Cache) -> None:
        super().__init__((), max_object_size=cache.max_object_size, now=cache.now)
        self.request: Request | None = None
        self.key = ""
        self.rule: CacheRule | None = None
        self.response: Response | None = None
        self.requested_at_s = 0.0

    async def read_through(
        self,
        request: Request,
        key: str,
        rule: CacheRule | None,
        forward: Forward,
        **_: Any,
    ) -> Answer:
        self.request, self.key, self.rule = request, key, rule
        self.requested_at_s = self.now()
        response = await forward(request)
        self.response = response.copy()
        await response.body.close()
        response.body = Body()
        return Answer(response, "pass", "edgeproxy; fwd=request; detail=why")


async def why(
    plan: Plan, fetch: Fetch, url: str, headers: Iterable[tuple[str, str]] = ()
) -> dict[str, Any]:
    """What becomes of a GET for `url` with `headers`. ValueError for what cannot be asked."""
    exchange = _exchange(url, headers)
    probe = Probe(plan.cache)
    answered = await handle(exchange, dataclasses.replace(plan, cache=probe), fetch)
    name = public_url(url)
    report: dict[str, Any] = {
        "url": name,
        "route": exchange.route,
        "origin": exchange.target.origin if exchange.target else None,
        "status": (probe.response or answered).status,
        "stored_now": None,
    }
    if probe.request is None:
        return {**report, "storable": False, **_not_asked(exchange, answered)}
    report["rule"] = _rule(plan, exchange.route)
    report["key"] = probe.key.split("\n")
    report["stored_now"] = await _stored(plan.cache, probe, name)
    if probe.response is None:
        reason = f"the origin gave no usable answer: {exchange.error or answered.status}"
        return {**report, "storable": False, "code": "no-answer", "words": reason, "source": ""}
    return {**report, **_judged(probe, probe.response)}


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


def _not_asked(exchange: Exchange, answered: Response) -> dict[str, Any]:
    if exchange.error:
        words, code = f"the request failed: {exchange.error}", "failed"
    elif exchange.cache_status:
        words, code = f"route {exchange.route!r} says `cache: false`", "cache-false"
    elif exchange.route is None and answered.status == 404:
        words, code = "no route of the policy matches", "no-route"
    else:
        words, code = "edgeproxy answers by itself, so there is nothing to store", "own-answer"
    return {"code": code, "words": words, "source": "the policy"}


def _judged(probe: Probe, response: Response) -> dict[str, Any]:
    """The decisions of the cache on `response`, as it would make them now."""
    assert probe.request is not None
    now_s = probe.now()
    asked = Asked.by(probe.request)
    ttl_s = policy_ttl_s(probe.rule, response.status)
    why = unstorable(probe.rule, asked.has_credentials, response.status, response.headers)
    if why is not None:
        words, source = _WORDS[why]
        code = why.name.lower().replace("_", "-")
        return {"storable": False, "code": code, "words": words, "source": source}
    length = response.body.length
    if length is not None and length > probe.max_object_size:
        words = f"{length} bytes are more than `cache.max_object_size`, {probe.max_object_size}"
        return {"storable": False, "code": "too-large", "words": words, "source": "the policy"}
    age_s = initial_age_s(response.headers, probe.requested_at_s, now_s)
    fresh_s = ruled_lifetime_s(probe.rule, response.status, response.headers, now_s, age_s)
    left_s = max(0.0, fresh_s - age_s)
    by, source = _by_whom(response.headers, ttl_s)
    words = f"it may be stored, and is fresh for {left_s:.0f} s: {by}"
    if not left_s:
        words = f"it may be kept only to ask the origin for news of it, as it is not fresh: {by}"
    return {
        "storable": True, "code": "storable", "words": words, "source": source,
        "fresh_for_s": round(left_s, 1),
    }  # fmt: skip


def _by_whom(headers: Headers, ttl_s: float | None) -> tuple[str, str]:
    control = (headers.joined("cache-control") or "").lower()
    if "no-cache" in control:
        return "the origin says `no-cache`", "RFC 9111, section 5.2.2.4"
    if ttl_s is not None:
        return "the rule of the policy says so", "the policy"
    for name, section in (("s-maxage", "5.2.2.10"), ("max-age", "5.2.2.1")):
        if name in control:
            return (
                f"the origin's `{name}`, less the age it came with",
                f"RFC 9111, section {section}",
            )
    if "expires" in headers:
        return "the origin's `Expires`", "RFC 9111, section 5.3"
    return "a tenth of the time since `Last-Modified`", "RFC 9111, section 4.2.2"


def _rule(plan: Plan, route: str | None) -> str | None:
    return plan.rule_names.get(route or "")


async def _stored(cache: Cache, probe: Probe, url: str) -> dict[str, Any] | None:
    """What is stored for such a request at the moment."""
    assert probe.request is not None
    asked = Asked.by(probe.request)
    coding = "identity" if asked.range else accepted_coding(asked.accept_encoding or "")
    found = await cache.levels.load(probe.key, probe.request.headers, coding, url)
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
