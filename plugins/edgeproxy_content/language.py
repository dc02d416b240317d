"""Language negotiation: what a client likes best among what the site has."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

MAX_LENGTH = 1024  # characters of Accept-Language that are read
CACHE_SIZE = 1024  # headers whose outcome is remembered

TAG = r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*"  # RFC 4647, section 2.1: a basic language range
WEIGHT = r"[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)"  # RFC 9110, section 12.4.2
_ELEMENT = re.compile(rf"[ \t]*({TAG}|\*)(?:{WEIGHT})?[ \t]*", re.ASCII)

Negotiate = Callable[[str | None], str | None]
"""From Accept-Language, None if it was not sent, to a language."""


def covers(language_range: str, tag: str) -> bool:
    """Whether `tag` is the range or below it, as `de-AT` is below `de`; both in lower case."""
    return tag == language_range or tag.startswith(language_range + "-")


def elements(header: str, max_length: int = MAX_LENGTH) -> list[str]:
    """The members of a list field; of a field that is too long, those at its start."""
    if len(header) > max_length:
        header = header[:max_length].rpartition(",")[0]
    return header.split(",")


def weights(header: str) -> dict[str, float]:
    """Each language range in lower case, with its quality; best liked first.

    What is malformed is left out, and so is a range that was named before. Ranges of equal
    quality stay in the client's order.
    """
    found: dict[str, float] = {}
    for element in elements(header):
        match = _ELEMENT.fullmatch(element)
        if match is not None:
            found.setdefault(match[1].lower(), float(match[2] or 1))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _is_refused(tag: str, liked: dict[str, float]) -> bool:
    """Whether the most specific range that covers `tag` has quality 0."""
    covering = [each for each in liked if each == "*" or covers(each, tag)]
    return bool(covering) and liked[max(covering, key=lambda each: (each != "*", len(each)))] == 0


def _lookups(language_range: str) -> list[str]:
    """A range and what it is cut down to (RFC 4647, section 3.4): zh-hant-tw, zh-hant, zh."""
    parts = language_range.split("-")
    found = [language_range]
    while len(parts) > 1:
        parts.pop()
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts.pop()
        found.append("-".join(parts))
    return found


def negotiator(languages: Sequence[str], default: str) -> Negotiate:
    """Choose among `languages`: RFC 4647 lookup, in the order of the client's liking.

    Where nothing fits: `default`, or the first language that the client does not refuse, or
    `default` all the same. `*` names no language, so it adds none; with quality 0 it refuses all
    that are not named.
    """
    available = {language.lower(): language for language in languages}
    fallbacks = [default.lower(), *available]

    @functools.lru_cache(maxsize=CACHE_SIZE)
    def choose(header: str) -> str:
        liked = weights(header)
        for language_range, quality in liked.items():
            if quality and language_range != "*":
                for tag in _lookups(language_range):
                    if tag in available and not _is_refused(tag, liked):
                        return available[tag]
        return next((available[tag] for tag in fallbacks if not _is_refused(tag, liked)), default)

    return lambda header: default if header is None else choose(header[: MAX_LENGTH + 1])


def favourite(header: str | None) -> str | None:
    """The language that the client likes best, in lower case; None if it names none."""
    return None if header is None else _favourite(header[: MAX_LENGTH + 1])


@functools.lru_cache(maxsize=CACHE_SIZE)
def _favourite(header: str) -> str | None:
    liked = weights(header)
    return next((tag for tag, quality in liked.items() if quality and tag != "*"), None)


def language_test(ranges: Sequence[str]) -> Callable[[str | None], bool]:
    """Whether a language is one of `ranges`, or below one."""
    wanted = tuple(each.lower() for each in ranges)

    @functools.lru_cache(maxsize=CACHE_SIZE)
    def matches(tag: str | None) -> bool:
        return tag is not None and any(covers(each, tag.lower()) for each in wanted)

    return matches
