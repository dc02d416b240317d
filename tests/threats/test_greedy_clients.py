"""Rows 25 and 28: clients that are slow, or ask for too much, end at a limit of the policy."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from edgeproxy.testing import Proxy, running
from tests.threats.raw import Link, Origin, answers, ask, send

POLICY = """\
version: 1
origins: {site: {url: http://127.0.0.1:1/, kind: http}}
limits:
  head_timeout: 300ms
  body_timeout: 300ms
  idle_timeout: 300ms
  send_timeout: 300ms
  body_rate: 100KB
  body_size: 64MiB
routes: [{name: all, origin: site, cache: false}]
"""
DEADLINE_S = 0.3


async def drip(port: int, start: bytes, piece: bytes) -> tuple[bytes, float]:
    """What comes back while pieces are sent one by one, and the seconds until the end."""
    began_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    with suppress(ConnectionError):
        writer.write(start)
        async with asyncio.timeout(10):
            while True:
                try:
                    async with asyncio.timeout(0.05):
                        data = await reader.read(65536)
                except TimeoutError:
                    writer.write(piece)
                    continue
                if not data:
                    break
                got += data
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return got, time.monotonic() - began_s


GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"
SLOW = {
    "a head line by line": (GET, b"X: y\r\n"),
    "a head byte by byte": (GET + b"X: ", b"y"),
    "a request line": (b"GET /", b"a"),
    "half a head": (GET, b""),
    "one byte": (b"G", b""),
    "a body byte by byte": (POST + b"Content-Length: 99999\r\n\r\n", b"x"),
    "a body that never comes": (POST + b"Content-Length: 99999\r\n\r\n", b""),
    "chunks byte by byte": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "half a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nfff\r\nx", b""),
    "a long body that drips": (POST + b"Content-Length: 99999\r\n\r\n" + b"x" * 40_000, b"x"),
}


async def _others_are_served(proxy: Proxy) -> None:
    began_s = time.monotonic()
    assert (await ask(proxy.port)).status == 200
    assert time.monotonic() - began_s < 1


@pytest.mark.parametrize("what", SLOW)
async def test_slow_request_ends_at_its_deadline(what: str) -> None:
    start, piece = SLOW[what]
    async with Origin() as origin, running(POLICY, origins={"site": origin.url}) as proxy:
        dripping = [asyncio.ensure_future(drip(proxy.port, start, piece)) for _ in range(20)]
        await _others_are_served(proxy)
        for got, took_s in await asyncio.gather(*dripping):
            replies = answers(got)
            assert [reply.status for reply in replies] in ([408], [])
            assert took_s < DEADLINE_S * 2 + 1
        assert not any(asked.method == "POST" and asked.body for asked in _whole(origin))
        await _others_are_served(proxy)


def _whole(origin: Origin) -> list:  # type: ignore[type-arg]
    """The requests that came whole; the long body's may have begun."""
    with suppress(AssertionError):
        return origin.requests()
    return []


async def test_slow_head_and_body_are_told_so() -> None:
    async with Origin() as origin, running(POLICY, origins={"site": origin.url}) as proxy:
        for what in ("half a head", "a body that never comes", "half a chunk"):
            got, _ = await drip(proxy.port, *SLOW[what])
            [reply] = answers(got)
            assert (reply.status, reply.get("connection")) == (408, "close")


async def test_connection_without_a_request_is_closed() -> None:
    async with Origin() as origin, running(POLICY, origins={"site": origin.url}) as proxy:
        began_s = time.monotonic()
        assert await send(proxy.port, b"", half_close=False) == b""
        got = await send(proxy.port, GET + b"\r\n", half_close=False)
        assert [reply.status for reply in answers(got)] == [200]
        assert time.monotonic() - began_s < 2


async def test_client_that_does_not_read_loses_its_connection_and_the_origin_its_burden() -> None:
    released = asyncio.Event()

    async def act(link: Link) -> None:
        await link.request()
        if link.number:
            await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        await link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500000000\r\n\r\n")
        try:
            while True:
                await link.send(b"x" * 65536)
        finally:
            released.set()

    async with Origin(act) as origin, running(POLICY, origins={"site": origin.url}) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
        writer.write(GET + b"\r\n")
        await reader.read(100)
        await _others_are_served(proxy)
        async with asyncio.timeout(5):
            await released.wait()
        assert sum(len(link.received) for link in origin.links) < 10_000
        writer.transport.abort()
        await _others_are_served(proxy)


@pytest.mark.parametrize("cache", ["all", "false"])
async def test_ranges_without_number_cost_no_more_than_the_whole(cache: str) -> None:
    """Also where the origin is asked for them: it is the proxy that answers the visitor."""
    ranges = ",".join(["0-", *(f"5-{last}" for last in range(6, 900))])
    body = bytes(range(256)) * 400

    async def act(link: Link) -> None:
        while await link.request() is not None:
            head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n"
            await link.send(head % len(body) + body)

    policy = POLICY.replace("cache: false", f"cache: {cache}").replace(
        "limits:", "cache: {memory: {max_size: 8MiB}, rules: {all: {ttl: 1m}}}\nlimits:"
    )
    async with Origin(act) as origin, running(policy, origins={"site": origin.url}) as proxy:
        await ask(proxy.port)
        await proxy.server.app.plan.cache.settled()
        asking = (ask(proxy.port, "/", f"Range: bytes={ranges}") for _ in range(20))
        for reply in await asyncio.gather(*asking):
            assert reply.status in (200, 206)
            assert len(reply.body) <= len(body)
        await _others_are_served(proxy)


# ------------------------------------------------------------ row 28


TOO_MUCH = {
    "a head of 40 KB": (GET + b"X: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    "a head of 2 MB": (GET + b"X: " + b"y" * 2_000_000 + b"\r\n\r\n", 431),
    "many small fields": (GET + b"X: y\r\n" * 101 + b"\r\n", 431),
    "a thousand fields": (GET + b"X: y\r\n" * 1000 + b"\r\n", 431),
    "a name of 40 KB": (GET + b"x" * 40_000 + b": y\r\n\r\n", 431),
    "a cookie of 40 KB": (GET + b"Cookie: a=" + b"y" * 40_000 + b"\r\n\r\n", 431),
    "a target of 9 KB": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", 414),
    "a query of 9 KB": (b"GET /?" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n", 414),
    "a target of 2 MB": (b"GET /" + b"a" * 2_000_000, 414),
    "a body too large": (POST + b"Content-Length: 99999999\r\n\r\n", 413),
    "a body of many digits": (POST + b"Content-Length: 999999999999999999\r\n\r\n", 413),
    "a chunk too large": (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
}


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_too_much_is_refused_and_reaches_nobody(what: str) -> None:
    raw, status = TOO_MUCH[what]
    async with Origin() as origin, running(POLICY, origins={"site": origin.url}) as proxy:
        replies = await asyncio.gather(*(send(proxy.port, raw) for _ in range(5)))
        for got in replies:
            [reply] = answers(got)
            assert (reply.status, reply.get("connection")) == (status, "close")
        assert not origin.received
        await _others_are_served(proxy)


async def test_what_is_just_within_the_limits_is_served() -> None:
    exact = (
        GET + b"X-Long: " + b"y" * (32 * 1024 - len(GET) - len(b"X-Long: \r\n\r\n")) + b"\r\n\r\n"
    )
    assert len(exact) == 32 * 1024
    for raw in (
        exact,
        GET + b"X: y\r\n" * 99 + b"\r\n",
        b"GET /" + b"a" * 8191 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n",
    ):
        async with Origin() as origin, running(POLICY, origins={"site": origin.url}) as proxy:
            assert [reply.status for reply in answers(await send(proxy.port, raw))] == [200]
