"""How networks, URLs, hosts, paths and regular expressions are written in a policy."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

import re2
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from edgeproxy.values import editor_hint


def _network(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("a network is text such as 10.0.0.0/8")
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        wider = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is not a network; write for example 10.0.0.0/8") from None
    raise ValueError(f"{value!r} has bits set after its prefix; write {wider}")


Network = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    Field(union_mode="left_to_right"),
    BeforeValidator(_network),
    editor_hint(r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", "a network such as 10.0.0.0/8"),
]


_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)


def _http_url(value: str) -> str:
    if not _PRINTABLE.fullmatch(value):
        raise ValueError("an origin URL is ASCII without blanks; escape what is not")
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises for a bad one
    except ValueError as error:
        raise ValueError(f"{value!r} is not an origin URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{value!r} is not an origin URL; write for example https://you.github.io/site/"
        )
    if parts.username or parts.query or parts.fragment:
        raise ValueError("an origin URL has a scheme, a host and a path, nothing else")
    return value


OriginUrl = Annotated[str, AfterValidator(_http_url), editor_hint(r"^https?://[^/?#@]+(/[^?#]*)?$")]


def _path_text(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"a path begins with a slash; write {'/' + value!r}")
    return value


PathText = Annotated[
    str, AfterValidator(_path_text), editor_hint("^/", "a path begins with a slash")
]


_RE2_OPTIONS = re2.Options()
_RE2_OPTIONS.log_errors = False


def _regex(value: str) -> str:
    try:
        re2.compile(value, _RE2_OPTIONS)
    except re2.error as error:
        problem = error.args[0].decode("utf-8", "replace") if error.args else "unknown"
        problem = problem if len(problem) <= 100 else f"{problem[:97]}..."
        raise _bad_pattern(f"RE2 does not take this pattern: {problem}") from None
    return value


Regex = Annotated[str, AfterValidator(_regex)]
"""A regular expression in the syntax of RE2."""


_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_LABELS = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)


def _host(value: str) -> str:
    """A host in lower case, perhaps `*.` and a host."""
    host = value.lower()
    name = host.removeprefix("*.")
    if "*" in name:
        raise _bad_pattern(f"{value!r}: a star stands only at the front, as in *.example.org")
    if not name.isascii():
        raise _bad_pattern(f"{value!r}: write the host as DNS has it (xn--...)")
    if ":" in name and _is_ipv6(name):
        return host
    if not _LABELS.fullmatch(name) or len(name) > 253:
        raise _bad_pattern(f"{value!r} is not a host; write for example www.example.org, no port")
    return host


def _is_ipv6(name: str) -> bool:
    try:
        ipaddress.IPv6Address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return name.startswith("[") and name.endswith("]")


def _bad_pattern(reason: str) -> PydanticCustomError:
    return PydanticCustomError("bad_pattern", "{reason}", {"reason": reason})


Host = Annotated[
    str,
    AfterValidator(_host),
    editor_hint(
        r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$|^\[[0-9A-Fa-f:.]+\]$",
        "a host such as www.example.org, without a port",
    ),
]
"""A host without its port; `*.example.org` covers every name below."""
