"""The language of `*_test.yaml`: what may stand in a test, with types and defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import re2
from pydantic import BeforeValidator, Field, model_validator

from edgeproxy.http import Headers
from edgeproxy.plugin import Config
from edgeproxy.policy.patterns import Regex
from edgeproxy.policytest.values import (
    Cookies,
    FactValues,
    HeaderFields,
    IpAddress,
    Moment,
    OneLine,
    Reason,
    RequestFields,
    RequestLine,
    RouteName,
    RuleName,
    Share,
    Shares,
    Site,
    TakenFacts,
    Url,
    each_once,
    fields_of,
)
from edgeproxy.values import Duration, FieldName, OriginName

MAX_VISITORS = 10_000

HTML = ("content-type", "text/html; charset=utf-8")  # what an origin answers with unless told


class Visit(Config):
    """A request: what is asked for, and what is known of who asks."""

    get: Url | None = None
    """A path with its query, or a whole URL; a list of them is a test for each."""
    request: RequestLine | None = None
    """The same with a method: `POST /api/people`."""
    headers: RequestFields = {}
    """Header fields that the client sends."""
    cookies: Cookies = {}
    """Cookies that it sends."""
    body: str = ""
    """Text that it sends."""
    sender: IpAddress | None = Field(None, alias="from", validate_default=False)
    """The address that it comes from; one of `trusted_proxies` may forward another."""
    at: Moment | None = Field(None, validate_default=False)
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


FieldConditions = Annotated[dict[FieldName, Condition], BeforeValidator(each_once)]


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

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.within is not None and not self.shares:
            raise ValueError("within is about shares; write shares, or leave it out")
        return self


# ------------------------------------------------------------------- tests


class PolicyTest(Visit):
    """One entry of `tests`, of which `each` makes several."""

    name: OneLine
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
        compares = self.same_object_for or self.never_same_object_for
        if not compares and not (self.expect and self.expect.model_fields_set):
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
    site: Site = "https://www.example.org"
    """What paths are below."""
    tests: Annotated[tuple[Any, ...], Field(min_length=1)]
    """What visitors ask, and what they get."""
