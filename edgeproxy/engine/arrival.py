"""From a request as it was read to an exchange, and from its response to what is written."""

from __future__ import annotations

import functools
import ipaddress

from edgeproxy.addresses import Network, client_address, is_within, unmapped
from edgeproxy.explain import live as explain
from edgeproxy.http import (
    Address,
    Body,
    Exchange,
    Headers,
    Request,
    Response,
    normalise_path,
)
from edgeproxy.plan import Plan


def arrived(
    plan: Plan,
    peer: str,
    scheme: str,
    method: str,
    authority: str,
    target: str,
    headers: Headers,
    body: Body | None = None,
) -> Exchange:
    """The exchange for a request that came from the address `peer`.

    Its path stands as it came until `settle_path` has made it canonical.
    """
    path, _, query = target.partition("?")
    request = Request(
        method=method,
        authority=authority,
        path=path,
        query=query or None,  # an empty one is not sent on, so no key may tell it apart
        headers=headers,
        body=body or Body(),
        scheme=scheme,
    )
    exchange = Exchange(request, peer_address(peer))
    if plan.trusted_proxies:
        believe_proxies(exchange, plan)
    if plan.explain is not None:
        explain.begin(exchange, plan.explain)
    return exchange


def believe_proxies(exchange: Exchange, plan: Plan) -> None:
    """Take the client's address and scheme from what proxies that the policy trusts say."""
    peer, request = exchange.client, exchange.request
    if _is_trusted(peer, plan.trusted_proxies):
        told = tuple(request.headers.pick(_HOPS))
        exchange.client = _behind(peer, told, plan.trusted_proxies)
        scheme = (request.headers.get("x-forwarded-proto") or "").lower()
        request.scheme = scheme if scheme in ("http", "https") else request.scheme


_HOPS = frozenset((b"x-forwarded-for", b"forwarded"))


@functools.lru_cache(maxsize=4096)
def _is_trusted(peer: Address, trusted: tuple[Network, ...]) -> bool:
    return is_within(peer, trusted)


@functools.lru_cache(maxsize=16384)
def _behind(
    peer: Address, told: tuple[tuple[bytes, bytes], ...], trusted: tuple[Network, ...]
) -> Address:
    """The client that a trusted `peer` speaks of in the fields `told`."""
    return client_address(peer, Headers(told), trusted)


def settle_path(exchange: Exchange, plan: Plan) -> None:
    """Give the request its path in canonical form. Raises ClientError if it has none."""
    request = exchange.request
    request.path = normalise_path(request.path, encoded_slashes=plan.encoded_slashes)


@functools.lru_cache(maxsize=4096)
def peer_address(text: str) -> Address:
    """The address of a socket's other end, IPv4 where it is mapped into IPv6."""
    return unmapped(ipaddress.ip_address(text.partition("%")[0]))


def is_bodyless(exchange: Exchange, response: Response) -> bool:
    """Whether no body follows the head (RFC 9112, section 6.3)."""
    return exchange.request.method == "HEAD" or response.status in (204, 304)


def sent_body(exchange: Exchange, response: Response) -> bytes:
    """The content that is sent of a response whose body is at hand; its length is noted in it."""
    if is_bodyless(exchange, response):
        return b""
    data = response.body.data or b""
    response.headers.set("content-length", str(len(data)))
    return data
