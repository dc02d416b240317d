"""Field sections of HTTP/3: what is read, and that nothing grows before it is known how much."""

from __future__ import annotations

import pylsqpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.qpack import (
    FIELD_OVERHEAD,
    NotASection,
    TooLarge,
    decoded,
    encoded,
    expanded_size,
)

ENOUGH = 1 << 20
NAMES = st.sampled_from([b":status", b":path", b"content-type", b"x-own", b"server", b"x" * 300])
FIELDS = st.lists(
    st.tuples(NAMES, st.binary(max_size=300) | st.sampled_from([b"200", b"/", b"text/css"])),
    max_size=20,
)


def size_of(fields: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields)


@given(FIELDS)
def test_what_is_written_is_read_again(fields: list[tuple[bytes, bytes]]) -> None:
    section = encoded(fields)
    assert decoded(section, ENOUGH) == fields
    assert expanded_size(section, ENOUGH) == size_of(fields)


@given(FIELDS.filter(lambda fields: 0 < size_of(fields) < 4000))
def test_no_section_of_another_encoder_is_larger_than_it_was_said_to_be(
    fields: list[tuple[bytes, bytes]],
) -> None:
    _, section = pylsqpack.Encoder().encode(0, fields)
    assert decoded(section, ENOUGH) == fields
    assert size_of(fields) <= expanded_size(section, ENOUGH) <= 2 * size_of(fields)


@given(st.binary(max_size=60))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        fields = decoded(data, ENOUGH)
    except (NotASection, TooLarge):
        return
    assert size_of(fields) <= expanded_size(data, ENOUGH)


def test_a_large_value_is_written_and_read() -> None:
    fields = [(b"content-security-policy", b"x" * 60_000)]
    assert decoded(encoded(fields), ENOUGH) == fields


@pytest.mark.parametrize(
    "section",
    [
        b"\0\0" + b"\xfb" * 30_000,  # a field of 69 bytes, named by one
        b"\0\0" + b"\x23abc" + b"\x7f" + b"\x80\x80\x01",  # a value of 16 KB that is not there
    ],
)
def test_what_would_be_too_large_is_not_decompressed(section: bytes) -> None:
    with pytest.raises(TooLarge):
        decoded(section, 10_000)


@pytest.mark.parametrize(
    "section",
    [
        b"",
        b"\0",
        b"\x02\0\x80",  # of the other table
        b"\0\0\x80",
        b"\0\0\x10",
        b"\0\0\xff\x40",  # there are 99 entries
        b"\0\0\x51",  # no value
        b"\0\0\x51\x05abc",  # not all of it
        b"\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_what_is_none_is_refused(section: bytes) -> None:
    with pytest.raises(NotASection):
        decoded(section, ENOUGH)


def test_a_section_may_be_empty() -> None:
    assert decoded(b"\0\0", 0) == []
