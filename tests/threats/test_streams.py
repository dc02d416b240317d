"""Rows 3 and 27: HTTP/2 and HTTP/3 that would become something else at an origin, or take too much.

What each of them has of its own is in `test_http2.py` and `test_http3.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edgeproxy.engine.http2 import MAX_STREAMS
from edgeproxy.testing import Proxy, running
from tests import http2_client
from tests.certificates import Authority
from tests.http2_client import GET, POST, get
from tests.threats.conftest import Version
from tests.threats.raw import Link, Origin, send

POLICY = """\
version: 1
origins: {{site: {{url: http://127.0.0.1:1/, kind: http}}}}
tls:
  certificates: [{{certificate: {folder}/server.pem, key: {folder}/server.key}}]
  protocols: [h3, h2, http/1.1]
limits: {limits}
routes:
  - {{name: own, match: {{path: /own}}, respond: {{body: "{own}"}}}}
  - {{name: all, origin: site, cache: false}}
"""
Fields = list[tuple[bytes, bytes]]


SLOW = "{head_timeout: 300ms, idle_timeout: 900ms, body_timeout: 300ms, send_timeout: 300ms, "
SLOW += "body_rate: 100KB}"


@asynccontextmanager
async def served(
    folder: Path, origin: Origin, limits: str = "{}", own: str = "own"
) -> AsyncIterator[Proxy]:
    Authority.in_folder(folder, "authority").sign(folder, "server", "a.example", "127.0.0.1")
    policy = POLICY.format(folder=folder, limits=limits, own=own)
    async with running(policy, origins={"site": origin.url}, tls=True) as proxy:
        yield proxy


async def a_clean_client_is_served(proxy: Proxy) -> None:
    async with http2_client.connected(proxy) as client:
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
async def test_a_body_reaches_the_origin_as_one_request(
    what: str, tmp_path: Path, version: Version
) -> None:
    fields, parts, trailers = BODIES[what]
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        version.connected(proxy) as client,
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
    "a large head": (get(b"/", (b"x", b"a" * 20_000), (b"z", b"a" * 12_900)), 431),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_the_front_refuses_is_refused_on_its_stream(
    what: str, tmp_path: Path, version: Version
) -> None:
    fields, status = REFUSED[what]
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        version.connected(proxy) as client,
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
async def test_what_they_forbid_ends_its_stream_alone(
    what: str, tmp_path: Path, version: Version
) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        version.connected(proxy) as client,
    ):
        under_way = client.begin([*POST], ended=False)
        answer = await client.ask(MALFORMED[what])
        assert (answer.status, answer.reset) == (0, version.malformed)
        client.send(under_way, b"abc", ended=True)
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
async def test_a_length_that_is_wrong_is_never_believed(
    what: str, tmp_path: Path, version: Version
) -> None:
    fields, parts = WRONG_LENGTHS[what]
    async with Origin() as origin, served(tmp_path, origin) as proxy:
        async with version.connected(proxy) as client:
            with suppress(AssertionError):
                answer = await client.ask([*POST, *fields], *parts)
                assert answer.status == 0
                assert answer.reset or client.goaways or await client.end()
        await a_clean_client_is_served(proxy)
        assert b"evil" not in origin.received
        whole = [link for link in origin.links if link.asked]
        assert [bytes(link.received[:4]) for link in whole] == [b"GET "]


async def test_bad_trailers_end_the_request(tmp_path: Path, version: Version) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        version.connected(proxy) as client,
    ):
        answer = await client.ask([*POST], b"abc", trailers=[(b"X", b"y\r\nz")])
        assert (answer.status, answer.reset) == (0, version.malformed)
        assert (await client.ask(get())).status == 200
        assert [link.asked for link in origin.links if link.asked] == [1]


async def test_a_body_over_its_limit_is_told_so(tmp_path: Path, version: Version) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin, "{body_size: 10KB}") as proxy,
        version.connected(proxy) as client,
    ):
        told = await client.ask([*POST, (b"content-length", b"20000")], b"x" * 10_000)
        assert (told.status, told.reset) == (413, None)
        assert (await client.ask([*POST], b"x" * 16_000)).status == 413
        assert (await client.ask(get())).status == 200


# ------------------------------------------------------------------------- row 27: its share


async def test_every_connection_may_have_a_request_under_way(
    tmp_path: Path, version: Version
) -> None:
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
        version.connected(proxy) as one,
        version.connected(proxy) as other,
    ):
        for _ in range(2):  # all is counted as it was
            asked = [(client, client.begin(get())) for client in (one, other) for _ in range(3)]
            for client in (one, other):
                await client.flush()
            told = [await client.answer(number) for client, number in asked]
            assert [answer.status for answer in told] == [200] * 6
        assert (await send(proxy.port, b"")).startswith(b"HTTP/1.1 503 ")


async def test_who_has_no_room_for_what_waits_is_told_so(tmp_path: Path, version: Version) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        if await link.request():
            await released.wait()
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        Origin(act) as origin,
        served(tmp_path, origin, "{connections_per_client: 2}") as proxy,
        version.connected(proxy) as client,
    ):
        numbers = [client.begin(get(b"/", (b"x", b"y" * 20_000))) for _ in range(10)]
        await client.flush()
        while sum(answer.is_over for answer in client.answers.values()) < 2:
            await client.hear()
        released.set()
        told = [await client.answer(number) for number in numbers]
        assert sorted(answer.status for answer in told) == [200] * 8 + [503] * 2


async def test_many_crumbs_of_cookies_pass_and_too_many_are_told_so(
    tmp_path: Path, version: Version
) -> None:
    """1,000 requests with as many crumbs as browsers may send; then one with too many."""
    async with (
        Origin() as origin,
        served(tmp_path, origin) as proxy,
        version.connected(proxy) as client,
    ):
        crumbs = [(b"cookie", b"a%d=1" % number) for number in range(100)]
        for _ in range(1000 // MAX_STREAMS):
            numbers = [client.begin(get(b"/own", *crumbs)) for _ in range(MAX_STREAMS)]
            await client.flush()
            for number in numbers:
                assert (await client.answer(number)).status == 200
        crumbs = [(b"cookie", b"a" * 100)] * 400
        assert (await client.ask(get(b"/own", *crumbs))).status == 431
        assert (await client.ask(get(b"/own"))).status == 200


async def test_requests_count_as_connections_and_wait_for_each_other(
    tmp_path: Path, version: Version
) -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        if await link.request():
            await released.wait()
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        Origin(act) as origin,
        served(tmp_path, origin, "{connections_per_client: 3}") as proxy,
        version.connected(proxy) as client,
    ):
        numbers = [client.begin(get(b"/%d" % number)) for number in range(9)]
        numbers.append(client.begin([*POST], ended=False))  # what has a body does not wait
        large = client.begin(get(b"/large", (b"x", b"y" * 20_000)))
        client.cancel(client.begin(get(b"/nobody-waits-for-this")))
        await client.flush()
        assert (await client.answer(numbers.pop())).status == 503
        assert (await send(proxy.port, b"")).startswith(b"HTTP/1.1 503 ")
        assert [link.asked for link in origin.links] == [1, 1, 1]
        released.set()
        numbers.append(large)
        told = [await client.answer(number) for number in numbers]
        assert [answer.status for answer in told] == [200] * 10
        assert b"nobody" not in origin.received


async def test_a_body_that_does_not_come_is_told_so(tmp_path: Path, version: Version) -> None:
    async with (
        Origin() as origin,
        served(tmp_path, origin, SLOW) as proxy,
        version.connected(proxy) as client,
    ):
        number = client.begin([*POST], ended=False)
        await client.flush()
        assert (await client.answer(number)).status == 408
        assert not origin.received
