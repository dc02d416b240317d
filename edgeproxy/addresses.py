"""Addresses: that of a client, by its peer and the proxies we trust, and those to listen on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from edgeproxy.http import Address, Headers

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HOPS = 32  # entries read, from the right; no honest chain of proxies is longer

_PORT = re.compile(r"[0-9]{1,5}|_[A-Za-z0-9._-]+")  # RFC 7239, section 6.3
_PAIR = re.compile(  # one parameter of a Forwarded element: a name, then quoted or plain text
    r"""[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";,=]+))[ \t]*(;|$)"""
)


def client_address(peer: Address, headers: Headers, trusted: Sequence[Network]) -> Address:
    """The address of the client behind `peer`, as far as proxies in `trusted` vouch for it.

    A peer outside `trusted` is the client, whatever it sends. Otherwise X-Forwarded-For and
    Forwarded (RFC 7239) are read from the right, where the nearest proxy wrote: the first address
    that is not trusted is the client. Reading stops at an entry that is no address, and after
    MAX_HOPS; then the client is the last address that was good.

    With both fields present an entry counts only where the two agree. One proxy may keep up one
    field and hand on the other as the client sent it, and nothing tells which: preferring either
    would let clients choose their address somewhere.
    """
    client = unmapped(peer)
    if not is_within(client, trusted):
        return client
    for hop in _hops(headers):
        if hop is None:
            break
        client = hop
        if not is_within(client, trusted):
            break
    return client


def parse_address(text: str) -> Address | None:
    """The address that `text` spells, IPv4-mapped ones as IPv4; None if it is anything else.

    Ports, brackets, zone ids (RFC 4007), spaces and short or octal IPv4 forms are something else.
    """
    if "%" in text or not text.isascii():
        return None
    try:
        return unmapped(ipaddress.ip_address(text))
    except ValueError:
        return None


def unmapped(address: Address) -> Address:
    """The IPv4 address inside `::ffff:0:0/96` (RFC 4291, section 2.5.5.2), else `address`."""
    if address.version == 6 and (inner := address.ipv4_mapped) is not None:
        return inner
    return address


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of `networks` holds `address`."""
    return any(address in network for network in networks)


def _hops(headers: Headers) -> Iterator[Address | None]:
    """The addresses that proxies noted, nearest first; None for what cannot be relied on."""
    listed = headers.joined("x-forwarded-for")
    forwarded = headers.joined("forwarded")
    by_list = (_node(entry) for entry in _entries(listed))
    by_element = (_node(_identifier(entry)) for entry in _entries(forwarded))
    if listed is None:
        yield from by_element
    elif forwarded is None:
        yield from by_list
    else:
        for one, other in zip_longest(by_list, by_element):
            yield one if one == other else None


def _entries(value: str | None) -> Iterator[str]:
    """The last MAX_HOPS members of a list, from the right, without the white space around them.

    Commas inside quoted strings cut as well. Nothing is lost by it: a proxy's identifier holds no
    comma, and half a quoted string is no entry, so that reading stops there.
    """
    if value is not None:
        for entry in reversed(value.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            yield entry.strip(" \t")


def _identifier(element: str) -> str:
    """The value of `for` in an element of Forwarded; empty if it is missing, doubled or damaged."""
    found: list[str] = []
    position, more = 0, True
    while more:
        pair = _PAIR.match(element, position)
        if pair is None:
            return ""
        name, quoted, plain, end = pair.groups()
        if name.lower() == "for":
            found.append(plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        position, more = pair.end(), end == ";"
    return found[0] if len(found) == 1 else ""


def _node(text: str) -> Address | None:
    """The address of `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]` or `[...]:80`.

    None for anything else, such as `unknown` and `_hidden` (RFC 7239, section 6).
    """
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in host or (port and not port.startswith(":")):
            return None
        port = port[1:] if port else "0"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        port = "0"
    return parse_address(host) if _PORT.fullmatch(port) else None


class BadAddress(Exception):
    """The address to listen on cannot be used."""


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT` or `:PORT` in parts. Raises BadAddress."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise BadAddress(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)
