"""The PROXY protocol's header: what is one, what is not, and what is not all there yet."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.proxy_header import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    V1,
    V2,
    BadHeader,
    Header,
    Told,
    read_header,
)
from edgeproxy.http import Address

PORTS = st.integers(0, 65535)
TLVS = st.binary(max_size=300)


@st.composite
def told(draw: st.DrawFn) -> Told:
    addresses = st.ip_addresses(v=draw(st.sampled_from([4, 6])))
    return Told(draw(addresses), draw(PORTS), draw(addresses), draw(PORTS))


def version_1(told: Told) -> bytes:
    kind = f"TCP{told.source.version}"
    ports = f"{told.source_port} {told.destination_port}"
    return f"PROXY {kind} {told.source} {told.destination} {ports}\r\n".encode()


def version_2(told: Told, tlvs: bytes = b"") -> bytes:
    ports = struct.pack("!HH", told.source_port, told.destination_port)
    block = told.source.packed + told.destination.packed + ports + tlvs
    return v2(0x21, 0x11 if told.source.version == 4 else 0x21, block)


def v2(command: int, family: int, block: bytes = b"", size: int | None = None) -> bytes:
    length = len(block) if size is None else size
    return V2 + bytes([command, family]) + length.to_bytes(2) + block


@given(told(), TLVS, st.binary(max_size=50))
def test_what_a_sender_means_is_read(told: Told, tlvs: bytes, rest: bytes) -> None:
    for data in (version_1(told), version_2(told, tlvs)):
        assert read_header(data + rest) == Header(len(data), told)


@given(told(), TLVS)
def test_it_is_awaited_until_it_is_all_there(told: Told, tlvs: bytes) -> None:
    for data in (version_1(told), version_2(told, tlvs)):
        for end in range(len(data)):
            assert read_header(data[:end]) is None


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: V2 + tail),
                 st.binary(max_size=300).map(lambda tail: V1 + tail)))  # fmt: skip
def test_whatever_comes_it_is_a_header_or_none(data: bytes) -> None:
    try:
        header = read_header(data)
    except BadHeader:
        return
    assert header is None or 0 < header.size <= len(data)
    assert header is not None or len(data) < MAX_V2_BYTES


@given(told(), st.data())
def test_a_changed_byte_is_noticed_or_means_another_end(told: Told, data: st.DataObject) -> None:
    """No change makes a line that is read as the same ends."""
    line = bytearray(version_1(told))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
    try:
        header = read_header(bytes(line))
    except BadHeader:
        return
    is_spelling = at < line.rindex(b" ") and bytes(line[at : at + 1]).isalpha()  # A and a
    assert header is None or header.told != told or is_spelling


def address(text: str) -> Address:
    return ipaddress.ip_address(text)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"PROXY UNKNOWN\r\nGET", 15),
        (b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n", 41),
        (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", 107),
        (v2(0x20, 0x00), 16),
        (v2(0x20, 0x11, b"\x01" * 12) + b"GET", 28),
        (v2(0x21, 0x00, b"tlv"), 19),
        (v2(0x21, 0x31, bytes(216)), 232),
    ],
    ids=["unknown", "unknown, with ends", "longest", "local", "local, with ends", "unspec", "unix"],
)
def test_a_connection_may_be_the_senders_own(data: bytes, size: int) -> None:
    assert read_header(data) == Header(size)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"proxy TCP4 ",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        b"PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP6 [::1] [::1] 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY " + b"x" * (MAX_V1_BYTES - 6),
        v2(0x11, 0x11, bytes(12)),
        v2(0x22, 0x11, bytes(12)),
        v2(0x21, 0x41, bytes(12)),
        v2(0x21, 0x13, bytes(12)),
        v2(0x21, 0x12, bytes(12)),
        v2(0x21, 0x11, bytes(11)),
        v2(0x21, 0x21, bytes(35)),
        v2(0x21, 0x31, bytes(215)),
        v2(0x21, 0x11, size=MAX_V2_BYTES - 15),
        v2(0x20, 0x00, size=65535),
    ],
)
def test_what_is_none_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(BadHeader):
        read_header(data)
