"""The header of the PROXY protocol, versions 1 and 2: who a connection really comes from.

A balancer sends it before anything else, TLS included. Source: The PROXY protocol, of HAProxy
(doc/proxy-protocol.txt), sections 2.1 and 2.2.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from edgeproxy.http import Address

V1 = b"PROXY "
V2 = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1_BYTES = 107  # the longest line that can be meant, CRLF included
MAX_V2_BYTES = 16 + 4096  # addresses take 216 at most, the rest are TLVs, which are skipped

_WORDS = re.compile(rb"PROXY (TCP4|TCP6) ([!-~]+) ([!-~]+) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,4}")
_ADDRESS_BYTES = (0, 12, 36, 216)  # by family: none, IPv4, IPv6, Unix
_STREAM, _DATAGRAM = 1, 2


class BadHeader(Exception):
    """What came is no header of the PROXY protocol."""


@dataclass(frozen=True, slots=True)
class Told:
    """The two ends of the client's own connection."""

    source: Address
    source_port: int
    destination: Address
    destination_port: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header of `size` bytes. `told` is None where the connection is the sender's own (LOCAL), or
    the sender does not know: then the ends of the connection itself count."""

    size: int
    told: Told | None = None


def read_header(data: bytes) -> Header | None:
    """The header that `data` begins with; None while it may still become one. Raises BadHeader."""
    if data.startswith(V2):
        return _version_2(data)
    if data.startswith(V1):
        return _version_1(data)
    if V1.startswith(data) or V2.startswith(data):
        return None
    raise BadHeader("there is none")


def _version_1(data: bytes) -> Header | None:
    end = data.find(b"\n", 0, MAX_V1_BYTES) + 1
    if not end:
        if len(data) >= MAX_V1_BYTES:
            raise BadHeader("its line does not end")
        return None
    line = data[:end]
    if line.startswith(b"PROXY UNKNOWN") and line[13:14] in (b" ", b"\r") and line[-2:-1] == b"\r":
        return Header(end)
    words = _WORDS.fullmatch(line)
    if words is None:
        raise BadHeader("its line is not as it should be")
    kind, *ends = words.groups()
    version = 4 if kind == b"TCP4" else 6
    source, destination = (_address(text, version) for text in ends[:2])
    source_port, destination_port = (_port(text) for text in ends[2:])
    return Header(end, Told(source, source_port, destination, destination_port))


def _address(text: bytes, version: int) -> Address:
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        raise BadHeader("an address in it is none") from None
    if address.version != version or b"%" in text:
        raise BadHeader("an address in it is of another kind")
    return address


def _port(text: bytes) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > 65535:
        raise BadHeader("a port in it is none")
    return int(text)


def _version_2(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family, transport = data[12], data[13] >> 4, data[13] & 15
    size = 16 + int.from_bytes(data[14:16])
    if command not in (0x20, 0x21):
        raise BadHeader("its version or command is unknown")
    if family >= len(_ADDRESS_BYTES) or transport > _DATAGRAM:
        raise BadHeader("its family or transport is unknown")
    if size > MAX_V2_BYTES:
        raise BadHeader("it is too long")
    if command == 0x20:  # LOCAL: what it says of addresses is to be discarded
        return Header(size) if len(data) >= size else None
    if transport == _DATAGRAM:
        raise BadHeader("it is of a datagram")
    if size < 16 + _ADDRESS_BYTES[family]:
        raise BadHeader("it is too short for its addresses")
    if len(data) < size:
        return None
    if transport != _STREAM or family not in (1, 2):
        return Header(size)
    return Header(size, _told(data[16:], socket.AF_INET if family == 1 else socket.AF_INET6))


def _told(data: bytes, family: socket.AddressFamily) -> Told:
    width = 4 if family == socket.AF_INET else 16
    source, destination = (
        ipaddress.ip_address(socket.inet_ntop(family, data[at : at + width])) for at in (0, width)
    )
    ports = (int.from_bytes(data[2 * width + at :][:2]) for at in (0, 2))
    return Told(source, next(ports), destination, next(ports))
