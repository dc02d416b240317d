"""One recorded request, and what its record says of what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from edgeproxy.http import TOKEN, Address, Headers, Origin, Request, normalise_path

UNKNOWN_CLIENT: Address = IPv4Address("127.0.0.1")

_METHOD = re.compile(r"[A-Z]{1,20}")
_AUTHORITY = re.compile(r"[A-Za-z0-9._\-:\[\]]{0,255}")
_QUERY = re.compile(r"[!-~]*")
_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an origin answered. `asked` is its name, what it was asked, and which codings.

    `error`, a word of RFC 9209, stands for no usable answer.
    """

    asked: str
    status: int
    headers: Headers
    error: str = ""


@dataclass(frozen=True, slots=True)
class Recalled:
    """What edgeproxy decided when this was recorded. None: the record does not say.

    Spelled as `edgeproxy.differences` spells a decision; `verdict` is that of the access log.
    """

    route: str | None = None
    variant: str | None = None
    cache_key: str | None = None
    verdict: str | None = None
    policy: str = ""
    by_itself: bool = False  # it answered, and no origin had a part in it


@dataclass(frozen=True, slots=True)
class Visit:
    """A request in canonical form, and the answer: `status`, and `answer` if its fields are known.

    `bytes` is what was sent of the body.
    """

    method: str
    scheme: str
    authority: str
    path: str
    query: str | None
    headers: Headers
    client: Address
    at_s: float
    status: int
    answer: Headers | None = None
    bytes: int = 0
    fetched: Fetched | None = None
    recalled: Recalled = field(default_factory=Recalled)

    @property
    def url(self) -> str:
        """Without the query, which may hold what is personal."""
        return f"{self.scheme}://{self.authority}{self.path}"


def visit(
    method: str,
    authority: str,
    target: str,
    *,
    at_s: float,
    status: int,
    scheme: str = "http",
    headers: Headers | None = None,
    client: Address = UNKNOWN_CLIENT,
    answer: Headers | None = None,
    bytes: int = 0,
    fetched: Fetched | None = None,
    recalled: Recalled | None = None,
) -> Visit:
    """A visit, checked. ValueError or ClientError for what the front would not have let in."""
    if not (_METHOD.fullmatch(method) and _AUTHORITY.fullmatch(authority)):
        raise ValueError("not a method and a host")
    if scheme not in _PORTS or not 100 <= status <= 599 or bytes < 0 or not 0 <= at_s < 1e11:
        raise ValueError("a scheme, a status, a size or a time out of bounds")
    path, mark, query = target.partition("?")
    if not _QUERY.fullmatch(query):
        raise ValueError("a query with what is no part of a URL")
    return Visit(
        method, scheme, authority.lower().removesuffix(_PORTS[scheme]), normalise_path(path),
        query if mark and query else None, headers if headers is not None else Headers(), client,
        at_s, status, answer, bytes, fetched, recalled or Recalled(),
    )  # fmt: skip


def is_field(name: str, value: str) -> bool:
    """Whether a field of a foreign record may stand among headers."""
    return TOKEN.fullmatch(name) is not None and value.isprintable() and value.isascii()


def asked_of(origin: Origin, request: Request) -> str:
    """What an origin was asked, and in which codings: the same question has the same answer."""
    codings = request.headers.joined("accept-encoding") or ""
    return f"{codings}\n{origin.name} {request.scheme}://{request.authority}{request.target}"
