"""Rows 3 and 27: HTTP/2 that would become something else at an origin, and floods of frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
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
from edgeproxy.testing import Proxy, running
from tests.certificates import Authority
from tests.http2_client import GET, POST, Answer, Client, connected, get
from tests.threats.raw import Link, Origin, send

POLICY = """\
version: 1
origins: {{site: {{url: http://127.0.0.1:1/, kind: http}}}}
tls: {{certificates: [{{certificate: {folder}/server.pem, key: {folder}/server.key}}]}}
limits: {limits}
routes:
  - {{name: own, match: {{path: /own}}, respond: {{body: "{own}"}}}}
  - {{name: all, origin: site, cache: false}}
"""
PROTOCOL_ERROR, CALM = Code.PROTOCOL_ERROR, Code.ENHANCE_YOUR_CALM
Fields = list[tuple[bytes, bytes]]


@asynccontextmanager
async def served(
    folder: Path, origin: Origin, limits: str = "{}", own: str = "own"
) -> AsyncIterator[Proxy]:
    Authority.in_folder(folder, "authority").sign(folder, "server", "a.example", "127.0.0.1")
    policy = POLICY.format(folder=folder, limits=limits, own=own)
    async with running(policy, origins={"site": origin.url}, tls=True) as proxy:
        yield proxy


async def a_clean_client_is_served(proxy: Proxy) -> None:
    async with connected(proxy) as client:
        began_s = time.monotonic()
        assert (await client.ask(get())).status == 200
        assert time.monotonic() - began_s < 1


# ---------------------------------------------------------------- row 3: what an origin gets

BODIES: dict[str, tuple[Fields, list[bytes], Fields]] = {
    "no length": ([], [b"abc", b"def"], []),
    "no length, a request as body": ([], [b"GET /evil HTTP/1.1\r\nHost: b.example\r\n\r\n"], []),
    "no length, the end of chunks as body": ([], [b"0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"], []),
    "no length, an empty body": ([], [b""], []),
    "a length": ([(b"content-length", b"6")], [b"abc", b"def"], []),
    "a length of nothing": ([(b"content-length", b"0")], [b""], []),
    "trailers": ([], [b"abc"], [(b"x-checksum", b"1"), (b"content-length", b"99")]),
    "trailers and a length": ([(b"content-length", b"3")], [b"abc"], [(b"host", b"b.example")]),
    "expectation": ([(b"expect", b"100-continue")], [b"abc"], []),
}


@pytest.mark.parametrize("what", BODIES)
async def test_a_body_reaches_the_origin_as_one_request(what: str, tmp_path: Path) -> None:
    fields, parts, trailers = BODIES[what]
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        answer = await client.ask([*POST, *fields], *parts, trailers=trailers)
        assert (answer.status, answer.body) == (200, b"ok")
        assert (await client.ask(get(b"/next"))).status == 200
        first, second = origin.requests()
        assert (first.method, first.target, first.body) == ("POST", "/", b"".join(parts))
        assert (second.method, second.target, second.body) == ("GET", "/next", b"")
        assert not {"x-checksum", "evil"} & {name for name, _ in first.fields}


REFUSED: dict[str, tuple[Fields, int]] = {
    "CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"a.example:443")], 405),
    "TRACE": ([(b":method", b"TRACE"), *get()[1:]], 405),
    "a method in lower case": ([(b":method", b"get"), *get()[1:]], 501),
    "a path that climbs": (get(b"/../etc/passwd"), 400),
    "a path with an encoded slash": (get(b"/a%2fb"), 400),
    "a path with a fragment": (get(b"/a#b"), 400),
    "an asterisk for GET": (get(b"*"), 400),
    "a user in the authority": ([*GET[:2], (b":authority", b"u@a.example"), (b":path", b"/")], 400),
    "a length in disguise": (get(b"/", (b"content_length", b"5")), 400),
    "another expectation": (get(b"/", (b"expect", b"a-miracle")), 417),
    "a long path": (get(b"/" + b"x" * 9000), 414),
    "many fields": (get(b"/", *[(b"x", b"y")] * 101), 431),
    "a large head": (get(b"/", (b"x", b"y" * 20_000), (b"z", b"y" * 12_900)), 431),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_the_front_refuses_is_refused_on_its_stream(what: str, tmp_path: Path) -> None:
    fields, status = REFUSED[what]
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        assert (await client.ask(fields)).status == status
        assert (await client.ask(get(b"/own"))).status == 200  # the connection goes on
        assert not origin.received


MALFORMED: dict[str, Fields] = {
    "no path": [*GET],
    "no method": get()[1:],
    "no scheme": [GET[0], GET[2], (b":path", b"/")],
    "no authority": [*GET[:2], (b":path", b"/")],
    "two paths": [*get(), (b":path", b"/evil")],
    "a late pseudo-field": [*GET, (b"accept", b"*/*"), (b":path", b"/")],
    "an absolute path": get(b"http://b.example/"),
    "an empty path": get(b""),
    "an empty authority": [*GET[:2], (b":authority", b""), (b":path", b"/")],
    "another host": get(b"/", (b"host", b"b.example")),
    "two hosts": get(b"/", (b"host", b"a.example"), (b"host", b"b.example")),
    "another scheme": [GET[0], (b":scheme", b"http"), GET[2], (b":path", b"/")],
    "upper case": get(b"/", (b"X-Evil", b"y")),
    "CR in a value": get(b"/", (b"x", b"y\rz")),
    "LF in a value": get(b"/", (b"x", b"y\nevil: 1")),
    "CRLF in a value": get(b"/", (b"x", b"y\r\n\r\nGET /evil HTTP/1.1\r\nHost: b\r\n\r\n")),
    "NUL in a value": get(b"/", (b"x", b"y\0z")),
    "CRLF in a name": get(b"/", (b"x: y\r\nevil", b"1")),
    "a colon in a name": get(b"/", (b"x:evil", b"1")),
    "CRLF in the path": get(b"/ HTTP/1.1\r\nevil: 1\r\nx: "),
    "CRLF in the method": [(b":method", b"GET / HTTP/1.1\r\nevil: 1\r\n\r\nGET"), *get()[1:]],
    "CRLF in the authority": [*GET[:2], (b":authority", b"a\r\nevil: 1"), (b":path", b"/")],
    "CRLF in a cookie": get(b"/", (b"cookie", b"a=1"), (b"cookie", b"b\r\nevil: 1")),
    "connection": get(b"/", (b"connection", b"x-forwarded-for")),
    "keep-alive": get(b"/", (b"keep-alive", b"5")),
    "proxy-connection": get(b"/", (b"proxy-connection", b"keep-alive")),
    "transfer-encoding": get(b"/", (b"transfer-encoding", b"chunked")),
    "upgrade to h2c": get(b"/", (b"upgrade", b"h2c"), (b"http2-settings", b"")),
    "te": get(b"/", (b"te", b"gzip")),
    "extended CONNECT": [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        *get()[1:],
    ],
    "CONNECT with a path": [(b":method", b"CONNECT"), *get()[1:]],
    "two lengths": get(b"/", (b"content-length", b"0"), (b"content-length", b"5")),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_what_http_2_forbids_ends_its_stream_alone(what: str, tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        under_way = client.begin([*POST], ended=False)
        answer = await client.ask(MALFORMED[what])
        assert (answer.status, answer.reset) == (0, PROTOCOL_ERROR)
        client.h2.send_data(under_way, b"abc", end_stream=True)
        await client.flush()
        assert (await client.answer(under_way)).status == 200
        [asked] = origin.requests()
        assert (asked.target, asked.body) == ("/", b"abc")


WRONG_LENGTHS: dict[str, tuple[Fields, list[bytes]]] = {
    "too long": ([(b"content-length", b"3")], [b"abcGET /evil HTTP/1.1\r\n\r\n"]),
    "too short": ([(b"content-length", b"30")], [b"abc"]),
    "too long later": ([(b"content-length", b"3")], [b"ab", b"cGET /evil HTTP/1.1\r\n\r\n"]),
    "no number": ([(b"content-length", b"3a")], [b"abc"]),
    "signed": ([(b"content-length", b"+3")], [b"abc"]),
    "with an underscore": ([(b"content-length", b"0_3")], [b"abc"]),
    "not there": ([(b"content-length", b"3")], []),
}


@pytest.mark.parametrize("what", WRONG_LENGTHS)
async def test_a_length_that_is_wrong_is_never_believed(what: str, tmp_path: Path) -> None:
    fields, parts = WRONG_LENGTHS[what]
    async with Origin() as origin, served(tmp_path, origin) as proxy:
        async with connected(proxy) as client:
            with suppress(AssertionError):
                answer = await client.ask([*POST, *fields], *parts)
                assert answer.status == 0
                assert answer.reset or client.goaways or await client.end()
        await a_clean_client_is_served(proxy)
        assert b"evil" not in origin.received
        whole = [link for link in origin.links if link.asked]
        assert [bytes(link.received[:4]) for link in whole] == [b"GET "]


async def test_bad_trailers_end_the_request(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        answer = await client.ask([*POST], b"abc", trailers=[(b"X", b"y\r\nz")])
        assert (answer.status, answer.reset) == (0, PROTOCOL_ERROR)
        assert (await client.ask(get())).status == 200
        assert [link.asked for link in origin.links if link.asked] == [1]


async def test_a_body_over_its_limit_is_told_so(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin, "{body_size: 10KB}") as proxy,
        connected(proxy) as client,
    ):
        told = await client.ask([*POST, (b"content-length", b"20000")], b"x" * 10_000)
        assert (told.status, told.reset) == (413, None)
        assert (await client.ask([*POST], b"x" * 16_000)).status == 413
        assert (await client.ask(get())).status == 200


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


async def test_every_connection_may_have_a_request_under_way(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        if await link.request():
            if len(origin.links) == 2:
                released.set()
            await released.wait()
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        Origin(act) as origin,
        served(tmp_path, origin, "{connections_per_client: 2}") as proxy,
        connected(proxy) as one,
        connected(proxy) as other,
    ):
        for _ in range(2):  # all is counted as it was
            asked = [(client, client.begin(get())) for client in (one, other) for _ in range(3)]
            for client in (one, other):
                await client.flush()
            told = [await client.answer(number) for client, number in asked]
            assert [answer.status for answer in told] == [200] * 6
        assert (await send(proxy.port, b"")).startswith(b"HTTP/1.1 503 ")


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


async def test_who_has_no_room_for_what_waits_is_told_so(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        if await link.request():
            await released.wait()
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        Origin(act) as origin,
        served(tmp_path, origin, "{connections_per_client: 2}") as proxy,
        connected(proxy) as client,
    ):
        numbers = [client.begin(get(b"/", (b"x", b"y" * 20_000))) for _ in range(10)]
        await client.flush()
        refused = [await client.answer(number) for number in numbers[8:]]
        assert [answer.status for answer in refused] == [503, 503]
        released.set()
        told = [await client.answer(number) for number in numbers[:8]]
        assert [answer.status for answer in told] == [200] * 8


async def test_many_crumbs_of_cookies_pass_and_too_many_are_told_so(tmp_path: Path) -> None:
    """1,000 requests with as many crumbs as browsers may send; then one with too many."""
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        connected(proxy) as client,
    ):
        crumbs = [(b"cookie", b"a%d=1" % number) for number in range(100)]
        for _ in range(1000 // MAX_STREAMS):
            numbers = [client.begin(get(b"/own", *crumbs)) for _ in range(MAX_STREAMS)]
            await client.flush()
            for number in numbers:
                assert (await client.answer(number)).status == 200
        crumbs = [(b"cookie", b"x" * 100)] * 400
        assert (await client.ask(get(b"/own", *crumbs))).status == 431
        assert (await client.ask(get(b"/own"))).status == 200


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


async def test_requests_count_as_connections_and_wait_for_each_other(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        if await link.request():
            await released.wait()
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        Origin(act) as origin,
        served(tmp_path, origin, "{connections_per_client: 3}") as proxy,
        connected(proxy) as client,
    ):
        numbers = [client.begin(get(b"/%d" % number)) for number in range(9)]
        numbers.append(client.begin([*POST], ended=False))  # what has a body does not wait
        large = client.begin(get(b"/large", (b"x", b"y" * 20_000)))
        client.h2.reset_stream(client.begin(get(b"/nobody-waits-for-this")))
        await client.flush()
        assert (await client.answer(numbers.pop())).status == 503
        assert (await send(proxy.port, b"")).startswith(b"HTTP/1.1 503 ")
        assert [link.asked for link in origin.links] == [1, 1, 1]
        released.set()
        numbers.append(large)
        told = [await client.answer(number) for number in numbers]
        assert [answer.status for answer in told] == [200] * 10
        assert b"nobody" not in origin.received


# ---------------------------------------------------------------------- rows 25: slow clients

SLOW = "{head_timeout: 300ms, idle_timeout: 900ms, body_timeout: 300ms, send_timeout: 300ms, "
SLOW += "body_rate: 100KB}"


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


async def test_a_body_that_does_not_come_is_told_so(tmp_path: Path) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin, SLOW) as proxy,
        connected(proxy) as client,
    ):
        number = client.begin([*POST], ended=False)
        await client.flush()
        assert (await client.answer(number)).status == 408
        assert not origin.received


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
