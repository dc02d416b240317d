"""The values that stand in tests of policies, checked with what the policy under test knows.

A test that names a route, an origin, a rule or a fact that is not there is a fault, and no failing
test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from edgeproxy.addresses import parse_address
from edgeproxy.caching.judgement import REASONS
from edgeproxy.decision import fact_called, fact_value, known_facts
from edgeproxy.errors import ClientError
from edgeproxy.explain.arriving import moment
from edgeproxy.http import TOKEN, Headers, normalise_path
from edgeproxy.plan import Plan
from edgeproxy.policy.faults import nearest
from edgeproxy.policy.source import shown
from edgeproxy.values import FieldName, Name, OneOrMany, editor_hint


def context(plan: Plan) -> dict[str, Any]:
    """What the values below look names up in."""
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


IpAddress = Annotated[
    str,
    BeforeValidator(_address),
    editor_hint("^[0-9A-Fa-f.:]+$", "an IP address such as 203.0.113.9"),
]

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
Site = Annotated[str, AfterValidator(_bare_site)]
"""A scheme and a host."""


def _request_line(value: str, info: ValidationInfo) -> str:
    method, blank, url = value.partition(" ")
    if not blank or not re.fullmatch(r"[A-Z]+(-[A-Z]+)*", method):
        raise ValueError(
            f"{value!r} is not a method and a path; write for example POST /api/people"
        )
    _url(url.strip(" "), info)
    return value


RequestLine = Annotated[str, AfterValidator(_request_line)]
"""A method and a URL."""


def each_once(fields: Any) -> Any:
    """`fields`, if no header field of them is named twice. For BeforeValidator."""
    names = [str(name).lower() for name in fields] if isinstance(fields, dict) else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"header fields are named without case: {twice!r} is here twice")
    return fields


def _time(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no time; write for example 2026-12-24T18:00")
    return moment(value)


Moment = Annotated[
    float,
    BeforeValidator(_time),
    editor_hint("^[0-9]{4}-?[0-9]{2}-?[0-9]{2}", "a time such as 2026-12-24T18:00"),
]
"""A time, as seconds since 1970."""


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
    dict[FieldName, OneOrMany[str]], BeforeValidator(each_once), AfterValidator(_sendable)
]
RequestFields = Annotated[HeaderFields, AfterValidator(_not_the_host)]


def _cookies(values: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in values.items():
        if ";" in value or not TOKEN.fullmatch(name):
            raise ValueError(f"the cookie {name!r} cannot be sent (RFC 6265, section 4.1.1)")
        Headers.of(("cookie", value))
    return values


Cookies = Annotated[dict[str, str], AfterValidator(_cookies)]


# ------------------------------------------------------------------- others


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


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a name is one line of text, without control characters")
    return value


OneLine = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
