"""Reading the header fields that caching depends on, as strictly as their grammar.

Nothing here raises: a field that does not parse counts as what its RFC says of invalid values.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType

from edgeproxy.http import Headers

MAX_DELTA_S = 2**31  # greater numbers of seconds mean this one (RFC 9111, section 1.2.2)

Directives = Mapping[str, str | None]
"""Cache directives by name in lower case. The value is without its quotes, None if absent."""

_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_DIRECTIVE = re.compile(
    r"""[ \t,]*
    (?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+)
    (?:=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s,;"]*)))?
    (?P<rest>[^,]*)""",
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")


_LIFETIMES = frozenset(("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"))
_NONE: Directives = MappingProxyType({})


@lru_cache(maxsize=1024)
def parse_directives(value: str) -> Directives:
    """The members of a Cache-Control field (RFC 9111, section 5.2).

    Of a lifetime that stands there twice the shortest counts, of other directives the first
    (section 4.2.1). A member with rubbish behind it is kept by name, so that `no-store;x` still
    forbids, but its argument is lost.
    """
    found: dict[str, str | None] = {}
    at = 0
    while at < len(value):
        match = _DIRECTIVE.match(value, at)
        if match is None:
            at = (value.find(",", at) + 1) or len(value)
            continue
        at = match.end()
        name, argument = match["name"].lower(), match["token"]
        if match["quoted"] is not None:
            argument = _ESCAPED.sub(r"\1", match["quoted"])
        if match["rest"].strip(" \t"):
            argument = ""
        shorter = name in _LIFETIMES and (seconds(argument) or 0) < (seconds(found.get(name)) or 0)
        if name not in found or shorter:
            found[name] = argument
    return MappingProxyType(found)


def cache_control(headers: Headers) -> Directives:
    """The directives of all Cache-Control lines of `headers`."""
    value = headers.joined("cache-control")
    return parse_directives(value) if value else _NONE


def seconds(argument: str | None) -> int | None:
    """A delta-seconds argument: digits only, saturated; None if it is anything else."""
    if argument is None or not _DIGITS.fullmatch(argument):
        return None
    return int(argument) if len(argument) < 11 and int(argument) < MAX_DELTA_S else MAX_DELTA_S


def age(headers: Headers) -> int:
    """The Age that the response arrived with, in seconds; 0 if absent or invalid.

    Only the first member of the first line counts (RFC 9111, section 5.1).
    """
    first = headers.get("age")
    return (seconds(first.split(",", 1)[0].strip(" \t")) or 0) if first else 0


_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_CLOCK = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH = r"(?P<month>[a-z]{3})"
_DATES = (
    re.compile(
        rf"(?:mon|tue|wed|thu|fri|sat|sun), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) "
        rf"{_CLOCK} gmt",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(
        r"(?:mon|tues|wednes|thurs|fri|satur|sun)day, "
        rf"(?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} gmt",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(
        rf"(?:mon|tue|wed|thu|fri|sat|sun) {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_CLOCK} "
        r"(?P<year>[0-9]{4})",
        re.ASCII | re.IGNORECASE,
    ),
)


@lru_cache(maxsize=1024)
def _parse_date(value: str) -> tuple[int, bool] | None:
    """Seconds since 1970, and whether the century is a guess."""
    for form in _DATES:
        if match := form.fullmatch(value):
            break
    else:
        return None
    short = len(match["year"]) == 2
    try:
        moment = datetime(
            int(match["year"]) + (2000 if short else 0),
            _MONTHS[match["month"].lower()],
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            min(int(match["second"]), 59) if match["second"] == "60" else int(match["second"]),
            tzinfo=UTC,
        )
    except (KeyError, ValueError):
        return None
    return timegm(moment.utctimetuple()), short


def parse_date(value: str, now_s: float) -> int | None:
    """An HTTP date in seconds since 1970; None if it has none of the three forms.

    RFC 9110, section 5.6.7: the current form, RFC 850's and asctime's, names in any case. A year
    of two digits that seems more than 50 years ahead is the past one with those digits.
    """
    parsed = _parse_date(value)
    if parsed is None:
        return None
    moment_s, century_guessed = parsed
    if century_guessed and moment_s > now_s + 50 * 365.25 * 86400:
        moment = datetime.fromtimestamp(moment_s, UTC)
        try:
            moment = moment.replace(year=moment.year - 100)
        except ValueError:  # 29 February of a year that had none
            return None
        return timegm(moment.utctimetuple())
    return moment_s


def date_field(headers: Headers, name: str, now_s: float) -> int | None:
    """The date that field `name` holds; None unless it is one line with one valid date."""
    lines = headers.get_all(name)
    return parse_date(lines[0], now_s) if len(lines) == 1 else None


_DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTH_NAMES = tuple(name.capitalize() for name in _MONTHS)


def format_date(moment_s: float) -> str:
    """`moment_s` as HTTP writes dates, whatever the locale."""
    at = datetime.fromtimestamp(int(moment_s), UTC)
    return (
        f"{_DAY_NAMES[at.weekday()]}, {at.day:02} {_MONTH_NAMES[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )


def members(headers: Headers, name: str) -> list[str]:
    """The members of a plain comma-separated list over all lines of `name`, in lower case."""
    joined = headers.joined(name) or ""
    return [member for part in joined.split(",") if (member := part.strip(" \t").lower())]


_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_ENTITY_TAG_LIST = re.compile(
    rf"[ \t,]*{_ENTITY_TAG.pattern}(?:[ \t]*,[ \t,]*(?:{_ENTITY_TAG.pattern}|$))*[ \t,]*"
)


def entity_tags(value: str) -> tuple[str, ...]:
    """The entity tags of an If-Match or If-None-Match list (RFC 9110, section 8.8.3).

    A tag without quotes is taken as it stands if it is the whole value: some origins send such,
    and a client can only give back what it got.
    """
    if _ENTITY_TAG_LIST.fullmatch(value):
        return tuple(_ENTITY_TAG.findall(value))
    bare = value.strip(" \t")
    return (bare,) if bare and '"' not in bare and "," not in bare else ()


def weakly_equal(one: str, other: str) -> bool:
    """Whether two entity tags name equivalent content (RFC 9110, section 8.8.3.2)."""
    return one.removeprefix("W/") == other.removeprefix("W/")


def strongly_equal(one: str, other: str) -> bool:
    """Whether two entity tags name the same bytes."""
    return one == other and one.startswith('"')


def validators(headers: Headers) -> tuple[tuple[str, str], ...]:
    """The conditions that ask for news of a response with these fields."""
    found = (
        ("If-None-Match", headers.get("etag")),
        ("If-Modified-Since", headers.get("last-modified")),
    )
    return tuple((name, value) for name, value in found if value)


_HOP_BY_HOP = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
        b"age",
    )
)  # fmt: skip


def storable_fields(headers: Headers) -> Headers:
    """`headers` without what concerns one connection only (RFC 9111, section 3.1).

    Age goes as well: it is kept as a number, and written anew for each answer.
    """
    nominated = {name.encode("latin-1") for name in members(headers, "connection")}
    gone = _HOP_BY_HOP | nominated
    return Headers(field for field in headers.fields if field[0].lower() not in gone)


_NOT_UPDATED = frozenset(
    (b"content-length", b"content-encoding", b"content-range", b"set-cookie", b"set-cookie2")
)


def updated_fields(stored: Headers, newer: Headers) -> Headers:
    """`stored` with the fields of a 304 (RFC 9111, section 3.2).

    What describes the bytes at hand stays. So does an entity tag that the new one equals weakly:
    nginx answers with the strong form even where it had sent the body with the weak one. A cookie
    of a 304 was meant for one client and is not kept.
    """
    fields = storable_fields(newer)
    old, new = stored.get("etag"), fields.get("etag")
    if old and new and weakly_equal(old, new):
        fields.remove("etag")
    taken = [field for field in fields.fields if field[0].lower() not in _NOT_UPDATED]
    replaced = {name.lower() for name, _ in taken}
    return Headers([f for f in stored.fields if f[0].lower() not in replaced] + taken)
