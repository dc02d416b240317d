"""Rows 3 and 27: HTTP/2 that would become something else at an origin, and floods of frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from edgeproxy.engine.allowance import ALLOWANCE, RESET_COST
from edgeproxy.engine.frames import PREFACE, Code
from edgeproxy.engine.http2 import MAX_STREAMS
from tests.http2_client import POST, Answer, Client, connected, get
from tests.threats.raw import Link, Origin, send
from tests.threats.test_streams import SLOW, a_clean_client_is_served, served

PROTOCOL_ERROR, CALM = Code.PROTOCOL_ERROR, Code.ENHANCE_YOUR_CALM
Fields = list[tuple[bytes, bytes]]


async def test_cleartext_http_2_is_refused(tmp_path: Path) -> None:
    async with Origin() as origin, served(tmp_path, origin) as proxy:
        assert (await send(proxy.port, PREFACE)).startswith(b"HTTP/1.1 505 ")
        upgrade = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade, http2-settings\r\n"
        got = await send(proxy.port, upgrade + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 ")
        assert origin.requests()[0].get("upgrade") is None


async def test_http_1_1_after_http_2_was_agreed_on_is_refused(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy, greets=False) as client,
    ):
        await client.raw(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert await client.end() == [PROTOCOL_ERROR]
        assert not origin.received


# ------------------------------------------------------------------------- row 27: floods


def _requests_and_resets(client: Client) -> Iterator[bytes]:
    for number in range(1, 2000, 2):
        head = HeadersFrame(number, client.h2.encoder.encode(get()), flags=["END_HEADERS"])
        yield head.serialize() + RstStreamFrame(number, error_code=8).serialize()


def _malformed_requests(client: Client) -> Iterator[bytes]:
    for number in range(1, 2000, 2):
        data = client.h2.encoder.encode([*get(), (b"X", b"y")])
        yield HeadersFrame(number, data, flags=["END_HEADERS", "END_STREAM"]).serialize()


def _windows_that_overflow(client: Client) -> Iterator[bytes]:
    """Made you reset: each of these has the server end a stream of its own accord."""
    for number in range(1, 2000, 2):
        head = HeadersFrame(number, client.h2.encoder.encode(get()), flags=["END_HEADERS"])
        window = WindowUpdateFrame(number, window_increment=2**31 - 1)
        yield head.serialize() + window.serialize()


def _empty_data(client: Client) -> Iterator[bytes]:
    head = HeadersFrame(1, client.h2.encoder.encode(POST), flags=["END_HEADERS"])
    yield head.serialize()
    yield from (DataFrame(1).serialize() for _ in range(1000))


def _same(frame: Frame, times: int = 1000) -> Iterator[bytes]:
    return (frame.serialize() for _ in range(times))


def _endless_block(client: Client) -> Iterator[bytes]:
    yield HeadersFrame(1, b"").serialize()
    yield from (ContinuationFrame(1, b"").serialize() for _ in range(1000))


def _large_block(client: Client) -> Iterator[bytes]:
    yield HeadersFrame(1, b"x" * 16_000).serialize()
    yield from (ContinuationFrame(1, b"x" * 16_000).serialize() for _ in range(8))


def _crumbs(client: Client) -> Iterator[bytes]:
    """Hundreds of fields by one byte each."""
    for number in range(1, 200, 2):
        data = client.h2.encoder.encode([*get(), *[(b"cookie", b"a=1")] * 1000])
        yield HeadersFrame(number, data, flags=["END_HEADERS", "END_STREAM"]).serialize()


def _compression_bomb(client: Client) -> Iterator[bytes]:
    """A field of 4,000 bytes, which is then named by one byte a time."""
    first = client.h2.encoder.encode([*get(), (b"x", b"y" * 4000)])
    flags = ["END_HEADERS", "END_STREAM"]
    yield HeadersFrame(1, first, flags=flags).serialize()
    again = client.h2.encoder.encode([*get(), *[(b"x", b"y" * 4000)] * 3000])
    assert len(again) < 5000
    yield HeadersFrame(3, again, flags=flags).serialize()


FLOODS = {
    "rapid reset": _requests_and_resets,
    "malformed requests": _malformed_requests,
    "windows that overflow": _windows_that_overflow,
    "empty DATA": _empty_data,
    "PING": lambda _: _same(PingFrame(0, b"12345678")),
    "SETTINGS": lambda _: _same(SettingsFrame(0, {SettingCodes.MAX_FRAME_SIZE: 16384})),
    "SETTINGS that are answers": lambda _: _same(SettingsFrame(0, flags=["ACK"])),
    "WINDOW_UPDATE": lambda _: _same(WindowUpdateFrame(0, window_increment=1)),
    "PRIORITY": lambda _: _same(PriorityFrame(1, depends_on=3, stream_weight=9)),
    "an endless field block": _endless_block,
    "a large field block": _large_block,
    "a compression bomb": _compression_bomb,
    "crumbs of cookies": _crumbs,
}


@pytest.mark.parametrize("what", FLOODS)
async def test_a_flood_ends_its_connection_and_nobody_elses(what: str, tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as bystander,
        connected(proxy) as client,
    ):
        began_s = time.monotonic()
        await client.raw(b"".join(FLOODS[what](client)))
        assert (await bystander.ask(get())).status == 200
        await a_clean_client_is_served(proxy)
        assert await client.end() == [CALM]
        assert time.monotonic() - began_s < 5
        assert len(origin.links) <= ALLOWANCE // RESET_COST + 2


async def test_however_a_connection_ends_it_is_counted_no_more(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        await link.request()
        await released.wait()

    async with (
        Origin(act) as origin,
        served(tmp_path, origin, "{connections_per_client: 2}") as proxy,
    ):
        for ending in (b"\xff" * 9, b""):
            async with connected(proxy) as client:
                for _ in range(4):
                    client.begin(get())
                await client.flush()
                client.h2.ping(b"12345678")
                await client.flush()
                while not client.pings:
                    await client.hear()
                if ending:
                    await client.raw(ending)
                    assert await client.end() == [Code.FRAME_SIZE_ERROR]
            while (await send(proxy.port, b"")).startswith(b"HTTP/1.1 503 "):
                pass
        assert not proxy.server.app.counts.connections_open
        async with connected(proxy), connected(proxy):
            assert (await send(proxy.port, b"")).startswith(b"HTTP/1.1 503 ")
        released.set()


async def test_more_streams_than_we_say_end_the_connection(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        await link.request()
        await released.wait()

    async with (
        Origin(act) as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        data = client.h2.encoder.encode(get())
        for number in range(1, 2 * MAX_STREAMS + 2, 2):
            flags = ["END_HEADERS", "END_STREAM"]
            await client.raw(HeadersFrame(number, data, flags=flags))
        assert await client.end() == [PROTOCOL_ERROR]
        released.set()


# ---------------------------------------------------------------------- rows 25: slow clients


async def _stall(client: Client, path: bytes) -> Answer:
    """Ask, and take nothing but what the first window lets through."""
    client.takes_data = False
    return await client.ask(get(path))


@pytest.mark.parametrize("window", [0, 1000])
@pytest.mark.parametrize("path", [b"/own", b"/long"])
async def test_a_window_that_stays_shut_costs_the_stream(
    window: int, path: bytes, tmp_path: Path
) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        await link.request()
        with suppress(ConnectionError):
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
            while not released.is_set():
                await link.send(b"x" * 65536)
                await asyncio.sleep(0)

    async with (
        Origin(act) as origin,
        served(tmp_path, origin, SLOW, own="x" * 2000) as proxy,
        connected(proxy, window=window) as client,
    ):
        answer = await _stall(client, path)
        assert (answer.status, len(answer.body)) == (200, window)
        assert answer.reset == Code.INTERNAL_ERROR
        assert await client.end() == [Code.NO_ERROR]  # it is idle
        if path == b"/long":
            [link] = origin.links
            await link.gone()
        released.set()


async def test_slow_heads_and_idle_connections_end(tmp_path: Path) -> None:
    async with Origin() as origin, served(tmp_path, origin, SLOW) as proxy:
        async with connected(proxy, greets=False) as client:
            assert await client.end() == [CALM]
        async with connected(proxy, greets=False) as client:
            await client.raw(PREFACE[:9])
            assert await client.end() == [CALM]
        async with connected(proxy) as client:
            client.greeted = False  # nothing may come in between
            await client.raw(HeadersFrame(1, client.h2.encoder.encode(get())))
            assert await client.end() == [CALM]
        async with connected(proxy) as client:
            assert await client.end() == [Code.NO_ERROR]
        async with connected(proxy) as client:
            for _ in range(100):
                await client.raw(PingFrame(0, b"12345678"))  # which is no request
            assert await client.end() == [Code.NO_ERROR]
            assert client.pings == 100


async def test_a_client_that_reads_nothing_is_cut_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgeproxy.front")
    async with (
        Origin() as origin,
        served(tmp_path, origin, SLOW, own="x" * 60_000) as proxy,
        connected(proxy, window=2**31 - 1) as client,
    ):
        client.h2.increment_flow_control_window(2**30)
        client.writer.transport.pause_reading()
        for _ in range(MAX_STREAMS):
            client.begin(get(b"/own"))
        await client.flush()
        async with asyncio.timeout(10):
            while "the client does not read" not in caplog.text:
                await a_clean_client_is_served(proxy)
