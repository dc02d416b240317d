"""Where the names of origins lead, and may lead: see `allow_private` of an origin.

A name that somebody else's DNS resolves must not lead into the network of this machine. Addresses
are judged whenever a name is resolved, and those that passed are the ones that are connected to, so
that no second answer of the DNS can slip in between.
"""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver

from edgeproxy.http import Address

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address is inside (RFC 6052)
_RELAYS = ipaddress.ip_network("192.88.99.0/24")  # deprecated (RFC 7526)


class ProhibitedAddress(OSError):
    """A name leads nowhere but to addresses that the policy has not allowed."""


class Resolver(ThreadedResolver):
    """Resolves as the system does, and leaves out private addresses unless `allow_private`."""

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__()
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if self._allow_private or _is_local(host):
            return found
        public = [one for one in found if is_public(ipaddress.ip_address(one["host"]))]
        if found and not public:
            raise ProhibitedAddress(
                f"{host} leads to a private address, {found[0]['host']}; "
                "if it should, say `allow_private: true` of the origin"
            )
        return public


def is_public(address: Address) -> bool:
    """Whether `address` is of the Internet, and neither of a network inside nor of a group."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if int(address) < 1 << 32:  # IPv4-compatible (RFC 4291, section 2.5.5.1), long deprecated
            return False
    return address.is_global and not address.is_multicast and address not in _RELAYS


def _is_local(host: str) -> bool:
    """Whether `host` is this machine by its very name (RFC 6761, section 6.3)."""
    return host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")
