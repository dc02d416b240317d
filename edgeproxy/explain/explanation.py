"""An explanation: all that was decided about one request, and why, as plain data.

Places are `FILE:LINE`. `as_json` and `from_json` are each other's inverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

Field = tuple[str, str]  # name and value of a field line


@dataclass(frozen=True, slots=True)
class Arrival:
    """The request as it was understood. `at` is when it came, in ISO 8601."""

    method: str
    url: str
    client: str
    at: str
    headers: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A fact, and the plugin that it is from. `reason` is in the words of OpenFeature."""

    name: str
    value: Any
    plugin: str
    is_given: bool = False  # from outside, so that the plugin was not asked
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Clause:
    """One key of a match: what was seen and what the policy wants.

    `is_told`: `seen` is known. `is_of_body`: it is from what the client has sent as content.
    """

    key: str
    held: bool
    wanted: Any
    seen: Any
    is_told: bool = True
    is_of_body: bool = False
    plugin: str = ""
    place: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """One match of a route. `clauses` are those that were looked at, none after a wrong path."""

    place: str
    holds: bool
    clauses: tuple[Clause, ...]

    @property
    def failed(self) -> Clause | None:
        """The first clause that did not hold."""
        return next((clause for clause in self.clauses if not clause.held), None)

    @property
    def is_near(self) -> bool:
        """Whether one clause alone, not about the URL, kept it from matching."""
        failed = [clause for clause in self.clauses if not clause.held]
        return len(failed) == 1 and failed[0].key not in ("host", "path")


@dataclass(frozen=True, slots=True)
class TriedRoute:
    """A route and its matches, up to the one that held. Without matches it takes everything."""

    name: str
    place: str
    matched: bool
    matches: tuple[Compared, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """A hook that ran, and what it did; see `edgeproxy.trace.Step`."""

    phase: str
    plugin: str
    filter: str = ""
    place: str = ""
    removed: tuple[Field, ...] = ()
    added: tuple[Field, ...] = ()
    cookies: tuple[str, ...] = ()
    target: str = ""  # the origin and what is asked of it
    key: tuple[Field, ...] = ()
    answered: int = 0
    error: str = ""

    @property
    def is_nothing(self) -> bool:
        return not (
            self.removed or self.added or self.cookies or self.target or self.key
            or self.answered or self.error
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Upstream:
    """The origin that was chosen, by what, and what it was asked, or would be if it had to be."""

    origin: str
    place: str
    chosen_by: str
    method: str
    url: str
    headers: tuple[Field, ...] = ()
    was_asked: bool = True


@dataclass(frozen=True, slots=True)
class KeyPart:
    """A line of the cache key, and where it is from."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Caching:
    """What the cache has to do with it. Without `key` it has no part in it; `words` say why.

    `storable` to `fresh_for_s` are about the origin's answer (`caching.judgement`), if there was
    one; `verdict` and `status` are what happened.
    """

    code: str
    words: str
    source: str = ""
    storable: bool = False
    fresh_for_s: float = 0.0
    rule: str = ""
    place: str = ""
    key: tuple[KeyPart, ...] = ()
    verdict: str = ""
    status: str = ""  # our member of Cache-Status (RFC 9211)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets. `varies_by` are the request fields that decided; `*`: more did."""

    status: int
    headers: tuple[Field, ...]
    varies_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole decision.

    `routes` are those that were tried, in order; the last one matched, if `route` is not None.
    `elsewhere` is how many more were passed over because their hosts or paths are others.
    `answered_by` is what answered instead of an origin. `is_assumed`: no origin was asked, its
    answer was made up.
    """

    id: str
    policy: str
    arrival: Arrival
    facts: tuple[KnownFact, ...]
    routes: tuple[TriedRoute, ...]
    elsewhere: int
    route: str | None
    effects: tuple[Effect, ...]
    answered_by: str
    upstream: Upstream | None
    caching: Caching
    answer: Answer
    is_assumed: bool
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Data that JSON has; facts of other kinds become text."""
        data: dict[str, Any] = to_jsonable_python(self, fallback=str)
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Explanation:
        """ValueError if `data` is not an explanation."""
        return _ADAPTER.validate_python(data)


_ADAPTER = TypeAdapter(Explanation)
