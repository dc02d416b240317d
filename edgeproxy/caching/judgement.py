"""Whether an answer may be stored, and how long it is fresh: in words, with rule and source."""

from __future__ import annotations

from dataclasses import dataclass

from edgeproxy.caching.config import CacheRule
from edgeproxy.caching.freshness import Unstorable, governing, initial_age_s
from edgeproxy.caching.parts import can_be_cut
from edgeproxy.caching.renewal import is_worth_keeping
from edgeproxy.caching.rules import policy_ttl_s, ruled_lifetime_s, unstorable
from edgeproxy.http import Headers, Response

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
        "the answer sets a cookie, which must not reach other visitors; if nobody needs it, remove "
        "it where it is set",
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


_NO_FRESHNESS = "no-freshness"
_TOO_LARGE = "too-large"


def _code(why: Unstorable) -> str:
    return why.name.lower().replace("_", "-")


REASONS = (*map(_code, Unstorable), _NO_FRESHNESS, _TOO_LARGE)
"""The codes of judgements that an answer is not stored."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the cache makes of an answer. `code` never changes; `source` is an RFC or the policy."""

    storable: bool
    code: str
    words: str
    source: str
    fresh_for_s: float = 0.0


def judge(
    response: Response,
    rule: CacheRule | None,
    *,
    has_credentials: bool,
    max_object_size: int,
    requested_at_s: float,
    now_s: float,
) -> Judgement:
    """What the cache does with `response`, which the origin gave to a GET, under `rule`."""
    headers = response.headers
    why = unstorable(rule, has_credentials, response.status, headers)
    if why is not None:
        words, source = _WORDS[why]
        return Judgement(False, _code(why), words, source)
    age_s = initial_age_s(headers, requested_at_s, now_s)
    fresh_s = ruled_lifetime_s(rule, response.status, headers, now_s, age_s)
    left_s = max(0.0, fresh_s - age_s)
    by, source = _by_whom(headers, policy_ttl_s(rule, response.status))
    if not left_s and not is_worth_keeping(headers, rule):
        words = f"it is not fresh for any time, and could not be asked for news of: {by}"
        return Judgement(False, _NO_FRESHNESS, words, source)
    length = response.body.length
    if length is not None and length > max_object_size:
        words = f"{length} bytes are more than `cache.max_object_size`, {max_object_size}"
        if can_be_cut(response.status, response.headers):
            words += "; only ranges of it are kept, in parts"
        return Judgement(False, _TOO_LARGE, words, "the policy")
    words = f"it may be stored, and is fresh for {left_s:.0f} s: {by}"
    if not left_s:
        words = f"it may be kept to be asked for news of, or for need, but is not fresh: {by}"
    return Judgement(True, "storable", words, source, round(left_s, 1))


def _by_whom(headers: Headers, ttl_s: float | None) -> tuple[str, str]:
    """Who says how long an answer is fresh, in the order in which `lifetime_s` asks."""
    directives, is_targeted = governing(headers)
    if "no-cache" in directives:
        return "the origin says `no-cache`", "RFC 9111, section 5.2.2.4"
    if ttl_s is not None:
        return "the rule of the policy says so", "the policy"
    for name, section in (("s-maxage", "5.2.2.10"), ("max-age", "5.2.2.1")):
        if name in directives:
            source = "RFC 9213" if is_targeted else f"RFC 9111, section {section}"
            return f"the origin's `{name}`, less the age it came with", source
    if "expires" in headers and not is_targeted:
        return "the origin's `Expires`", "RFC 9111, section 5.3"
    if "last-modified" in headers:
        return "a tenth of the time since `Last-Modified`", "RFC 9111, section 4.2.2"
    return "neither the origin nor the policy gives a lifetime", "RFC 9111, section 4.2.2"
