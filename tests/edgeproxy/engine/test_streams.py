"""A stream as the transport of a connection of HTTP/1.1: what it makes of either side's bytes."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.fields import Fields, Malformed, request_text
from edgeproxy.engine.streams import Stream

REQUEST: Fields = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/"),
]


class Carrier:
    """Takes up to `window` bytes of each answer, and notes what else it is told."""

    def __init__(self, window: int = 1 << 30) -> None:
        self.window = window
        self.heads: list[tuple[bytes, bool]] = []
        self.body = b""
        self.took_bytes = 0
        self.end = ""

    def send_head(self, stream: Stream, fields: Fields, *, ended: bool) -> None:
        self.heads.append((dict(fields)[b":status"], ended))

    def send_body(self, stream: Stream) -> None:
        while stream.unsent and self.window:
            part = stream.take(self.window)
            self.window -= len(part)
            self.body += part
        if stream.is_drained:
            stream.over()

    def took(self, stream: Stream, size: int) -> None:
        self.took_bytes += size

    def finish(self, stream: Stream) -> None:
        self.end = "finished"

    def reset(self, stream: Stream) -> None:
        self.end = "reset"

    def released(self) -> None:
        self.end += " and released"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": "a socket", "ssl_object": "TLS"}.get(name, default)


class Lane(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.is_paused = False
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


def begun(
    carrier: Carrier, fields: Fields | None = None, *, ended: bool = False
) -> tuple[Stream, Lane]:
    request = request_text(fields or REQUEST, b"https", ended)
    stream, lane = Stream(carrier, 1, request, ended), Lane()
    stream.begin(lane)
    return stream, lane


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
ANSWERS = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello": ([(b"200", False)], b"hello"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n": (
        [(b"200", False)],
        b"hello",
    ),
    b"HTTP/1.1 204 No Content\r\n\r\n": ([(b"204", True)], b""),
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n": ([(b"200", True)], b""),
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n": ([(b"304", True)], b""),
}


@given(st.sampled_from(sorted(ANSWERS)), st.booleans(), st.lists(st.integers(0, 150), max_size=5))
async def test_how_an_answer_is_written_changes_nothing(
    answer: bytes, has_hints: bool, cuts: list[int]
) -> None:
    carrier = Carrier()
    stream, lane = begun(carrier)
    data = (HINTS if has_hints else b"") + answer
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(ends):
        stream.write(data[start:end])
    heads, body = ANSWERS[answer]
    assert carrier.heads == ([(b"103", False)] if has_hints else []) + heads
    assert (carrier.body, carrier.end) == (body, "finished")
    stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")  # nothing follows
    assert len(carrier.heads) == has_hints + 1
    await asyncio.sleep(0)
    assert lane.lost == [None]


async def test_an_answer_waits_for_its_client_and_the_lane_with_it() -> None:
    carrier = Carrier(window=3)
    stream, lane = begun(carrier)
    stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    assert (carrier.body, lane.is_paused, stream.get_write_buffer_size()) == (b"hel", True, 2)
    carrier.window = 100
    carrier.send_body(stream)
    stream.resume()
    assert (carrier.body, lane.is_paused, carrier.end) == (b"hello", False, "")
    stream.write(b"world")
    assert (carrier.body, carrier.end) == (b"helloworld", "finished")


@pytest.mark.parametrize("how", ["close", "write_eof", "abort"])
@pytest.mark.parametrize("written", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"])
async def test_an_answer_that_ends_early_is_a_reset(how: str, written: bytes) -> None:
    carrier = Carrier()
    stream, lane = begun(carrier)
    stream.write(written)
    getattr(stream, how)()
    assert carrier.end == "reset"
    await asyncio.sleep(0)
    assert lane.lost == [None]


async def test_a_body_is_framed_and_its_end_is_told() -> None:
    carrier = Carrier()
    stream, lane = begun(carrier)
    lane.received = b""
    stream.receive(b"hello", 9, ended=False)
    stream.receive(b"", 0, ended=False)
    stream.receive(b"!", 1, ended=True)
    assert lane.received == b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    assert carrier.took_bytes == 10


@pytest.mark.parametrize("parts", [[b"hell"], [b"hello!"], [b"hello", b"!"], [b""]])
async def test_a_body_has_the_length_that_was_promised(parts: list[bytes]) -> None:
    stream, lane = begun(Carrier(), [*REQUEST, (b"content-length", b"5")])
    *first, last = parts
    for part in first:
        stream.receive(part, len(part), ended=False)
    with pytest.raises(Malformed):
        stream.receive(last, len(last), ended=True)
    assert not lane.received.endswith(b"!")


async def test_what_the_lane_cannot_take_is_not_confirmed_before_it_can() -> None:
    carrier = Carrier()
    stream, _ = begun(carrier)
    stream.pause_reading()
    stream.receive(b"hello", 5, ended=False)
    assert carrier.took_bytes == 0
    stream.resume_reading()
    assert carrier.took_bytes == 5
    stream.pause_reading()
    stream.receive(b"hello", 5, ended=False)
    stream.lost()
    assert carrier.took_bytes == 10  # other streams need the room


async def test_a_stream_has_no_socket_of_its_own() -> None:
    stream, _ = begun(Carrier())
    assert stream.get_extra_info("socket") is None
    assert stream.get_extra_info("ssl_object") == "TLS"
