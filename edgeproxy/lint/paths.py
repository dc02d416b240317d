"""Patterns of paths as the sets they stand for: which covers which, and what two have in common.

A glob is a small automaton over characters. Whether one covers another is decided by following both
at once through all that a path can be, so the answer is a proof, and for a no there is a path that
shows it. A regular expression is not taken apart: known of it is what all its paths begin with, and
whether it matches a path at hand.
"""

from __future__ import annotations

import functools
import re
import string
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import re2

from edgeproxy.errors import ClientError
from edgeproxy.http import normalise_path
from edgeproxy.policy.model import PathMatch
from edgeproxy.routing import PathTest, canonical_pattern, compile_path

# What a pattern is made of: literal characters, and these.
STAR, STARS = "[^/]*", ".*"
REST = "(/.*)?"  # a `/**` at the end: nothing, or a slash and anything
# Why a regular expression matches no path. As tokens they are followed by nothing.
NO_SLASH, NOT_CANONICAL = "no slash", "not canonical"

MAX_STATES = 2_000  # that two patterns may have together; all but contrived ones have a few dozen
_OTHERS = f"xyz{string.ascii_letters}{string.digits}-_~!$&'()*+,;=:@"  # one stands for the unnamed
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


@dataclass(frozen=True, eq=False)
class PathSet:
    """The canonical paths that a pattern matches, every one if it is None.

    `tokens` stand for the same set; for more than that if the pattern is a regular expression.
    """

    pattern: PathMatch | None
    tokens: tuple[str, ...]
    test: PathTest

    @property
    def is_regex(self) -> bool:
        return self.pattern is not None and self.pattern.regex is not None

    @property
    def literal(self) -> str | None:
        """The only path that can be in it, if it is one."""
        return "".join(self.tokens) if all(len(token) == 1 for token in self.tokens) else None

    @functools.cached_property
    def captures(self) -> int:
        """How many wildcards or groups there are for filters to use."""
        if self.pattern is None:
            return 0
        if self.pattern.regex is not None:
            return int(re2.compile(self.pattern.regex, _quiet()).groups)
        return sum(token in (STAR, STARS, REST) for token in self.tokens)

    @functools.cached_property
    def example(self) -> str | None:
        """One of the paths, as short as can be; None if there is none, or none was found."""
        return meeting(self, self)[1]

    @functools.cached_property
    def is_empty(self) -> bool:
        """Whether no path at all matches: proved."""
        return meeting(self, self)[0] is False

    @functools.cached_property
    def start(self) -> str:
        """The literal characters at the front."""
        return "".join(takewhile(lambda token: len(token) == 1, self.tokens))

    @functools.cached_property
    def end(self) -> str:
        """The literal characters at the end."""
        return "".join(takewhile(lambda token: len(token) == 1, self.tokens[::-1]))[::-1]

    def filled(self, word: str, rest: str) -> str:
        """A text with `word` for each wildcard and `rest` for a `/**` at the end."""
        fills = {STAR: word, STARS: word, REST: rest}
        return "".join(fills.get(token, token) for token in self.tokens)

    def holds(self, path: str) -> bool:
        fits = path.startswith(self.start) and path.endswith(self.end)  # five times as fast
        return fits and self.test(path) is not None

    def __str__(self) -> str:
        if self.pattern is None:
            return "/**"
        return str(next(text for text in self.pattern.model_dump().values() if text is not None))


@functools.lru_cache(maxsize=16_384)
def path_set(pattern: PathMatch | None) -> PathSet:
    return PathSet(pattern, _tokens(pattern), compile_path(pattern))


def _tokens(pattern: PathMatch | None) -> tuple[str, ...]:
    if pattern is None:
        return ("/", STARS)
    if pattern.regex is not None:
        return _regex_tokens(pattern.regex)
    if pattern.exact is not None:
        return tuple(canonical_pattern(pattern.exact))
    if pattern.prefix is not None:
        return (*canonical_pattern(pattern.prefix).rstrip("/"), REST)
    assert pattern.glob is not None
    return glob_tokens(canonical_pattern(pattern.glob))


def glob_tokens(glob: str) -> tuple[str, ...]:
    """What a glob in canonical spelling is made of."""
    tail = glob.endswith("/**")
    parts = re.findall(r"\*\*|\*|[^*]", glob.removesuffix("/**") if tail else glob, re.DOTALL)
    names = {"**": STARS, "*": STAR}
    return (*(names.get(part, part) for part in parts), *((REST,) if tail else ()))


def _regex_tokens(regex: str) -> tuple[str, ...]:
    """What all that a regular expression matches begins with, and anything after that."""
    low, high = re2.compile(regex, _quiet()).possiblematchrange(1000)
    if high < b"/" or low >= b"0":  # the byte after the slash: nothing in between begins with one
        return (NO_SLASH,)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))
    text = bytes(byte for byte, _ in same).decode("latin-1")
    rest = () if low == high else (STARS,)
    escapes = _ESCAPE.findall(text)
    if not text.isascii() or any(normalise_or_none(f"/{each}") != f"/{each}" for each in escapes):
        return (NOT_CANONICAL,)
    return (*(text or "/"), *rest)


