"""Frames of HTTP/3: what is let through, what is held, and what a client has to pay for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.allowance import ALLOWANCE, Allowance, ConnectionFault
from edgeproxy.engine.http3_frames import (
    Code,
    ControlFrames,
    Kind,
    RequestFrames,
    check_settings,
    frame,
    number,
    pull_number,
    settings,
)

HEAD_SIZE = 1000
HEAD, DATA = frame(Kind.HEADERS, b"abc"), frame(Kind.DATA, b"x" * 100)


def new_reader() -> RequestFrames:
    return RequestFrames(HEAD_SIZE, Allowance(Code.EXCESSIVE_LOAD, 0.0))


def read(data: bytes, reader: RequestFrames | ControlFrames | None = None) -> list[object]:
    return list((reader or new_reader()).feed(data, 0.0))


def outcome(pieces: list[bytes]) -> tuple[list[object], int | None]:
    """Frames, the bodies joined, and the code of a fault."""
    reader, found = new_reader(), list[object]()
    body = b""
    try:
        for piece in pieces:
            for kind, payload in reader.feed(piece, 0.0):
                if kind == Kind.DATA:
                    body += payload
                else:
                    found.append(payload)
    except ConnectionFault as fault:
        return [*found, body], fault.code
    return [*found, body], None


@given(
    st.lists(
        st.sampled_from(
            [HEAD, DATA, frame(0x21, b"abc"), frame(Kind.DATA, b""), frame(Kind.SETTINGS, b"")]
        ),
        max_size=6,
    ),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_how_it_is_cut_never_changes_the_outcome(frames: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frames)
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert outcome([data[a:b] for a, b in pairwise(at)]) == outcome([data])


@given(st.integers(0, (1 << 62) - 1))
def test_numbers(value: int) -> None:
    data = number(value)
    assert pull_number(data, 0) == (value, len(data))
    assert all(pull_number(data[:end], 0) is None for end in range(len(data)))


def test_a_body_is_not_held_and_a_section_is() -> None:
    reader = new_reader()
    assert read(HEAD[:-1], reader) == []
    assert reader.held == 2
    assert reader.is_within_head
    assert read(HEAD[-1:], reader) == [(Kind.HEADERS, b"abc")]
    assert not reader.is_within_head
    assert read(DATA[:50], reader) == [(Kind.DATA, b"x" * 47)]
    assert reader.held == 0
    assert reader.is_within_frame
    assert read(DATA[50:], reader) == [(Kind.DATA, b"x" * 53)]
    assert not reader.is_within_frame
    assert read(HEAD[:1], reader) == []
    assert reader.is_within_head  # or so it may be


def test_what_means_nothing_is_skipped_and_not_held() -> None:
    reader = new_reader()
    assert read(HEAD + number(0x21) + number(2000) + bytes(1500), reader)
    assert reader.held == 0
    assert read(bytes(500) + DATA, reader) == [(Kind.DATA, b"x" * 100)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (number(Kind.HEADERS) + number(HEAD_SIZE + 1), Code.EXCESSIVE_LOAD),
        (DATA, Code.FRAME_UNEXPECTED),
        (HEAD * 3, Code.FRAME_UNEXPECTED),
        (HEAD * 2 + DATA, Code.FRAME_UNEXPECTED),
        (HEAD + frame(Kind.GOAWAY, b"\0"), Code.FRAME_UNEXPECTED),
        (HEAD + frame(0x2, b""), Code.FRAME_UNEXPECTED),
    ],
)
def test_what_does_not_belong_is_refused(data: bytes, code: int) -> None:
    with pytest.raises(ConnectionFault) as raised:
        read(data)
    assert raised.value.code == code


@pytest.mark.parametrize(
    "one", [frame(Kind.DATA, b""), frame(Kind.DATA, b"x"), frame(0x21, b""), frame(0x21, bytes(9))]
)
def test_frames_that_carry_nothing_are_paid_for(one: bytes) -> None:
    reader = new_reader()
    read(HEAD + one * ALLOWANCE, reader)
    with pytest.raises(ConnectionFault) as raised:
        read(one, reader)
    assert raised.value.code == Code.EXCESSIVE_LOAD


def test_the_control_stream() -> None:
    allowance = Allowance(Code.EXCESSIVE_LOAD, 0.0)
    reader = ControlFrames(allowance)
    assert read(settings(1000), reader) == [(Kind.SETTINGS, settings(1000)[2:])]
    assert read(frame(Kind.MAX_PUSH_ID, b"\0") + frame(0xF0700, b"\0u=1"), reader) == []
    with pytest.raises(ConnectionFault):
        read(frame(Kind.MAX_PUSH_ID, b"\0") * ALLOWANCE, reader)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x06", Code.FRAME_ERROR),
        (b"\x06\x01\x06\x01", Code.SETTINGS_ERROR),
        (b"\x04\x01", Code.SETTINGS_ERROR),
    ],
)
def test_settings_that_are_none(payload: bytes, code: int) -> None:
    with pytest.raises(ConnectionFault) as raised:
        check_settings(payload)
    assert raised.value.code == code
    check_settings(settings(1000)[2:])
