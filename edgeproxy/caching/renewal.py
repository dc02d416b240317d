"""What becomes of a stored response by what its origin says of it later. Nothing here waits."""

from __future__ import annotations

from dataclasses import replace

from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.fields import validators, weakly_equal
from edgeproxy.caching.freshness import current_age_s
from edgeproxy.caching.reuse import ruled_stale_use
from edgeproxy.caching.tiers import StoredResponse, is_same
from edgeproxy.http import Headers, Response

GONE_STATUSES = frozenset((404, 410))
GONE_RECHECK_S = 60.0
"""How often the origin is asked whether it has again what is kept though it is gone."""

_OF_THE_BYTES = ("content-type", "content-encoding", "content-language")


def is_worth_keeping(headers: Headers, rule: CacheRule | None) -> bool:
    """Whether a response without freshness can still be of use: revalidated, or in need."""
    if "etag" in headers or "last-modified" in headers:
        return True
    return rule is not None and ruled_stale_use(headers, rule).if_disconnected_s > 0


def is_news_of(stale: StoredResponse, headers: Headers) -> bool:
    """Whether a 304 speaks of the entry that was asked about (RFC 9111, section 4.3.4)."""
    known = stale.validators or validators(stale.headers)
    old, new = dict(known).get("If-None-Match"), headers.get("etag")
    return not old or not new or weakly_equal(old, new)


def says_the_same(stale: StoredResponse, entry: StoredResponse, body: bytes) -> bool:
    """Whether the origin has sent again what is here already, whatever it calls it now."""
    return (
        bool(validators(stale.headers))
        and stale.status == entry.status
        and is_same(stale.body, body)
        and stale.vary == entry.vary
        and is_same_kind(stale.headers, entry.headers)
    )


def is_same_kind(one: Headers, other: Headers) -> bool:
    """Whether both say the same of the bytes that come with them."""
    return all(one.joined(name) == other.joined(name) for name in _OF_THE_BYTES)


def unchanged(stale: StoredResponse, entry: StoredResponse) -> StoredResponse:
    """`entry`, with the body and the validators by which clients know it.

    GitHub Pages gives every file another ETag and Last-Modified at each publish.
    """
    headers = entry.headers.copy()
    for name in ("ETag", "Last-Modified"):
        headers.remove(name)
        value = stale.headers.get(name)
        if value:
            headers.add(name, value)
    theirs = validators(entry.headers)
    kept = () if theirs == validators(headers) else theirs
    return replace(entry, headers=headers, body=stale.body, encoded=stale.encoded, validators=kept)


def is_kept_though_gone(
    stale: StoredResponse, response: Response, rule: CacheRule | None, now_s: float
) -> bool:
    """Whether the rule has a page of an earlier publish ask for its files a little longer."""
    if rule is None or not rule.keep_gone or response.status not in GONE_STATUSES:
        return False
    return 200 <= stale.status < 300 and now_s - (stale.gone_at_s or now_s) < rule.keep_gone


def gone(stale: StoredResponse, requested_at_s: float, now_s: float) -> StoredResponse:
    """`stale`, which the origin has no more, fresh until it is time to ask again."""
    age_s = current_age_s(stale.age_s, stale.stored_at_s, now_s)
    return replace(
        stale,
        gone_at_s=stale.gone_at_s or now_s,
        stored_at_s=now_s,
        requested_at_s=requested_at_s,
        age_s=age_s,
        fresh_for_s=age_s + GONE_RECHECK_S,
    )