def _quiet() -> Any:
    options = re2.Options()
    options.log_errors = False
    return options


def normalise_or_none(path: str) -> str | None:
    """The canonical spelling of `path`, None if it is refused."""
    try:
        return normalise_path(path, encoded_slashes=True)
    except ClientError:
        return None


# ------------------------------------------------------------------- what holds between two


@functools.lru_cache(maxsize=16_384)
def covers(wide: PathSet, narrow: PathSet) -> bool | None:
    """Whether `wide` matches all that `narrow` does: proved, or None if it cannot be told."""
    if wide is narrow or (wide.tokens in (("/", STARS), (REST,)) and not wide.is_regex):
        return True
    only = narrow.literal
    if only is not None and narrow.holds(only):
        return wide.holds(only)
    if wide.is_regex:
        return False if meeting(wide, narrow)[0] is False else None
    found, path = _search(narrow, wide, lambda inner, outer: inner and not outer)
    if found is False:
        return True
    if path is None or normalise_or_none(path) != path:
        return None
    return False if narrow.holds(path) and not wide.holds(path) else None


@functools.lru_cache(maxsize=16_384)
def meeting(one: PathSet, other: PathSet) -> tuple[bool | None, str | None]:
    """Whether any path is in both, and such a path. None if it cannot be told."""
    for literal in (one.literal, other.literal):
        if literal is not None and normalise_or_none(literal) == literal:
            both = one.holds(literal) and other.holds(literal)
            return both, literal if both else None
    found, path = _search(one, other, lambda a, b: a and b)
    if found is False:
        return False, None
    if path is None or normalise_or_none(path) != path:
        return None, None
    return (True, path) if one.holds(path) and other.holds(path) else (None, None)


# ------------------------------------------------------------------- automata


class _Automaton:
    """Follows a pattern character by character; a set of positions is a number, a bit for each."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self.tokens = tokens
        self.end = 1 << len(tokens)
        self.inside = self.end << 1  # the rest has begun: everything fits
        self._steps: dict[tuple[int, str], int] = {}
        self.start = self._opened(1)

    def accepts(self, positions: int) -> bool:
        return bool(positions & (self.end | self.inside))

    def is_full(self, positions: int) -> bool:
        """Whether whatever follows is accepted."""
        last = self.tokens[-1:] == (STARS,) and positions & (self.end >> 1)
        return bool(positions & self.inside or last)

    def step(self, positions: int, character: str) -> int:
        key = positions, character
        if key not in self._steps:
            self._steps[key] = self._opened(self._stepped(positions, character))
        return self._steps[key]

    def _stepped(self, positions: int, character: str) -> int:
        after = positions & self.inside
        for index, token in enumerate(self.tokens):
            here = 1 << index
            if not positions & here:
                continue
            if token == character:
                after |= here << 1
            elif token == STARS or (token == STAR and character != "/"):
                after |= here
            elif token == REST and character == "/":
                after |= self.inside
        return after

    def _opened(self, positions: int) -> int:
        """With what is reached without a character."""
        for index, token in enumerate(self.tokens):
            if positions >> index & 1 and token in (STAR, STARS, REST):
                positions |= 1 << index + 1
        return positions


@functools.lru_cache(maxsize=16_384)
def _automaton(tokens: tuple[str, ...]) -> _Automaton:
    return _Automaton(tokens)


# How a canonical path goes on: no empty segments, none that are one dot or two.
_PATH: dict[str, Callable[[str], str]] = {
    "start": lambda c: "slash" if c == "/" else "",
    "slash": lambda c: {"/": "", ".": "dot"}.get(c, "name"),
    "name": lambda c: "slash" if c == "/" else "name",
    "dot": lambda c: {"/": "", ".": "dots"}.get(c, "name"),
    "dots": lambda c: "" if c == "/" else "name",
}


def _search(
    one: PathSet, other: PathSet, wanted: Callable[[bool, bool], bool]
) -> tuple[bool | None, str | None]:
    """Whether there is a path of `one` for which `wanted` holds, and the shortest such path.

    `wanted` is told whether each of the two accepts the path. None if there is too much to search.
    """
    first, second = _automaton(one.tokens), _automaton(other.tokens)
    alphabet = _alphabet(one.tokens + other.tokens)
    begin = (first.start, second.start, "start")
    seen, waiting = {begin}, deque([(begin, "")])
    while waiting:
        (here, there, shape), path = waiting.popleft()
        if shape in ("slash", "name") and wanted(first.accepts(here), second.accepts(there)):
            return True, path
        for character in alphabet:
            state = (first.step(here, character), second.step(there, character),
                     _PATH[shape](character))  # fmt: skip
            if state[0] and state[2] and state not in seen:
                if len(seen) >= MAX_STATES:
                    return None, None
                seen.add(state)
                waiting.append((state, path + character))
    return False, None


def _alphabet(tokens: tuple[str, ...]) -> list[str]:
    """Every character that makes a difference, and one for all others."""
    named = dict.fromkeys(token for token in tokens if len(token) == 1)
    other = [character for character in _OTHERS if character not in named][:1]
    return [*other, *(character for character in named if character not in "/."), "/", "."]
