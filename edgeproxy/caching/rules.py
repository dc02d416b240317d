"""What a rule of the policy (`cache.rules`) changes. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from urllib.parse import unquote_plus

from edgeproxy.caching.config import CacheRule


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
