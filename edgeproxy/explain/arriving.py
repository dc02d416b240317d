"""A request that nobody has sent, as the front would hand it on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from edgeproxy.addresses import client_address, parse_address
from edgeproxy.decision import known_facts
from edgeproxy.errors import ClientError
from edgeproxy.http import Body, Exchange, Facts, Headers, Request, normalise_path
from edgeproxy.plan import Plan

_PORTS = {"http": 80, "https": 443}


def arriving(
    plan: Plan,
    url: str,
    *,
    method: str = "GET",
    headers: Headers | None = None,
    body: bytes = b"",
    peer: str = "127.0.0.1",
    facts: Mapping[str, str] | None = None,
    at_s: float | None = None,
) -> Exchange:
    """An exchange for `url`. `peer` is who connects; `facts` are taken as given (`known_facts`).

    ValueError for what cannot be sent, or would be refused before any policy is asked.
    """
    fields = headers.copy() if headers is not None else Headers()
    request = _request(url, encoded_slashes=plan.encoded_slashes)
    request.method, request.body = method, Body(body)
    request.headers = Headers.of(("host", request.authority), *fields.items())
    address = parse_address(peer)
    if address is None:
        raise ValueError(f"{peer!r} is not an IP address")
    client = client_address(address, fields, plan.trusted_proxies)
    exchange = Exchange(request, client, Facts(known_facts(plan, facts or {})))
    if at_s is not None:
        exchange.at_s = at_s
    return exchange


def moment(text: str) -> float:
    """A time in ISO 8601 as seconds since 1970; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write for example 2026-12-24T18:00") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _request(url: str, *, encoded_slashes: bool) -> Request:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or parts.username:
        raise ValueError(f"{url!r} is not a URL such as https://example.org/page")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port
    authority = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
    try:
        path = normalise_path(parts.path or "/", encoded_slashes=encoded_slashes)
    except ClientError as error:
        raise ValueError(f"such a request is answered {error}") from None
    return Request("GET", authority, path, parts.query or None, scheme=parts.scheme)
