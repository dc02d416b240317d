"""What may be kept, how long it is fresh, and when it may be served stale (RFC 9111, RFC 5861).

Pure functions: the time is an argument, in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from edgeproxy.caching.fields import (
    MAX_DELTA_S,
    Directives,
    age,
    cache_control,
    date_field,
    members,
    seconds,
)
from edgeproxy.caching.structured import dictionary
from edgeproxy.http import Headers

HEURISTIC_STATUSES = frozenset((200, 203, 204, 300, 301, 308, 404, 410))
"""May be kept without explicit freshness.

RFC 9110, section 15.1 also has 405, 414 and 501. One odd request provokes those on a path that
works for everybody else, so they need explicit freshness here, unless a rule says otherwise.
"""

ODD_STATUSES = frozenset((405, 414, 501))

UNDERSTOOD_STATUSES = HEURISTIC_STATUSES | {302, 303, 307, 405, 414, 451, 501}
"""What `must-understand` may ask for (RFC 9111, section 5.2.2.3)."""

MAX_HEURISTIC_S = 86400.0
MAX_DISCONNECTED_S = 86400.0
CLOCK_TOLERANCE_S = 5.0

TARGETS = ("edgeproxy-cache-control", "cdn-cache-control")
"""The fields that speak to this cache before Cache-Control does (RFC 9213, section 2.1)."""

_NEVER_STALE = ("must-revalidate", "proxy-revalidate", "no-cache")


def governing(headers: Headers) -> tuple[Directives, bool]:
    """The directives that count for this cache, and whether they come from a targeted field.

    The first of `TARGETS` that is valid and not empty replaces Cache-Control and Expires. One that
    is no dictionary, or whose lifetimes are no integers, counts as absent (RFC 9213, section 2.2).
    """
    for name in TARGETS:
        if name in headers:
            directives = _targeted(headers, name)
            if directives:
                return directives, True
    return cache_control(headers), False


_WITH_SECONDS = ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error")


def _targeted(headers: Headers, name: str) -> Directives | None:
    found = dictionary(headers, name)
    if found is None:
        return None
    directives: dict[str, str | None] = {}
    for directive, value in found.items():
        if directive in _WITH_SECONDS:
            if type(value) is not int or value < 0:
                return None
            directives[directive] = str(min(value, MAX_DELTA_S))
        elif value is not False:
            directives[directive] = None
    return directives


def explicit_lifetime_s(headers: Headers, received_at_s: float) -> int | None:
    """The freshness lifetime that the response states; None if it states none.

    s-maxage, else max-age, else Expires less Date. What is stated but invalid is 0: stale.
    Source: RFC 9111, sections 4.2.1 and 5.3.
    """
    directives, is_targeted = governing(headers)
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return seconds(directives[name]) or 0
    if is_targeted or "expires" not in headers:
        return None
    expires_s = date_field(headers, "expires", received_at_s)
    if expires_s is None:
        return 0
    date_s = date_field(headers, "date", received_at_s)
    return max(0, expires_s - int(received_at_s if date_s is None else date_s))


def heuristic_lifetime_s(
    status: int, headers: Headers, received_at_s: float, *, odd_errors: bool = False
) -> float | None:
    """A tenth of the time since Last-Modified, at most a day; None if there is nothing to go by.

    Source: RFC 9111, section 4.2.2. `odd_errors` are those that one client can provoke.
    """
    if not may_go_by_heuristics(status, governing(headers)[0], odd_errors=odd_errors):
        return None
    modified_s = date_field(headers, "last-modified", received_at_s)
    if modified_s is None:
        return None
    date_s = date_field(headers, "date", received_at_s)
    unchanged_s = (received_at_s if date_s is None else date_s) - modified_s
    return min(max(0.0, unchanged_s / 10), MAX_HEURISTIC_S)


def may_go_by_heuristics(status: int, directives: Directives, *, odd_errors: bool = False) -> bool:
    """Whether a status may be kept without stated freshness (RFC 9111, section 4.2.2).

    `public` allows it for any status; for an error only where the policy lets `odd_errors` pass.
    """
    if status in HEURISTIC_STATUSES:
        return True
    if odd_errors and status in ODD_STATUSES:
        return True
    return "public" in directives and (status < 400 or odd_errors)


def lifetime_s(
    status: int,
    headers: Headers,
    received_at_s: float,
    *,
    initial_age_s: float = 0.0,
    policy_ttl_s: float | None = None,
    heuristics: bool = True,
    odd_errors: bool = False,
) -> float:
    """How long the response is fresh, counted from when it was generated; 0 for not at all.

    A policy's `ttl` counts from when the response came in: that is what an operator means, and
    the caches of the origin keep answers much longer than a short `ttl`. `no-cache` is 0 whatever
    the policy says.
    """
    if "no-cache" in governing(headers)[0]:
        return 0.0
    if policy_ttl_s is not None:
        return policy_ttl_s + initial_age_s if policy_ttl_s > 0 else 0.0
    stated = explicit_lifetime_s(headers, received_at_s)
    if stated is not None:
        return stated
    if not heuristics:
        return 0.0
    return heuristic_lifetime_s(status, headers, received_at_s, odd_errors=odd_errors) or 0.0


def initial_age_s(headers: Headers, requested_at_s: float, received_at_s: float) -> float:
    """The corrected initial age (RFC 9111, section 4.2.3)."""
    date_s = date_field(headers, "date", received_at_s)
    apparent_s = 0.0 if date_s is None else max(0.0, int(received_at_s) - date_s)
    delay_s = max(0.0, received_at_s - requested_at_s)
    return max(apparent_s, age(headers) + delay_s)


def current_age_s(initial_age_s: float, stored_at_s: float, now_s: float) -> float:
    """The age of a stored response now; the clock may have been set back in between."""
    return initial_age_s + max(0.0, now_s - stored_at_s)


class Unstorable(Enum):
    """Why a response is not kept. The value is what a trace prints."""

    METHOD = "only answers to GET are kept"
    STATUS = "a 206 or 304 is part of something else, and 1xx is not final"
    NO_STORE = "no-store"
    MUST_UNDERSTAND = "must-understand, with a status that this cache does not know"
    PRIVATE = "private"
    SET_COOKIE = "it sets a cookie"
    AUTHORIZATION = "the request had credentials, and the response does not allow sharing"
    VARY = "Vary holds * or too many fields"
    NOTHING_TO_GO_BY = "neither freshness, nor a status that can do without"


MAX_VARY_FIELDS = 16


def why_not_stored(
    method: str,
    credentials: bool,
    status: int,
    headers: Headers,
    *,
    policy_ttl: bool = False,
    share_cookies: bool = False,
    odd_errors: bool = False,
) -> Unstorable | None:
    """Why a shared cache may not keep this response; None if it may (RFC 9111, section 3).

    `credentials`: the request had an Authorization field. `policy_ttl`: the policy gives this
    status a lifetime. A cookie keeps a response from being shared even if it is fresh
    (section 7.3 leaves that to the origin, which rarely thinks of it), unless `share_cookies`, and
    then only where the response itself states its freshness.
    """
    if method != "GET":
        return Unstorable.METHOD
    if status < 200 or status in (206, 304):
        return Unstorable.STATUS
    directives, is_targeted = governing(headers)
    if "must-understand" in directives:  # takes the place of no-store, section 5.2.2.3
        if status not in UNDERSTOOD_STATUSES:
            return Unstorable.MUST_UNDERSTAND
    elif "no-store" in directives:
        return Unstorable.NO_STORE
    if "private" in directives:
        return Unstorable.PRIVATE
    stated = bool({"max-age", "s-maxage"} & directives.keys())
    stated = stated or ("expires" in headers and not is_targeted)
    if "set-cookie" in headers and not (share_cookies and stated):
        return Unstorable.SET_COOKIE
    if credentials and not allows_credentials(directives):
        return Unstorable.AUTHORIZATION
    vary = members(headers, "vary")
    if "*" in vary or len(vary) > MAX_VARY_FIELDS:
        return Unstorable.VARY
    known = may_go_by_heuristics(status, directives, odd_errors=odd_errors)
    return None if policy_ttl or stated or known else Unstorable.NOTHING_TO_GO_BY


def allows_credentials(directives: Directives) -> bool:
    """Whether a response may answer requests with credentials (RFC 9111, section 3.5)."""
    return bool({"public", "must-revalidate", "s-maxage"} & directives.keys())


@dataclass(frozen=True, slots=True)
class StaleUse:
    """For how long past its freshness a response may be served, in seconds."""

    while_revalidating_s: float
    if_status_error_s: float  # the origin answers 429, 500, 502, 503 or 504
    if_disconnected_s: float  # the origin does not answer


_NO_STALE_USE = StaleUse(0, 0, 0)


def stale_use(
    headers: Headers,
    *,
    while_revalidate_s: float | None = None,
    if_error_s: float | None = None,
) -> StaleUse:
    """When a stale response may still be served. The arguments are the policy's, None for none.

    The origin's prohibitions hold against the policy (RFC 9111, section 4.2.4); s-maxage is one of
    them unless the same response allows stale use by RFC 5861. Of the origin's window and the
    policy's the longer one counts. Without either, an origin that does not answer at all is
    covered for a day.
    """
    directives = governing(headers)[0]
    if any(name in directives for name in _NEVER_STALE):
        return _NO_STALE_USE
    own_revalidate_s = seconds(directives.get("stale-while-revalidate"))
    own_error_s = seconds(directives.get("stale-if-error"))
    if "s-maxage" in directives:
        return StaleUse(own_revalidate_s or 0, own_error_s or 0, own_error_s or 0)
    error_s = max(own_error_s or 0, if_error_s or 0)
    unsaid = own_error_s is None and if_error_s is None
    return StaleUse(
        max(own_revalidate_s or 0, while_revalidate_s or 0),
        error_s,
        MAX_DISCONNECTED_S if unsaid else error_s,
    )


def retry_after_s(headers: Headers, now_s: float) -> float | None:
    """How long the origin asks to be left alone; None if it does not (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    delay = seconds(value)
    if delay is not None:
        return float(delay)
    moment_s = date_field(headers, "retry-after", now_s)
    return None if moment_s is None else max(0.0, moment_s - now_s)


def browser_cache_control(headers: Headers, ttl_s: float, age_s: float) -> str | None:
    """Cache-Control for clients that may keep a response `ttl_s` from now; None to leave it.

    A browser takes the Age it is told off max-age, so Age is added. What the origin marked as
    private, uncacheable or bound to a cookie stays as it is.
    """
    directives = cache_control(headers)
    if {"private", "no-store", "no-cache"} & directives.keys() or "set-cookie" in headers:
        return None
    rest = {name: argument for name, argument in directives.items() if name not in _REPLACED}
    return ", ".join([f"max-age={int(ttl_s) + int(age_s)}", *_spelled(rest)])


_REPLACED = frozenset(("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"))
_TOKEN_CHARACTERS = frozenset(
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


def _spelled(directives: Mapping[str, str | None]) -> list[str]:
    return [
        name if argument is None or not _TOKEN_CHARACTERS.issuperset(argument)
        else f"{name}={argument}"
        for name, argument in directives.items()
    ]  # fmt: skip
