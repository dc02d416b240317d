"""Field sections of HTTP/3 as bytes (QPACK, RFC 9204) with no table but the static one.

So nothing has to be kept between requests, none waits for another, and what a section will take is
known before it is decompressed. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import pylsqpack

from edgeproxy.engine.fields import Fields

FIELD_OVERHEAD = 32  # of each field, beside name and value (RFC 9114, section 4.2.2)

_STATIC_ENTRIES = 99  # RFC 9204, appendix A


class TooLarge(Exception):
    """A section that would take more than it may."""


class NotASection(Exception):
    """Bytes that are none, or that need the other table (RFC 9204, section 2.2)."""


def decoded(data: bytes, max_bytes: int) -> Fields:
    """The fields in `data`, which take `max_bytes` at most. Raises TooLarge or NotASection."""
    size = expanded_size(data, max_bytes)
    if size > max_bytes:
        raise TooLarge
    if not size:
        return []  # which the library does not take
    try:
        fields: Fields = _DECODER.feed_header(0, data)[1]
    except (pylsqpack.DecompressionFailed, pylsqpack.StreamBlocked):
        raise NotASection from None
    return fields


def expanded_size(data: bytes, enough: int) -> int:
    """What the fields in `data` take at most once they are decompressed; or more than `enough`.

    Looks at lengths alone, so it costs next to nothing (RFC 9204, section 4.5).
    """
    try:
        required, at = _integer(data, 0, 8)
        if required:
            raise NotASection
        _, at = _integer(data, at, 7)
        size = 0
        while at < len(data) and size <= enough:
            size += FIELD_OVERHEAD
            first = data[at]
            if first & 0xC0 == 0xC0:  # a field of the static table
                index, at = _integer(data, at, 6)
                size += _SIZES[index]
            elif first & 0xD0 == 0x50:  # a name of the static table
                index, at = _integer(data, at, 4)
                size += len(_STATIC[index][0])
                taken, at = _text(data, at, 7)
                size += taken
            elif first & 0xE0 == 0x20:
                taken, at = _text(data, at, 3)
                size += taken
                taken, at = _text(data, at, 7)
                size += taken
            else:
                raise NotASection
    except IndexError:
        raise NotASection from None
    return size


def _text(data: bytes, at: int, prefix: int) -> tuple[int, int]:
    """How long the text at `at` is at most, and where it ends; the shortest code has five bits."""
    is_huffman = data[at] >> prefix & 1
    length, at = _integer(data, at, prefix)
    return (length * 8 // 5 if is_huffman else length), at + length


def _integer(data: bytes, at: int, prefix: int) -> tuple[int, int]:
    """The number at `at`, of which the first byte has `prefix` bits, and where it ends (RFC 7541,
    section 5.1)."""
    mask = (1 << prefix) - 1
    value = data[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while shift < 28:
        byte = data[at]
        value += (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise NotASection


def encoded(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A section of `fields`. Not by the library, whose buffer is too small for some answers."""
    return b"\0\0" + b"".join([_field(name, value) for name, value in fields])


def _field(name: bytes, value: bytes) -> bytes:
    index = _INDEX.get((name, value))
    if index is not None:
        return _number(index, 6, 0xC0)
    return _name(name) + _number(len(value), 7, 0) + value


@lru_cache(maxsize=1024)
def _name(name: bytes) -> bytes:
    index = _NAMES.get(name)
    return _number(len(name), 3, 0x20) + name if index is None else _number(index, 4, 0x50)


def _number(value: int, prefix: int, flags: int) -> bytes:
    mask = (1 << prefix) - 1
    if value < mask:
        return bytes((flags | value,))
    value -= mask
    octets = bytearray((flags | mask,))
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


_DECODER = pylsqpack.Decoder(0, 0)
_STATIC: Fields = [
    _DECODER.feed_header(0, b"\0\0" + _number(index, 6, 0xC0))[1][0]
    for index in range(_STATIC_ENTRIES)
]
_SIZES = [len(name) + len(value) for name, value in _STATIC]
_INDEX = {pair: index for index, pair in reversed(list(enumerate(_STATIC)))}
_NAMES = {pair[0]: index for index, pair in reversed(list(enumerate(_STATIC)))}
