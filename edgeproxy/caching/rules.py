"""What a rule of the policy (`cache.rules`) changes. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal
from urllib.parse import unquote_plus

from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.freshness import Unstorable, lifetime_s, why_not_stored
from edgeproxy.caching.variants import normalised
from edgeproxy.http import Headers, Request


def key_query(
    query: str | None,
    setting: Literal["keep", "sort", "drop"] | Iterable[str],
    ignored: Sequence[str] = (),
) -> str | None:
    """The part of `query` that counts, for the `query` setting of a rule.

    `keep`: as it is. `sort`: its parameters in order of their spelling. `drop`: None. A list of
    names: only those, sorted by name; several of one name keep their order. What is `ignored` is
    gone in any case. Names are compared decoded; one that ends in `*` stands for all that begin
    so. None if nothing is left.
    """
    if query is None or setting == "drop":
        return None
    if setting == "keep" and not ignored:
        return query
    named = [(_name(p), p) for p in query.split("&") if p]
    if ignored:
        named = [(name, p) for name, p in named if not _is_among(ignored, name)]
    if setting == "sort":
        named.sort(key=lambda pair: pair[1])
    elif setting != "keep":
        wanted = tuple(setting)
        named = sorted((one for one in named if _is_among(wanted, one[0])), key=lambda one: one[0])
    return "&".join(p for _, p in named) or None


def _name(parameter: str) -> str:
    return unquote_plus(parameter.partition("=")[0])


def _is_among(names: Sequence[str], name: str) -> bool:
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in names)


def key_parts(rule: CacheRule, request: Request) -> list[tuple[str, str]]:
    """What a rule's `key` takes of a request: names, and values spelled out.

    A field or cookie that is not there is another one than an empty one.
    """
    parts = [
        (f"header {name}", repr(normalised(request.headers, name))) for name in rule.key.headers
    ]
    cookies = request.cookies() if rule.key.cookies else {}
    return parts + [(f"cookie {name}", repr(cookies.get(name))) for name in rule.key.cookies]


def policy_ttl_s(rule: CacheRule | None, status: int) -> float | None:
    """The lifetime that the policy gives a response of this status; None if the origin decides."""
    if rule is None:
        return None
    if status == 200 and rule.ttl is not None:
        return rule.ttl
    return rule.status_ttl.get(status)


def unstorable(
    rule: CacheRule | None, credentials: bool, status: int, headers: Headers
) -> Unstorable | None:
    """Why the answer to a GET may not be kept under `rule`; None if it may."""
    return why_not_stored(
        "GET",
        credentials,
        status,
        headers,
        policy_ttl=policy_ttl_s(rule, status) is not None,
        share_cookies=rule is not None and rule.share_cookies,
        odd_errors=rule is not None and rule.heuristic_errors,
    )


def ruled_lifetime_s(
    rule: CacheRule | None,
    status: int,
    headers: Headers,
    received_at_s: float,
    initial_age_s: float,
) -> float:
    """How long a response is fresh under `rule`, from when it was generated; without jitter."""
    return lifetime_s(
        status,
        headers,
        received_at_s,
        initial_age_s=initial_age_s,
        policy_ttl_s=policy_ttl_s(rule, status),
        heuristics=rule is None or rule.heuristics,
        odd_errors=rule is not None and rule.heuristic_errors,
    )


def jittered_s(
    rule: CacheRule | None, lifetime_s: float, initial_age_s: float, chance: float
) -> float:
    """A lifetime shortened at random, so that what was stored together does not end together.

    `chance` is a number from 0 to 1; only what is left of the lifetime shrinks.
    """
    left_s = lifetime_s - initial_age_s
    if rule is None or not rule.jitter or left_s <= 0:
        return lifetime_s
    return initial_age_s + left_s * (1 - rule.jitter * chance)
