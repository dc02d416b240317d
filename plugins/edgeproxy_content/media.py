"""Which media types a client asks for."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping

from .language import WEIGHT, elements

MAX_LENGTH = 2048  # characters of Accept that are read
CACHE_SIZE = 512  # headers whose outcome is remembered

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_RANGE = re.compile(
    rf"[ \t]*({_TOKEN}/{_TOKEN})"
    rf"((?:[ \t]*;[ \t]*(?![qQ]=){_TOKEN}=(?:{_TOKEN}|\"[^\"\\]*\"))*)"
    rf"(?:{WEIGHT})?[ \t]*",
    re.ASCII,
)
TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")

PAGE = "text/html"  # what a site serves unless a route says otherwise


def weights(header: str) -> Mapping[str, float]:
    """Each media range in lower case, with its quality. What is malformed is left out.

    A range with parameters counts for its type if that is not listed without them.
    """
    plain: dict[str, float] = {}
    with_parameters: dict[str, float] = {}
    for element in elements(header, MAX_LENGTH):
        match = _RANGE.fullmatch(element)
        if match is not None:
            found = with_parameters if match[2] else plain
            found.setdefault(match[1].lower(), float(match[3] or 1))
    return with_parameters | plain


def quality(media_type: str, liked: Mapping[str, float], *, by_name: bool = False) -> float:
    """How well a client likes a type, 0 to 1: what its most specific range says.

    Source: RFC 9110, section 12.5.1. With `by_name`, `*/*` does not count.
    """
    for each in (media_type, media_type.partition("/")[0] + "/*"):
        if each in liked:
            return liked[each]
    return 0.0 if by_name else liked.get("*/*", 0.0)


def media_test(media_types: Iterable[str]) -> Callable[[str | None], bool]:
    """Whether a client asks for one of `media_types`: by name, and no less than for a page."""
    wanted = tuple(media_types)

    @functools.lru_cache(maxsize=CACHE_SIZE)
    def asks(header: str) -> bool:
        liked = weights(header)
        return any(
            (best := quality(each, liked, by_name=True)) > 0 and best >= quality(PAGE, liked)
            for each in wanted
        )

    return lambda header: header is not None and asks(header[: MAX_LENGTH + 1])
