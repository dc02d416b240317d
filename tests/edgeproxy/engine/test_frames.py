"""Frames of HTTP/2: what is let through, and what a client has to pay for."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.allowance import ALLOWANCE, RESET_COST, Allowance, ConnectionFault
from edgeproxy.engine.frames import (
    MAX_CONTINUATIONS,
    MAX_FRAME_BYTES,
    PREFACE,
    Code,
    FrameReader,
    Kind,
)

HEAD_SIZE = 32 * 1024
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
    return head + payload


HELLO = PREFACE + frame(Kind.SETTINGS)
PING = frame(Kind.PING, b"12345678")


def new_reader() -> FrameReader:
    return FrameReader(HEAD_SIZE, Allowance(Code.ENHANCE_YOUR_CALM, 0.0))


def read(data: bytes, *, reader: FrameReader | None = None) -> list[tuple[int, bytes]]:
    return list((reader or new_reader()).feed(data, 0.0))


def fault(data: bytes) -> tuple[int, str]:
    with pytest.raises(ConnectionFault) as raised:
        read(HELLO + data)
    return raised.value.code, str(raised.value)


FRAMES = st.sampled_from(
    [
        PING,
        frame(Kind.DATA, b"x" * 100, END_STREAM, 1),
        frame(Kind.DATA, b"", 0, 1),
        frame(Kind.HEADERS, b"abc", END_HEADERS, 1),
        frame(Kind.HEADERS, b"abc", 0, 1) + frame(Kind.CONTINUATION, b"d", END_HEADERS, 1),
        frame(Kind.HEADERS, b"abc", 0, 1) + PING,
        frame(Kind.CONTINUATION, b"d", END_HEADERS, 1),
        frame(Kind.RST_STREAM, b"\0\0\0\0", 0, 1) * 60,
        frame(Kind.WINDOW_UPDATE, b"\0\0\0\1"),
        frame(0xFA, b"unknown"),
        b"\xff\xff\xff" + bytes(6),
    ]
)


@given(st.booleans(), st.lists(FRAMES, max_size=8), st.lists(st.integers(0, 4000), max_size=6))
def test_how_the_input_is_cut_changes_nothing(
    greets: bool, frames: list[bytes], cuts: list[int]
) -> None:
    data = (HELLO if greets else b"") + b"".join(frames)

    def outcome(pieces: list[bytes]) -> tuple[bytes, object]:
        reader, got = new_reader(), b""
        try:
            for piece in pieces:
                for _, one in reader.feed(piece, 0.0):
                    got += one
        except ConnectionFault as error:
            return got, (error.code, str(error))
        return got, None

    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[a:b] for a, b in pairwise(ends)]
    got, failed = outcome(pieces)
    assert (got, failed) == outcome([data])
    assert data.startswith(got)


def test_the_preface_comes_with_the_first_frame() -> None:
    assert read(HELLO + PING) == [(Kind.SETTINGS, HELLO), (Kind.PING, PING)]


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b"\x16\x03\x01", PREFACE + PING],
)
def test_what_does_not_begin_as_http_2_does_is_refused(data: bytes) -> None:
    with pytest.raises(ConnectionFault) as raised:
        read(data)
    assert raised.value.code == Code.PROTOCOL_ERROR


def test_a_frame_may_not_be_larger_than_we_say() -> None:
    whole = frame(Kind.DATA, b"x" * MAX_FRAME_BYTES, 0, 1)
    assert read(HELLO + whole)[-1] == (Kind.DATA, whole)
    code, _ = fault((MAX_FRAME_BYTES + 1).to_bytes(3) + bytes(6))  # before its content has come
    assert code == Code.FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    "data",
    [
        frame(Kind.HEADERS, b"a", 0, 1) + PING,
        frame(Kind.HEADERS, b"a", 0, 1) + frame(Kind.HEADERS, b"a", END_HEADERS, 3),
        frame(Kind.CONTINUATION, b"a", END_HEADERS, 1),
        frame(Kind.PUSH_PROMISE, bytes(4), END_HEADERS, 1),
    ],
)
def test_a_field_block_is_in_one_piece_and_nobody_pushes(data: bytes) -> None:
    assert fault(data)[0] == Code.PROTOCOL_ERROR


def test_a_field_block_is_bounded_in_bytes_and_in_frames() -> None:
    start = frame(Kind.HEADERS, b"", 0, 1)
    end = frame(Kind.CONTINUATION, b"", END_HEADERS, 1)
    empty = frame(Kind.CONTINUATION, b"", 0, 1)
    assert len(read(HELLO + start + empty * (MAX_CONTINUATIONS - 1) + end)) > MAX_CONTINUATIONS
    assert fault(start + empty * (MAX_CONTINUATIONS + 1))[0] == Code.ENHANCE_YOUR_CALM
    full = frame(Kind.CONTINUATION, b"x" * MAX_FRAME_BYTES, 0, 1)
    assert len(read(HELLO + start + full * 2)) == 4
    assert fault(start + full * 2 + frame(Kind.CONTINUATION, b"x", END_HEADERS, 1)) == (
        Code.ENHANCE_YOUR_CALM,
        "the header section is too large",
    )


@pytest.mark.parametrize(
    ("one", "cost"),
    [
        (PING, 1),
        (frame(Kind.SETTINGS), 1),
        (frame(Kind.SETTINGS, bytes(6) * 100), 10),
        (frame(Kind.PRIORITY, bytes(5), 0, 1), 1),
        (frame(Kind.WINDOW_UPDATE, b"\0\0\0\1"), 1),
        (frame(Kind.DATA, b"", 0, 1), 1),
        (frame(Kind.DATA, b"x", 0, 1), 1),
        (frame(0xFA, b""), 1),
        (frame(Kind.RST_STREAM, bytes(4), 0, 1), RESET_COST),
    ],
)
def test_frames_that_carry_no_request_are_paid_for(one: bytes, cost: int) -> None:
    reader = new_reader()
    read(HELLO, reader=reader)
    left = ALLOWANCE - 1  # the first SETTINGS
    read(one * (left // cost), reader=reader)
    with pytest.raises(ConnectionFault) as raised:
        read(one, reader=reader)
    assert raised.value.code == Code.ENHANCE_YOUR_CALM


def test_bodies_and_requests_cost_nothing() -> None:
    request = frame(Kind.HEADERS, b"abc", END_HEADERS, 1)
    read(HELLO + (request + frame(Kind.DATA, b"", END_STREAM, 1)) * ALLOWANCE * 2)


def test_it_is_known_whether_a_head_is_under_way() -> None:
    reader = new_reader()
    for data, is_within in (
        (PREFACE[:5], True),
        (PREFACE[5:], True),
        (frame(Kind.SETTINGS), False),
        (frame(Kind.DATA, b"x" * 99, 0, 1)[:40], False),
        (frame(Kind.DATA, b"x" * 99, 0, 1)[40:], False),
        (frame(Kind.HEADERS, b"abc", 0, 1), True),
        (frame(Kind.CONTINUATION, b"abc", END_HEADERS, 1)[:4], True),
        (frame(Kind.CONTINUATION, b"abc", END_HEADERS, 1)[4:], False),
    ):
        read(data, reader=reader)
        assert reader.is_within_head == is_within, data
