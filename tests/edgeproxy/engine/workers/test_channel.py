"""The control channel: questions both ways, and what cannot be understood."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.engine.workers import channel
from edgeproxy.engine.workers.channel import NOTHING, Channel, Handler, Lost, Message, Refused


async def echo(question: Message) -> Message:
    return Message({"said": question["say"]}, question.data[::-1])


async def refuse(question: Message) -> Message:
    raise Refused("not today")


async def break_down(question: Message) -> Message:
    raise RuntimeError("by accident")


async def wait_for_ever(question: Message) -> Message:
    await asyncio.Event().wait()
    return NOTHING


HANDLERS: Mapping[str, Handler] = {
    "echo": echo, "refuse": refuse, "break_down": break_down, "wait": wait_for_ever
}  # fmt: skip


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel]]:
    ends = Channel(HANDLERS), Channel(HANDLERS)
    for end, sock in zip(ends, socket.socketpair(), strict=True):
        await end.open(sock)
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


async def test_either_side_asks_and_many_questions_are_under_way() -> None:
    async with pair() as (one, other):
        waiting = asyncio.ensure_future(one.ask("wait"))
        answers = await asyncio.gather(
            *(end.ask("echo", b"%d" % n, say=n) for n in range(50) for end in (one, other))
        )
        assert [answer["said"] for answer in answers] == [n for n in range(50) for _ in "12"]
        assert answers[-1].data == b"94"
        large = bytes(5_000_000)
        assert (await one.ask("echo", large, say="x" * 1_000_000)).data == large
        waiting.cancel()


async def test_a_question_that_cannot_be_answered_is_refused_and_the_channel_stays(
    caplog: Any,
) -> None:
    async with pair() as (one, _):
        with pytest.raises(Refused, match="not today"):
            await one.ask("refuse")
        with pytest.raises(Refused, match="by accident"):
            await one.ask("break_down")
        assert "by accident" in caplog.text
        with pytest.raises(ValueError, match="too large"):
            await one.ask("echo", say="x" * (channel.MAX_WORDS_BYTES + 1))
        assert (await one.ask("echo", say=1))["said"] == 1


async def test_what_waits_for_an_answer_is_told_that_the_other_side_is_gone() -> None:
    async with pair() as (one, other):
        waiting = asyncio.ensure_future(one.ask("wait"))
        await one.ask("echo", say=1)
        other.close()
        with pytest.raises(Lost):
            await waiting
        assert await one.lost() == "it is gone"
        with pytest.raises(Lost):
            await one.ask("echo", say=1)


def message(head: Any, data: bytes = b"") -> bytes:
    words = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("!II", len(words), len(data)) + words + data


@pytest.mark.parametrize(
    "garbage",
    [
        message(b"{"),
        message([]),
        message({}),
        message({"number": 1}),
        message({"number": "x", "words": {}}),
        message({"number": 1, "words": 5}),
        message({"number": 1, "ask": "launch", "words": {}}),
        message({"number": 1, "ask": ["echo"], "words": {}}),
        message(b"[" * 100_000),
        message(b"\xff\xfe"),
        struct.pack("!II", channel.MAX_WORDS_BYTES + 1, 0),
        struct.pack("!II", 2, channel.MAX_DATA_BYTES + 1),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_cannot_be_understood_ends_the_channel(garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    end = Channel(HANDLERS)
    await end.open(ours)
    asked = asyncio.ensure_future(end.ask("echo", say=1))
    with theirs:
        theirs.sendall(garbage)
        assert "it says what cannot be understood" in await asyncio.wait_for(end.lost(), 5)
        with pytest.raises(Lost):
            await asked


@pytest.mark.parametrize("length", [1, 7, 8, 20])
async def test_the_other_side_dies_half_way_through_a_message(length: int) -> None:
    ours, theirs = socket.socketpair()
    end = Channel(HANDLERS)
    await end.open(ours)
    theirs.sendall(message({"number": 1, "ask": "echo", "words": {"say": 1}})[:length])
    theirs.close()
    assert await end.lost() == "it is gone"


async def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    ours, theirs = socket.socketpair()
    end = Channel(HANDLERS)
    await end.open(ours)
    with theirs:
        theirs.sendall(message({"number": 99, "words": {}}))
        theirs.sendall(message({"number": 7, "ask": "echo", "words": {"say": 1}}))
        theirs.setblocking(False)
        answer = await asyncio.get_running_loop().sock_recv(theirs, 1000)
        assert json.loads(answer[8:]) == {"number": 7, "words": {"said": 1}}
        end.close()


async def test_one_who_does_not_read_is_lost() -> None:
    ours, theirs = socket.socketpair()
    end = Channel(HANDLERS)
    await end.open(ours)
    with theirs:
        asking = [
            asyncio.ensure_future(end.ask("echo", bytes(channel.MAX_DATA_BYTES), say=n))
            for n in range(10)
        ]
        assert await end.lost() == "it does not read"
        for asked in asking:
            with pytest.raises(Lost):
                await asked


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_end_the_channel(data: bytes) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        end = Channel(HANDLERS)
        await end.open(ours)
        with theirs, contextlib.suppress(BrokenPipeError):
            theirs.sendall(data)
        await asyncio.wait_for(end.lost(), 5)

    asyncio.run(run())
