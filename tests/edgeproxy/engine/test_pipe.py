"""The in-memory stream between the front and the core."""

from __future__ import annotations

import asyncio

import pytest

from edgeproxy.engine.pipe import HIGH_WATER, PipeEnd, duplex


class Notes:
    """A receiver that writes down what it is told."""

    def __init__(self, end: PipeEnd) -> None:
        self.end = end
        self.notes: list[str | bytes] = []

    def pipe_data(self, data: bytes) -> None:
        self.notes.append(data)

    def pipe_ended(self) -> None:
        self.notes.append("ended")

    def pipe_full(self) -> None:
        self.notes.append("full")

    def pipe_ready(self) -> None:
        self.notes.append("ready")


async def test_what_one_end_writes_the_other_reads() -> None:
    one, other = duplex(peername=("192.0.2.1", 5))
    one.write(b"hello ")
    one.writelines([b"wor", b"ld"])
    other.write(b"back")
    assert await other.read(7) == b"hello w"
    assert await other.read(100) == b"orld"
    assert await one.read(100) == b"back"
    assert other.get_extra_info("peername") == ("192.0.2.1", 5)
    assert other.get_extra_info("transport_protocol", "tcp") == "tcp"


async def test_read_waits_for_data_and_for_the_end() -> None:
    one, other = duplex()
    read = asyncio.ensure_future(other.read(10))
    await asyncio.sleep(0)
    assert not read.done()
    one.write(b"x")
    assert await read == b"x"
    one.write(b"y")
    one.write_eof()
    one.write(b"lost")
    assert await other.read() == b"y"
    assert await other.read(10) == b""
    other.write(b"still open this way")
    assert await one.read(100) == b"still open this way"


async def test_cancelled_read_loses_nothing() -> None:
    one, other = duplex()
    read = asyncio.ensure_future(other.read(10))
    await asyncio.sleep(0)
    one.write(b"x")
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read
    assert await other.read(10) == b"x"


async def test_two_readers_are_an_error() -> None:
    _, other = duplex()
    read = asyncio.ensure_future(other.read(10))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await other.read(10)
    read.cancel()


async def test_drain_waits_while_much_is_unread() -> None:
    one, other = duplex()
    one.write(b"x" * HIGH_WATER)
    await one.drain()
    one.write(b"x")
    drain = asyncio.ensure_future(one.drain())
    await asyncio.sleep(0)
    assert not drain.done()
    assert len(await other.read(HIGH_WATER)) == HIGH_WATER
    await drain


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_drain_fails_when_the_other_end_goes(how: str) -> None:
    one, other = duplex()
    one.write(b"x" * (HIGH_WATER + 1))
    drain = asyncio.ensure_future(one.drain())
    await asyncio.sleep(0)
    getattr(other, how)()
    with pytest.raises(ConnectionResetError):
        await drain
    with pytest.raises(ConnectionResetError):
        await one.drain()
    one.write(b"dropped")
    assert one.is_closing()
    assert other.is_closing()


async def test_close_lets_the_other_end_read_what_was_written() -> None:
    one, other = duplex()
    one.write(b"x")
    one.close()
    one.close()
    await one.wait_closed()
    assert await other.read(10) == b"x"
    assert await other.read(10) == b""
    assert await one.read(10) == b""


async def test_abort_fails_the_other_end_at_once() -> None:
    one, other = duplex()
    one.write(b"x")
    one.abort()
    with pytest.raises(ConnectionResetError):
        await other.read(10)
    other.close()
    assert other.is_closing()


async def test_close_ends_a_waiting_read() -> None:
    one, other = duplex()
    reads = [asyncio.ensure_future(end.read(10)) for end in (one, other)]
    await asyncio.sleep(0)
    one.close()
    assert await asyncio.gather(*reads) == [b"", b""]


async def test_receiver_gets_what_came_before_and_after() -> None:
    one, other = duplex()
    one.write(b"before")
    notes = Notes(other)
    other.receive(notes)
    one.write(b"after")
    one.close()
    assert notes.notes == [b"before", b"after", "ended"]


async def test_paused_receiver_gets_data_and_end_later() -> None:
    one, other = duplex()
    notes = Notes(other)
    other.pause_reading()
    other.receive(notes)
    one.write(b"a")
    one.write(b"b")
    one.close()
    assert notes.notes == []
    other.resume_reading()
    assert notes.notes == [b"a", b"b", "ended"]


async def test_receiver_is_told_when_to_pause_writing() -> None:
    one, other = duplex()
    notes = Notes(one)
    one.receive(notes)
    one.write(b"x" * (HIGH_WATER + 1))
    assert notes.notes == ["full"]
    while notes.notes == ["full"]:
        await other.read(HIGH_WATER // 2)
    assert notes.notes == ["full", "ready"]


async def test_a_closed_end_is_called_no_more() -> None:
    one, other = duplex()
    notes = Notes(other)
    other.receive(notes)
    other.close()
    one.write(b"x")
    one.close()
    assert notes.notes == []
