"""Row 27: what HTTP/3 has of its own: datagrams of nobody, handshakes, packets, frames, windows."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.connection import QuicNetworkPath
from aioquic.quic.packet import QuicErrorCode, QuicFrameType

from edgeproxy.engine.http3_frames import Code, Kind, StreamKind, frame, number, settings
from edgeproxy.engine.quic_limits import MAX_STREAMS, STREAM_WINDOW
from edgeproxy.engine.quic_listener import ANSWERS_PER_S, UNPROVEN
from edgeproxy.testing import Proxy
from tests.http2_client import POST, Answer, get
from tests.http3_client import Client, connected, section, unconnected
from tests.threats.raw import Link, Origin
from tests.threats.test_streams import SLOW, a_clean_client_is_served, served

HELLO_BYTES = 1200
LONG, SHORT = 0xC0, 0x40


def refusals(proxy: Proxy, status: int) -> int:
    """How many were refused with this status."""
    return sum(n for key, n in proxy.server.app.counts.refused.items() if key[0] == status)


async def until(happened: Callable[[], bool]) -> None:
    """Return once `happened`; what counts is another's state, and tells nobody."""
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# ------------------------------------------------------------ before there is a connection


async def _greet(client: Client) -> None:
    client.quic.connect(("127.0.0.1", 0), asyncio.get_running_loop().time())
    await client.flush()


async def test_an_address_that_is_not_proven_is_sent_three_times_what_it_sent(
    tmp_path: Path,
) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin, SLOW) as proxy,
        unconnected(proxy) as victim,
    ):
        victim.is_deaf = True
        await _greet(victim)
        await until(lambda: refusals(proxy, 408) == 1)  # the handshake has been given up
        assert victim.datagrams
        assert sum(map(len, victim.datagrams)) <= 3 * victim.sent_bytes
        assert not proxy.server.app.counts.connections_open


async def test_with_many_handshakes_under_way_clients_are_asked_to_come_back(
    tmp_path: Path,
) -> None:
    async with Origin() as origin, served(tmp_path, origin) as proxy, AsyncExitStack() as stack:
        for _ in range(UNPROVEN):
            victim = await stack.enter_async_context(unconnected(proxy))
            victim.is_deaf = True
            await _greet(victim)
            await until(lambda victim=victim: bool(victim.datagrams))  # type: ignore[misc]
        client = await stack.enter_async_context(connected(proxy))
        assert client.quic._retry_count == 1
        assert (await client.ask(get())).status == 200
        other = await stack.enter_async_context(unconnected(proxy))
        other.is_deaf = True
        await _greet(other)
        await until(lambda: bool(other.datagrams))
        assert sum(map(len, other.datagrams)) < 200  # nothing was kept of it


async def test_a_token_of_somebody_else_proves_nothing(tmp_path: Path) -> None:
    async with Origin() as origin, served(tmp_path, origin) as proxy, AsyncExitStack() as stack:
        for _ in range(UNPROVEN):
            victim = await stack.enter_async_context(unconnected(proxy))
            victim.is_deaf = True
            await _greet(victim)
            await until(lambda victim=victim: bool(victim.datagrams))  # type: ignore[misc]
        forger = await stack.enter_async_context(unconnected(proxy))
        forger.is_deaf = True
        forger.quic._peer_token = os.urandom(40)
        await _greet(forger)
        await until(lambda: bool(forger.datagrams))
        assert sum(map(len, forger.datagrams)) < 200  # asked like everybody else


def _of_version(version: int, size: int) -> bytes:
    head = bytes((LONG,)) + version.to_bytes(4) + b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
    return head + bytes(size - len(head))


