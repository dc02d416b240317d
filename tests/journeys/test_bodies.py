"""Bodies of any size stream through, both ways, while memory stays where it was."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from edgeproxy.pages import Pages
from edgeproxy.testing import running

POLICY = """\
version: 1
origins:
  app: {url: "URL", kind: KIND}
cache:
  memory: {max_size: 8MiB}
limits: {body_size: 1GiB}
routes:
  - {name: app, origin: app}
"""

MIB = 2**20
BLOCK = bytes(range(256)) * 1024  # 256 KiB
GROWTH = 40 * MIB  # buffers of sockets, pipes and the parser; far below what passes through

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def policy(kind: str = "http", url: str = "http://app.example/") -> str:
    return POLICY.replace("KIND", kind).replace("URL", url)


class App:
    """Hashes what is uploaded, and sends as many blocks as it is asked for."""

    def __init__(self) -> None:
        self.app = web.Application(client_max_size=2**40)
        self.app.router.add_post("/upload", self.upload)
        self.app.router.add_get("/blocks/{count}", self.blocks)
        self.app.router.add_get("/chunks/{count}", self.blocks)
        self.got: list[tuple[str | None, str | None]] = []

    async def upload(self, request: web.Request) -> web.Response:
        self.got.append(
            (request.headers.get("Content-Length"), request.headers.get("Transfer-Encoding"))
        )
        digest, size = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            size += len(chunk)
        return web.json_response({"size": size, "sha256": digest.hexdigest()})

    async def blocks(self, request: web.Request) -> web.StreamResponse:
        count = int(request.match_info["count"])
        response = web.StreamResponse(headers={"Cache-Control": "max-age=600"})
        if request.path.startswith("/blocks"):
            response.content_length = count * len(BLOCK)
        await response.prepare(request)
        for _ in range(count):
            await response.write(BLOCK)
        return response


async def blocks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield BLOCK


def digest_of(count: int) -> str:
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(BLOCK)
    return digest.hexdigest()


@needs_proc
@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_an_upload_of_50_mib_streams_to_the_app(
    serve_app: Any, edgeproxy_run: Any, tmp_path: Path, framing: str
) -> None:
    app = App()
    file = tmp_path / "policy.yaml"
    file.write_text(policy(url=await serve_app(app.app)))
    proxy = await edgeproxy_run(file, "--access-log", "off")
    count = 200
    async with aiohttp.ClientSession() as client:

        async def upload(count: int) -> dict[str, Any]:
            headers = {"Content-Length": str(count * len(BLOCK))}
            url = proxy.url + "upload"
            async with client.post(
                url, data=blocks(count), headers=headers if framing == "content-length" else {}
            ) as answer:
                assert answer.status == 200
                result: dict[str, Any] = await answer.json()
                return result

        await upload(4)
        before = proxy.memory_bytes("VmRSS")
        assert await upload(count) == {"size": count * len(BLOCK), "sha256": digest_of(count)}
        assert proxy.memory_bytes("VmHWM") - before < GROWTH
    length, coding = app.got[-1]
    if framing == "content-length":
        assert (length, coding) == (str(count * len(BLOCK)), None)
    else:
        assert (length, coding) == (None, "chunked")


@needs_proc
@pytest.mark.parametrize("framing", ["blocks", "chunks"])
async def test_a_download_of_200_mib_streams_to_the_client(
    serve_app: Any, edgeproxy_run: Any, tmp_path: Path, framing: str
) -> None:
    app = App()
    file = tmp_path / "policy.yaml"
    file.write_text(policy(url=await serve_app(app.app)))
    proxy = await edgeproxy_run(file, "--access-log", "off")
    async with aiohttp.ClientSession() as client:

        async def download(count: int) -> tuple[int, str]:
            digest, size = hashlib.sha256(), 0
            async with client.get(f"{proxy.url}{framing}/{count}") as answer:
                assert answer.status == 200
                length = str(count * len(BLOCK))
                # Of a short one the end may have come before the head went out.
                usual = {length} if framing == "blocks" else {None} if count > 4 else {None, length}
                assert answer.headers.get("Content-Length") in usual
                async for chunk in answer.content.iter_any():
                    digest.update(chunk)
                    size += len(chunk)
            return size, digest.hexdigest()

        await download(4)
        before = proxy.memory_bytes("VmRSS")
        assert await download(800) == (800 * len(BLOCK), digest_of(800))
        # What may be stored is taken in up to max_object_size before it is known to be too large.
        assert proxy.memory_bytes("VmHWM") - before < GROWTH + 16 * MIB


async def test_a_client_that_stops_reading_stops_the_origin(serve_app: Any) -> None:
    """The proxy does not read ahead of a client that takes nothing."""
    sent = 0
    stuck = asyncio.Event()
    app = web.Application()

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            try:
                async with asyncio.timeout(0.5):
                    await response.write(BLOCK)
            except TimeoutError:
                stuck.set()
                return response
            sent += len(BLOCK)
            assert sent < 200 * MIB

    app.router.add_get("/", endless)
    async with running(policy(), origins={"app": await serve_app(app)}) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await stuck.wait()
        assert sent < 40 * MIB
        writer.transport.abort()
        del reader


async def test_100_continue_comes_from_the_proxy_before_the_body(serve_app: Any) -> None:
    app = App()
    async with running(policy(), origins={"app": await serve_app(app.app)}) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert hashlib.sha256(b"hello").hexdigest().encode() in answer
        writer.close()
        await writer.wait_closed()


async def test_an_expectation_is_not_passed_on(raw_origin: Any, ask: Any) -> None:
    async with raw_origin(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as origin:
        async with running(policy(), origins={"app": origin.url}) as proxy:
            raw = await ask(
                proxy.port,
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                b"Expect: 100-continue\r\nConnection: close\r\n\r\nhello",
            )
        assert b"200 OK" in raw
        assert "expect" not in origin.fields()
        assert origin.bodies == [b"hello"]


@pytest.mark.parametrize("size", [1, 1000, 16 * 1024, 64 * 1024, 100_000, 1_000_000])
async def test_every_byte_of_an_upload_arrives(serve_app: Any, size: int) -> None:
    data = (BLOCK * 4)[:size]
    app = App()
    async with running(policy(), origins={"app": await serve_app(app.app)}) as proxy:
        reply = await proxy.get("/upload", method="POST", data=data)
        assert reply.status == 200
        assert hashlib.sha256(data).hexdigest().encode() in reply.body


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
async def test_other_methods_may_have_a_body_too(raw_origin: Any, method: str) -> None:
    async with raw_origin(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as origin:
        async with running(policy(), origins={"app": origin.url}) as proxy:
            reply = await proxy.get("/x", method=method, data=b"hello")
            assert (reply.status, reply.body) == (200, b"ok")
        assert origin.heads[-1].startswith(method.encode() + b" /x ")
        assert origin.bodies == [b"hello"]


async def test_head_has_the_fields_of_get_and_no_body(make_site: Any) -> None:
    async with (
        Pages(make_site(index="home " * 50)) as site,
        running(policy("pages"), origins={"app": site.url}) as proxy,
    ):
        for _ in range(2):
            get = await proxy.get("/")
            head = await proxy.get("/", method="HEAD")
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-length"] == str(len(get.body))
            for name in ("content-type", "etag", "last-modified", "cache-control"):
                assert head.headers[name] == get.headers[name]


async def test_head_of_an_app_keeps_the_length_it_states(raw_origin: Any, ask: Any) -> None:
    async with raw_origin(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n") as origin:
        async with running(policy(), origins={"app": origin.url}) as proxy:
            raw = await ask(proxy.port, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"content-length: 1234" in raw.lower()
        assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "REPORT"])
async def test_a_site_answers_get_and_head_only(make_site: Any, method: str) -> None:
    async with Pages(make_site(index="home")) as site:
        async with running(policy("pages"), origins={"app": site.url}) as proxy:
            for data in (None, b"x" * 100_000):
                reply = await proxy.get("/", method=method, data=data)
                assert reply.status == 405
                assert reply.headers["allow"] == "GET, HEAD, OPTIONS"
        assert not site.log


async def test_options_of_a_site_is_answered_by_the_proxy(make_site: Any) -> None:
    async with Pages(make_site(index="home")) as site:
        async with running(policy("pages"), origins={"app": site.url}) as proxy:
            reply = await proxy.get("/", method="OPTIONS")
            assert (reply.status, reply.body) == (204, b"")
            assert reply.headers["allow"] == "GET, HEAD, OPTIONS"
            assert "content-length" not in reply.headers
        assert not site.log


async def test_options_of_an_app_is_the_apps(raw_origin: Any) -> None:
    answer = b"HTTP/1.1 204 No Content\r\nAllow: GET, POST\r\n\r\n"
    async with raw_origin(answer) as origin:
        async with running(policy(), origins={"app": origin.url}) as proxy:
            reply = await proxy.get("/", method="OPTIONS")
        assert (reply.status, reply.headers["allow"]) == (204, "GET, POST")


@pytest.mark.parametrize("kind", ["pages", "http"])
@pytest.mark.parametrize(
    "request_line", [b"CONNECT x:443 HTTP/1.1\r\nHost: x:443", b"TRACE / HTTP/1.1\r\nHost: x"]
)
async def test_no_tunnel_and_no_trace(
    raw_origin: Any, ask: Any, kind: str, request_line: bytes
) -> None:
    async with raw_origin(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as origin:
        async with running(policy(kind), origins={"app": origin.url}) as proxy:
            raw = await ask(proxy.port, request_line + b"\r\nConnection: close\r\n\r\n")
        assert raw.split()[1] in (b"405", b"501")
        assert not origin.heads


async def test_an_origin_that_answers_before_it_has_read_all_is_heard(raw_origin: Any) -> None:
    """An app may refuse an upload by its head."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big"
    async with (
        raw_origin(refusal) as origin,
        running(policy(), origins={"app": origin.url}) as proxy,
    ):
        reply = await proxy.get("/x", method="POST", data=b"x" * 200_000)
        assert (reply.status, reply.body) == (413, b"too big")


@pytest.mark.parametrize("leaves", ["before the answer", "in the middle of it"])
async def test_a_client_that_leaves_frees_the_origin(leaves: str) -> None:
    arrived, may_answer, freed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(BLOCK)
                await writer.drain()
        freed.set()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(endless, "127.0.0.1", 0) as origin:
        url = f"http://127.0.0.1:{origin.sockets[0].getsockname()[1]}/"
        async with running(policy(), origins={"app": url}) as proxy, asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await arrived.wait()
            if leaves == "before the answer":
                writer.transport.abort()
                may_answer.set()
            else:
                may_answer.set()
                await reader.readuntil(b"\r\n\r\n")
                writer.transport.abort()
            await freed.wait()
    assert proxy.log[-1]["error"] == "the client went away"
