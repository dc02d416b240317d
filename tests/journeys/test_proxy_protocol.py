"""Behind a balancer that speaks the PROXY protocol: who the client is, and who may say so."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from edgeproxy.engine.listening import ListenAddress
from edgeproxy.testing import Proxy, running
from tests.certificates import Authority
from tests.edgeproxy.engine.test_proxy_header import Told, v2, version_1, version_2

FRANCE, GERMANY = "193.51.208.13", "194.25.0.60"
POLICY = """\
version: 1
trusted_proxies: [127.0.0.1/32]
origins: {site: {url: "http://site.example/"}}
limits: {head_timeout: 5s, shutdown_timeout: 5s}
routes:
  - {name: france, match: {country: FR}, respond: {body: bonjour}}
  - {name: germany, match: {country: DE}, respond: {body: hallo}}
  - {name: others, respond: {body: hello}}
"""
TLS = "tls: {{certificates: [{{certificate: {folder}/one.pem, key: {folder}/one.key}}]}}\n"
PROXIED = (ListenAddress("127.0.0.1", is_proxied=True),)
REQUEST = b"GET / HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n"


def told(source: str) -> Told:
    return Told(ipaddress.ip_address(source), 4711, ipaddress.ip_address("192.0.2.1"), 80)


def port_of(proxy: Proxy) -> int:
    port = URL(proxy.server.urls[0]).port
    assert port is not None
    return port


async def sent(proxy: Proxy, *pieces: bytes) -> bytes:
    """What comes back for `pieces`, each sent by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("version", [version_1, version_2])
async def test_the_client_is_who_the_header_names(version: object) -> None:
    assert callable(version)
    async with running(POLICY, listen=PROXIED) as proxy:
        for source, body in ((FRANCE, b"bonjour"), (GERMANY, b"hallo"), (FRANCE, b"bonjour")):
            header = version(told(source))
            assert (await sent(proxy, header + REQUEST)).endswith(b"\r\n\r\n" + body)
            pieces = [header[at : at + 1] for at in range(len(header))]
            assert (await sent(proxy, *pieces, REQUEST)).endswith(body)
        assert proxy.server.app.counts.connections_accepted == 6


async def test_a_connection_of_the_balancers_own_is_from_the_balancer() -> None:
    async with running(POLICY, listen=PROXIED) as proxy:
        for header in (b"PROXY UNKNOWN\r\n", v2(0x20, 0x00), v2(0x21, 0x00, b"tlv")):
            assert (await sent(proxy, header + REQUEST)).endswith(b"hello")
            # And is believed what it says in the old way, as from any trusted proxy.
            forwarded = REQUEST.replace(b"Host:", f"X-Forwarded-For: {FRANCE}\r\nHost:".encode())
            assert (await sent(proxy, header + forwarded)).endswith(b"bonjour")


async def test_a_client_that_the_header_names_is_not_a_trusted_proxy() -> None:
    forwarded = REQUEST.replace(b"Host:", f"X-Forwarded-For: {FRANCE}\r\nHost:".encode())
    async with running(POLICY, listen=PROXIED) as proxy:
        assert (await sent(proxy, version_2(told(GERMANY)) + forwarded)).endswith(b"hallo")


@pytest.mark.parametrize(
    "data",
    [
        REQUEST,
        b"\x16\x03\x01\x02\x00",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n" + REQUEST,
        v2(0x21, 0x11, bytes(11)) + REQUEST,
    ],
)
async def test_without_a_good_header_nobody_is_served(data: bytes) -> None:
    async with running(POLICY, listen=PROXIED) as proxy:
        assert await sent(proxy, data) == b""
        assert refusals(proxy) == ["the connection does not begin with a PROXY header"]
        assert (await sent(proxy, version_1(told(FRANCE)) + REQUEST)).endswith(b"bonjour")


def refusals(proxy: Proxy) -> list[str]:
    front = proxy.server.edge._front
    assert front is not None
    return [reason.partition(":")[0] for _, reason in front.counts.refused]