async def test_a_client_of_another_version_is_told_ours(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        unconnected(proxy) as client,
    ):
        client.is_deaf = True
        client.raw(_of_version(0x1A2A3A4A, HELLO_BYTES - 1))  # too small to be answered
        client.raw(_of_version(0, HELLO_BYTES))  # an answer itself
        asked = _of_version(0x1A2A3A4A, HELLO_BYTES)
        client.raw(asked)
        await until(lambda: bool(client.datagrams))
        [told] = client.datagrams
        assert told[1:5] == bytes(4)
        assert told[6:14] == asked[15:23]  # its id
        assert told.endswith(b"\0\0\0\1")


async def test_datagrams_of_nobody_get_little_and_hold_up_nobody(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        unconnected(proxy) as nobody,
        connected(proxy) as bystander,
    ):
        nobody.is_deaf = True
        for size in (1, 2, 5, 9, 20, 21, 50, 1200, 1500):
            for first in (0x00, SHORT, LONG, 0xFF):
                for _ in range(20):
                    nobody.raw(bytes((first,)) + os.urandom(size - 1))
            assert (await bystander.ask(get())).status == 200
        for _ in range(20):  # of our version, which cannot be decrypted
            nobody.raw(_of_version(1, HELLO_BYTES))
        await a_clean_client_is_served(proxy)
        assert len(nobody.datagrams) <= 2 * ANSWERS_PER_S
        assert all(len(told) < 50 for told in nobody.datagrams)


async def test_who_knows_of_a_connection_that_is_gone_gets_a_reset(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin, SLOW) as proxy,
        connected(proxy) as client,
    ):
        assert (await client.ask(get())).status == 200
        token = client.quic._peer_cid.stateless_reset_token
        client.is_deaf = True
        await until(lambda: not proxy.server.app.counts.connections_open)
        async with asyncio.timeout(20):
            while not (told := [one for one in client.datagrams if one.endswith(token)]):
                client.inject(bytes((QuicFrameType.PING, *bytes(30))))  # who insists is told
                await asyncio.sleep(0.1)
        assert len(told[0]) < 60


async def test_there_is_no_more_room_for_a_client_than_over_tcp(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin, "{connections_per_client: 1}") as proxy,
        connected(proxy) as client,
        unconnected(proxy) as other,
    ):
        await _greet(other)
        await until(lambda: refusals(proxy, 503) > 0)
        assert not other.datagrams
        assert (await client.ask(get())).status == 200
        assert proxy.server.app.counts.connections_open == 1


# ------------------------------------------------------------------------- floods


def _numbers(kind: int, *numbers: int) -> bytes:
    return bytes((kind,)) + b"".join(map(encode_uint_var, numbers))


def _stream_frame(stream: int, offset: int, data: bytes) -> bytes:
    head = _numbers(QuicFrameType.STREAM_BASE | 6, stream, offset, len(data))
    return head + data


def _same(one: bytes, times: int = 1000) -> Iterator[bytes]:
    return (one for _ in range(times))


def _empty_data(client: Client) -> Iterator[bytes]:
    head = frame(Kind.HEADERS, section(POST))
    yield _stream_frame(0, 0, head + frame(Kind.DATA, b"") * 400)
    yield _stream_frame(0, len(head) + 800, frame(Kind.DATA, b"") * 400)


def _unknown_frames(client: Client) -> Iterator[bytes]:
    head = frame(Kind.HEADERS, section(POST))
    yield _stream_frame(0, 0, head + frame(0x21, b"") * 400)
    yield _stream_frame(0, len(head) + 800, frame(0x21, b"") * 400)


def _drops(client: Client) -> Iterator[bytes]:
    """A body, a byte at a time."""
    head = frame(Kind.HEADERS, section(POST)) + number(Kind.DATA) + number(10_000)
    yield _stream_frame(0, 0, head)
    for offset in range(1000):
        yield _stream_frame(0, len(head) + offset, b"x")


class _Challenges(dict[bytes, Any]):
    """For a client that takes every response."""

    def pop(self, *_: Any) -> Any:
        return QuicNetworkPath(None)


