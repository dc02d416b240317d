"""The language of `*_test.yaml`: what may stand in a test, with types and defaults.

The models are checked with what the policy under test knows (`context`), so that a test which
names a route, an origin, a rule or a fact that is not there is a fault and no failing test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import re2
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from edgeproxy.addresses import parse_address
from edgeproxy.caching.judgement import REASONS
from edgeproxy.decision import fact_called, fact_value, known_facts
from edgeproxy.errors import ClientError
from edgeproxy.explain.arriving import moment
from edgeproxy.http import TOKEN, Headers, normalise_path
from edgeproxy.plan import Plan
from edgeproxy.plugin import Config
from edgeproxy.policy.faults import nearest
from edgeproxy.policy.patterns import Regex
from edgeproxy.policy.source import shown
from edgeproxy.values import Duration, FieldName, Name, OneOrMany, OriginName, editor_hint

MAX_VISITORS = 10_000

HTML = ("content-type", "text/html; charset=utf-8")  # what an origin answers with unless told


def context(plan: Plan) -> dict[str, Any]:
    """What the models below look names up in."""
    return {
        "plan": plan,
        "origins": frozenset(plan.origins),
        "routes": tuple(route.core.name for route in plan.policy.routes),
        "rules": tuple(plan.policy.cache.rules),
        "reasons": REASONS,
    }


def _known(kind: str, code: str) -> AfterValidator:
    def check(value: str, info: ValidationInfo) -> str:
        assert isinstance(info.context, dict)
        names = info.context[f"{kind}s"]
        if value not in names:
            reason = f"no {kind} is called {value!r}{nearest(value, f'{kind}s', names)}"
            raise PydanticCustomError(code, "{reason}", {"reason": reason})
        return value

    return AfterValidator(check)


RouteName = Annotated[Name, _known("route", "unknown_route")]
RuleName = Annotated[Name, _known("rule", "unknown_rule")]
Reason = Annotated[
    str, _known("reason", "unknown_reason"), WithJsonSchema({"enum": sorted(REASONS)})
]


# ------------------------------------------------------------------- facts


def _plan(info: ValidationInfo) -> Plan:
    assert isinstance(info.context, dict)
    plan: Plan = info.context["plan"]
    return plan


def _fact_name(word: str, info: ValidationInfo) -> str:
    try:
        return fact_called(_plan(info), word).name
    except ValueError as error:
        reason = str(error)
        raise PydanticCustomError("unknown_fact", "{reason}", {"reason": reason}) from None


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _taken(told: Mapping[str, str | int | bool], info: ValidationInfo) -> dict[str, Any]:
    return known_facts(_plan(info), {name: _text(told[name]) for name in told})


def _values(told: Mapping[str, str | int | bool], info: ValidationInfo) -> dict[str, Any]:
    plan = _plan(info)
    return {name: fact_value(fact_called(plan, name), _text(told[name])) for name in told}


FactName = Annotated[str, AfterValidator(_fact_name)]
"""The whole name of a fact, which may be written by its last part."""

_Told = dict[FactName, str | int | bool]
TakenFacts = Annotated[_Told, AfterValidator(_taken)]
"""Facts taken as given, and all they imply."""
FactValues = Annotated[_Told, AfterValidator(_values)]


# ------------------------------------------------------------------- requests


def _address(value: Any) -> Any:
    if not isinstance(value, str) or parse_address(value) is None:
        raise ValueError(f"{shown(value)} is not an IP address; write for example 203.0.113.9")
    return value


_ADDRESS = editor_hint("^[0-9A-Fa-f.:]+$", "an IP address such as 203.0.113.9")
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)


def _url(value: str, info: ValidationInfo) -> str:
    """`value`, if it gets as far as a policy."""
    if not _PRINTABLE.fullmatch(value):
        raise ValueError("a URL is ASCII without blanks; escape what is not (ü is %C3%BC)")
    if "#" in value:
        raise ValueError("what follows a # is never sent; leave it out")
    path = value if value.startswith("/") and not value.startswith("//") else _path(value)
    try:
        normalise_path(path.partition("?")[0], encoded_slashes=_plan(info).encoded_slashes)
    except ClientError as error:
        raise ValueError(f"no policy is asked about such a request: {error.reason}") from None
    return value


def _path(url: str) -> str:
    return urlsplit(_site(url)).path or "/"


def _site(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ValueError(f"{value!r} is neither a path nor a URL such as https://www.example.org/a")
    parts.port  # noqa: B018 - raises for a bad one
    return value


def _bare_site(value: str) -> str:
    if urlsplit(_site(value)).path not in ("", "/") or "?" in value:
        raise ValueError("a site is a scheme and a host, such as https://www.example.org")
    return value.rstrip("/")


Url = Annotated[str, AfterValidator(_url)]
"""A path with its query, or a whole URL."""


def _request_line(value: str, info: ValidationInfo) -> str:
    method, blank, url = value.partition(" ")
    if not blank or not re.fullmatch(r"[A-Z]+(-[A-Z]+)*", method):
        raise ValueError(
            f"{value!r} is not a method and a path; write for example POST /api/people"
        )
    _url(url.strip(" "), info)
    return value


def _each_once(fields: Any) -> Any:
    names = [str(name).lower() for name in fields] if isinstance(fields, dict) else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"header fields are named without case: {twice!r} is here twice")
    return fields


_TIME = editor_hint("^[0-9]{4}-?[0-9]{2}-?[0-9]{2}", "a time such as 2026-12-24T18:00")


def _time(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no time; write for example 2026-12-24T18:00")
    return moment(value)


def fields_of(values: Mapping[str, tuple[str, ...]]) -> Headers:
    """Header fields as a test writes them. ValueError for what cannot be sent."""
    return Headers.of(*((name, value) for name in values for value in values[name]))


def _sendable(fields: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    fields_of(fields)
    return fields


def _not_the_host(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if "host" in fields:
        raise ValueError("the host is a part of the URL; write get: https://www.example.org/")
    return fields


HeaderFields = Annotated[
    dict[FieldName, OneOrMany[str]], BeforeValidator(_each_once), AfterValidator(_sendable)
]


def _cookies(values: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in values.items():
        if ";" in value or not TOKEN.fullmatch(name):
            raise ValueError(f"the cookie {name!r} cannot be sent (RFC 6265, section 4.1.1)")
        Headers.of(("cookie", value))
    return values


class Visit(Config):
    """A request: what is asked for, and what is known of who asks."""

    get: Url | None = None
    """A path with its query, or a whole URL; a list of them is a test for each."""
    request: Annotated[str, AfterValidator(_request_line)] | None = None
    """The same with a method: `POST /api/people`."""
    headers: Annotated[HeaderFields, AfterValidator(_not_the_host)] = {}
    """Header fields that the client sends."""
    cookies: Annotated[dict[str, str], AfterValidator(_cookies)] = {}
    """Cookies that it sends."""
    body: str = ""
    """Text that it sends."""
    sender: Annotated[str | None, BeforeValidator(_address), _ADDRESS] = Field(
        None, alias="from", validate_default=False
    )
    """The address that it comes from; one of `trusted_proxies` may forward another."""
    at: Annotated[float | None, BeforeValidator(_time), _TIME] = Field(None, validate_default=False)
    """When it comes: `2026-12-24T18:00`, UTC unless it says otherwise; else now."""
    facts: TakenFacts = Field(default={}, alias="as", validate_default=False)
    """Facts taken as given, and all they imply: `{country: DE, device: mobile}`."""

    @property
    def method(self) -> str:
        return self.request.partition(" ")[0] if self.request else "GET"

    @property
    def url(self) -> str:
        return self.request.partition(" ")[2].strip(" ") if self.request else self.get or ""


class Answer(Config):
    """What an origin is taken to answer."""

    status: int = Field(200, ge=200, le=599)
    """Of the answer."""
    headers: HeaderFields = {}
    """Its header fields; `text/html` unless they say something else."""
    body: str = ""
    """Its content."""

    def fields(self) -> Headers:
        """`text/html` unless the test says otherwise."""
        fields = fields_of(self.headers)
        if "content-type" not in fields:
            fields.add(*HTML)
        return fields


# ------------------------------------------------------------------- expectations


class Condition(Config):
    """What a text has to be. A plain text is `exact`; `true` and `false` are `present`."""

    plain_keys = ("exact", "present")

    exact: str | None = None
    """It is this."""
    prefix: str | None = None
    """It begins with this."""
    suffix: str | None = None
    """It ends with this."""
    contains: str | None = None
    """It has this in it."""
    regex: Regex | None = None
    """It matches this RE2 pattern, as a whole."""
    present: bool | None = None
    """There is one, or there is none."""

    @model_validator(mode="before")
    @classmethod
    def _from_flag(cls, value: Any) -> Any:
        return {"present": value} if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError(f"write exactly one of {', '.join(type(self).model_fields)}")
        return self

    def holds(self, text: str | None) -> bool:
        """Whether `text`, None if it is not there, is what it has to be."""
        if self.present is not None or text is None:
            return (text is not None) is self.present
        if self.regex is not None:
            return re2.fullmatch(self.regex, text) is not None
        if self.contains is not None:
            return self.contains in text
        if self.exact is not None:
            return text == self.exact
        return text.startswith(self.prefix or "") and text.endswith(self.suffix or "")

    def __str__(self) -> str:
        if self.present is not None:
            return "anything" if self.present else "none"
        words = {"prefix": "what begins with ", "suffix": "what ends with ", "exact": ""}
        words |= {"contains": "what contains ", "regex": "a match of "}
        ((key, value),) = self.model_dump(exclude_none=True).items()
        return f"{words[key]}{value!r}"


FieldConditions = Annotated[dict[FieldName, Condition], BeforeValidator(_each_once)]


class CacheExpectation(Config):
    """What the cache makes of the answer. A name is the `rule`; `false`: it is not `storable`."""

    plain_keys = ("rule",)

    rule: Literal[False] | RuleName | None = None
    """The cache rule of the route; `false`: none, as the origin says."""
    storable: bool | None = None
    """Whether the answer may be stored."""
    ttl: Duration | None = None
    """How long it is fresh."""
    reason: Reason | None = None
    """Why it is not stored, such as `set-cookie`."""

    @model_validator(mode="before")
    @classmethod
    def _from_flag(cls, value: Any) -> Any:
        return {"storable": False} if value is False else value


Share = Annotated[float, Field(ge=0, le=100)]


def _what_visitors_have(word: str, info: ValidationInfo) -> str:
    return word if word in ("route", "origin") else _fact_name(word, info)


def _of_all(shares: Mapping[str, float]) -> Mapping[str, float]:
    if sum(shares.values()) > 100 + 1e-9:
        raise ValueError(f"the shares add to {sum(shares.values()):g} %; no more than 100 % can be")
    return shares


Shares = dict[
    Annotated[str, AfterValidator(_what_visitors_have)],
    Annotated[dict[str, Share], AfterValidator(_of_all)],
]


class Expectations(Config):
    """What has to come of a request. What is not named may be anything."""

    route: Literal[False] | RouteName | None = None
    """The name of the route; `false`: none matches."""
    origin: Literal[False] | OriginName | None = None
    """The origin that is asked; `false`: edgeproxy answers by itself."""
    target: Condition | None = None
    """Path and query that the origin is asked for, without its base path."""
    request_headers: FieldConditions = {}
    """Header fields as the origin gets them."""
    status: int | None = Field(None, ge=200, le=599)
    """The status that the client gets."""
    redirect: Condition | None = None
    """Where it is sent."""
    response_headers: FieldConditions = {}
    """Header fields as the client gets them."""
    body: Condition | None = None
    """The text that it gets."""
    cache: CacheExpectation | None = None
    """What the cache makes of the answer."""
    facts: FactValues = Field(default={}, validate_default=False)
    """What is known of the visitor, such as the variant: `{hero: bold}`."""
    shares: Shares = {}
    """How `visitors` are spread, in percent, over the values of a fact, or `route` or `origin`."""
    within: Share | None = None
    """How many percentage points a share may be off; else what is chance."""


# ------------------------------------------------------------------- tests


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a name is one line of text, without control characters")
    return value


class PolicyTest(Visit):
    """One entry of `tests`, of which `each` makes several."""

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
    """What the test is about, in a sentence."""
    visitors: int | None = Field(None, ge=2, le=MAX_VISITORS)
    """Make the request from so many addresses; every one has to get what is expected."""
    origin: Answer | Literal["fails"] = Answer(status=200)
    """What the origin is taken to answer, or `fails`."""
    expect: Expectations | None = None
    """What has to come of it."""
    same_object_for: Annotated[tuple[Any, ...], Field(min_length=2)] | None = None
    """Requests that all share one stored answer."""
    never_same_object_for: Annotated[tuple[Any, ...], Field(min_length=2)] | None = None
    """Requests of which no two share a stored answer."""
    columns: tuple[str, ...] | None = None
    """What the cells of `each` are, such as `get`, `as.country` or `expect.redirect`."""
    each: tuple[Any, ...] | None = None
    """Rows: a case for each."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.same_object_for and self.never_same_object_for:
            raise ValueError("write same_object_for or never_same_object_for, not both")
        if self.expect is None and not (self.same_object_for or self.never_same_object_for):
            raise ValueError("nothing is expected; write expect")
        if self.visitors and self.sender:
            raise ValueError("visitors have addresses of their own; leave out from")
        if self.expect is not None and self.expect.shares and not self.visitors:
            raise ValueError("shares are of visitors; write for example visitors: 1000")
        return self


def one_request(visit: Visit) -> None:
    """ValueError unless `visit` says what is asked for."""
    if (visit.get is None) == (visit.request is None):
        raise ValueError("write one of get and request")


class PolicyTests(Config):
    """A file of tests."""

    version: Literal[1]
    """Of this language."""
    site: Annotated[str, AfterValidator(_bare_site)] = "https://www.example.org"
    """What paths are below."""
    tests: Annotated[tuple[Any, ...], Field(min_length=1)]
    """What visitors ask, and what they get."""


def visitor_address(number: int) -> str:
    """The address of one of many visitors: from a network that no country has (RFC 2544)."""
    return f"198.18.{number >> 8}.{number & 255}"