async def test_a_header_counts_only_from_trusted_proxies_and_where_it_is_expected() -> None:
    header = version_1(told(FRANCE))
    async with running(POLICY.replace("127.0.0.1/32", "10.0.0.0/8"), listen=PROXIED) as proxy:
        assert await sent(proxy, header + REQUEST) == b""
        assert refusals(proxy) == ["a PROXY header is not taken from here"]
    async with running(POLICY) as proxy:  # and this listener expects none
        assert (await sent(proxy, header + REQUEST)).startswith(b"HTTP/1.1 400 ")


async def test_a_header_that_does_not_come_is_not_waited_for() -> None:
    text = POLICY.replace("head_timeout: 5s", "head_timeout: 100ms, connections: 1")
    async with running(text, listen=PROXIED) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
        writer.write(b"PROXY TCP4 ")
        assert await read_to_end(reader) == b""
        assert "no PROXY header came in time" in refusals(proxy)
        writer.close()
        assert (await sent(proxy, version_1(told(FRANCE)) + REQUEST)).endswith(b"bonjour")


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_connections_are_counted_by_client() -> None:
    text = POLICY.replace("head_timeout: 5s", "connections_per_client: 1")
    keep = REQUEST.replace(b"Connection: close\r\n", b"")
    async with running(text, listen=PROXIED) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
        writer.write(version_1(told(FRANCE)) + keep)
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert b" 503 " in await sent(proxy, version_1(told(FRANCE)) + REQUEST)
        assert b" 200 " in await sent(proxy, version_1(told(GERMANY)) + REQUEST)
        writer.close()


async def test_it_comes_before_tls(tmp_path: Path) -> None:
    authority = Authority.in_folder(tmp_path, "authority")
    authority.sign(tmp_path, "one", "one.example")
    trust = ssl.create_default_context(cafile=authority.file)
    listen = (ListenAddress("127.0.0.1", tls=True, is_proxied=True),)
    async with running(POLICY + TLS.format(folder=tmp_path), listen=listen) as proxy:
        for header, body in (
            (version_1(told(FRANCE)), b"bonjour"),
            (version_2(told(GERMANY), b"\x03\x00\x01x"), b"hallo"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            writer.write(header)
            await writer.start_tls(trust, server_hostname="one.example")
            writer.write(REQUEST)
            assert (await reader.read()).endswith(body)
            writer.close()


async def test_stopping_closes_what_has_not_said_who_it_is() -> None:
    async with running(POLICY, listen=PROXIED) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
        writer.write(b"PROX")
        assert await sent(proxy, version_1(told(FRANCE)) + REQUEST)  # after it, so it was taken
        await proxy.server.stop()
        assert await read_to_end(reader) == b""
        writer.close()


# ------------------------------------------------------------------- a real balancer

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
CONFIG = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen first
    bind fd@{descriptor}
    server edge {edge} {how}
"""


@asynccontextmanager
async def haproxy(folder: Path, edge: str, how: str) -> AsyncIterator[int]:
    """The port on which HAProxy listens; it hands connections on to `edge`."""
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = folder / "haproxy.cfg"
        config.write_text(CONFIG.format(descriptor=sock.fileno(), edge=edge, how=how))
        process = await asyncio.create_subprocess_exec(
            HAPROXY, "-W", "-f", str(config), pass_fds=[sock.fileno()]
        )
        try:
            yield sock.getsockname()[1]  # connections wait there until it has begun
        finally:
            process.terminate()
            await process.wait()


@pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")
@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
@pytest.mark.parametrize("is_unix", [False, True], ids=["tcp", "unix"])
async def test_haproxy_hands_connections_on(how: str, is_unix: bool, tmp_path: Path) -> None:
    """What X-Forwarded-For says counts from 127.0.0.1 alone: so it shows who the client is."""
    path = str(tmp_path / "edge.sock")
    listen = (ListenAddress(path=path, is_proxied=True),) if is_unix else PROXIED
    request = REQUEST.replace(b"Host:", f"X-Forwarded-For: {FRANCE}\r\nHost:".encode())
    async with running(POLICY, listen=listen) as proxy:
        edge = f"unix@{path}" if is_unix else f"127.0.0.1:{port_of(proxy)}"
        async with haproxy(tmp_path, edge, how) as port:
            for source, body in (("127.0.0.1", b"bonjour"), ("127.0.0.5", b"hello")) * 2:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=(source, 0)
                )
                writer.write(request)
                assert (await reader.read()).endswith(b"\r\n\r\n" + body)
                writer.close()