def _challenges(client: Client) -> Iterator[bytes]:
    client.quic._local_challenges = _Challenges()
    return _same(_numbers(QuicFrameType.PATH_CHALLENGE) + bytes(8))


FLOODS: dict[str, Callable[[Client], Iterator[bytes]]] = {
    "PING": lambda _: _same(bytes((QuicFrameType.PING,))),
    "PATH_CHALLENGE": _challenges,
    "MAX_DATA": lambda _: _same(_numbers(QuicFrameType.MAX_DATA, 9)),
    "MAX_STREAM_DATA": lambda _: _same(_numbers(QuicFrameType.MAX_STREAM_DATA, 0, 9)),
    "MAX_STREAMS": lambda _: _same(_numbers(QuicFrameType.MAX_STREAMS_BIDI, 9)),
    "DATA_BLOCKED": lambda _: _same(_numbers(QuicFrameType.DATA_BLOCKED, 9)),
    "STREAMS_BLOCKED": lambda _: _same(_numbers(QuicFrameType.STREAMS_BLOCKED_BIDI, 9)),
    "STREAM without data": lambda _: _same(_stream_frame(0, 0, b"")),
    "the same data again": lambda _: _same(_stream_frame(0, 0, b"\x01\x20" + bytes(10))),
    "empty DATA": _empty_data,
    "frames that mean nothing": _unknown_frames,
    "drops": _drops,
}


@pytest.mark.parametrize("what", FLOODS)
async def test_a_flood_ends_its_connection_and_nobody_elses(what: str, tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as bystander,
        connected(proxy) as client,
    ):
        frames = list(FLOODS[what](client))
        while frames and client.closed is None:
            some, size = [], 0
            while frames and size + len(frames[0]) < 1100:
                size += len(frames[0]) + 8
                some.append(frames.pop(0))
            client.inject(*some)
            await asyncio.sleep(0)
        assert await client.end() == [Code.EXCESSIVE_LOAD]
        assert (await bystander.ask(get())).status == 200
        await a_clean_client_is_served(proxy)
        assert len(origin.links) < 400


