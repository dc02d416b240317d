"""Whether a stored response answers a request, and what it then says. Nothing here waits."""

from __future__ import annotations

from dataclasses import dataclass

from edgeproxy.caching.answers import Asked, tailored
from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.encodings import chosen, encoded_fields, with_vary
from edgeproxy.caching.errand import Answer, Errand, Hit
from edgeproxy.caching.freshness import (
    CLOCK_TOLERANCE_S,
    StaleUse,
    allows_credentials,
    browser_cache_control,
    current_age_s,
    governing,
    stale_use,
)
from edgeproxy.caching.levels import Found
from edgeproxy.caching.rules import policy_ttl_s
from edgeproxy.caching.tiers import Readable, StoredResponse
from edgeproxy.caching.variants import selection
from edgeproxy.health import Cause
from edgeproxy.http import Headers, Response


def left_s(entry: StoredResponse, rule: CacheRule | None, now_s: float) -> float:
    """For how long the entry is still fresh; below 0: for how long it has been stale.

    A `ttl` that the policy has shortened counts at once. An entry from the future is stale: the
    clock has been set back, and nobody knows its age.
    """
    lifetime = entry.fresh_for_s
    ttl_s = policy_ttl_s(rule, entry.whole_status)
    if ttl_s is not None:
        lifetime = min(lifetime, ttl_s + entry.age_s)
    left = lifetime - current_age_s(entry.age_s, entry.stored_at_s, now_s)
    if entry.stored_at_s > now_s + CLOCK_TOLERANCE_S:
        return min(left, 0.0)
    return left


def may_reuse(entry: StoredResponse, asked: Asked) -> bool:
    """A request with credentials takes only what is meant for such (RFC 9111, section 3.5)."""
    return not asked.has_credentials or allows_credentials(governing(entry.headers)[0])


def is_chosen(entry: StoredResponse, errand: Errand) -> bool:
    """Whether `entry` is the variant that this request gets."""
    if not entry.vary:
        return True
    names = [name for name, _ in entry.vary]
    return entry.vary == selection(errand.request.headers, errand.coding, names)


def ruled_stale_use(headers: Headers, rule: CacheRule | None) -> StaleUse:
    """For how long past its freshness a response may be served, by its origin and the policy."""
    if rule is None:
        return stale_use(headers)
    return stale_use(
        headers,
        while_revalidate_s=rule.stale_while_revalidate,
        if_error_s=rule.stale_if_error,
    )


# ---------------------------------------------------------------- what it says


@dataclass(frozen=True, slots=True)
class Reuse:
    """A stored response as the answer to a client: what `Answer` says of it, without its head."""

    entry: StoredResponse
    verdict: str
    status: str  # without our name
    cause: Cause | None = None
    is_reused: bool = True  # it was here already, or was fetched for somebody else
    tier: str = ""  # where it was


def told(errand: Errand, reuse: Reuse, now_s: float) -> Answer:
    """What the client gets of it now."""
    response = response_of(errand, reuse.entry, now_s, is_reused=reuse.is_reused)
    status = f"edgeproxy; {reuse.status}"
    return Answer(response, reuse.verdict, status, reuse.cause, tier=reuse.tier)


def hit(errand: Errand, found: Found, fresh_for_s: float, now_s: float) -> Answer:
    """A fresh response, in one step: most answers are made here."""
    assert found.entry is not None
    return Answer(
        response_of(errand, found.entry, now_s),
        "hit",
        f"edgeproxy; hit; ttl={int(fresh_for_s)}; detail={found.tier}",
        hit=Hit(found.id, found.tier, found.entry, errand.url, now_s, fresh_for_s),
        tier=found.tier,
    )


def fwd_of(found: Found) -> str:
    """Why the request went to the origin, in the words of RFC 9211, section 2.2."""
    if found.entry is not None:
        return "stale"
    return "vary-miss" if found.has_variants else "uri-miss"


def response_of(
    errand: Errand,
    entry: StoredResponse,
    now_s: float,
    *,
    is_reused: bool = True,
    body: Readable | None = None,
) -> Response:
    """What `entry` says to this client now; with `body`, if its own is elsewhere."""
    age_s = int(current_age_s(entry.age_s, entry.stored_at_s, now_s))
    fields = entry.headers.fields.copy()
    rule = errand.rule
    if rule is not None and rule.browser_ttl is not None and 200 <= entry.status < 300:
        control = browser_cache_control(entry.headers, rule.browser_ttl, age_s)
        if control is not None:
            headers = Headers(fields)
            headers.remove("cache-control", "expires")
            headers.add("Cache-Control", control)
            fields = headers.fields
    if is_reused or age_s:
        fields.append((b"Age", b"%d" % age_s))
    content = entry.body if body is None else body
    if entry.encoded:
        fields = with_vary(fields)
        if (encoded := chosen(entry, errand.wanted)) is not None:
            coding, content = encoded
            fields = encoded_fields(fields, coding, len(content))
    return tailored(
        errand.request, errand.asked, entry.status, fields, content, entry.stored_at_s, now_s
    )
