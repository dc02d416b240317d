"""What matchers, filters and plugins say about themselves, so that a policy can be reasoned about.

`edgeproxy check` proves with it that a route is never reached, or that redirects go in circles;
`edgeproxy doctor` looks whether the machine has what they take up. All of it is data and pure;
nothing of it runs for a request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a matcher asks of one thing: that `subject` is among `values`.

    A subject is a fact or a part of the request, such as `geo.country`, `scheme` or `cookie lang`;
    matchers that ask about the same thing use the same name for it. `every` holds all values it can
    have, None if they have no end. `several` says that it may have more than one at a time, such as
    a parameter that is repeated: then one of `values` among them is enough.
    """

    subject: str
    values: frozenset[Any]
    every: frozenset[Any] | None = None
    several: bool = False

    def covers(self, other: Constraint) -> bool | None:
        """Whether whatever meets `other`, of the same subject, meets this. None: cannot tell."""
        return other.values <= self.values

    def excludes(self, other: Constraint) -> bool | None:
        """Whether nothing meets both. None: cannot tell."""
        return None if self.several else self.values.isdisjoint(other.values)

    def is_covered_by(self, values: Iterable[Any]) -> bool:
        """Whether whatever meets this has one of `values`."""
        return self.values <= frozenset(values)


@dataclass(frozen=True, slots=True)
class Below(Constraint):
    """Values that stand for themselves and for all below them: `de` for `de-at` too."""

    def covers(self, other: Constraint) -> bool | None:
        return all(any(is_below(value, top) for top in self.values) for value in other.values)

    def excludes(self, other: Constraint) -> bool | None:
        pairs = [(mine, theirs) for mine in self.values for theirs in other.values]
        return not any(is_below(a, b) or is_below(b, a) for a, b in pairs)

    def is_covered_by(self, values: Iterable[Any]) -> bool:
        return False  # there is no end to what may be below


def is_below(value: str, top: str) -> bool:
    """Whether `value` is `top` or below it, as `de-at` is below `de`."""
    return value == top or value.startswith(f"{top}-")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a filter may make of a request: another origin or path, or a redirect.

    `split` and `case` are empty if that is so for every request; else the filter divides requests
    by `split` (such as `experiment hero`), and this is what becomes of those in `case`. `path`
    replaces the path that the origin is asked for, `prefix` is put in front of it; `redirect` is a
    path or a URL, which gets the query too if `keeps_query`. Wildcards stand for the captures of
    the route's path. `at` leads to the place: keys of the filter's block.
    """

    split: str = ""
    case: str = ""
    origin: str | None = None
    path: str | None = None
    prefix: str | None = None
    redirect: str | None = None
    keeps_query: bool = True
    at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """What a plugin finds odd about its own part of a policy.

    `code` is one of the plugin's `remarks`; `at` leads to the place: keys of the plugin's section.
    `reason` says what is odd, `fix` what to do, each without a capital and a full stop.
    """

    code: str
    at: tuple[str, ...]
    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is written to, up to `max_bytes`; None if there is no bound."""

    what: str  # such as `disk cache`
    path: Path
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory that each worker may come to hold."""

    what: str
    max_bytes: int


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of data about the world, which is of `built` and goes out of date."""

    what: str
    path: Path
    built: datetime


type Resource = Folder | MemoryUse | DataFile
"""What a plugin takes up of the machine it runs on."""
