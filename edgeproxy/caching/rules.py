"""What a rule of the policy (`cache.rules`) changes. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from urllib.parse import unquote_plus

from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.freshness import Unstorable, lifetime_s, why_not_stored
from edgeproxy.http import Headers


def key_query(
    query: str | None, setting: Literal["keep", "sort", "drop"] | Iterable[str]
) -> str | None:
    """The part of `query` that stands in a cache key, for the `query` setting of a rule.

    `keep`: as it is. `sort`: its parameters in order of their spelling. `drop`: None. A list of
    names: only those, sorted by name; several of one name keep their order. Names are compared
    decoded. None if nothing is left.
    """
    if query is None or setting == "drop":
        return None
    if setting == "keep":
        return query
    parameters = [parameter for parameter in query.split("&") if parameter]
    if setting == "sort":
        return "&".join(sorted(parameters)) or None
    wanted = frozenset(setting)
    kept = [(name, p) for p in parameters if (name := _name(p)) in wanted]
    return "&".join(p for _, p in sorted(kept, key=lambda pair: pair[0])) or None


def _name(parameter: str) -> str:
    return unquote_plus(parameter.partition("=")[0])


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