async def test_requests_that_are_cancelled_at_once_end_the_connection(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        while client.closed is None:
            client.cancel(client.begin(get()))
            await client.flush()
            await asyncio.sleep(0)
        assert await client.end() == [Code.EXCESSIVE_LOAD]
        assert len(origin.links) < 400
        await a_clean_client_is_served(proxy)


async def test_datagrams_that_say_nothing_are_paid_for(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        head = bytes((SHORT,)) + client.quic._peer_cid.cid
        while client.closed is None:
            client.raw(head + os.urandom(60))
            await asyncio.sleep(0)
        assert await client.end() == [Code.EXCESSIVE_LOAD]


def _new_id(sequence: int) -> bytes:
    head = _numbers(QuicFrameType.NEW_CONNECTION_ID, sequence, 0)
    return head + b"\x08" + sequence.to_bytes(8) + bytes(16)


VIOLATION = QuicErrorCode.PROTOCOL_VIOLATION
NO_QUIC: dict[str, tuple[Callable[[], Iterator[bytes]], int]] = {
    "what was never sent is acknowledged": (
        lambda: _same(_numbers(QuicFrameType.ACK, 9999, 0, 0, 0), 1),
        VIOLATION,
    ),
    "acknowledgements by the dozen": (
        lambda: _same(_numbers(QuicFrameType.ACK, 0, 0, 0, 0), 12),
        VIOLATION,
    ),
    "a stream full of holes": (
        lambda: (_stream_frame(0, at * 100, bytes(70)) for at in range(1, 300)),
        QuicErrorCode.FLOW_CONTROL_ERROR,
    ),
    "more than a stream may hold": (
        lambda: _same(_stream_frame(0, STREAM_WINDOW - 10, bytes(70)), 1),
        QuicErrorCode.FLOW_CONTROL_ERROR,
    ),
    "more streams than there may be": (
        lambda: _same(_stream_frame(4 * MAX_STREAMS, 0, bytes(70)), 1),
        QuicErrorCode.STREAM_LIMIT_ERROR,
    ),
    "a handshake without end": (
        lambda: _same(_numbers(QuicFrameType.CRYPTO, 70_000, 1) + b"x", 1),
        QuicErrorCode.CRYPTO_BUFFER_EXCEEDED,
    ),
    "ids without end": (
        lambda: (_new_id(sequence) for sequence in range(10, 100)),
        QuicErrorCode.CONNECTION_ID_LIMIT_ERROR,
    ),
    "a frame that there is not": (
        lambda: _same(b"\x3f", 1),
        QuicErrorCode.FRAME_ENCODING_ERROR,
    ),
}


@pytest.mark.parametrize("what", NO_QUIC)
async def test_what_is_no_quic_ends_the_connection(what: str, tmp_path: Path) -> None:
    make, code = NO_QUIC[what]
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        frames = list(make())
        while frames and client.closed is None:
            client.inject(*frames[:12])
            del frames[:12]
            await asyncio.sleep(0)
        assert await client.end() == [code]
        await a_clean_client_is_served(proxy)
        assert not proxy.server.app.counts.connections_open or await _nobody_is_left(proxy)


async def test_of_many_ranges_that_are_acknowledged_the_newest_count(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        for kind, counts in ((QuicFrameType.ACK, ()), (QuicFrameType.ACK_ECN, (1, 2, 3))):
            client.inject(_numbers(kind, 1, 0, 200, 0, *[0, 0] * 200, *counts), b"\x01")
            assert (await client.ask(get())).status == 200


async def _nobody_is_left(proxy: Proxy) -> bool:
    await until(lambda: not proxy.server.app.counts.connections_open)
    return True


async def test_a_stream_that_is_stopped_twice_harms_nobody(tmp_path: Path) -> None:
    """The library would fail; but a client may have to say it again."""
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        asked = client.begin([*POST], ended=False)
        await client.flush()
        stop = _numbers(QuicFrameType.STOP_SENDING, asked, 0)
        client.inject(stop, stop)
        client.inject(stop)
        assert (await client.ask(get())).status == 200
        assert client.answers[asked].reset is not None


# ------------------------------------------------------------------------- HTTP/3


def _on_request(*parts: bytes) -> dict[int, bytes]:
    return {0: b"".join(parts)}


def _other(kind: int, data: bytes = b"") -> bytes:
    return number(kind) + data


SETTINGS = settings(1000)
HEAD = frame(Kind.HEADERS, section(POST))
TABLE = b"\0\0" + b"\xfb" * 30_000  # a field of 69 bytes, named by one
WRONG: dict[str, tuple[dict[int, bytes], int]] = {
    "DATA first": (_on_request(frame(Kind.DATA, b"abc")), Code.FRAME_UNEXPECTED),
    "SETTINGS in a request": (_on_request(SETTINGS), Code.FRAME_UNEXPECTED),
    "a push": (_on_request(HEAD, frame(Kind.PUSH_PROMISE, b"\0")), Code.FRAME_UNEXPECTED),
    "a frame of HTTP/2": (_on_request(HEAD, frame(0x8, bytes(4))), Code.FRAME_UNEXPECTED),
    "DATA after trailers": (
        _on_request(HEAD, frame(Kind.HEADERS, b"\0\0"), frame(Kind.DATA, b"x" * 99)),
        Code.FRAME_UNEXPECTED,
    ),
    "three sections": (_on_request(HEAD, frame(Kind.HEADERS, b"\0\0") * 2), Code.FRAME_UNEXPECTED),
    "a section that is too large": (
        _on_request(number(Kind.HEADERS), number(1 << 20)),
        Code.EXCESSIVE_LOAD,
    ),
    "a compression bomb": (_on_request(frame(Kind.HEADERS, TABLE)), Code.EXCESSIVE_LOAD),
    "a table that there is not": (
        _on_request(frame(Kind.HEADERS, b"\x02\0\x80")),
        Code.DECOMPRESSION_FAILED,
    ),
    "no section": (_on_request(frame(Kind.HEADERS, b"\0\0\xff\xff")), Code.DECOMPRESSION_FAILED),
    "an entry for the table": ({2: _other(StreamKind.QPACK_ENCODER, b"\xc0\x01x")}, 0x201),
    "no SETTINGS": ({2: _other(0, frame(Kind.GOAWAY, b"\0"))}, Code.MISSING_SETTINGS),
    "SETTINGS twice": ({2: _other(0, SETTINGS * 2)}, Code.FRAME_UNEXPECTED),
    "a setting twice": (
        {2: _other(0, frame(Kind.SETTINGS, b"\x06\x01" * 2))},
        Code.SETTINGS_ERROR,
    ),
    "a setting of HTTP/2": (
        {2: _other(0, frame(Kind.SETTINGS, b"\x02\x01"))},
        Code.SETTINGS_ERROR,
    ),
    "settings without end": (
        {2: _other(0, number(Kind.SETTINGS) + number(1 << 20))},
        Code.EXCESSIVE_LOAD,
    ),
    "a request on the control stream": ({2: _other(0, SETTINGS + HEAD)}, Code.FRAME_UNEXPECTED),
    "two control streams": (
        {2: _other(0, SETTINGS), 6: _other(0, SETTINGS)},
        Code.STREAM_CREATION_ERROR,
    ),
    "a push stream": ({2: _other(StreamKind.PUSH)}, Code.STREAM_CREATION_ERROR),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_no_http_3_ends_the_connection(what: str, tmp_path: Path) -> None:
    streams, code = WRONG[what]
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy, greets=False) as client,
    ):
        for stream, data in streams.items():
            client.quic.send_stream_data(stream, data)
            await client.flush()
        assert await client.end() == [code]
        await a_clean_client_is_served(proxy)


@pytest.mark.parametrize("is_reset", [True, False])
async def test_a_stream_that_has_to_stay_is_not_closed(is_reset: bool, tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy, greets=False) as client,
    ):
        client.quic.send_stream_data(2, _other(0, SETTINGS), not is_reset)
        await client.flush()
        if is_reset:
            client.quic.send_ping(1)
            await client.flush()
            await until(lambda: client.pings == 1)
            client.quic.reset_stream(2, 0)
            await client.flush()
        assert await client.end() == [Code.CLOSED_CRITICAL_STREAM]


async def test_a_stream_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        client.answers[0] = Answer()
        client.quic.send_stream_data(0, b"", True)
        await client.flush()
        assert (await client.answer(0)).reset == Code.MESSAGE_ERROR
        client.quic.send_stream_data(4, HEAD + b"\0\x05ab", True)
        await client.flush()
        assert await client.end() == [Code.FRAME_ERROR]


async def test_sections_that_stay_incomplete_are_not_held_without_bound(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        for stream in range(0, 40, 4):
            data = number(Kind.HEADERS) + number(30_000) + bytes(29_000)
            client.quic.send_stream_data(stream, data)
        await client.flush()
        assert await client.end() == [Code.EXCESSIVE_LOAD]


# ------------------------------------------------------------------------- slow clients


def _open_no_windows(client: Client) -> None:
    client.quic._write_stream_limits = lambda **_: None  # type: ignore[method-assign]
    client.quic._write_connection_limits = lambda **_: None  # type: ignore[method-assign]


async def _sends_without_end(link: Link, released: asyncio.Event) -> None:
    await link.request()
    with suppress(ConnectionError):
        await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        while not released.is_set():
            await link.send(b"x" * 65536)
            await asyncio.sleep(0)


@pytest.mark.parametrize("path", [b"/own", b"/long"])
async def test_a_window_that_stays_shut_costs_the_stream(path: bytes, tmp_path: Path) -> None:
    released = asyncio.Event()
    async with (
        Origin(lambda link: _sends_without_end(link, released)) as origin,
        served(tmp_path, origin, SLOW, own="x" * 2000) as proxy,
        connected(proxy, window=1000) as client,
    ):
        _open_no_windows(client)
        answer = await client.ask(get(path))
        assert answer.status == 200
        assert len(answer.body) < 1000
        assert answer.reset == Code.INTERNAL_ERROR
        assert await client.end() == [Code.NO_ERROR]  # it is idle
        if path == b"/long":
            [link] = origin.links
            await link.gone()
        released.set()


async def test_a_client_that_hears_nothing_is_cut_off(tmp_path: Path) -> None:
    released = asyncio.Event()
    async with (
        Origin(lambda link: _sends_without_end(link, released)) as origin,
        served(tmp_path, origin, SLOW) as proxy,
        connected(proxy) as client,
    ):
        client.begin(get(b"/long"))
        await client.flush()
        client.is_deaf = True
        await until(lambda: refusals(proxy, 408) == 1)
        assert sum(map(len, client.datagrams)) < 2 * 1024 * 1024
        [link] = origin.links
        await link.gone()
        await _nobody_is_left(proxy)
        released.set()


async def test_slow_heads_and_idle_connections_end(tmp_path: Path) -> None:
    async with Origin() as origin, served(tmp_path, origin, SLOW) as proxy:
        async with connected(proxy) as client:
            client.quic.send_stream_data(0, HEAD[:9])
            await client.flush()
            assert await client.end() == [Code.EXCESSIVE_LOAD]
        async with connected(proxy) as client:
            client.quic.send_stream_data(0, b"")
            assert await client.end() == [Code.NO_ERROR]
            assert client.goaways == [0]
        async with connected(proxy) as client:
            assert (await client.ask(get())).status == 200
            assert await client.end() == [Code.NO_ERROR]
            assert client.goaways == [4]


# ------------------------------------------------------------------------- windows


async def test_a_body_that_the_origin_does_not_take_is_not_held(tmp_path: Path) -> None:
    released = asyncio.Event()
    size = 30 * 1024 * 1024

    async def act(link: Link) -> None:
        transport = cast(asyncio.Transport, link.writer.transport)
        transport.pause_reading()
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        await released.wait()
        transport.resume_reading()
        if await link.request():
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        Origin(act) as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        asked = client.begin([*POST, (b"content-length", b"%d" % size)], ended=False)
        client.send(asked, bytes(size), ended=True)
        await client.flush()
        stream = client.quic._streams[asked].sender
        held = -1
        while held != stream.highest_offset:  # until nothing has been sent for a while
            held = stream.highest_offset
            await asyncio.sleep(0.5)
        small = await client.ask(get(b"/own"))
        assert small.status == 200
        assert stream.highest_offset == held < size // 2  # most of it by the kernel
        released.set()
        assert (await client.answer(asked)).status == 200


async def test_bodies_that_nobody_wants_do_not_use_up_the_windows(tmp_path: Path) -> None:
    """Refused uploads, each of which leaves something on its way."""
    async with (
        Origin() as origin,
        served(tmp_path, origin, "{body_size: 10KB}") as proxy,
        connected(proxy) as client,
    ):
        for _ in range(40):
            asked = client.begin([*POST, (b"content-length", b"90000")], ended=False)
            client.send(asked, bytes(30_000))
            await client.flush()
            assert (await client.answer(asked)).status == 413
        assert (await client.ask([*POST], b"x" * 9000)).status == 200


async def test_as_many_requests_as_one_likes_one_after_the_other(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        for _ in range(8):
            asked = [client.begin(get(b"/own")) for _ in range(MAX_STREAMS // 2)]
            await client.flush()
            for one in asked:
                assert (await client.answer(one)).status == 200
