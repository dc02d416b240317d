"""Which of the stored responses of one key answers a request: Vary (RFC 9111, section 4.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from edgeproxy.caching.tiers import StoredResponse
from edgeproxy.http import Headers

Selection = tuple[tuple[str, str | None], ...]
"""Request fields that choose a variant, name and normalised value; None for an absent field."""

_LIST_SPACE = re.compile(r"[ \t]*,[ \t]*")
_WEIGHT = re.compile(r"[ \t]*;[ \t]*q=(?P<q>[01](?:\.[0-9]{0,3})?)[ \t]*", re.ASCII | re.IGNORECASE)


@lru_cache(maxsize=1024)
def accepted_coding(value: str) -> str:
    """`gzip` if an Accept-Encoding field allows it, else `identity`.

    Two values, whatever clients send, so that they do not split the cache. The request to the
    origin must then carry the same word, or the origin could choose by what was folded away.
    """
    weight = weights(value)
    gzip = weight.get("gzip", weight.get("x-gzip", weight.get("*", 0.0)))
    return "gzip" if gzip > 0 else "identity"


def weights(value: str) -> dict[str, float]:
    """The members of an Accept-Encoding field and how welcome each is, 0 to 1.

    One with a parameter that is no weight counts as unwelcome.
    """
    found: dict[str, float] = {}
    for member in value.lower().split(","):
        coding, semicolon, _ = member.partition(";")
        weight = _WEIGHT.fullmatch(member, len(coding))
        stated = float(weight["q"]) if weight else 0.0
        found[coding.strip(" \t")] = stated if semicolon else 1.0
    return found


def normalised(headers: Headers, name: str) -> str | None:
    """The value of a request field as far as it matters for choosing a variant.

    Lines are joined, white space around commas folds; languages compare without case. Nothing
    else is safe without knowing the field.
    """
    value = headers.joined(name)
    if value is None:
        return None
    value = _LIST_SPACE.sub(",", value).strip(" \t")
    return value.lower() if name == "accept-language" else value


def selection(headers: Headers, coding: str, names: Iterable[str]) -> Selection:
    """What a request chooses by, for a response that varies by `names`.

    `coding` is the one content coding that the request goes to the origin with.
    """
    return tuple(
        [
            (name, coding if name == "accept-encoding" else normalised(headers, name))
            for name in names
        ]
    )


def variant_id(key: str, chosen: Selection) -> str:
    """The name of one variant of `key`. Field values cannot hold a NUL, so none collide."""
    if not chosen:
        return key
    parts = [key]
    for name, value in chosen:
        parts.append(name if value is None else f"{name}={value}")
    return "\0".join(parts)


def id_of(entry: StoredResponse) -> str:
    """The name that `entry` stands under."""
    return variant_id(entry.key, entry.vary) if entry.status else entry.key
