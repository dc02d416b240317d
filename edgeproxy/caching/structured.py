"""Structured fields (RFC 9651), as far as caching needs them: dictionaries and lists of items.

Strict: a field that does not parse is None as a whole, as section 4.2 asks. Parameters are parsed
and dropped, since no field read here has any.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping

from edgeproxy.http import Headers

Bare = bool | int | float | str | bytes


class Token(str):
    """A token, to tell it from a string of the same characters."""

    __slots__ = ()


class Date(int):
    """A date, in seconds since 1970, to tell it from an integer."""


class InnerList(tuple[Bare, ...]):
    """A list within a list."""

    __slots__ = ()


Member = Bare | InnerList

_KEY = re.compile(r"[a-z*][a-z0-9_.*\-]*")
_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])")
_STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_BOOLEAN = re.compile(r"\?([01])")
_DATE = re.compile(r"@(-?[0-9]{1,15})(?![0-9.])")
_DISPLAY = re.compile(r'%"((?:[\x20-\x21\x23-\x24\x26-\x7e]|%[0-9a-f]{2})*)"')
_BLANKS = re.compile(r"[ \t]*")
_SPACES = re.compile(r" *")


class _Malformed(ValueError):
    pass


def dictionary(headers: Headers, name: str) -> Mapping[str, Member] | None:
    """The field `name` as a dictionary (section 3.2); None if it does not parse or is absent."""
    text = headers.joined(name)
    if text is None:
        return None
    found: dict[str, Member] = {}

    def member(at: int) -> int:
        key, at = _take(_KEY, text, at)
        value: Member = True
        if text[at : at + 1] == "=":
            value, at = _member(text, at + 1)
        else:
            at = _parameters(text, at)
        found.pop(key, None)  # a later one counts, in its place
        found[key] = value
        return at

    return found if _members(text, member) else None


def items(headers: Headers, name: str) -> list[Member] | None:
    """The field `name` as a list (section 3.1); None if it does not parse or is absent."""
    text = headers.joined(name)
    if text is None:
        return None
    found: list[Member] = []

    def member(at: int) -> int:
        value, at = _member(text, at)
        found.append(value)
        return at

    return found if _members(text, member) else None


def _members(text: str, member: Callable[[int], int]) -> bool:
    """Hand every member of a comma-separated `text` to `member`; whether all of it parses."""
    text = text.rstrip(" ")
    at = _skip(_SPACES, text, 0)
    try:
        while at < len(text):
            at = _skip(_BLANKS, text, member(at))
            if at == len(text):
                return True
            if text[at] != ",":
                return False
            at = _skip(_BLANKS, text, at + 1)
            if at == len(text):
                return False  # a comma at the end
    except _Malformed:
        return False
    return True


def _member(text: str, at: int) -> tuple[Member, int]:
    value: Member
    if text[at : at + 1] == "(":
        value, at = _inner_list(text, at + 1)
    else:
        value, at = _bare(text, at)
    return value, _parameters(text, at)


def _inner_list(text: str, at: int) -> tuple[InnerList, int]:
    found: list[Bare] = []
    while True:
        before, at = at, _skip(_SPACES, text, at)
        if text[at : at + 1] == ")":
            return InnerList(found), at + 1
        if found and before == at:
            raise _Malformed
        value, at = _bare(text, at)
        at = _parameters(text, at)
        found.append(value)


def _parameters(text: str, at: int) -> int:
    while text[at : at + 1] == ";":
        _, at = _take(_KEY, text, _skip(_SPACES, text, at + 1))
        if text[at : at + 1] == "=":
            _, at = _bare(text, at + 1)
    return at


def _bare(text: str, at: int) -> tuple[Bare, int]:
    first = text[at : at + 1]
    if first == "-" or (first.isascii() and first.isdigit()):
        number, at = _take(_NUMBER, text, at)
        return (float(number) if "." in number else int(number)), at
    if first == '"':
        quoted, at = _take(_STRING, text, at)
        return re.sub(r"\\(.)", r"\1", quoted), at
    if first == ":":
        encoded, at = _take(_BYTES, text, at)
        try:
            return b64decode(encoded + "=" * (-len(encoded) % 4)), at
        except binascii.Error as error:
            raise _Malformed from error
    if first == "?":
        digit, at = _take(_BOOLEAN, text, at)
        return digit == "1", at
    if first == "@":
        moment, at = _take(_DATE, text, at)
        return Date(moment), at
    if first == "%":
        display, at = _take(_DISPLAY, text, at)
        return display, at
    token, at = _take(_TOKEN, text, at)
    return Token(token), at


def _take(pattern: re.Pattern[str], text: str, at: int) -> tuple[str, int]:
    match = pattern.match(text, at)
    if match is None:
        raise _Malformed
    return match[match.lastindex or 0], match.end()


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None  # it matches nothing, too
    return match.end()
